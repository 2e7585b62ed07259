package sys

import (
	"cmp"
	"context"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

type openAPIIn struct {
	Generic bool   `json:"generic_mount_paths" doc:"Write mounts' paths as parameters."`
	Context string `json:"context" doc:"Ends every operationId."`
}

// openAPI makes the document of the tables that also answer: a path, a field
// or its help that is in one is in the other. It is made when it is asked for
// and not kept.
func (e *Engine) openAPI(ctx context.Context, req *route.Request, in openAPIIn) (apiDoc, error) {
	ns := req.Mount.Namespace
	doc := apiDoc{
		OpenAPI: "3.0.2",
		Info: apiInfo{
			Title: "Leasehold API",
			Description: "HTTP API that gives access to credentials under leases. All paths are below `/v1/`. " +
				"Schemas of answers are those of the envelope's `data`.",
			Version: e.cfg.Version.API, License: apiLicense{"Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0"},
		},
		Paths: map[string]apiPath{},
		Comp:  apiComponents{Schemas: map[string]*apiSchema{}},
	}
	if req.Redact.Version && req.Caller.Token.IsZero() {
		doc.Info.Version = ""
	}
	tables, err := e.cfg.Tables(ctx, ns)
	if err != nil {
		return doc, err
	}
	var rights Rights
	if !req.Caller.Token.IsZero() {
		if rights, err = e.cfg.Access.Of(ctx, ns, req.Caller.Token, req.Remote); err != nil && !errs.Is(err, errs.Denied) {
			return doc, err
		}
	}
	all, err := e.cfg.Mounts.List(ctx, ns)
	if err != nil {
		return doc, err
	}
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b Mount) int { return strings.Compare(a.Path, b.Path) }) // numbers of ids follow the order
	w := apiWriter{doc: &doc, suffix: in.Context, ids: map[string]int{}, root: e.root}
	for _, m := range all {
		table := tables[m.Path]
		// What is mounted where is told to those who may use it.
		if table == nil || !m.Own && (rights == nil || !rights.Reaches(m.Path)) {
			continue
		}
		a := newAPIMount(m, in.Generic)
		w.table(a, table)
		if m.Type == systemType && e.cfg.Boot != nil {
			w.table(a, e.cfg.Boot)
		}
	}
	return doc, nil
}

const systemType = "system"

// apiMount is the mount whose endpoints are being described.
type apiMount struct {
	Mount
	base  string // of its paths
	param string // the parameter that stands for its path, or ""
	id    string // of its type; begins the ids of its operations
}

func newAPIMount(m Mount, generic bool) apiMount {
	a := apiMount{Mount: m, base: m.Path, id: m.Type}
	if m.Type == "kv" {
		a.id += "-v" + cmp.Or(m.Options["version"], "1")
	}
	if generic && !m.Own {
		a.param = strings.ReplaceAll(a.id, "-", "_") + "_mount_path"
		a.base = "{" + a.param + "}/"
		if m.isAuth() {
			a.base = authPrefix + a.base
		}
	}
	return a
}

// tag is the group that the mount's operations stand in.
func (a apiMount) tag() string {
	switch {
	case a.Type == systemType, a.Type == "identity":
		return a.Type
	case a.isAuth():
		return "auth"
	}
	return "secrets"
}

// apiWriter fills the document.
type apiWriter struct {
	doc    *apiDoc
	suffix string         // of every operation's id
	ids    map[string]int // how often an id was asked for
	root   bool           // of the root namespace, where the server itself answers
}

func (w *apiWriter) table(a apiMount, t *route.Table) {
	t.Walk(func(ep *route.Endpoint) {
		if ep.Hidden || ep.RootOnly && !w.root {
			return
		}
		pattern, params, optional := plainPattern(ep.Pattern)
		w.add(a, ep, pattern, params)
		if optional {
			last := len(params) - 1
			w.add(a, ep, strings.TrimSuffix(strings.TrimSuffix(pattern, "{"+params[last]+"}"), "/"), params[:last])
		}
	})
}

// plainPattern writes a pattern as OpenAPI does, and lists its parameters. The
// last of them may be optional: then the path answers without it too.
func plainPattern(pattern string) (plain string, params []string, optional bool) {
	segments := strings.Split(pattern, "/")
	for i, s := range segments {
		name, ok := strings.CutPrefix(s, "{")
		if !ok {
			continue
		}
		name = strings.TrimSuffix(name, "}")
		name, optional = strings.CutSuffix(name, "?")
		name = strings.TrimSuffix(name, "...")
		params = append(params, name)
		segments[i] = "{" + name + "}"
	}
	return strings.Join(segments, "/"), params, optional
}

func (w *apiWriter) add(a apiMount, ep *route.Endpoint, pattern string, params []string) {
	path := "/" + strings.TrimSuffix(a.base+pattern, "/")
	if ep.Op == wire.OpList {
		path += "/"
	}
	p := w.doc.Paths[path]
	p.Unauth, p.Sudo, p.Create = p.Unauth || ep.Unauth, p.Sudo || ep.Sudo, p.Create || ep.HasExists()
	fields := fieldsOf(ep.In)
	if p.Parameters == nil {
		p.Parameters = pathParameters(a, params, fields)
	}
	fields = slices.DeleteFunc(fields, func(f wire.Field) bool { return slices.Contains(params, f.Name) })
	name := operationName(a.id, ep.Op, pattern)
	op := &apiOperation{Summary: ep.Doc, ID: w.operationID(a, ep.Op, pattern), Tags: []string{a.tag()}, Responses: w.responses(ep, name)}
	switch ep.Op {
	case wire.OpRead, wire.OpList:
		op.Parameters = queryParameters(ep.Op, fields)
		p.Get = op
	case wire.OpDelete:
		op.Parameters = queryParameters(ep.Op, fields)
		p.Delete = op
	case wire.OpPatch:
		op.RequestBody = w.body("application/merge-patch+json", name, ep, fields)
		p.Patch = op
	default:
		op.RequestBody = w.body("application/json", name, ep, fields)
		p.Post = op
	}
	w.doc.Paths[path] = p
}

