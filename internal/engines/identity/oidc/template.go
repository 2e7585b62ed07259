package oidc

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

// maxTemplate bounds a template's text.
const maxTemplate = 64 << 10

// reserved are the claims that a template cannot set: the server does.
var reserved = []string{"iat", "aud", "exp", "iss", "sub", "namespace", "nonce", "auth_time", "at_hash", "c_hash"}

// Template is a JSON object with parameters such as {{identity.entity.name}}
// in place of values. Whatever a parameter stands for is written as JSON, so
// that nobody's name can become structure.
type Template struct {
	parts []part
}

// part is text as it stands, or a parameter.
type part struct {
	text  string
	value func(p *engine.Identified, now time.Time) wire.Value
}

// ParseTemplate reads a template: JSON text, or that in base64. The empty text
// is the empty object.
func ParseTemplate(text string) (*Template, error) {
	if len(text) > maxTemplate {
		return nil, errs.New(errs.Invalid, "the template is longer than %d bytes", maxTemplate)
	}
	if b, err := base64.StdEncoding.DecodeString(text); err == nil {
		text = string(b)
	}
	t := &Template{}
	inString := false
	for text != "" {
		head, rest, found := strings.Cut(text, "{{")
		inString = endsInString(head, inString)
		t.parts = append(t.parts, part{text: head})
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}}")
		if !closed {
			return nil, errs.New(errs.Invalid, "the template has a {{ without its }}")
		}
		name = strings.TrimSpace(name)
		value, err := parameter(name)
		if err != nil {
			return nil, err
		}
		if inString && !strings.HasPrefix(name, "time.") {
			return nil, errs.New(errs.Invalid, "the template has {{%s}} between quotes; it brings its own", name)
		}
		t.parts = append(t.parts, part{value: value})
		text = after
	}
	if _, err := t.Render(&engine.Identified{}, time.Unix(0, 0)); err != nil {
		return nil, err
	}
	return t, nil
}

// endsInString reports whether text that begins inside of a JSON string, or
// outside, ends inside of one.
func endsInString(text string, in bool) bool {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			in = !in
		}
	}
	return in
}

// Render gives the claims of a person.
func (t *Template) Render(p *engine.Identified, now time.Time) (wire.Object, error) {
	var b []byte
	for _, part := range t.parts {
		b = append(b, part.text...)
		if part.value != nil {
			b = append(b, part.value(p, now)...)
		}
	}
	claims, err := wire.ParseObject(b)
	if err != nil {
		return nil, errs.New(errs.Invalid, "error parsing template JSON: %v", err)
	}
	for name := range claims.All() {
		if slices.Contains(reserved, name) {
			return nil, errs.New(errs.Invalid, "top level key %q not allowed. Restricted keys: %s", name, strings.Join(reserved, ", "))
		}
	}
	return claims, nil
}

type valueFunc = func(p *engine.Identified, now time.Time) wire.Value

// parameter finds what a name stands for. What a person does not have is an
// empty text, list or object.
func parameter(name string) (valueFunc, error) {
	if f, ok := timeParameter(name); ok {
		return f, nil
	}
	if rest, ok := strings.CutPrefix(name, "identity.entity."); ok {
		if f, ok := personParameter(rest); ok {
			return f, nil
		}
	}
	if rest, ok := strings.CutPrefix(name, "identity.groups."); ok {
		if f, ok := groupParameter(rest); ok {
			return f, nil
		}
	}
	return nil, errs.New(errs.Invalid, "the template parameter {{%s}} is not known; there are identity.entity.id, .name, .metadata, .groups, .aliases and time.now", clip(name))
}

func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

func timeParameter(name string) (valueFunc, bool) {
	rest, ok := strings.CutPrefix(name, "time.now")
	if !ok {
		return nil, false
	}
	var shift time.Duration
	switch {
	case rest == "":
	case strings.HasPrefix(rest, ".plus."), strings.HasPrefix(rest, ".minus."):
		sign, text, _ := strings.Cut(rest[1:], ".")
		d, err := wire.ParseTTL(text)
		if err != nil || text == "" {
			return nil, false
		}
		if shift = d; sign == "minus" {
			shift = -d
		}
	default:
		return nil, false
	}
	return func(_ *engine.Identified, now time.Time) wire.Value {
		return strconv.AppendInt(nil, now.Add(shift).Unix(), 10)
	}, true
}

