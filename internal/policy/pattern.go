package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// pattern is the path of a rule, taken apart. "secret/+/conf/*" has the
// literal runs "secret/" and "/conf/" with one whole segment between them, and
// ends in a glob.
type pattern struct {
	runs []string // at least one; between two of them stands a +
	glob bool     // anything may follow the last run
}

// parsePattern understands * as the last character only, and + only where it
// is a whole segment. Elsewhere they are ordinary characters.
func parsePattern(path string) (pattern, error) {
	path = strings.TrimPrefix(path, "/")
	if strings.Contains(path, "+*") {
		return pattern{}, fmt.Errorf("invalid use of wildcards ('+*' is forbidden)")
	}
	var p pattern
	path, p.glob = strings.CutSuffix(path, "*")
	start := 0 // of the run
	for at := 0; at <= len(path); {
		end := len(path)
		if i := strings.IndexByte(path[at:], '/'); i >= 0 {
			end = at + i
		}
		// A + that the glob directly follows has been refused above.
		if path[at:end] == "+" {
			p.runs = append(p.runs, path[start:at])
			start = end
		}
		at = end + 1
	}
	p.runs = append(p.runs, path[start:])
	return p, nil
}

// exact reports whether the pattern is a plain path.
func (p pattern) exact() bool { return len(p.runs) == 1 && !p.glob }

// text is the pattern as it was written, without the glob's asterisk.
func (p pattern) text() string { return strings.Join(p.runs, "+") }

// key tells patterns apart. Text alone does not: a template's value may hold
// what would be a wildcard if somebody had written it.
func (p pattern) key() string {
	k := strings.Join(p.runs, "\x00")
	if p.glob {
		k += "\x01"
	}
	return k
}

// compare orders patterns by priority, as Vault documents it; the greater one
// wins. It is a total order, so it can be worked out before any request.
func (p pattern) compare(q pattern) int {
	if c := cmp.Compare(len(p.runs[0]), len(q.runs[0])); c != 0 {
		return c // the later the first wildcard, the better
	}
	if p.glob != q.glob {
		if p.glob {
			return -1
		}
		return 1
	}
	if c := cmp.Compare(len(q.runs), len(p.runs)); c != 0 {
		return c // the fewer +, the better
	}
	a, b := p.text(), q.text()
	if c := cmp.Compare(len(a), len(b)); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}

// matchesUnder reports whether the pattern matches prefix itself or some path
// that begins with it.
func (p pattern) matchesUnder(prefix string) bool {
	rest := prefix
	for i, run := range p.runs {
		if i > 0 {
			slash := strings.IndexByte(rest, '/')
			if slash < 0 {
				return true // the prefix ends within this segment
			}
			rest = rest[slash:]
		}
		if len(run) >= len(rest) {
			return strings.HasPrefix(run, rest)
		}
		if !strings.HasPrefix(rest, run) {
			return false
		}
		rest = rest[len(run):]
	}
	return p.glob
}

// small reports whether the pattern has no capitals.
func (p pattern) small() bool {
	return !slices.ContainsFunc(p.runs, func(run string) bool { return strings.ToLower(run) != run })
}

// matchesSmall reports whether the pattern matches the path if what it has from
// an offset in the path on is read in small letters, as the path has them there.
func (p pattern) matchesSmall(path string, from int) bool {
	at := 0
	for i, run := range p.runs {
		if i > 0 {
			slash := strings.IndexByte(path[at:], '/')
			if slash < 0 {
				slash = len(path) - at
			}
			at += slash
		}
		asIs := min(len(run), max(0, from-at))
		run = run[:asIs] + strings.ToLower(run[asIs:])
		if !strings.HasPrefix(path[at:], run) {
			return false
		}
		at += len(run)
	}
	return p.glob || at == len(path)
}

// sameSmall reports whether two patterns, which match one path, differ in
// capitals alone.
func (p pattern) sameSmall(q pattern) bool {
	return p.glob == q.glob && len(p.runs) == len(q.runs) && strings.EqualFold(p.text(), q.text())
}
