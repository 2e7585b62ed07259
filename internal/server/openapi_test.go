package server_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/leasehold/leasehold/api"
	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/server"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

var update = flag.Bool("update", false, "rewrite testdata/openapi-missing.txt")

// withEveryEngine is a server with a mount of every engine and auth method, at
// the path of its type.
func withEveryEngine(t *testing.T) (*server.Server, *api.Client) {
	t.Helper()
	s, c := startServer(t, "")
	own := map[string]bool{"system": true, "identity": true, "cubbyhole": true, "token": true, "kv": true}
	enable := func(path, body string) {
		t.Helper()
		if _, err := c.Write(t.Context(), path, json.RawMessage(body)); err != nil {
			t.Fatalf("enabling %s: %v", path, err)
		}
	}
	enable("sys/mounts/kv-v1", `{"type":"kv","options":{"version":"1"}}`)
	enable("sys/mounts/kv-v2", `{"type":"kv","options":{"version":"2"}}`)
	for class, at := range map[string]string{"secret": "sys/mounts/", "auth": "sys/auth/"} {
		for _, typ := range s.Core().EngineTypes(class) {
			if !own[typ] && s.Core().HasEngine(class, typ) {
				enable(at+typ, `{"type":"`+typ+`"}`)
			}
		}
	}
	return s, c
}

// document fetches the OpenAPI document and has it judged.
func document(t *testing.T, c *api.Client, query string) *openapi3.T {
	t.Helper()
	req := &api.Request{Method: http.MethodGet, Path: "sys/internal/specs/openapi", Query: map[string][]string{}}
	if query != "" {
		k, v, _ := strings.Cut(query, "=")
		req.Query[k] = []string{v}
	}
	resp, err := c.Do(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(resp.Body)
	if err != nil {
		t.Fatalf("the document with %q cannot be read: %v", query, err)
	}
	for mount, part := range perMount(doc) {
		if err := part.Validate(t.Context()); err != nil {
			t.Errorf("the document with %q is not valid, %s: %v", query, mount, err)
		}
	}
	return doc
}

// perMount parts a document with generic mount paths by them. OpenAPI takes
// /auth/{jwt_mount_path}/config and /auth/{cert_mount_path}/config for one
// path; Vault's document has both, and who generates a client from it relies
// on their names. Without generic paths there is one part.
func perMount(doc *openapi3.T) map[string]*openapi3.T {
	parts := map[string]*openapi3.T{}
	for path, item := range doc.Paths.Map() {
		name := "of the server's own mounts"
		if _, rest, ok := strings.Cut(path, "{"); ok && strings.Contains(path, "_mount_path}") {
			name, _, _ = strings.Cut(rest, "}")
		}
		if parts[name] == nil {
			one := *doc
			one.Paths = openapi3.NewPaths()
			parts[name] = &one
		}
		parts[name].Paths.Set(path, item)
	}
	return parts
}

// operations are the document's, as "LIST /sys/policies/acl".
func operations(doc *openapi3.T) map[string]*openapi3.Operation {
	out := map[string]*openapi3.Operation{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			bare, isList := strings.CutSuffix(path, "/")
			if isList && method == http.MethodGet {
				method = "LIST"
			}
			out[method+" "+bare] = op
		}
	}
	return out
}

// answering are the operations that a table answers, under the path of its
// mount, and those that it hides.
func answering(base string, table *route.Table) (shown, hidden []string) {
	methods := map[wire.Op]string{wire.OpRead: "GET", wire.OpList: "LIST", wire.OpUpdate: "POST", wire.OpPatch: "PATCH", wire.OpDelete: "DELETE"}
	table.Walk(func(ep *route.Endpoint) {
		all := []string{strings.NewReplacer("...", "", "?", "").Replace(ep.Pattern)}
		if open := strings.LastIndex(ep.Pattern, "{"); strings.HasSuffix(ep.Pattern, "...?}") {
			all = append(all, strings.TrimSuffix(ep.Pattern[:open], "/"))
		}
		for _, pattern := range all {
			name := methods[ep.Op] + " " + strings.TrimSuffix(base+pattern, "/")
			if ep.Hidden {
				hidden = append(hidden, name)
			} else {
				shown = append(shown, name)
			}
		}
	})
	return shown, hidden
}

