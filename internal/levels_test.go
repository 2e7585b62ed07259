// Package internal_test keeps the import levels of the house: imports go down
// the list below and never up, so that a newcomer can read a package knowing
// only what lies under it.
package internal_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/leasehold/leasehold/"

// levels names, for each package or family of packages ("x/*" is everything
// below x), what it may import directly; it may also import whatever those
// may. A package that is not named here fails the test: a new room needs a
// place in the house first.
var levels = map[string][]string{
	"cmd/*": {"internal/cli"},

	"internal/cli":    {"internal/server", "internal/envelope", "api"},
	"internal/server": {"internal/httpapi", "internal/ui", "internal/connmgr", "internal/engines/*", "internal/auth/*", "internal/storage/*", "internal/audit/*", "internal/seal/*", "internal/config", "internal/metrics"},

	"internal/httpapi": {"internal/core", "api"},
	"internal/connmgr": {"api", "internal/lane"},
	"internal/ui":      {"api"},
	"internal/core":    {"internal/engine", "internal/token", "internal/lease", "internal/audit", "internal/audit/outbox", "internal/policy", "internal/policy/password", "internal/barrier", "internal/seal", "internal/cluster", "internal/ratelimit"},

	"internal/engines/*":        {"internal/engine"},
	"internal/auth/*":           {"internal/engine", "internal/auth/tokenparams", "internal/auth/claims", "internal/auth/roles"},
	"internal/auth/roles":       {"internal/engine", "internal/auth/tokenparams"}, // roles of methods that take others' tokens
	"internal/auth/claims":      {"internal/wire"},                                // signed tokens and what they claim
	"internal/auth/tokenparams": {"internal/route"},                               // the token_* parameters of every method
	"internal/engine":           {"internal/route"},
	"internal/route":            {"internal/wire", "internal/lease", "internal/lane", "internal/storage"},

	"internal/token":       {"internal/lease", "internal/storage", "internal/wire"},
	"internal/lease":       {"internal/lane", "internal/storage", "internal/wire"},
	"internal/barrier":     {"internal/storage"},
	"internal/cluster":     {"internal/storage"},
	"internal/seal":        {"internal/storage", "internal/seal/shamir"},
	"internal/seal/shamir": nil,                      // the arithmetic alone
	"internal/seal/*":      {"internal/seal", "api"}, // a key may be another server's

	"internal/storage":         {"internal/errs"},
	"internal/storage/*":       {"internal/storage", "internal/storage/feed"}, // feed: the part of Watch that stores share
	"internal/policy":          {"internal/policy/syntax", "internal/wire"},
	"internal/policy/password": {"internal/policy/syntax"},
	"internal/policy/syntax":   nil,
	"internal/lane":            {"internal/storage"}, // it reads its own range of due rows
	"internal/config":          base,
	"internal/audit":           append([]string{"internal/wire"}, base...),
	"internal/audit/*":         {"internal/audit"},
	"internal/audit/outbox":    {"internal/audit", "internal/storage"}, // records that are stored in a lane's transaction
	"internal/audit/devices":   {"internal/audit/file", "internal/audit/socket", "internal/audit/syslog"},
	"internal/wire":            base, // it encodes secrets and gives its errors a kind

	"internal/metrics":   nil,
	"internal/envelope":  nil,               // a format of files; no server is needed to read it but for the key
	"internal/trace":     {"internal/errs"}, // spans of a request; open to all, as its steps are everywhere
	"internal/ratelimit": nil,
	"internal/secret":    nil,
	"internal/errs":      nil,
	"api":                nil, // and nothing outside the standard library
}

var base = []string{"internal/errs", "internal/secret", "internal/trace"}

// tests are packages that only tests, benchmarks and the demo use. They may
// import anything; the product may import none of them.
var tests = []string{
	"internal/leaseholdtest", "internal/testenv", "internal/testenv/*", "internal/testrun", "internal/wiretest", "internal/doctest", "internal/clienttest",
	"internal/bench", "internal/bench/bare", "internal/demo", "internal/killtest", "internal/trace/tracetest", "internal/awsfake", "internal/storage/storagetest", "internal/storage/fault", "examples/*",
}

// pkg is what go list says of a package.
type pkg struct {
	ImportPath string
	Imports    []string
}

func TestImportsGoDown(t *testing.T) {
	pkgs := list(t)
	for _, p := range pkgs {
		name := strings.TrimPrefix(p.ImportPath, module)
		if name == "internal" || matches(name, tests) {
			continue
		}
		level, ok := levelOf(name)
		if !ok {
			t.Errorf("%s has no place in the import levels: see levels in this file", name)
			continue
		}
		allowed := below(level)
		for _, imp := range p.Imports {
			dep, ours := strings.CutPrefix(imp, module)
			switch {
			case !ours && name == "api" && strings.Contains(imp, "."):
				t.Errorf("api imports %s; it imports only the standard library", imp)
			case !ours:
			case matches(dep, tests):
				t.Errorf("%s imports %s, which is for tests only", name, dep)
			case sameFamily(name, dep):
				// A large engine may be several packages.
			case !matches(dep, allowed):
				t.Errorf("%s imports %s, which is not below it", name, dep)
			}
		}
	}
	if len(pkgs) == 0 {
		t.Errorf("go list gave %d packages, want the whole module", len(pkgs))
	}
}

// levelOf finds the entry for a package: its own name before its family's.
func levelOf(name string) (string, bool) {
	if _, ok := levels[name]; ok {
		return name, true
	}
	for l := range levels {
		if strings.HasSuffix(l, "/*") && matches(name, []string{l}) {
			return l, true
		}
	}
	return "", false
}

// below is everything that a level may import, directly or through others.
// The lowest four are open to all of internal/.
func below(level string) []string {
	var all []string
	if strings.HasPrefix(level, "internal/") && level != "internal/secret" && level != "internal/errs" && level != "internal/trace" {
		all = slices.Clone(base)
	}
	todo := slices.Clone(levels[level])
	for len(todo) > 0 {
		l := todo[0]
		todo = todo[1:]
		if !slices.Contains(all, l) {
			all = append(all, l)
			if known, ok := levelOf(l); ok {
				l = known
			}
			todo = append(todo, levels[l]...)
		}
	}
	return all
}

func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if dir, ok := strings.CutSuffix(p, "/*"); ok {
			return strings.HasPrefix(name, dir+"/")
		}
		return name == p
	})
}

// sameFamily says whether dep lies inside the same engine, method or command
// as name: internal/engines/database/postgres and internal/engines/database.
func sameFamily(name, dep string) bool {
	for _, family := range []string{"internal/engines/", "internal/auth/", "cmd/"} {
		n, ok1 := strings.CutPrefix(name, family)
		d, ok2 := strings.CutPrefix(dep, family)
		if ok1 && ok2 {
			n, _, _ = strings.Cut(n, "/")
			d, _, _ = strings.Cut(d, "/")
			return n == d
		}
	}
	return false
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			return pkgs
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}
