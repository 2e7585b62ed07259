package cli_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/cli"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// run runs one command line without an environment.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = cli.Run(t.Context(), cli.Config{Stdout: &out, Stderr: &errs}, args)
	return code, out.String(), errs.String()
}

func TestRootHelpFitsAScreen(t *testing.T) {
	code, out, _ := run(t)
	if code != 0 {
		t.Errorf("exit %d, want 0", code)
	}
	if n := len(lines(out)); n > 23 {
		t.Errorf("%d lines, want at most 23: a screen of 24 has the prompt too", n)
	}
	checkWidth(t, out)
	if first, second := strings.Index(out, "server -dev"), strings.Index(out, "operator"); first < 0 || first > second {
		t.Errorf("the help does not begin with what a newcomer needs:\n%s", out)
	}
	for _, args := range [][]string{{"-h"}, {"--help"}, {"help"}} {
		if _, same, _ := run(t, args...); same != out {
			t.Errorf("%q prints something else than no arguments at all", args)
		}
	}
}

func checkWidth(t *testing.T, text string) {
	t.Helper()
	for _, l := range lines(text) {
		if utf8.RuneCountInString(l) > 80 {
			t.Errorf("line of %d columns: %s", utf8.RuneCountInString(l), l)
		}
	}
}

// TestHelp keeps every command's help in one golden file.
func TestHelp(t *testing.T) {
	_, all, _ := run(t, "help", "all")
	var got bytes.Buffer
	groups := map[string]bool{}
	for _, line := range lines(all) {
		words := strings.Fields(strings.SplitN(strings.TrimSpace(line), "  ", 2)[0])[1:]
		for i := 1; i < len(words); i++ {
			if g := strings.Join(words[:i], " "); !groups[g] {
				groups[g] = true
				appendHelp(t, &got, words[:i])
			}
		}
		appendHelp(t, &got, words)
	}
	const golden = "testdata/help.golden"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("help texts differ from %s (-update rewrites it):\n%s", golden, diff)
	}
}

func appendHelp(t *testing.T, to *bytes.Buffer, words []string) {
	t.Helper()
	code, out, errs := run(t, append(words, "-h")...)
	if code != 0 || errs != "" {
		t.Errorf("%q -h: exit %d, stderr %q, want 0 and nothing", words, code, errs)
	}
	if !strings.Contains(out, "$ leasehold ") && !strings.Contains(out, "Commands:") {
		t.Errorf("the help of %q has no example", words)
	}
	checkWidth(t, out)
	// The flags that all commands share are kept once.
	own, common, _ := strings.Cut(out, "\nFlags of every command")
	fmt.Fprintf(to, "%s\n%s\n", strings.Repeat("=", 80), own)
	if len(words) == 1 && words[0] == "read" {
		fmt.Fprintf(to, "Flags of every command%s", common)
	}
}
