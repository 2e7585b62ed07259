package sys

import (
	"context"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// The document is made of the tables that also answer: a path, a field or its
// help that is in one is in the other.

type apiDoc struct {
	OpenAPI string             `json:"openapi"`
	Info    apiInfo            `json:"info"`
	Paths   map[string]apiPath `json:"paths"`
	Comp    apiComponents      `json:"components"`
}

type apiInfo struct {
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Version     string     `json:"version"`
	License     apiLicense `json:"license"`
}

type apiLicense struct {
	Name string `json:"name"`
	URL  string `json:"url"`
}

type apiComponents struct {
	Schemas map[string]apiSchema `json:"schemas"`
}

type apiPath struct {
	Parameters []apiParameter `json:"parameters,omitempty"`
	Get        *apiOperation  `json:"get,omitempty"`
	Post       *apiOperation  `json:"post,omitempty"`
	Patch      *apiOperation  `json:"patch,omitempty"`
	Delete     *apiOperation  `json:"delete,omitempty"`
	Unauth     bool           `json:"x-vault-unauthenticated,omitempty"`
	Sudo       bool           `json:"x-vault-sudo,omitempty"`
}

type apiOperation struct {
	Summary     string                 `json:"summary,omitempty"`
	ID          string                 `json:"operationId"`
	Tags        []string               `json:"tags"`
	Parameters  []apiParameter         `json:"parameters,omitempty"`
	RequestBody *apiContent            `json:"requestBody,omitempty"`
	Responses   map[string]apiResponse `json:"responses"`
}

type apiParameter struct {
	Name        string    `json:"name"`
	In          string    `json:"in"`
	Description string    `json:"description,omitempty"`
	Required    bool      `json:"required,omitempty"`
	Schema      apiSchema `json:"schema"`
}

type apiContent struct {
	Content map[string]apiMedia `json:"content"`
}

type apiMedia struct {
	Schema apiSchema `json:"schema"`
}

type apiResponse struct {
	Description string              `json:"description"`
	Content     map[string]apiMedia `json:"content,omitempty"`
}

type apiSchema struct {
	Type        string               `json:"type,omitempty"`
	Description string               `json:"description,omitempty"`
	Format      string               `json:"format,omitempty"`
	Enum        []string             `json:"enum,omitempty"`
	Items       *apiItems            `json:"items,omitempty"`
	Properties  map[string]apiSchema `json:"properties,omitempty"`
}

type apiItems struct {
	Type string `json:"type"`
}

type openAPIIn struct {
	Generic bool   `json:"generic_mount_paths" doc:"Write mounts' paths as parameters."`
	Context string `json:"context"`
}

func (e *Engine) openAPI(ctx context.Context, req *route.Request, in openAPIIn) (apiDoc, error) {
	ns := req.Mount.Namespace
	doc := apiDoc{
		OpenAPI: "3.0.2",
		Info: apiInfo{
			Title: "Leasehold API", Description: "HTTP API that gives access to credentials under leases.",
			Version: e.cfg.Version.API, License: apiLicense{"Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0"},
		},
		Paths: map[string]apiPath{},
		Comp:  apiComponents{Schemas: map[string]apiSchema{}},
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
		if rights, err = e.cfg.Access.Of(ctx, req.Caller.Token, req.Remote); err != nil && !errs.Is(err, errs.Denied) {
			return doc, err
		}
	}
	all, err := e.cfg.Mounts.List(ctx, ns)
	if err != nil {
		return doc, err
	}
	for _, m := range all {
		table := tables[m.Path]
		// What is mounted where is told to those who may use it.
		if table == nil || !m.Own && (rights == nil || !rights.Reaches(m.Path)) {
			continue
		}
		a := apiMount{mount: m, base: m.Path, id: m.Type}
		if in.Generic && !m.Own {
			a.param = m.Type + "_mount_path"
			a.base = "{" + a.param + "}/"
			if m.isAuth() {
				a.base = authPrefix + a.base
			}
		}
		table.Walk(func(ep *route.Endpoint) {
			if !ep.Hidden {
				a.add(doc.Paths, ep)
			}
		})
	}
	return doc, nil
}

// apiMount is the mount whose endpoints are being described.
type apiMount struct {
	mount Mount
	base  string // of its paths
	param string // the parameter that stands for its path, or ""
	id    string
}

func (a apiMount) add(paths map[string]apiPath, ep *route.Endpoint) {
	pattern, params := plainPattern(ep.Pattern)
	path := "/" + strings.TrimSuffix(a.base+pattern, "/")
	if ep.Op == wire.OpList {
		path += "/"
	}
	p := paths[path]
	p.Unauth, p.Sudo = p.Unauth || ep.Unauth, p.Sudo || ep.Sudo
	fields := map[string]wire.FieldInfo{}
	if ep.In != nil {
		for _, f := range wire.FieldsOf(ep.In) {
			fields[f.Name] = f
		}
	}
	if p.Parameters == nil {
		if a.param != "" {
			p.Parameters = append(p.Parameters, apiParameter{
				Name: a.param, In: "path", Description: "Path that the engine is mounted at.", Required: true, Schema: apiSchema{Type: "string"},
			})
		}
		for _, name := range params {
			p.Parameters = append(p.Parameters, apiParameter{
				Name: name, In: "path", Description: fields[name].Doc, Required: true, Schema: apiSchema{Type: "string"},
			})
		}
	}
	for _, name := range params {
		delete(fields, name)
	}
	op := &apiOperation{Summary: ep.Doc, ID: a.operationID(ep, pattern), Tags: []string{a.tag()}, Responses: responses(ep)}
	switch ep.Op {
	case wire.OpRead, wire.OpList:
		op.Parameters = queryParameters(ep.Op, fields)
		p.Get = op
	case wire.OpDelete:
		op.Parameters = queryParameters(ep.Op, fields)
		p.Delete = op
	case wire.OpPatch:
		op.RequestBody = body("application/merge-patch+json", fields)
		p.Patch = op
	default:
		op.RequestBody = body("application/json", fields)
		p.Post = op
	}
	paths[path] = p
}

func (a apiMount) tag() string {
	switch {
	case a.mount.Type == "system":
		return "system"
	case a.mount.isAuth():
		return "auth"
	case a.mount.Own:
		return a.mount.Type
	}
	return "secrets"
}

// plainPattern writes a pattern as OpenAPI does, and lists its parameters.
func plainPattern(pattern string) (string, []string) {
	var params []string
	segments := strings.Split(pattern, "/")
	for i, s := range segments {
		name, ok := strings.CutPrefix(s, "{")
		if !ok {
			continue
		}
		name = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "}"), "?"), "...")
		params = append(params, name)
		segments[i] = "{" + name + "}"
	}
	return strings.Join(segments, "/"), params
}

