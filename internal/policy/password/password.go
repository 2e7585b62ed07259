// Package password reads password policies and draws passwords by them.
//
// A policy names a length and rules, each a set of characters of which so many
// must be there. A password is drawn uniformly from all that keep the rules:
// every character from the union of the sets, again and again until the rules
// hold. Where the rules are so narrow that this would take forever, the
// required characters are drawn first and the whole is shuffled; such a policy
// is slightly less than uniform, but always answered.
package password

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strconv"
	"unicode"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/policy/syntax"
	"github.com/leasehold/leasehold/internal/secret"
)

// MaxLength is the longest password that a policy may ask for.
const MaxLength = 4096

// attempts is how often a password is drawn from all characters before the
// required ones are placed. The default policy needs four on average.
const attempts = 100

// Policy says what passwords look like. It is immutable and may be shared.
type Policy struct {
	length int
	rules  []rule
	all    []rune // the union of the rules' characters, sorted
}

// rule asks for at least least of chars, which are sorted.
type rule struct {
	chars []rune
	least int
}

var standard = &Policy{
	length: 20,
	rules: []rule{
		{[]rune("abcdefghijklmnopqrstuvwxyz"), 1},
		{[]rune("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), 1},
		{[]rune("0123456789"), 1},
		{[]rune("-"), 1},
	},
	all: []rune("-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"),
}

// Default is the policy where none is named: 20 letters, digits and dashes
// with at least one lower-case and one upper-case letter, digit and dash.
func Default() *Policy { return standard }

// Length is how many characters a password has.
func (p *Policy) Length() int { return p.length }

// Parse reads a password policy, HCL or JSON. Errors are errs.Invalid.
func Parse(text string) (*Policy, error) {
	root, err := syntax.Parse(text)
	var p *Policy
	if err == nil {
		p, err = read(root)
	}
	if err == nil {
		err = p.finish()
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "invalid password policy: %v", err)
	}
	return p, nil
}

func read(root *syntax.Node) (*Policy, error) {
	p := &Policy{}
	seen := false
	for _, m := range root.Members {
		switch m.Name {
		case "length":
			if seen {
				return nil, syntax.Errorf(m.Pos, `key "length" was already set`)
			}
			seen = true
			n, err := number(m)
			if err != nil {
				return nil, err
			}
			p.length = n
		case "rule":
			kinds, err := m.Value.Objects()
			if err != nil {
				return nil, err
			}
			for _, kind := range kinds {
				if err := p.readRules(kind); err != nil {
					return nil, err
				}
			}
		default:
			return nil, syntax.Errorf(m.Pos, "invalid key %q; a password policy has \"length\" and \"rule\"", m.Name)
		}
	}
	return p, nil
}

// readRules reads the rules under one "rule": their names are kinds of rule.
func (p *Policy) readRules(n *syntax.Node) error {
	for _, m := range n.Members {
		if m.Name != "charset" {
			return syntax.Errorf(m.Pos, "unrecognized rule type %q; there is \"charset\"", m.Name)
		}
		bodies, err := m.Value.Objects()
		if err != nil {
			return err
		}
		for _, body := range bodies {
			r, err := readCharset(body)
			if err != nil {
				return err
			}
			p.rules = append(p.rules, r)
		}
	}
	return nil
}

func readCharset(n *syntax.Node) (rule, error) {
	if err := n.Unique(); err != nil {
		return rule{}, err
	}
	var r rule
	for _, m := range n.Members {
		switch m.Name {
		case "charset":
			if m.Value.Kind != syntax.String {
				return r, syntax.Errorf(m.Value.Pos, "charset: expected a string, got %s", m.Value.Kind)
			}
			r.chars = []rune(m.Value.Text)
			if i := slices.IndexFunc(r.chars, func(c rune) bool { return !unicode.IsPrint(c) }); i >= 0 {
				return r, syntax.Errorf(m.Value.Pos, "non-printable character %U in charset", r.chars[i])
			}
			slices.Sort(r.chars)
			r.chars = slices.Compact(r.chars)
		case "min-chars":
			n, err := number(m)
			if err != nil {
				return r, err
			}
			r.least = n
		default:
			return r, syntax.Errorf(m.Pos, "invalid key %q; a charset rule has \"charset\" and \"min-chars\"", m.Name)
		}
	}
	if len(r.chars) == 0 {
		return r, syntax.Errorf(n.Pos, "no charset specified")
	}
	return r, nil
}

// number reads a number from 0 to MaxLength; as in HCL, also from a string.
func number(m syntax.Member) (int, error) {
	if m.Value.Kind != syntax.Number && m.Value.Kind != syntax.String {
		return 0, syntax.Errorf(m.Value.Pos, "%s: expected a number, got %s", m.Name, m.Value.Kind)
	}
	n, err := strconv.Atoi(m.Value.Text)
	switch {
	case err != nil:
		return 0, syntax.Errorf(m.Value.Pos, "%s: expected a whole number", m.Name)
	case n < 0 || n > MaxLength:
		return 0, syntax.Errorf(m.Value.Pos, "%s must be from 0 to %d, not %d", m.Name, MaxLength, n)
	}
	return n, nil
}

// finish checks the rules together.
func (p *Policy) finish() error {
	if p.length == 0 {
		return fmt.Errorf("length must be > 0")
	}
	least := 0
	for _, r := range p.rules {
		least += r.least
		p.all = append(p.all, r.chars...)
	}
	if p.length < least {
		return fmt.Errorf("specified rules require at least %d characters but %d is specified", least, p.length)
	}
	if len(p.all) == 0 {
		return fmt.Errorf("no charset specified")
	}
	slices.Sort(p.all)
	p.all = slices.Compact(p.all)
	return nil
}

// Generate draws a password. Random numbers come from r, or from crypto/rand
// if r is nil; it fails only if r does.
func (p *Policy) Generate(r io.Reader) (secret.String, error) {
	if r == nil {
		r = rand.Reader
	}
	d := &dice{r: r}
	word := make([]rune, p.length)
	for range attempts {
		for i := range word {
			word[i] = d.pick(p.all)
		}
		if p.keeps(word) {
			break
		}
	}
	if !p.keeps(word) {
		p.place(word, d)
	}
	if d.err != nil {
		return secret.String{}, fmt.Errorf("drawing a password: %w", d.err)
	}
	return secret.New(string(word)), nil
}

func (p *Policy) keeps(word []rune) bool {
	for _, r := range p.rules {
		n := 0
		for _, c := range word {
			if _, ok := slices.BinarySearch(r.chars, c); ok {
				n++
			}
		}
		if n < r.least {
			return false
		}
	}
	return true
}

// place draws what each rule requires, then the rest, and shuffles.
func (p *Policy) place(word []rune, d *dice) {
	i := 0
	for _, r := range p.rules {
		for range r.least {
			word[i] = d.pick(r.chars)
			i++
		}
	}
	for ; i < len(word); i++ {
		word[i] = d.pick(p.all)
	}
	for i := len(word) - 1; i > 0; i-- {
		j := d.below(i + 1)
		word[i], word[j] = word[j], word[i]
	}
}

// dice draws numbers without bias. After its reader has failed it gives
// zeros and keeps the error.
type dice struct {
	r    io.Reader
	buf  [256]byte
	left []byte
	err  error
}

func (d *dice) pick(from []rune) rune { return from[d.below(len(from))] }

// below draws from [0, n): numbers beyond the last whole multiple of n, which
// would favour the first ones, are thrown away.
func (d *dice) below(n int) int {
	const span = 1 << 32
	limit := span - span%uint64(n)
	for d.err == nil {
		if len(d.left) == 0 {
			if _, d.err = io.ReadFull(d.r, d.buf[:]); d.err != nil {
				break
			}
			d.left = d.buf[:]
		}
		v := uint64(binary.BigEndian.Uint32(d.left))
		d.left = d.left[4:]
		if v < limit {
			return int(v % uint64(n))
		}
	}
	return 0
}
