package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
)

// decoder fills a Config from trees, and gathers all there is to say.
type decoder struct {
	cfg      *Config
	faults   []string
	warnings []Warning
	lockouts map[string]lockout // blocks by their labels
}

// maxFaults is how many faults an error lists.
const maxFaults = 20

// field says how one member of a block is read into a T.
type field[T any] func(d *decoder, m member, to *T)

// fields are the members that a block may have.
type fields[T any] map[string]field[T]

func (d *decoder) file(name string, src []byte) {
	root, fault := parse(name, src)
	if fault != nil {
		d.faults = append(d.faults, fault.Error())
		return
	}
	readMembers(d, "", topFields, root, d.cfg)
}

func (d *decoder) finish() (*Config, []Warning, error) {
	if n := len(d.faults); n > maxFaults {
		d.faults = append(d.faults[:maxFaults], fmt.Sprintf("and %d more", n-maxFaults))
	}
	if len(d.faults) > 0 {
		return nil, nil, errs.New(errs.Invalid, "%s", strings.Join(d.faults, "\n"))
	}
	d.cfg.fill()
	d.cfg.Lockouts = joinLockouts(d.lockouts)
	if d.cfg.DefaultLeaseTTL > d.cfg.MaxLeaseTTL {
		return nil, nil, errs.New(errs.Invalid, "default_lease_ttl (%s) is above max_lease_ttl (%s)", d.cfg.DefaultLeaseTTL, d.cfg.MaxLeaseTTL)
	}
	return d.cfg, d.warnings, nil
}

func (d *decoder) fail(at Pos, format string, args ...any) {
	d.faults = append(d.faults, at.String()+": "+fmt.Sprintf(format, args...))
}

func (d *decoder) warn(at Pos, format string, args ...any) {
	d.warnings = append(d.warnings, Warning{at, fmt.Sprintf(format, args...)})
}

// readMembers reads the members of the block v, which messages call block
// (empty at the top of a file).
func readMembers[T any](d *decoder, block string, known fields[T], v value, to *T) {
	seen := make(map[string]Pos, len(v.members))
	for _, m := range v.members {
		name := m.name
		read, ok := known[name]
		if !ok {
			d.fail(m.pos, "unknown key %q%s%s", name, in(block), meant(name, known))
			continue
		}
		if first, again := seen[name]; again && !(block == "" && repeatable[name]) {
			d.fail(m.pos, "%s is set twice%s, first at %s", name, in(block), first)
			continue
		}
		seen[name] = m.pos
		read(d, m, to)
	}
}

// in is " in <block>", or nothing at the top.
func in(block string) string {
	if block == "" {
		return ""
	}
	return " in " + block
}

// repeatable are the blocks of which a file may have several.
var repeatable = map[string]bool{"listener": true, "user_lockout": true}

// isBlock reports whether v is a block or a list of blocks.
func isBlock(v value) bool {
	return v.kind == object || v.kind == list && len(v.list) > 0 && v.list[0].kind == object
}

// block is a labelled block, such as listener "tcp" { ... }.
type block struct {
	pos   Pos
	label string
	body  value
}

// blocks reads the forms that a labelled block has:
//
//	listener "tcp" { ... }
//	listener { type = "tcp" ... }
//	"listener": {"tcp": {...}}      and lists of these, at either level
func (d *decoder) blocks(m member) []block {
	example := fmt.Sprintf("write %s \"KIND\" { ... }", m.name)
	if len(m.labels) > 1 {
		d.fail(m.pos, "%s has more than one label; %s", m.name, example)
		return nil
	}
	label := ""
	if len(m.labels) == 1 {
		label = m.labels[0]
	}
	return d.labelled(m.name, label, m.pos, m.value, example)
}

func (d *decoder) labelled(name, label string, at Pos, v value, example string) []block {
	switch {
	case v.kind == list:
		var all []block
		for _, e := range v.list {
			all = append(all, d.labelled(name, label, e.pos, e, example)...)
		}
		return all
	case v.kind != object:
		d.fail(v.pos, "%s is a block, not %s; %s", name, v.kind, example)
		return nil
	case label != "":
		return []block{{at, strings.ToLower(label), v}}
	}
	for i, m := range v.members {
		if m.name == "type" && m.value.kind == text {
			rest := v
			rest.members = slices.Delete(slices.Clone(v.members), i, i+1)
			return []block{{at, strings.ToLower(m.value.text), rest}}
		}
	}
	var all []block
	for _, m := range v.members {
		if len(m.labels) > 0 || !isBlock(m.value) {
			d.fail(m.pos, "%s needs a kind before its settings; %s", name, example)
			return nil
		}
		all = append(all, d.labelled(name, m.name, m.pos, m.value, example)...)
	}
	if len(all) == 0 {
		d.fail(at, "%s needs a kind; %s", name, example)
	}
	return all
}

// inner reads a block without a label into a part of T. In JSON it may be a
// list of one.
func inner[T, P any](known fields[P], part func(*T) *P) field[T] {
	return func(d *decoder, m member, to *T) {
		v := m.value
		if v.kind == list && len(v.list) == 1 {
			v = v.list[0]
		}
		if v.kind != object || len(m.labels) > 0 {
			d.fail(m.pos, "%s is a block without a label: write %s { ... }", m.name, m.name)
			return
		}
		readMembers(d, m.name, known, v, part(to))
	}
}

// unused is a key that Vault knows and that changes nothing here.
func unused[T any](why string) field[T] {
	return func(d *decoder, m member, _ *T) { d.warn(m.pos, "%s has no effect: %s", m.name, why) }
}

// refused is a key that must not be ignored and is not supported.
func refused[T any](why string) field[T] {
	return func(d *decoder, m member, _ *T) { d.fail(m.pos, "%s is not supported: %s", m.name, why) }
}

// meant suggests the known key that is nearest to name, if one is near.
func meant[T any](name string, known fields[T]) string {
	best, at := "", 3
	if len(name) <= 4 {
		at = 2
	}
	for k := range known {
		if d := distance(strings.ToLower(name), k, at); d < at || d == at && best != "" && k < best {
			best, at = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

// distance is how many letters have to be changed, put in or left out to make
// b of a; anything above limit is as good as limit+1.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
