package server_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/server"
)

func TestLines(t *testing.T) {
	var out strings.Builder
	log := server.NewLogger(&out, "standard", new(slog.LevelVar))
	log.With("a", 1).WithGroup("g").Info("it happened", "plain", "kv/a", "spaced", "two words", "empty", "", "escape", "\x1b[2J", "line", "x\ny", "equals", "a=b", "word", "к🔑")
	_, got, _ := strings.Cut(out.String(), " ")
	want := `[INFO ] it happened a=1 g.plain=kv/a g.spaced="two words" g.empty="" g.escape="\x1b[2J" g.line="x\ny" g.equals="a=b" g.word=к🔑` + "\n"
	if got != want {
		t.Errorf("the line is\n%swant\n%s", got, want)
	}
}

func TestLogFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := server.OpenLog(dir) // a directory has the file of our name
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	path := filepath.Join(dir, "leasehold.log")
	write := func(s string) {
		t.Helper()
		if _, err := f.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	write("one\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("two\n")
	if err := f.Reopen(); err != nil {
		t.Fatal(err)
	}
	write("three\n")
	for name, want := range map[string]string{path + ".1": "one\ntwo\n", path: "three\n"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v, want %q", filepath.Base(name), got, err, want)
		}
	}
	// Where it cannot be opened anew, the old one stays.
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	if err := f.Reopen(); err == nil {
		t.Error("opening in a directory that is not there gave no error")
	}
	write("four\n")
	if got, err := os.ReadFile(filepath.Join(dir+".gone", "leasehold.log")); err != nil || string(got) != "three\nfour\n" {
		t.Errorf("after a failed reopening the log holds %q, %v", got, err)
	}
}
