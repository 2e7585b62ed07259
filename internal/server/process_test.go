package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
)

// The server as a process: signals, files, what systemd hears, how it ends.

// patience is how long a test waits for what happens at once.
const patience = 20 * time.Second

// certificate writes a self-signed one for 127.0.0.1 with the serial number,
// and gives the pool that trusts it.
func certificate(t *testing.T, dir string, serial int64) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	cert, err1 := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	der, err2 := x509.MarshalPKCS8PrivateKey(key)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	err3 := os.WriteFile(filepath.Join(dir, "cert.pem"), certPEM, 0o600)
	err4 := os.WriteFile(filepath.Join(dir, "key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return pool
}

// supervisor is systemd's end of NOTIFY_SOCKET.
type supervisor struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func supervise(t *testing.T) *supervisor {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // t.TempDir() can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &supervisor{t, conn, path}
}

// hears waits for one message.
func (s *supervisor) hears(want string) string {
	s.t.Helper()
	if err := s.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	var b [512]byte
	n, err := s.conn.Read(b[:])
	if err != nil {
		s.t.Fatalf("waiting for %s: %v", want, err)
	}
	got := string(b[:n])
	if line, _, _ := strings.Cut(got, "\n"); line != want {
		s.t.Fatalf("the supervisor hears %q, want %s", got, want)
	}
	return got
}

// serialAt is the serial number of the certificate that a listener shows.
func serialAt(t *testing.T, addr string, pool *x509.CertPool) int64 {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

// contains waits until the file has the text in it.
func contains(t *testing.T, path, text string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ; ; <-tick.C {
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(text)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s has no %q in it: %v\n%s", path, text, err, b)
		}
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// monotonic is CLOCK_MONOTONIC in microseconds.
func monotonic(t *testing.T) int64 {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	return now.Nano() / 1000
}

// TestLifeOfAProcess follows one server from its start over two SIGHUPs to its
// end by SIGTERM.
func TestLifeOfAProcess(t *testing.T) {
	t.Parallel()
	dir, sd := t.TempDir(), supervise(t)
	first := certificate(t, dir, 1)
	tlsAddr, socket := freeAddr(t), filepath.Join(filepath.Dir(sd.path), "api")
	pidFile, logFile, auditFile := filepath.Join(dir, "pid"), filepath.Join(dir, "log"), filepath.Join(dir, "audit.log")
	s := leaseholdtest.Start(t, leaseholdtest.Config{
		Env: []string{"NOTIFY_SOCKET=" + sd.path},
		HCL: fmt.Sprintf(`
			pid_file  = %q
			log_file  = %q
			log_level = "warn"
			listener "tcp" {
			  address       = %q
			  tls_cert_file = %q
			  tls_key_file  = %q
			}
			listener "unix" {
			  address     = %q
			  socket_mode = "0620"
			}
		`, pidFile, logFile, tlsAddr, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), socket),
	})
	sd.hears("READY=1")
	if b, err := os.ReadFile(pidFile); err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(s.PID()) {
		t.Errorf("pid_file holds %q, %v, want %d", b, err, s.PID())
	}
	if st, err := os.Stat(socket); err != nil || st.Mode() != fs.ModeSocket|0o620 {
		t.Errorf("the socket: %v, %v, want mode 0620", st.Mode(), err)
	}
	viaSocket := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer viaSocket.CloseIdleConnections()
	if resp, err := viaSocket.Get("http://x/v1/sys/health"); err != nil || resp.StatusCode != 200 {
		t.Errorf("over the socket: %v, %v", resp, err)
	}
	if n := serialAt(t, tlsAddr, first); n != 1 {
		t.Errorf("the listener shows certificate %d, want 1", n)
	}
	// A connection that goes on while the certificate is changed.
	old := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: first}}}
	defer old.CloseIdleConnections()
	get := func() error {
		resp, err := old.Get("https://" + tlsAddr + "/v1/sys/health")
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, resp.Body)
		return errors.Join(err, resp.Body.Close())
	}
	if err := get(); err != nil {
		t.Fatal(err)
	}
	call(t, s, "PUT", "sys/audit/file", map[string]any{"type": "file", "options": map[string]string{"file_path": auditFile}}, nil)
	call(t, s, "GET", "sys/mounts", nil, nil)
	contains(t, auditFile, `"sys/mounts"`)

	// Everything that SIGHUP reads anew is changed at once.
	for _, path := range []string{auditFile, logFile} {
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
	}
	second := certificate(t, dir, 2)
	conf := filepath.Join(s.Dir, "leasehold.hcl")
	b, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte(`"warn"`), []byte("\"info\"\nlog_requests_level = \"info\""), 1)
	if err := os.WriteFile(conf, b, 0o600); err != nil {
		t.Fatal(err)
	}
	before := monotonic(t)
	if err := s.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	_, usec, _ := strings.Cut(sd.hears("RELOADING=1"), "\nMONOTONIC_USEC=")
	if at, err := strconv.ParseInt(usec, 10, 64); err != nil || at < before || at > monotonic(t) {
		t.Errorf("RELOADING=1 came with MONOTONIC_USEC=%q, want a time since the signal", usec)
	}
	sd.hears("READY=1")
	if n := serialAt(t, tlsAddr, second); n != 2 {
		t.Errorf("after SIGHUP the listener shows certificate %d, want 2", n)
	}
	if err := get(); err != nil {
		t.Errorf("the connection from before: %v", err)
	}
	lease := "database/creds/app/abcdefghijklmnopqrstuvwx"
	if err := s.Call(t.Context(), "PUT", "sys/leases/renew/"+lease, s.Root, nil, nil); err == nil {
		t.Error("renewing a lease that is not there gave no error")
	}
	contains(t, auditFile, `"sys/leases/renew/hmac-sha256:`)
	contains(t, logFile, "request answered request=")
	contains(t, logFile, "path=sys/leases/renew/database/creds/app/redacted status=400")
	if b, err := os.ReadFile(logFile); err != nil || bytes.Contains(b, []byte("abcdefghijklmnopqrstuvwx")) {
		t.Errorf("the log shows a lease id, or %v:\n%s", err, b)
	}

	// A certificate that cannot be read leaves the old one in use.
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	sd.hears("RELOADING=1")
	sd.hears("READY=1")
	contains(t, logFile, "the old certificate stays in use")
	if n := serialAt(t, tlsAddr, second); n != 2 {
		t.Errorf("after a broken certificate the listener shows %d, want 2", n)
	}

	if err := s.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	sd.hears("STOPPING=1")
	ended(t, s, 0)
	for _, path := range []string{pidFile, socket} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left behind: %v", path, err)
		}
	}
}

