package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
)

// What is asked of encrypting a file and of decrypting it.
const (
	maxSlowerThanAge = 2.0
	maxFileRSS       = 64.0 // MB
)

// pass is one program over the file once.
type pass struct {
	what      string
	took, cpu time.Duration
	rss       float64 // MB, the most there was
}

// fileCommand sends a large file through encrypt-file and decrypt-file, and the
// same one through age.
func fileCommand(ctx context.Context, fs *flag.FlagSet, args []string) error {
	size := fs.Float64("size", 10, "GB of the file; three times as much is needed on the disk")
	dir := fs.String("dir", "", "where the files lie; empty: the temporary directory")
	binary := fs.String("server", "", "leasehold to measure; empty: build this tree's")
	write := fs.Bool("write", false, "put the table into docs/benchmarks.md")
	if err := fs.Parse(args); err != nil {
		return err
	}
	work, err := os.MkdirTemp(*dir, "bench-file-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	bytes := int64(*size * 1e9)
	if err := roomFor(work, 3*bytes); err != nil {
		return err
	}
	bin := *binary
	if bin == "" {
		if bin, err = leaseholdtest.Build(ctx); err != nil {
			return err
		}
	}
	srv, err := leaseholdtest.Launch(ctx, leaseholdtest.Config{Binary: bin, InMem: true})
	if err != nil {
		return err
	}
	defer srv.Close()
	if err := srv.Call(ctx, "POST", "sys/mounts/transit", srv.Root, obj{"type": "transit"}, nil); err != nil {
		return err
	}
	if err := srv.Call(ctx, "POST", "transit/keys/bench", srv.Root, nil, nil); err != nil {
		return err
	}
	identity, err := exec.CommandContext(ctx, "age-keygen").Output()
	if err != nil {
		return fmt.Errorf("making a key for age, which scripts/need.sh age installs: %w", err)
	}
	_, recipient, _ := strings.Cut(string(identity), "# public key: ")
	recipient, _, _ = strings.Cut(recipient, "\n")
	keyFile := filepath.Join(work, "age.key")
	if err := os.WriteFile(keyFile, identity, 0o600); err != nil {
		return err
	}

	fmt.Fprintf(os.Stderr, "writing a file of %g GB ...\n", *size)
	file, sealed, back := filepath.Join(work, "file"), filepath.Join(work, "sealed"), filepath.Join(work, "back")
	digest, err := randomFile(file, bytes)
	if err != nil {
		return err
	}
	env := []string{"VAULT_ADDR=" + srv.Addr, "VAULT_TOKEN=" + srv.Root}
	var passes []pass
	for _, p := range []struct {
		what string
		args []string
	}{
		{"age, encrypt", []string{"age", "-r", recipient, "-o", sealed, file}},
		{"age, decrypt", []string{"age", "-d", "-i", keyFile, "-o", back, sealed}},
		{"encrypt-file", []string{bin, "transit", "encrypt-file", "-key=bench", "-out=" + sealed, file}},
		{"decrypt-file", []string{bin, "transit", "decrypt-file", "-out=" + back, sealed}},
	} {
		// What the last one has left in memory to be written is not to fall on
		// the next one.
		syscall.Sync()
		fmt.Fprintf(os.Stderr, "%s ...\n", p.what)
		done, err := measured(ctx, p.what, env, p.args)
		if err != nil {
			return err
		}
		passes = append(passes, done)
		if p.args[len(p.args)-1] != sealed {
			continue
		}
		got, err := digestOf(back)
		if err != nil {
			return err
		}
		if got != digest {
			return fmt.Errorf("%s gave another file", p.what)
		}
		for _, f := range []string{sealed, back} {
			if err := os.Remove(f); err != nil {
				return err
			}
		}
	}
	version, err := exec.CommandContext(ctx, "age", "--version").Output()
	if err != nil {
		return err
	}
	table, missed := fileTable(passes, *size)
	text := fmt.Sprintf("%s, age %s, a file of %g GB, one run of each.\n\n%s", machine(), strings.TrimSpace(string(version)), *size, table)
	fmt.Println("\n" + text)
	if *write {
		if err := writeSection("file", text); err != nil {
			return err
		}
	}
	if len(missed) > 0 {
		return fmt.Errorf("missed: %s", strings.Join(missed, "; "))
	}
	return nil
}

func roomFor(dir string, bytes int64) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return err
	}
	if free := int64(st.Bavail) * st.Bsize; free < bytes {
		return fmt.Errorf("%s has room for %.0f GB, %.0f are needed: -dir names another place, -size a smaller file", dir, float64(free)/1e9, float64(bytes)/1e9)
	}
	return nil
}

// randomFile writes a file that nothing can make smaller.
func randomFile(name string, size int64) (digest string, err error) {
	f, err := os.Create(name)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, sum), rand.NewChaCha8([32]byte{}), size); err != nil {
		_ = f.Close()
		return "", err
	}
	return base64.StdEncoding.EncodeToString(sum.Sum(nil)), f.Close()
}

func digestOf(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(sum.Sum(nil)), nil
}

func measured(ctx context.Context, what string, env, args []string) (pass, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	begun := time.Now()
	if err := cmd.Run(); err != nil {
		return pass{}, fmt.Errorf("%s: %w", what, err)
	}
	took := time.Since(begun)
	used, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return pass{}, fmt.Errorf("%s: the system does not say what it has used", what)
	}
	// Linux counts what this process had at the fork too, which is less.
	return pass{what, took, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), float64(used.Maxrss) / 1024}, nil
}

// fileTable compares encrypting with encrypting and decrypting with decrypting.
func fileTable(passes []pass, size float64) (table string, missed []string) {
	var b strings.Builder
	b.WriteString("| | s | MB/s | CPU s | memory MB | compared with age | |\n|---|--:|--:|--:|--:|---|---|\n")
	for i, p := range passes {
		compared, held := "", ""
		if i >= 2 {
			slower := p.took.Seconds() / passes[i-2].took.Seconds()
			compared, held = fmt.Sprintf("%.2f × its time (≤ %g), memory ≤ %g MB", slower, maxSlowerThanAge, maxFileRSS), "held"
			if slower > maxSlowerThanAge || p.rss > maxFileRSS {
				held = "**missed**"
				missed = append(missed, p.what)
			}
		}
		fmt.Fprintf(&b, "| %s | %.1f | %.0f | %.1f | %.0f | %s | %s |\n", p.what, p.took.Seconds(), size*1000/p.took.Seconds(), p.cpu.Seconds(), p.rss, compared, held)
	}
	return b.String(), missed
}