// bootTable has the routes that work while the server is sealed.
func bootTable() *route.Table {
	t := route.NewTable()
	sys.BootRoutes(t, sys.BootConfig{})
	return t
}

// TestOpenAPIHasEveryRoute compares the document with the tables that answer,
// both ways.
func TestOpenAPIHasEveryRoute(t *testing.T) {
	s, c := withEveryEngine(t)
	doc := document(t, c, "")
	tables, err := s.Core().Tables(t.Context(), token.RootNamespace)
	if err != nil {
		t.Fatal(err)
	}
	var want, hidden []string
	for base, table := range tables {
		shown, not := answering("/"+base, table)
		want, hidden = append(want, shown...), append(hidden, not...)
	}
	shown, not := answering("/sys/", bootTable())
	want, hidden = append(want, shown...), append(hidden, not...)
	slices.Sort(want)
	want = slices.Compact(want)

	got := operations(doc)
	for _, name := range want {
		if got[name] == nil {
			t.Errorf("%s answers, and is not in the document", name)
		}
	}
	for name := range got {
		if _, ok := slices.BinarySearch(want, name); !ok {
			t.Errorf("%s is in the document, and nothing answers it", name)
		}
	}
	// Only what says that a path is wrong, or is not there yet, is hidden.
	for _, name := range hidden {
		_, path, _ := strings.Cut(name, " ")
		if path != "/kv-v2" && path != "/kv-v2/{path}" && !strings.HasPrefix(path, "/database/static-") {
			t.Errorf("%s is hidden from the document", name)
		}
	}
}

// TestEveryRouteSaysWhatItDoes insists on route.Doc, and on a schema for every
// answer that has one type.
func TestEveryRouteSaysWhatItDoes(t *testing.T) {
	s, c := withEveryEngine(t)
	tables, err := s.Core().Tables(t.Context(), token.RootNamespace)
	if err != nil {
		t.Fatal(err)
	}
	tables["sys/ (boot)"] = bootTable()
	for base, table := range tables {
		table.Walk(func(ep *route.Endpoint) {
			if ep.Doc == "" && !ep.Hidden {
				t.Errorf("%s %s%s has no route.Doc", ep.Op, base, ep.Pattern)
			}
		})
	}
	ids := map[string]string{}
	for name, op := range operations(document(t, c, "context=x")) {
		if other := ids[op.OperationID]; other != "" || !strings.HasSuffix(op.OperationID, "_x") {
			t.Errorf("the id of %s is %q; %s has it too, or it lacks the context", name, op.OperationID, other)
		}
		ids[op.OperationID] = name
	}
}

