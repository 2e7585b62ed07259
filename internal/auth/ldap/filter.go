package ldap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template/parse"

	ber "github.com/go-asn1-ber/asn1-ber"
	"github.com/go-ldap/ldap/v3"
)

// This file is the only one in which what a stranger sends becomes part of a
// filter or a DN.

// filter is a template of a search filter, of which Go's templates are allowed
// text and variables: pieces of text, and between them names of variables.
type filter struct {
	texts []string // one more than vars
	vars  []string
}

const maxFilter = 16 << 10

// parseFilter reads a template. Its variables, all of which it may use, can
// only stand where a value stands: whatever they hold, the filter has the same
// conditions.
func parseFilter(text string, vars ...string) (*filter, error) {
	if len(text) > maxFilter {
		return nil, fmt.Errorf("it is longer than %d bytes", maxFilter)
	}
	tree := parse.New("filter")
	trees := map[string]*parse.Tree{}
	// No functions are known, so that a template which uses one is refused.
	if _, err := tree.Parse(text, "", "", trees, map[string]any{}); err != nil {
		return nil, err
	}
	if len(trees) > 1 {
		return nil, errors.New("it defines a template within")
	}
	f := &filter{texts: []string{""}}
	var nodes []parse.Node
	if tree.Root != nil {
		nodes = tree.Root.Nodes
	}
	for _, n := range nodes {
		switch n := n.(type) {
		case *parse.TextNode:
			f.texts[len(f.texts)-1] += string(n.Text)
		case *parse.ActionNode:
			name, ok := variable(n.Pipe)
			if !ok || !slices.Contains(vars, name) {
				return nil, fmt.Errorf("%s is not allowed: what a filter may use is {{.%s}}", n, strings.Join(vars, "}}, {{."))
			}
			f.vars, f.texts = append(f.vars, name), append(f.texts, "")
		default:
			return nil, fmt.Errorf("%s is not allowed: a filter is text and variables", n)
		}
	}
	return f, f.check()
}

// variable is the name in an action that does nothing but give a variable.
func variable(p *parse.PipeNode) (string, bool) {
	if len(p.Decl) > 0 || len(p.Cmds) != 1 || len(p.Cmds[0].Args) != 1 {
		return "", false
	}
	field, ok := p.Cmds[0].Args[0].(*parse.FieldNode)
	if !ok || len(field.Ident) != 1 {
		return "", false
	}
	return field.Ident[0], true
}

// probes are values that cannot be mistaken for anything, and ones that try.
var probes = []string{"one", "two", "=x", "a=b", "a>=b", "a:=b", "a:dn:2.4:=b", "!a", "&", "(a=b)", "*", "a*b", `\2a`, "=~<>:&|!va*lue()\\\x00é"}

// check compiles the filter with all probes, and holds what comes out against
// each other.
func (f *filter) check() error {
	first := ""
	for i, value := range probes {
		all := map[string]string{"UserAttr": "attr"}
		for _, v := range f.vars {
			if v != "UserAttr" {
				all[v] = value
			}
		}
		p, err := ldap.CompileFilter(f.render(all))
		if err != nil {
			return err
		}
		switch s := shape(p); {
		case i == 0:
			first = s
		case s != first:
			return errors.New("a variable stands where it could change the conditions; it may stand in values only")
		}
	}
	return nil
}

// render puts in the values. Those of UserAttr are an attribute's name, which
// was checked when it was written; all others are escaped.
func (f *filter) render(values map[string]string) string {
	var b strings.Builder
	for i, v := range f.vars {
		b.WriteString(f.texts[i])
		if v == "UserAttr" {
			b.WriteString(values[v])
		} else {
			b.WriteString(ldap.EscapeFilter(values[v]))
		}
	}
	b.WriteString(f.texts[len(f.texts)-1])
	return b.String()
}

// shape is a compiled filter without the values of its conditions.
func shape(p *ber.Packet) string {
	var b strings.Builder
	var walk func(p *ber.Packet)
	walk = func(p *ber.Packet) {
		fmt.Fprintf(&b, "%d.%d(", p.ClassType, p.Tag)
		defer b.WriteByte(')')
		if p.ClassType != ber.ClassContext {
			return
		}
		switch p.Tag {
		case ldap.FilterPresent:
			b.Write(p.Data.Bytes())
		case ldap.FilterEqualityMatch, ldap.FilterGreaterOrEqual, ldap.FilterLessOrEqual, ldap.FilterApproxMatch, ldap.FilterSubstrings:
			for i, c := range p.Children {
				if i == 0 {
					b.Write(c.Data.Bytes()) // the attribute
					continue
				}
				for _, piece := range c.Children { // of substrings
					fmt.Fprintf(&b, ",%d", piece.Tag)
				}
			}
		case ldap.FilterExtensibleMatch:
			for _, c := range p.Children {
				fmt.Fprintf(&b, ",%d", c.Tag)
				if c.Tag != ldap.MatchingRuleAssertionMatchValue {
					b.Write(c.Data.Bytes())
				}
			}
		default:
			for _, c := range p.Children {
				walk(c)
			}
		}
	}
	walk(p)
	return b.String()
}

// isAttribute reports whether a text is the name or OID of an attribute, and
// nothing besides.
func isAttribute(s string) bool {
	for i, r := range s {
		letter := 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		digit := '0' <= r && r <= '9'
		if !letter && !digit && (i == 0 || !strings.ContainsRune("-._;", r)) {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

// childDN is the DN of an entry right below another, by the value of an
// attribute.
func childDN(attr, value, below string) string {
	dn := attr + "=" + escapeDN(value)
	if below != "" {
		dn += "," + below
	}
	return dn
}

// escapeDN writes a value in a DN (RFC 4514, 2.4). It escapes more than it must.
func escapeDN(value string) string {
	const hexDigits = "0123456789abcdef"
	var b strings.Builder
	for i := range len(value) {
		c := value[i]
		switch {
		case strings.IndexByte(`"+,;<>\=`, c) >= 0, c == '#' && i == 0, c == ' ' && (i == 0 || i == len(value)-1):
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c == 0x7f:
			b.WriteByte('\\')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// isUPN reports whether a name can be the first part of a userPrincipalName.
// Active Directory takes other kinds of names in the same place; these
// characters are theirs.
func isUPN(name string) bool { return !strings.ContainsAny(name, "\"@/\\[]:;|=,+*?<>") }

// sameDN reports whether two DNs name the same entry.
func sameDN(a, b string) bool {
	x, err := ldap.ParseDN(a)
	if err != nil {
		return false
	}
	y, err := ldap.ParseDN(b)
	return err == nil && x.EqualFold(y)
}

// groupName is the name of a group by what an attribute of it, or of a member,
// says: the common name in a DN, or the text itself. upperOnly is how it was
// before Vault 1.1.1: CN must be in capitals.
func groupName(value string, upperOnly bool) string {
	dn, err := ldap.ParseDN(value)
	if err != nil {
		return value
	}
	for _, rdn := range dn.RDNs {
		for _, a := range rdn.Attributes {
			if a.Type == "CN" || !upperOnly && strings.EqualFold(a.Type, "cn") {
				return a.Value
			}
		}
	}
	return value
}
