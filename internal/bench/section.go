package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

const page = "docs/benchmarks.md"

// writeSection replaces what stands between the marks of a section.
func writeSection(name, text string) error {
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	begin, end := "<!-- bench: "+name+" -->\n", "<!-- end of "+name+" -->"
	before, rest, ok1 := strings.Cut(string(old), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		return fmt.Errorf("%s has no section %q", page, name)
	}
	return os.WriteFile(page, []byte(before+begin+"\n"+strings.TrimSpace(text)+"\n\n"+end+after), 0o644)
}

// machine says where and when a table was measured.
func machine() string {
	cpu := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
				cpu = strings.TrimSpace(v)
				break
			}
		}
	}
	return fmt.Sprintf("Measured on %s, %d × %s, %s", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), cpu, runtime.Version())
}

func (db *database) version(ctx context.Context) string {
	var v string
	if err := db.pool.QueryRow(ctx, "SHOW server_version").Scan(&v); err != nil {
		return "of unknown version"
	}
	return v
}