// TestOpenAPIDetails looks at some operations closely.
func TestOpenAPIDetails(t *testing.T) {
	_, c := withEveryEngine(t)
	doc := document(t, c, "generic_mount_paths=true")
	path := func(name string) *openapi3.PathItem {
		t.Helper()
		p := doc.Paths.Value(name)
		if p == nil {
			t.Fatalf("the document has no %s", name)
		}
		return p
	}
	role := path("/{database_mount_path}/roles/{name}")
	if p := role.Parameters.GetByInAndName("path", "database_mount_path"); p == nil || !p.Required || p.Schema.Value.Default != "database" {
		t.Errorf("the mount's path is described as %+v", p)
	}
	body := role.Post.RequestBody.Value.Content.Get("application/json").Schema
	if ttl := body.Value.Properties["default_ttl"]; body.Ref != "#/components/schemas/DatabaseWriteRolesNameRequest" || ttl == nil || ttl.Value.Format != "duration" {
		t.Errorf("the body of a role is %s with default_ttl %+v", body.Ref, ttl)
	}
	answer := role.Get.Responses.Status(200).Value.Content.Get("application/json").Schema.Value
	if ttl := answer.Properties["default_ttl"]; ttl == nil || !ttl.Value.Type.Is("integer") {
		t.Errorf("a role's default_ttl is answered as %+v, want an integer", ttl)
	}
	creds := path("/{database_mount_path}/creds/{name}").Get.Responses.Status(200).Value.Content.Get("application/json").Schema.Value
	if password := creds.Properties["password"]; password == nil || password.Value.Format != "password" {
		t.Errorf("a password is described as %+v", password)
	}
	list := path("/{kv_v2_mount_path}/metadata/{path}/").Get
	if p := list.Parameters.GetByInAndName("query", "list"); p == nil || !p.Required || list.Tags[0] != "secrets" {
		t.Errorf("a list is described as %+v with tags %v", p, list.Tags)
	}
	for name, want := range map[string][3]bool{ // unauthenticated, sudo, create
		"/sys/health":                        {true, false, false},
		"/sys/audit/{path}":                  {false, true, false},
		"/auth/token/roles/{role_name}":      {false, false, true},
		"/{kv_v1_mount_path}/{path}":         {false, false, true},
		"/sys/internal/specs/openapi":        {true, false, false},
		"/sys/leases/revoke-prefix/{prefix}": {false, true, false},
	} {
		p := path(name)
		got := [3]bool{p.Extensions["x-vault-unauthenticated"] == true, p.Extensions["x-vault-sudo"] == true, p.Extensions["x-vault-createSupported"] == true}
		if got != want {
			t.Errorf("%s is unauthenticated, sudo, createSupported: %v, want %v", name, got, want)
		}
	}
	if got := doc.Paths.Value("/sys/mounts").Get.Tags; !slices.Equal(got, []string{"system"}) {
		t.Errorf("sys has the tags %v", got)
	}

	// Whoever asks without a token learns of no mount.
	doc = document(t, c.WithToken(""), "")
	for name := range doc.Paths.Map() {
		if strings.HasPrefix(name, "/database/") || strings.HasPrefix(name, "/kv-v") {
			t.Errorf("without a token the document shows %s", name)
		}
	}
}

// area is a file of the surface and the part of the document it is about.
type area struct {
	name  string // of the file: "auth-approle"
	base  string // "/auth/{approle_mount_path}/"
	paths map[string]*surface
}

// surface is what the reference has at one operation.
type surface struct {
	from   string // "vault", "openbao" or "both"
	params map[string]bool
}

func readSurface(t *testing.T) []*area {
	t.Helper()
	all := map[string]*area{}
	for source, dir := range map[string]string{"vault": "vault-1.15", "openbao": "openbao-2.6"} {
		files, err := filepath.Glob(filepath.Join("testdata", "surface", dir, "*.tsv"))
		if err != nil || len(files) == 0 {
			t.Fatalf("reading the surface of %s: %v, %d files", source, err, len(files))
		}
		for _, file := range files {
			name := strings.TrimSuffix(filepath.Base(file), ".tsv")
			a := all[name]
			if a == nil {
				a = &area{name: name, base: baseOf(name), paths: map[string]*surface{}}
				all[name] = a
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n")[1:] {
				a.add(source, strings.Split(line, "\t"))
			}
		}
	}
	return slices.SortedFunc(maps.Values(all), func(x, y *area) int { return strings.Compare(x.name, y.name) })
}

func baseOf(name string) string {
	switch name {
	case "sys", "identity", "cubbyhole":
		return "/" + name + "/"
	case "auth-token":
		return "/auth/token/"
	case "kv1", "kv2":
		name = "kv_v" + name[2:]
	}
	if method, ok := strings.CutPrefix(name, "auth-"); ok {
		return "/auth/{" + method + "_mount_path}/"
	}
	return "/{" + name + "_mount_path}/"
}

