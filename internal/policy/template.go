package policy

import (
	"errors"
	"fmt"
	"strings"
)

// Template is a value that a rule's path asks for, as in
// "secret/{{identity.entity.metadata.team}}/*".
type Template struct {
	Of    Subject
	Key   string // which alias: its mount's accessor; which group: its id or name
	Field Field
	Meta  string // the name within Metadata or CustomMetadata
}

// Subject is what a Template asks about.
type Subject uint8

// The subjects.
const (
	Entity Subject = iota
	Alias
	GroupByID
	GroupByName
)

// Field is what of its subject a Template asks for.
type Field uint8

// The fields. Only aliases have CustomMetadata.
const (
	ID Field = iota
	Name
	Metadata
	CustomMetadata
)

// Values knows the values of one entity. Of a group it knows only those that
// the entity belongs to. Value does not block; not ok means there is none.
type Values interface {
	Value(Template) (value string, ok bool)
}

// hole marks the place of a template in a path. No path has a control byte.
const hole = "\x00"

var errUnbalanced = errors.New("unbalanced templating characters")

// parseTemplates takes the templates out of a path and leaves holes.
func parseTemplates(path string) (holed string, templates []Template, err error) {
	if i := strings.IndexFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		return "", nil, fmt.Errorf("control character %q", path[i])
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(path, "{{")
		if strings.Contains(before, "}}") {
			return "", nil, errUnbalanced
		}
		b.WriteString(before)
		if !found {
			return b.String(), templates, nil
		}
		name, after, closed := strings.Cut(rest, "}}")
		if !closed || strings.Contains(name, "{{") {
			return "", nil, errUnbalanced
		}
		t, ok := parseTemplate(strings.TrimSpace(name))
		if !ok {
			return "", nil, fmt.Errorf("unknown template {{%s}}", name)
		}
		templates = append(templates, t)
		b.WriteString(hole)
		path = after
	}
}

func parseTemplate(name string) (t Template, ok bool) {
	if rest, ok := strings.CutPrefix(name, "identity.entity."); ok {
		if rest, ok = strings.CutPrefix(rest, "aliases."); ok {
			t.Of = Alias
			if t.Key, rest, ok = strings.Cut(rest, "."); !ok {
				return t, false
			}
		}
		return t, t.parseField(rest)
	}
	rest, ok := strings.CutPrefix(name, "identity.groups.")
	if !ok {
		return t, false
	}
	if rest, ok = strings.CutPrefix(rest, "ids."); ok {
		t.Of = GroupByID
	} else if rest, ok = strings.CutPrefix(rest, "names."); ok {
		t.Of = GroupByName
	} else {
		return t, false
	}
	if t.Key, rest, ok = strings.Cut(rest, "."); !ok {
		return t, false
	}
	return t, t.parseField(rest)
}

func (t *Template) parseField(name string) (ok bool) {
	switch name {
	case "id":
		t.Field = ID
		return true
	case "name":
		t.Field = Name
		return true
	}
	if t.Meta, ok = strings.CutPrefix(name, "metadata."); ok {
		t.Field = Metadata
		return true
	}
	if t.Meta, ok = strings.CutPrefix(name, "custom_metadata."); ok && t.Of == Alias {
		t.Field = CustomMetadata
		return true
	}
	return false
}

// bind makes the rule's pattern for one entity. Not ok: a value is missing, or
// is one that must not stand in a path, and the rule matches nothing.
//
// Whoever can choose a value (a user names its own alias in many directories)
// must not widen the rule by it. So a wildcard in a value is an ordinary
// character, and a value with a slash would move the rule to another directory
// and is refused; a policy can allow either. A denial takes slashes always: by a
// name of their own choice nobody must get out of it.
func (r *rule) bind(values Values, opts TemplateOptions) (pattern, bool) {
	path := r.path
	var b strings.Builder
	texts := make([]string, len(r.templates))
	for i, t := range r.templates {
		v, ok := values.Value(t)
		slashes := opts.AllowSlashes || r.grant.caps&Deny != 0
		if !ok || v == "" || strings.Contains(v, hole) || strings.Contains(v, "/") && !slashes {
			return pattern{}, false
		}
		texts[i] = v
		before, after, _ := strings.Cut(path, hole)
		b.WriteString(before)
		b.WriteString(v)
		path = after
	}
	if opts.AllowWildcards {
		b.WriteString(path)
		p, err := parsePattern(b.String())
		return p, err == nil
	}
	p := pattern{runs: make([]string, len(r.pattern.runs)), glob: r.pattern.glob}
	for i, run := range r.pattern.runs {
		for strings.Contains(run, hole) {
			run = strings.Replace(run, hole, texts[0], 1)
			texts = texts[1:]
		}
		p.runs[i] = run
	}
	return p, true
}