// ended waits for the process and checks its code.
func ended(t *testing.T, s *leaseholdtest.Server, code int) {
	t.Helper()
	select {
	case <-s.Ended():
	case <-time.After(patience):
		t.Fatal("the process has not ended")
	}
	if got := s.ExitCode(); got != code {
		t.Errorf("the process ended with %d, want %d", got, code)
	}
}

// call is a request with the root token that must succeed.
func call(t *testing.T, s *leaseholdtest.Server, method, path string, in, out any) {
	t.Helper()
	if err := s.Call(t.Context(), method, path, s.Root, in, out); err != nil {
		t.Fatal(err)
	}
}

// refuses runs a server that must not start, and gives what it says.
func refuses(t *testing.T, bin string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, append([]string{"server"}, args...)...)
	cmd.Dir, cmd.Env = t.TempDir(), []string{"HOME=" + t.TempDir(), "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("server %s ended with %v, want code 1:\n%s", args, err, out)
	}
	return string(out)
}

func TestRefusesToStart(t *testing.T) {
	t.Parallel()
	bin, err := leaseholdtest.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	running := leaseholdtest.Start(t, leaseholdtest.Config{})
	taken := filepath.Join(running.Dir, "data")
	newer := t.TempDir()
	if err := os.WriteFile(filepath.Join(newer, "FORMAT"), []byte("leasehold-storage 99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	listen := fmt.Sprintf("listener \"tcp\" {\n  address = %q\n  tls_disable = true\n}\n", freeAddr(t))
	inmem := "storage \"inmem\" {}\n"
	tests := []struct{ name, conf, want string }{
		{"a second process", listen + fmt.Sprintf("storage \"embedded\" { path = %q }", taken),
			"cannot lock the storage directory " + taken + ": another Leasehold process is using it; stop that one"},
		{"a newer directory", listen + fmt.Sprintf("storage \"embedded\" { path = %q }", newer),
			"was written by a newer Leasehold (format 99"},
		{"an unknown seal", listen + inmem + `seal "awskms" { kms_key_id = "x" }`, `seal "awskms" is not available yet: write seal "static"`},
		{"a seal's key that is not there", listen + inmem + `seal "static" { current_key_id = "1"  current_key = "file:///no/such/key" }`,
			"reading the seal's key 1: open /no/such/key: no such file"},
		{"a typing mistake", listen + inmem + "\n  loglevel = \"debug\"\n", "conf.hcl:7:3: unknown key \"loglevel\"; did you mean log_level?"},
		{"Vault's storage", listen + `storage "raft" { path = "/x" }`, `storage "raft" is not available: the store is part of the server; write storage "embedded"`},
		{"no storage", listen, "no storage: write storage"},
		{"no listener", inmem, "no listener: write listener"},
		{"no certificate", inmem + `listener "tcp" { tls_cert_file = "/no/cert"  tls_key_file = "/no/key" }`, "loading the certificate /no/cert"},
		{"a taken address", strings.Replace(listen, "address = ", "address = \""+strings.TrimPrefix(running.Addr, "http://")+"\" #", 1) + inmem,
			"another server has that address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			conf := filepath.Join(t.TempDir(), "conf.hcl")
			if err := os.WriteFile(conf, []byte(tt.conf), 0o600); err != nil {
				t.Fatal(err)
			}
			if out := refuses(t, bin, "-config="+conf); !strings.Contains(out, tt.want) {
				t.Errorf("the server says:\n%s\nwant %q", out, tt.want)
			}
		})
	}
	if out := refuses(t, bin); !strings.Contains(out, "-config=FILE, or -dev") {
		t.Errorf("without a configuration the server says:\n%s", out)
	}
	if out := refuses(t, bin, "-config=/no/such.hcl"); !strings.Contains(out, "/no/such.hcl: no such file") {
		t.Errorf("of a missing file the server says:\n%s", out)
	}
}

