package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/cli"
)

// TestLive runs the scripts that use a real server.
func TestLive(t *testing.T) { runScripts(t, filepath.Join("testdata", "live")) }

// otherwise are the samples that we answer in another way, each with the
// reason. They run all the same, because later ones rest on them.
var otherwise = map[string]string{
	"status":        "version, storage and cluster are the server's own",
	"nosuchcommand": "our help",
	"version":       "our name",

	"auth enable userpass":                                       "userpass comes with a later issue",
	"write auth/userpass/users/u password=pw policies=p":         "userpass comes with a later issue",
	"login -no-store -method=userpass username=u password=pw":    "userpass comes with a later issue",
	"login -no-store -method=userpass username=u password=wrong": "userpass comes with a later issue",
	"secrets enable -path=tr transit":                            "transit comes with a later issue",
	"write -f tr/keys/k":                                         "transit comes with a later issue",
	"write tr/encrypt/k plaintext=aGk=":                          "transit comes with a later issue",
	"kv metadata get -mount=secret app":                          "fields of the reference alone",
}

// unrecorded are command lines that the recorder must have typed between two
// samples: before the named one.
var unrecorded = map[string]string{
	"read -wrap-ttl=60s kv1/y": "write kv1/y a=1",
}

// sample is one command line with what the reference printed.
type sample struct {
	line           string
	code           int
	stdout, stderr string
}

// TestSamples types what was recorded of the reference's command line and
// compares what comes out. Names, times and random parts are normalised; the
// columns' widths hang on them, so runs of spaces count as one gap.
func TestSamples(t *testing.T) {
	srv, err := launch(nil, devArgs...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := srv.stop(); err != nil {
			t.Error(err)
		}
	})
	env := map[string]string{"VAULT_ADDR": srv.addr, "VAULT_TOKEN": "root", "HOME": t.TempDir()}
	typed := func(line string) (code int, stdout, stderr string) {
		var out, errs bytes.Buffer
		line, _, _ = strings.Cut(line, "#")
		code = cli.Run(t.Context(), cli.Config{
			Stdin:  strings.NewReader("path \"secret/*\" { capabilities = [\"read\"] }\n"),
			Stdout: &out, Stderr: &errs, Getenv: func(k string) string { return env[k] },
		}, strings.Fields(line))
		return code, out.String(), errs.String()
	}
	for _, s := range readSamples(t) {
		if line := unrecorded[s.line]; line != "" {
			if code, _, errs := typed(line); code != 0 {
				t.Fatalf("leasehold %s: exit %d, want 0\n%s", line, code, errs)
			}
		}
		code, out, errs := typed(s.line)
		if _, ok := otherwise[s.line]; ok {
			continue
		}
		if code != s.code {
			t.Errorf("leasehold %s: exit %d, want %d\n%s%s", s.line, code, s.code, out, errs)
			continue
		}
		if diff := cmp.Diff(normal(s.stdout), normal(out)); diff != "" {
			t.Errorf("leasehold %s: standard output (-reference +ours):\n%s", s.line, diff)
		}
		// Ours goes on with what to do next.
		if want, got := normal(s.stderr), normal(errs); !strings.HasPrefix(strings.ToLower(got), strings.ToLower(want)) {
			t.Errorf("leasehold %s: standard error\n%s\nwant it to begin with\n%s", s.line, got, want)
		}
	}
}

func readSamples(t *testing.T) []sample {
	t.Helper()
	b, err := os.ReadFile("testdata/reference/samples.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out []sample
	for _, block := range strings.Split("\n"+string(b), "\n$ CLI ")[1:] {
		line, rest, _ := strings.Cut(block, "\n")
		exit, rest, _ := strings.Cut(rest, "]\n")
		code, err := strconv.Atoi(strings.TrimPrefix(exit, "[exit "))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		stdout, stderr, _ := strings.Cut(rest, "[stderr]\n")
		out = append(out, sample{line, code, stdout, stderr})
	}
	return out
}

var normalisers = []struct {
	find *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "<uuid>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| \+0000 UTC)`), "<time>"},
	{regexp.MustCompile(`\d\d [A-Z][a-z]{2} \d\d \d\d:\d\d UTC`), "<time>"},
	{regexp.MustCompile(`\bhv[sbr]\.[A-Za-z0-9_-]+`), "<token>"},
	{regexp.MustCompile(`(?m)(accessor"?:?\s+"?)[A-Za-z0-9]{20,}`), "$1<accessor>"},
	{regexp.MustCompile(`http://127\.0\.0\.1:\d+`), "<addr>"},
	{regexp.MustCompile(`\b([a-z_]+)_[0-9a-f]{8}\b`), "${1}_<hex>"},
	{regexp.MustCompile(`(creation_time\s+)\d+`), "$1<int>"},
	{regexp.MustCompile(`(Encryption Count\s+)\d+`), "$1<int>"},
	{regexp.MustCompile(`\bCLI\b`), "leasehold"},
	{regexp.MustCompile(`  +`), "  "},
	{regexp.MustCompile(`\s+$`), ""},
}

func normal(s string) string {
	for _, n := range normalisers {
		s = n.find.ReplaceAllString(s, n.with)
	}
	return s
}