func personParameter(name string) (valueFunc, bool) {
	switch name {
	case "id":
		return func(p *engine.Identified, _ time.Time) wire.Value { return wire.Quote(p.ID) }, true
	case "name":
		return func(p *engine.Identified, _ time.Time) wire.Value { return wire.Quote(p.Name) }, true
	case "groups.ids":
		return func(p *engine.Identified, _ time.Time) wire.Value {
			return groupList(p, func(g *engine.IdentifiedGroup) string { return g.ID })
		}, true
	case "groups.names":
		return func(p *engine.Identified, _ time.Time) wire.Value {
			return groupList(p, func(g *engine.IdentifiedGroup) string { return g.Name })
		}, true
	}
	if of, ok := metadata(name, "metadata"); ok {
		return func(p *engine.Identified, _ time.Time) wire.Value { return of(p.Metadata) }, true
	}
	rest, ok := strings.CutPrefix(name, "aliases.")
	accessor, field, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || accessor == "" {
		return nil, false
	}
	of, ok := aliasField(field)
	return func(p *engine.Identified, _ time.Time) wire.Value {
		for i := range p.Aliases {
			if p.Aliases[i].Accessor == accessor {
				return of(&p.Aliases[i])
			}
		}
		return of(&engine.IdentifiedAlias{})
	}, ok
}

func aliasField(name string) (func(a *engine.IdentifiedAlias) wire.Value, bool) {
	switch name {
	case "id":
		return func(a *engine.IdentifiedAlias) wire.Value { return wire.Quote(a.ID) }, true
	case "name":
		return func(a *engine.IdentifiedAlias) wire.Value { return wire.Quote(a.Name) }, true
	}
	if of, ok := metadata(name, "metadata"); ok {
		return func(a *engine.IdentifiedAlias) wire.Value { return of(a.Metadata) }, true
	}
	of, ok := metadata(name, "custom_metadata")
	return func(a *engine.IdentifiedAlias) wire.Value { return of(a.Custom) }, ok
}

// groupParameter is ids.<id>.name, names.<name>.id and the metadata of both.
// Only groups that the person is in have values.
func groupParameter(name string) (valueFunc, bool) {
	by, rest, _ := strings.Cut(name, ".")
	id, field, ok := strings.Cut(rest, ".")
	if by != "ids" && by != "names" || !ok || id == "" {
		return nil, false
	}
	var of func(g *engine.IdentifiedGroup) wire.Value
	switch field {
	case "id":
		of = func(g *engine.IdentifiedGroup) wire.Value { return wire.Quote(g.ID) }
	case "name":
		of = func(g *engine.IdentifiedGroup) wire.Value { return wire.Quote(g.Name) }
	default:
		meta, ok := metadata(field, "metadata")
		if !ok {
			return nil, false
		}
		of = func(g *engine.IdentifiedGroup) wire.Value { return meta(g.Metadata) }
	}
	return func(p *engine.Identified, _ time.Time) wire.Value {
		for i := range p.Groups {
			if g := &p.Groups[i]; by == "ids" && g.ID == id || by == "names" && g.Name == id {
				return of(g)
			}
		}
		return of(&engine.IdentifiedGroup{})
	}, true
}

func groupList(p *engine.Identified, of func(*engine.IdentifiedGroup) string) wire.Value {
	names := []string{}
	for i := range p.Groups {
		names = append(names, of(&p.Groups[i]))
	}
	return wire.Append(nil, names)
}

// metadata is all of it (field alone), or one key of it (field.key, where the
// key may have dots).
func metadata(name, field string) (func(m map[string]string) wire.Value, bool) {
	rest, ok := strings.CutPrefix(name, field)
	switch {
	case !ok:
	case rest == "":
		return func(m map[string]string) wire.Value { return wire.Append(nil, m) }, true
	case len(rest) > 1 && rest[0] == '.':
		return func(m map[string]string) wire.Value { return wire.Quote(m[rest[1:]]) }, true
	}
	return nil, false
}