// add takes a line: path, method, path_params, query_params, body_params, ….
func (a *area) add(source string, columns []string) {
	for method := range strings.SplitSeq(columns[1], ",") {
		name := method + " " + nameless(strings.TrimSuffix(columns[0], "/"))
		s := a.paths[name]
		switch {
		case s == nil:
			s = &surface{from: source, params: map[string]bool{}}
			a.paths[name] = s
		case s.from != source:
			s.from = "both"
		}
		for _, list := range columns[3:5] {
			for param := range strings.FieldsSeq(list) {
				// Deprecated ones, and words of a description, are no fields.
				if p, typ, ok := strings.Cut(param, ":"); ok && !strings.Contains(typ, "deprecated") {
					s.params[p] = true
				}
			}
		}
	}
}

// nameless writes {role_name} as {}: how a parameter is called says nothing
// about what answers.
func nameless(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if strings.HasPrefix(s, "{") {
			segments[i] = "{}"
		}
	}
	return strings.Join(segments, "/")
}

// fieldNames are what an operation takes beside its path.
func fieldNames(op *openapi3.Operation) map[string]bool {
	out := map[string]bool{}
	for _, p := range op.Parameters {
		out[p.Value.Name] = true
	}
	if op.RequestBody != nil {
		for _, media := range op.RequestBody.Value.Content {
			for name := range media.Schema.Value.Properties {
				out[name] = true
			}
		}
	}
	return out
}

const missingFile = "testdata/openapi-missing.txt"

// TestOpenAPIHasVaultsSurface compares the document with what Vault and
// OpenBao have, prints by area what is missing, and fails only when something
// has gone missing that was there: the file lists what was missing when it was
// last written. Run it with -update after adding to the API.
func TestOpenAPIHasVaultsSurface(t *testing.T) {
	_, c := withEveryEngine(t)
	ours := operations(document(t, c, "generic_mount_paths=true"))
	var missing []string
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "area\tVault's operations\tmissing\tOpenBao's own\tmissing\tours\tfields missing\t")
	for _, a := range readSurface(t) {
		have := map[string]*openapi3.Operation{}
		for name, op := range ours {
			method, path, _ := strings.Cut(name, " ")
			if rel, ok := strings.CutPrefix(path+"/", a.base); ok {
				have[method+" "+nameless(strings.TrimSuffix(rel, "/"))] = op
			}
		}
		var vaults, vaultsMissing, baos, baosMissing, fields int
		for _, name := range slices.Sorted(maps.Keys(a.paths)) {
			s := a.paths[name]
			op := have[name]
			vault := s.from != "openbao"
			switch {
			case vault && op == nil:
				vaultsMissing++
			case op == nil:
				baosMissing++
			}
			if vault {
				vaults++
			} else {
				baos++
			}
			if op == nil {
				missing = append(missing, fmt.Sprintf("%s %s (%s)", a.name, name, s.from))
				continue
			}
			taken := fieldNames(op)
			for _, p := range slices.Sorted(maps.Keys(s.params)) {
				if !taken[p] {
					fields++
					missing = append(missing, fmt.Sprintf("%s %s: %s", a.name, name, p))
				}
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t\n", a.name, vaults, vaultsMissing, baos, baosMissing, len(have), fields)
	}
	w.Flush()
	t.Logf("what the references have and we lack:\n%s", table.String())
	if *update {
		if err := os.WriteFile(missingFile, []byte(strings.Join(missing, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(missingFile)
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Split(strings.TrimSpace(string(text)), "\n")
	for _, m := range missing {
		// A field of an operation that the file has as missing is no loss.
		op, _, isField := strings.Cut(m, ": ")
		if slices.Contains(known, m) || isField && slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(k, op+" (") }) {
			continue
		}
		t.Errorf("gone missing: %s", m)
	}
	if n := len(known) - len(missing); n > 0 {
		t.Logf("%d that the file lists are there now: run this test with -update", n)
	}
}
