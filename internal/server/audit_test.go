package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/config"
	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/server"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// local is a whole server in this process, in memory, behind a Unix socket.
type local struct {
	t     *testing.T
	core  *core.Core
	root  string
	share []byte
	http  *http.Client
}

// startLocal starts one with more configuration, and settings of its listener.
func startLocal(t *testing.T, hcl string, listener ...string) *local {
	t.Helper()
	dir, err := os.MkdirTemp("", "lh") // t.TempDir() can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	conf, _, err := config.Parse("test", fmt.Appendf(nil, "storage \"inmem\" {}\nlistener \"unix\" {\n  address = %q\n%s\n}\n%s", socket, strings.Join(listener, "\n"), hcl))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s, err := server.New(ctx, server.Config{Conf: conf, Log: slog.New(slog.DiscardHandler), Level: new(slog.LevelVar)})
	if err != nil {
		t.Fatal(err)
	}
	in, err := s.Core().Init(ctx, seal.Params{Shares: 1, Threshold: 1}, secret.String{})
	if err == nil {
		err = s.Core().Unseal(ctx, in.Shares[0])
	}
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	l := &local{t: t, core: s.Core(), root: in.Root.Reveal(), share: in.Shares[0], http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
		MaxIdleConnsPerHost: 64,
	}}}
	t.Cleanup(func() {
		l.http.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return l
}

// ask sends a request and gives its status and body.
func (l *local) ask(method, target, tok, body string, header ...string) (int, string) {
	l.t.Helper()
	status, text, _ := l.askFor(method, target, tok, body, header...)
	return status, text
}

// askFor is ask with the headers of the answer.
func (l *local) askFor(method, target, tok, body string, header ...string) (int, string, http.Header) {
	l.t.Helper()
	req, err := http.NewRequest(method, "http://x", strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	path, query, _ := strings.Cut(target, "?")
	req.URL.Opaque, req.URL.RawQuery = "//x/v1/"+path, query
	if tok != "" {
		req.Header.Set("X-Vault-Token", tok)
	}
	if method == "PATCH" {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := l.http.Do(req)
	if err != nil {
		l.t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

// must is ask with the root token for what has to succeed.
func (l *local) must(method, target, body string, header ...string) reply {
	l.t.Helper()
	status, text, _ := l.askFor(method, target, l.root, body, header...)
	if status/100 != 2 {
		l.t.Fatalf("%s %s = %d %s", method, target, status, text)
	}
	var r reply
	if text != "" {
		if err := json.Unmarshal([]byte(text), &r); err != nil {
			l.t.Fatalf("%s %s = %s: %v", method, target, text, err)
		}
	}
	return r
}

type reply struct {
	LeaseID string         `json:"lease_id"`
	Data    map[string]any `json:"data"`
	Auth    struct {
		Token    string `json:"client_token"`
		Accessor string `json:"accessor"`
	} `json:"auth"`
	Wrap struct {
		Token    string `json:"token"`
		Accessor string `json:"accessor"`
	} `json:"wrap_info"`
}

// object writes an object of strings.
func object(m map[string]any) string {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// logs are two audit devices, one with log_raw.
type logs struct {
	t           *testing.T
	hashed, raw string // paths
}

func (l *local) audit() *logs {
	dir := l.t.TempDir()
	lg := &logs{l.t, filepath.Join(dir, "hashed"), filepath.Join(dir, "raw")}
	l.must("PUT", "sys/audit/hashed", object(map[string]any{"type": "file", "options": map[string]string{"file_path": lg.hashed}}))
	l.must("PUT", "sys/audit/raw", object(map[string]any{"type": "file", "options": map[string]string{"file_path": lg.raw, "log_raw": "true"}}))
	return lg
}

// record is a line of an audit log.
type record struct {
	Type    string
	Error   string
	Request struct {
		ID        string
		Operation string
		Path      string
		Data      map[string]any
	}
	Response struct {
		Data map[string]any
		Auth map[string]any
	}
	whole any // the line, decoded
	line  string
}

func read(t *testing.T, path string) (all []record) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(b) {
		var r record
		if err := errors.Join(json.Unmarshal(line, &r), json.Unmarshal(line, &r.whole)); err != nil || line[len(line)-1] != '\n' {
			t.Fatalf("the record %q is not one line of JSON: %v", line, err)
		}
		r.line = string(line)
		all = append(all, r)
	}
	return all
}

// find calls fn for every string in a record, with where it stands.
func find(v any, at string, fn func(at, s string)) {
	switch v := v.(type) {
	case string:
		fn(at, v)
	case []any:
		for _, e := range v {
			find(e, at, fn)
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			find(v[k], at+"/"+k, fn)
		}
	}
}

// mark is a text that nothing else holds. It is a name that every path takes.
const mark = "mrkq"

// marker makes marks and remembers what they stand for.
type marker struct{ what []string }

func (m *marker) new(what string) string {
	m.what = append(m.what, what)
	return fmt.Sprintf("%s%05dz", mark, len(m.what)-1)
}

// marksIn finds the marks in a text.
func (m *marker) marksIn(s string) (found []string) {
	for {
		i := strings.Index(s, mark)
		if i < 0 || len(s) < i+len(mark)+6 {
			return found
		}
		found = append(found, s[i:i+len(mark)+6])
		s = s[i+len(mark)+6:]
	}
}

func (m *marker) of(text string) string {
	var n int
	if _, err := fmt.Sscanf(text, mark+"%05dz", &n); err != nil || n >= len(m.what) {
		return "?"
	}
	return m.what[n]
}

// notWalked are endpoints that would end the walk, or take their time.
var notWalked = map[string]string{
	"sys/ update seal":               "the server would be sealed",
	"auth/token/ update revoke-self": "the walker's own token would end",
	"sys/ read pprof/profile":        "takes a second at least, and no strings",
	"sys/ read pprof/trace":          "takes a second at least, and no strings",
	"sys/ read monitor":              "the answer goes on until somebody leaves",
	"sys/ delete audit/{path...}":    "walked last",
}

// stringly reports whether a field can hold any text.
func stringly(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[secret.String](), reflect.TypeFor[wire.Opt[string]](), reflect.TypeFor[wire.Opt[secret.String]](),
		reflect.TypeFor[wire.Strings](), reflect.TypeFor[wire.CSV](), reflect.TypeFor[wire.KV](), reflect.TypeFor[wire.Value](),
		reflect.TypeFor[wire.Object](), reflect.TypeFor[wire.Opt[wire.Strings]](), reflect.TypeFor[wire.Opt[wire.CSV]](), reflect.TypeFor[wire.Opt[wire.KV]]():
		return true
	}
	return t.Kind() == reflect.String || t.Kind() == reflect.Slice && stringly(t.Elem())
}

// fieldTypes are the types of an In's fields by name.
func fieldTypes(in reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	if in == nil {
		return out
	}
	for _, f := range reflect.VisibleFields(in) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" && !f.Anonymous {
			out[name] = f.Type
		}
	}
	return out
}

var methods = map[wire.Op]string{wire.OpRead: "GET", wire.OpList: "LIST", wire.OpUpdate: "POST", wire.OpPatch: "PATCH", wire.OpDelete: "DELETE"}

// walk calls every endpoint of every mount, with a mark in each parameter of
// the path and each field. With all set, fields that are no strings are marked
// too, which few endpoints survive.
func (l *local) walk(m *marker, all bool) (walked int) {
	l.t.Helper()
	tables, err := l.core.Tables(context.Background(), token.RootNamespace)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, mount := range slices.Sorted(maps.Keys(tables)) {
		tables[mount].Walk(func(ep *route.Endpoint) {
			name := mount + " " + ep.Op.String() + " " + ep.Pattern
			if notWalked[name] != "" {
				return
			}
			walked++
			types := fieldTypes(ep.In)
			path := mount
			inPath := map[string]bool{}
			for i, seg := range strings.Split(ep.Pattern, "/") {
				if i > 0 {
					path += "/"
				}
				p, isParam := strings.CutPrefix(seg, "{")
				if !isParam {
					path += seg
					continue
				}
				p = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(p, "}"), "?"), "...")
				inPath[p] = true
				what := "path"
				if types[p] == reflect.TypeFor[secret.String]() {
					what = "secret path"
				}
				path += m.new(what + " " + name + " " + p)
			}
			fields, query := map[string]any{}, url.Values{}
			written := ep.Op == wire.OpUpdate || ep.Op == wire.OpPatch
			set := func(f string, typ reflect.Type) {
				text := m.new("data " + name + " " + f)
				switch {
				case !written:
					query.Set(f, text)
				case typ == reflect.TypeFor[wire.KV]() || typ == reflect.TypeFor[wire.Opt[wire.KV]]() || typ == reflect.TypeFor[wire.Object]():
					fields[f] = map[string]any{"key": text}
				case typ == reflect.TypeFor[wire.CSV]() || typ == reflect.TypeFor[wire.Strings]():
					fields[f] = []any{text}
				case typ == nil:
					fields[f] = map[string]any{"deep": []any{text}}
				default:
					fields[f] = text
				}
			}
			set("unknown", nil)
			for f, typ := range types {
				if inPath[f] || !all && !stringly(typ) {
					continue
				}
				set(f, typ)
			}
			if written {
				l.ask(methods[ep.Op], path, l.root, object(fields))
			} else {
				l.ask(methods[ep.Op], path+"?"+query.Encode(), l.root, "")
			}
		})
	}
	return walked
}