// operationID is unique in the document: mount type, operation and path. A
// mount that is not its type's only one says where it is.
func (a apiMount) operationID(ep *route.Endpoint, pattern string) string {
	words := strings.FieldsFunc(pattern, func(r rune) bool { return strings.ContainsRune("/{}-_.", r) })
	verb := ep.Op.String()
	if ep.Op == wire.OpUpdate {
		verb = "write"
	}
	at := ""
	if a.param == "" && !a.mount.Own {
		at = "-" + strings.Join(strings.FieldsFunc(a.mount.Path, func(r rune) bool { return strings.ContainsRune("/-_.", r) }), "-")
	}
	return strings.Trim(a.id+at+"-"+verb+"-"+strings.Join(words, "-"), "-")
}

func schemaOf(f wire.FieldInfo) apiSchema {
	s := apiSchema{Type: f.Type, Description: f.Doc}
	if f.Secret {
		s.Format = "password"
	}
	if f.Type == "array" {
		s.Items = &apiItems{f.Items}
	}
	return s
}

func queryParameters(op wire.Op, fields map[string]wire.FieldInfo) []apiParameter {
	var out []apiParameter
	if op == wire.OpList {
		out = append(out, apiParameter{
			Name: "list", In: "query", Description: "Must be set to `true`", Required: true,
			Schema: apiSchema{Type: "string", Enum: []string{"true"}},
		})
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		s := schemaOf(fields[name])
		doc := s.Description
		s.Description = ""
		out = append(out, apiParameter{Name: name, In: "query", Description: doc, Schema: s})
	}
	return out
}

func properties(fields []wire.FieldInfo) map[string]apiSchema {
	out := make(map[string]apiSchema, len(fields))
	for _, f := range fields {
		out[f.Name] = schemaOf(f)
	}
	return out
}

func body(mediaType string, fields map[string]wire.FieldInfo) *apiContent {
	if len(fields) == 0 {
		return nil
	}
	return &apiContent{Content: map[string]apiMedia{mediaType: {Schema: apiSchema{
		Type: "object", Properties: properties(slices.Collect(maps.Values(fields))),
	}}}}
}

func responses(ep *route.Endpoint) map[string]apiResponse {
	status := ep.Status
	if status == 0 {
		status = http.StatusOK
		if ep.Out == nil && ep.Class != route.LoggingIn {
			status = http.StatusNoContent
		}
	}
	r := apiResponse{Description: http.StatusText(status)}
	if ep.Out != nil && ep.Out != reflect.TypeFor[*route.Whole]() && ep.Out != reflect.TypeFor[route.Raw]() && ep.Out != reflect.TypeFor[*route.Raw]() {
		if fields := wire.FieldsOf(ep.Out); len(fields) > 0 {
			r.Content = map[string]apiMedia{"application/json": {Schema: apiSchema{Type: "object", Properties: properties(fields)}}}
		}
	}
	return map[string]apiResponse{strconv.Itoa(status): r}
}
