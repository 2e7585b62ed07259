package main

import (
	"strings"
	"testing"
	"time"
)

func TestCounting(t *testing.T) {
	for _, c := range []struct {
		name, stream   string
		passed, failed int
		want           string // in what is printed
	}{
		{"only subtests count", `
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/x"}
{"Action":"run","Package":"p","Test":"TestA/y"}
{"Action":"pass","Package":"p","Test":"TestA/x"}
{"Action":"pass","Package":"p","Test":"TestA/y"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p"}`, 3, 0, "ok   p"},
		{"a failed subtest is one failure", `
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/x"}
{"Action":"output","Package":"p","Test":"TestA/x","Output":"why it failed\n"}
{"Action":"fail","Package":"p","Test":"TestA/x"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`, 0, 1, "why it failed"},
		{"a parent that fails alone", `
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/x"}
{"Action":"pass","Package":"p","Test":"TestA/x"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"fail","Package":"p"}`, 1, 1, "FAIL p"},
		{"a skip is a failure", `
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"no psql\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"pass","Package":"p"}`, 0, 1, "no psql"},
		{"a test that never ends", `
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"panic: boom\n"}
{"Action":"fail","Package":"p"}`, 0, 1, "did not end"},
		{"a package that does not build", `
{"ImportPath":"p","Action":"build-output","Output":"p.go:1: syntax error\n"}
{"ImportPath":"p","Action":"build-fail"}
{"Action":"start","Package":"p"}
{"Action":"fail","Package":"p","FailedBuild":"p"}`, 0, 1, "syntax error"},
		{"a package without tests", `
{"Action":"start","Package":"p"}
{"Action":"skip","Package":"p"}`, 0, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			rep := newReport(&out, time.Minute)
			if err := rep.read(strings.NewReader(c.stream)); err != nil {
				t.Fatalf("read: %v", err)
			}
			if rep.passed != c.passed || rep.failed != c.failed {
				t.Errorf("counted %d passed, %d failed, want %d and %d", rep.passed, rep.failed, c.passed, c.failed)
			}
			if !strings.Contains(out.String(), c.want) {
				t.Errorf("printed %q, want it to have %q", out.String(), c.want)
			}
		})
	}
}