// TestAnotherSealKey: a store that another key sealed stays sealed and says so;
// with the right one it opens again.
func TestAnotherSealKey(t *testing.T) {
	t.Parallel()
	s := leaseholdtest.Start(t, leaseholdtest.Config{})
	key, conf := filepath.Join(s.Dir, "seal.key"), filepath.Join(s.Dir, "leasehold.hcl")
	s.Stop()
	right, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	start := func() (health string) {
		t.Helper()
		cmd := exec.Command(binary(t), "server", "-config="+conf)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_ = cmd.Wait()
			health += "\n" + out.String()
		}()
		deadline := time.Now().Add(patience)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for ; time.Now().Before(deadline); <-tick.C {
			resp, err := http.Get(s.Addr + "/v1/sys/seal-status")
			if err != nil {
				continue
			}
			b, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			return string(b)
		}
		t.Fatal("the server does not answer")
		return ""
	}
	if err := os.WriteFile(key, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := start(); !strings.Contains(got, `"sealed":true`) || !strings.Contains(got, "the server stays sealed") {
		t.Errorf("with another key of the same id:\n%s", got)
	}
	if err := os.WriteFile(key, right, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := start(); !strings.Contains(got, `"sealed":false`) {
		t.Errorf("with the right key again:\n%s", got)
	}
}

func binary(t *testing.T) string {
	t.Helper()
	bin, err := leaseholdtest.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// TestDevServer: -dev takes what -config says beside storage and seal, and
// with -dev-tls the CLI reaches it by VAULT_CACERT.
func TestDevServer(t *testing.T) {
	t.Parallel()
	bin, dir, addr, more := binary(t), t.TempDir(), freeAddr(t), freeAddr(t)
	conf := filepath.Join(dir, "conf.hcl")
	err := os.WriteFile(conf, []byte(fmt.Sprintf(`
		cluster_name = "by-file"
		storage "embedded" { path = %q }
		seal "static" {
		  current_key_id = "1"
		  current_key    = "file:///no/such/key"
		}
		listener "tcp" {
		  address     = %q
		  tls_disable = true
		}`, filepath.Join(dir, "data"), more)), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "server", "-dev", "-dev-tls", "-dev-tls-cert-dir="+dir, "-dev-root-token-id=root", "-dev-listen-address="+addr, "-config="+conf)
	cmd.Env = []string{"HOME=" + dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the dev server ended with %v", err)
		}
	}()
	contains(t, log.Name(), "Root Token: root")
	contains(t, log.Name(), "export VAULT_CACERT='"+filepath.Join(dir, "vault-ca.pem")+"'")
	contains(t, log.Name(), "conf.hcl:3:3: storage has no effect: a dev server keeps everything in memory")
	contains(t, log.Name(), "conf.hcl:4:3: seal has no effect")
	status := exec.Command(bin, "status", "-format=json")
	status.Env = []string{"HOME=" + dir, "VAULT_ADDR=https://" + addr, "VAULT_CACERT=" + filepath.Join(dir, "vault-ca.pem")}
	out, err := status.Output()
	var st struct {
		Sealed  bool   `json:"sealed"`
		Cluster string `json:"cluster_name"`
		Storage string `json:"storage_type"`
	}
	if jerr := json.Unmarshal(out, &st); err != nil || jerr != nil || st.Sealed || st.Cluster != "by-file" || st.Storage != "inmem" {
		t.Errorf("status = %s, %v", out, errors.Join(err, jerr))
	}
	if resp, err := http.Get("http://" + more + "/v1/sys/health"); err != nil || resp.StatusCode != 200 {
		t.Errorf("the listener of the file: %v, %v", resp, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the dev server made the file's storage: %v", err)
	}
}