// shownIn says whether a mark may stand in the clear at a place of a record.
// Vault shows paths, and names of policies and displays, which come from
// fields of auth/token/create.
func shownIn(at, what string) bool {
	switch {
	case at == "/error":
		return strings.HasPrefix(what, "path ")
	case at == "/request/path" || at == "/response/wrap_info/creation_path":
		return strings.HasPrefix(what, "path ")
	case strings.HasPrefix(at, "/auth/") || strings.HasPrefix(at, "/response/auth/"):
		return strings.Contains(what, "auth/token/") && !strings.HasPrefix(what, "secret") && !strings.HasSuffix(what, " id")
	}
	return false
}

// TestAuditWalk: whatever is sent to any endpoint, nothing of its data is in
// the log in the clear, and all of it is in the log of a raw device.
func TestAuditWalk(t *testing.T) {
	t.Parallel()
	l := startLocal(t, "raw_storage_endpoint = true")
	for path, body := range map[string]string{
		"sys/mounts/kv1":      `{"type":"kv"}`,
		"sys/mounts/kv2":      `{"type":"kv","options":{"version":"2"}}`,
		"sys/mounts/database": `{"type":"database"}`,
	} {
		l.must("POST", path, body)
	}
	lg := l.audit()
	m := &marker{}
	n := l.walk(m, false) + l.walk(m, true)
	// A second time with everything named as not to be hashed: what is secret
	// by its type stays hashed.
	tables, err := l.core.Tables(t.Context(), token.RootNamespace)
	if err != nil {
		t.Fatal(err)
	}
	for mount, table := range tables {
		keys := map[string]bool{}
		table.Walk(func(ep *route.Endpoint) {
			for f, typ := range fieldTypes(ep.In) {
				if typ == reflect.TypeFor[secret.String]() || typ == reflect.TypeFor[wire.Opt[secret.String]]() {
					keys[f] = true
				}
			}
		})
		if len(keys) == 0 {
			continue
		}
		list := slices.Sorted(maps.Keys(keys))
		if status, body := l.ask("POST", "sys/mounts/"+mount+"tune", l.root, object(map[string]any{
			"audit_non_hmac_request_keys": list, "audit_non_hmac_response_keys": list,
		})); status != 204 {
			t.Fatalf("tuning %s = %d %s", mount, status, body)
		}
	}
	before := len(m.what)
	n += l.walk(m, false)
	if n < 300 {
		t.Errorf("%d endpoints were walked: has the walk lost its way?", n)
	}

	inRaw := map[string]bool{}
	for _, r := range read(t, lg.raw) {
		for _, text := range m.marksIn(r.line) {
			inRaw[text] = true
		}
	}
	for i, what := range m.what {
		if text := fmt.Sprintf("%s%05dz", mark, i); !inRaw[text] {
			t.Errorf("%s (%s) is not in the raw log", text, what)
		}
	}
	said := map[string]bool{}
	for _, r := range read(t, lg.hashed) {
		find(r.whole, "", func(at, s string) {
			for _, text := range m.marksIn(s) {
				what := m.of(text)
				if shownIn(at, what) || said[what+at] {
					continue
				}
				var i int
				if _, err := fmt.Sscanf(text, mark+"%05dz", &i); err == nil && i >= before && strings.HasPrefix(at, "/request/data/") && !isSecret(tables, what) {
					continue // a field of that name which is no secret at this endpoint
				}
				said[what+at] = true
				t.Errorf("%s shows %s of %s: %s", at, text, what, s)
			}
		})
	}
}

// isSecret reports whether a mark is of a field whose type is a secret.
func isSecret(tables map[string]*route.Table, what string) bool {
	is := false
	for mount, table := range tables {
		table.Walk(func(ep *route.Endpoint) {
			if base, ok := strings.CutPrefix(what, "data "+mount+" "+ep.Op.String()+" "+ep.Pattern+" "); ok {
				typ := fieldTypes(ep.In)[base]
				is = is || typ == reflect.TypeFor[secret.String]() || typ == reflect.TypeFor[wire.Opt[secret.String]]()
			}
		})
	}
	return is
}