// fieldsOf are the members of what an endpoint takes.
func fieldsOf(in reflect.Type) []wire.Field {
	if in == nil {
		return nil
	}
	return wire.ShapeOf(in).Fields
}

// operationName names an operation of an engine's type: "kv-v2-read-data-path".
func operationName(id string, op wire.Op, pattern string) string {
	verb := op.String()
	if op == wire.OpUpdate {
		verb = "write"
	}
	words := strings.FieldsFunc(pattern, func(r rune) bool { return strings.ContainsRune("/{}-_.", r) })
	return strings.Trim(id+"-"+verb+"-"+strings.Join(words, "-"), "-")
}

// operationID is unique in the document: a mount that is not its type's only
// one says where it is, and a second of the same name gets a number.
func (w *apiWriter) operationID(a apiMount, op wire.Op, pattern string) string {
	id := a.id
	if a.param == "" && !a.Own {
		id += "-" + strings.Join(strings.FieldsFunc(a.Path, func(r rune) bool { return strings.ContainsRune("/-_.", r) }), "-")
	}
	id = operationName(id, op, pattern)
	w.ids[id]++
	// Two mounts of a type have the same operations where paths are generic.
	if n := w.ids[id]; n > 1 && a.param == "" {
		id += "-" + strconv.Itoa(n)
	}
	if w.suffix != "" {
		id += "_" + w.suffix
	}
	return id
}

func pathParameters(a apiMount, names []string, fields []wire.Field) (out []apiParameter) {
	if a.param != "" {
		out = append(out, apiParameter{
			Name: a.param, In: "path", Description: "Path that the engine is mounted at.", Required: true,
			Schema: &apiSchema{Type: "string", Default: a.id},
		})
	}
	for _, name := range names {
		p := apiParameter{Name: name, In: "path", Required: true, Schema: apiString}
		for _, f := range fields {
			if f.Name == name {
				p.Description = f.Doc
			}
		}
		out = append(out, p)
	}
	return out
}

func queryParameters(op wire.Op, fields []wire.Field) (out []apiParameter) {
	if op == wire.OpList {
		out = append(out, apiParameter{
			Name: "list", In: "query", Description: "Must be set to `true`", Required: true,
			Schema: &apiSchema{Type: "string", Enum: []string{"true"}},
		})
	}
	fields = slices.SortedFunc(slices.Values(fields), func(a, b wire.Field) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range fields {
		out = append(out, apiParameter{Name: f.Name, In: "query", Description: f.Doc, Schema: asked(f.Shape, "")})
	}
	return out
}

// body describes a request's. One whose members are the caller's own has no
// fields, as the data of a KV secret.
func (w *apiWriter) body(mediaType, name string, ep *route.Endpoint, fields []wire.Field) *apiBody {
	if ep.In == nil {
		return nil
	}
	s := asked(&wire.Shape{Type: "object", Fields: fields, Values: wire.ShapeOf(ep.In).Values}, "")
	if s.Properties == nil && s.Additional == nil {
		return nil
	}
	return &apiBody{Required: true, Content: map[string]apiMedia{mediaType: {Schema: w.component(name+"-request", s)}}}
}

func (w *apiWriter) responses(ep *route.Endpoint, name string) map[string]apiResponse {
	status := cmp.Or(ep.Status, http.StatusOK)
	if ep.Status == 0 && ep.Out == nil && ep.Class != route.LoggingIn {
		status = http.StatusNoContent
	}
	r := apiResponse{Description: http.StatusText(status)}
	if schema := w.answer(ep.Out, name); schema != nil {
		r.Content = map[string]apiMedia{"application/json": {Schema: schema}}
	}
	return map[string]apiResponse{strconv.Itoa(status): r}
}

// listName is the schema of the answers that only list keys.
const listName = "standard-list-response"

func (w *apiWriter) answer(out reflect.Type, name string) *apiSchema {
	switch out {
	case nil, reflect.TypeFor[*route.Whole](), reflect.TypeFor[route.Raw](), reflect.TypeFor[*route.Raw]():
		return nil
	case reflect.TypeFor[route.Keys]():
		name = listName
	default:
		name += "-response"
	}
	s := answered(wire.ShapeOf(out), "")
	if s.Properties == nil {
		return s // too little to have a name
	}
	return w.component(name, s)
}

// component keeps a schema under a name of its own and refers to it. Mounts of
// one type share their schemas.
func (w *apiWriter) component(name string, s *apiSchema) *apiSchema {
	name = camel(name)
	all := w.doc.Comp.Schemas
	for n, base := 2, name; all[name] != nil && !reflect.DeepEqual(all[name], s); n++ {
		name = base + strconv.Itoa(n)
	}
	all[name] = s
	return &apiSchema{Ref: "#/components/schemas/" + name}
}

// camel makes "kv-v2-read-data-path" KvV2ReadDataPath.
func camel(s string) string {
	var b strings.Builder
	upper := true
	for _, r := range s {
		switch {
		case r == '-':
			upper = true
			continue
		case upper:
			r = unicode.ToUpper(r)
		}
		upper = false
		b.WriteRune(r)
	}
	return b.String()
}
