package route

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/wire"
)

// helpOut is what a request with ?help=1 is answered, in Vault's shape.
type helpOut struct {
	Help    string `json:"help"`
	SeeAlso *None  `json:"see_also"`
	OpenAPI *None  `json:"openapi"`
}

// help is an endpoint that tells about a path: the operations and fields of
// the patterns that it matches, or everything there is for a mount's own path.
func (t *Table) help(path string) (*Endpoint, Params, error) {
	eps := t.matching(path)
	if path != "" && len(eps) == 0 {
		return nil, Params{}, errNoPath
	}
	e := &Endpoint{Op: wire.OpHelp, Pattern: path, Form: Bare, Out: reflect.TypeFor[helpOut]()}
	e.call = func(_ context.Context, req *Request) (Result, error) {
		text := describe(req.Mount.Path, eps)
		if path == "" {
			text = t.overview(req.Mount)
		}
		return Result{Data: wire.Of(helpOut{Help: text})}, nil
	}
	return e, Params{}, nil
}

// matching are the endpoints that a path leads to, by pattern and operation.
func (t *Table) matching(path string) []*Endpoint {
	var out []*Endpoint
	for op := wire.OpRead; op < wire.OpHelp; op++ {
		e, _, err := t.Lookup(op, path)
		if err != nil || e.Hidden || slices.Contains(out, e) {
			continue
		}
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b *Endpoint) int { return strings.Compare(a.Pattern, b.Pattern) })
	return out
}

// verb is the operation in the words of the command line.
func (e *Endpoint) verb() string {
	if e.Op == wire.OpUpdate {
		return "write"
	}
	return e.Op.String()
}

func describe(mount string, eps []*Endpoint) string {
	var b strings.Builder
	var fields []wire.FieldInfo
	pattern := ""
	for _, e := range eps {
		if e.Pattern != pattern {
			pattern = e.Pattern
			fmt.Fprintf(&b, "%s%s\n\n", mount, pattern)
		}
		fmt.Fprintf(&b, "    %-8s %s\n", e.verb(), e.doc())
		if e.In == nil {
			continue
		}
		for _, f := range wire.FieldsOf(e.In) {
			if !slices.ContainsFunc(fields, func(have wire.FieldInfo) bool { return have.Name == f.Name }) {
				fields = append(fields, f)
			}
		}
	}
	if len(fields) == 0 {
		return b.String()
	}
	slices.SortFunc(fields, func(a, b wire.FieldInfo) int { return strings.Compare(a.Name, b.Name) })
	b.WriteString("\nFields:\n\n")
	for _, f := range fields {
		fmt.Fprintf(&b, "    %s (%s)\n", f.Name, f.Type)
		if f.Doc != "" {
			fmt.Fprintf(&b, "        %s\n", f.Doc)
		}
	}
	return b.String()
}

// doc is the endpoint's sentence, with what it takes to call it.
func (e *Endpoint) doc() string {
	switch {
	case e.Unauth:
		return strings.TrimSpace(e.Doc + " (needs no token)")
	case e.Sudo:
		return strings.TrimSpace(e.Doc + " (needs sudo)")
	}
	return e.Doc
}

// overview lists every pattern of a mount with what can be done there.
func (t *Table) overview(m MountInfo) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is of type %s. Below it:\n", m.Path, m.Type)
	pattern := ""
	t.Walk(func(e *Endpoint) {
		if e.Hidden {
			return
		}
		if e.Pattern != pattern {
			pattern = e.Pattern
			fmt.Fprintf(&b, "\n%s%s\n", m.Path, pattern)
		}
		fmt.Fprintf(&b, "    %-8s %s\n", e.verb(), e.doc())
	})
	return b.String()
}
