package kv_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/kv"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// mount is one kv mount with its store, called as core calls it.
type mount struct {
	t      testing.TB
	store  storage.Backend
	engine engine.Engine
	table  *route.Table
}

func open(t testing.TB, store storage.Backend, version string) *mount {
	t.Helper()
	e, err := kv.New(t.Context(), engine.Env{
		Store: storage.Prefix(store, "m/root/kv/"), Options: map[string]string{"version": version},
		Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	m := &mount{t: t, store: store, engine: e, table: route.NewTable()}
	e.Routes(m.table)
	if s, ok := e.(engine.Starter); ok {
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if c, ok := e.(engine.Closer); ok {
		t.Cleanup(func() { c.Close() })
	}
	return m
}

// result is what a call answers, in brief: the status, and the data as JSON.
type result struct {
	status   int
	data     string
	lease    time.Duration
	warnings []string
}

func (m *mount) do(op wire.Op, path, body string) result {
	m.t.Helper()
	path, query, _ := strings.Cut(path, "?")
	q, err := url.ParseQuery(query)
	if err != nil {
		m.t.Fatal(err)
	}
	if op == wire.OpList && path != "" && !strings.HasSuffix(path, "/") {
		path += "/"
	}
	req := &route.Request{Op: op, Path: path, Query: q, Mount: route.MountInfo{DefaultTTL: time.Hour}}
	if body != "" {
		req.Body = []byte(body)
	}
	ep, err := m.table.Route(req)
	if err != nil {
		return result{status: statusOf(err)}
	}
	res, err := ep.Call(context.Background(), req)
	r := result{status: 204, lease: req.Reply().LeaseDuration, warnings: req.Reply().Warnings}
	switch {
	case err != nil:
		r.status = statusOf(err)
		if e := (*errs.Error)(nil); errors.As(err, &e) && e.Data != nil {
			r.data = string(wire.Append(nil, e.Data))
		}
		if r.status == 500 {
			m.t.Errorf("%s %s: %v", op, path, err)
		}
	case res.Raw != nil:
		r.status, r.data = res.Raw.Status, "raw:"+string(res.Raw.Body)
	case res.Data != nil:
		r.status, r.data = 200, string(res.Data.AppendJSON(nil))
	}
	return r
}

func statusOf(err error) int {
	return map[errs.Kind]int{errs.Invalid: 400, errs.NotFound: 404, errs.Unsupported: 405, errs.Internal: 500}[errs.KindOf(err)]
}

// want checks the status and, where data is not "", that the data match it:
// members that it lists must be there, "*" is anything.
func (r result) want(t testing.TB, what string, status int, data string) {
	t.Helper()
	if r.status != status {
		t.Fatalf("%s = %d %s, want %d", what, r.status, r.data, status)
	}
	if data == "" {
		return
	}
	var got, want any
	if err := json.Unmarshal([]byte(r.data), &got); err != nil {
		t.Fatalf("%s answers %q: %v", what, r.data, err)
	}
	if err := json.Unmarshal([]byte(data), &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, narrow(got, want)); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

// narrow keeps of got what want names.
func narrow(got, want any) any {
	if want == "*" && got != nil && got != "" {
		return want
	}
	g, ok := got.(map[string]any)
	w, ok2 := want.(map[string]any)
	if !ok || !ok2 {
		return got
	}
	out := map[string]any{}
	for k, v := range w {
		if have, ok := g[k]; ok {
			out[k] = narrow(have, v)
		}
	}
	return out
}

func TestV1(t *testing.T) {
	m := open(t, mem.New(), "1")
	m.do(wire.OpList, "", "").want(t, "list of nothing", 404, "")
	m.do(wire.OpRead, "app/one", "").want(t, "read of nothing", 404, "")
	const text = `{"big":12345678901234567890,"frac":1.50,"nest":{"a":[1,"two",false,null]},"ключ":"<a&b>"}`
	m.do(wire.OpUpdate, "app/one", " "+text).want(t, "write", 204, "")
	if r := m.do(wire.OpRead, "app/one", ""); r.status != 200 || r.data != text || r.lease != time.Hour {
		t.Errorf("read = %+v, want the text as it was written, and the mount's default as lease", r)
	}
	m.do(wire.OpUpdate, "app", `{"path":"x","a":"1","a":"2"}`).want(t, "write beside a folder", 204, "")
	if r := m.do(wire.OpRead, "app", ""); r.data != `{"path":"x","a":"2"}` {
		t.Errorf("read = %s, want the last of duplicates", r.data)
	}
	for body, want := range map[string]time.Duration{
		`{"ttl":"90s"}`: 90 * time.Second, `{"ttl":3600}`: time.Hour, `{"lease":"2h"}`: 2 * time.Hour, `{"ttl":"bogus","v":1}`: time.Hour,
	} {
		m.do(wire.OpUpdate, "t", body).want(t, "write", 204, "")
		if r := m.do(wire.OpRead, "t", ""); r.lease != want {
			t.Errorf("reading %s leases for %v, want %v", body, r.lease, want)
		}
	}
	m.do(wire.OpList, "", "").want(t, "list", 200, `{"keys":["app","app/","t"]}`)
	m.do(wire.OpList, "app", "").want(t, "list of a folder", 200, `{"keys":["one"]}`)
	m.do(wire.OpRead, "app/", "").want(t, "read of a folder", 404, "")
	if _, _, err := m.table.Lookup(wire.OpRead, ""); err != nil {
		t.Errorf("read of the mount itself: %v, want a path at which nothing is", err)
	}
	m.do(wire.OpRead, "", "").want(t, "read of the mount itself", 404, "")
	m.do(wire.OpUpdate, "", `{"a":1}`).want(t, "write to the mount itself", 400, "")
	m.do(wire.OpDelete, "", "").want(t, "delete of the mount itself", 204, "")
	m.do(wire.OpUpdate, "empty", `{}`).want(t, "empty object", 400, "")
	m.do(wire.OpUpdate, "empty", "").want(t, "no body", 400, "")
	m.do(wire.OpUpdate, "folder/", `{"a":1}`).want(t, "write to a folder", 400, "")
	m.do(wire.OpUpdate, strings.Repeat("x", 2000), `{"a":1}`).want(t, "write to a long path", 400, "")
	m.do(wire.OpPatch, "app/one", `{"a":1}`).want(t, "patch", 405, "")
	m.do(wire.OpDelete, "app/one", "").want(t, "delete", 204, "")
	m.do(wire.OpDelete, "app/one", "").want(t, "delete again", 204, "")
	m.do(wire.OpRead, "app/one", "").want(t, "read of what was deleted", 404, "")
}

func TestSizes(t *testing.T) {
	for version, prefix := range map[string]string{"1": "", "2": "data/"} {
		m := open(t, mem.New(), version)
		body := func(n int) string { return fmt.Sprintf(`{"data":{"a":%q}}`, strings.Repeat("x", n)) }
		m.do(wire.OpUpdate, prefix+"a", body(1<<20-1024)).want(t, "write just below 1 MiB", map[string]int{"1": 204, "2": 200}[version], "")
		m.do(wire.OpUpdate, prefix+"a", body(1<<20)).want(t, "write of more", 400, "")
	}
}

func TestListSeeksOverFolders(t *testing.T) {
	m := open(t, mem.New(), "1")
	for _, p := range []string{"a", "a-b", "a/1", "a/2", "a/b/c", "a0", "b/x", "c", "ä/x", "ä/y"} {
		m.do(wire.OpUpdate, p, `{"v":1}`).want(t, "write "+p, 204, "")
	}
	m.do(wire.OpList, "", "").want(t, "list", 200, `{"keys":["a","a-b","a/","a0","b/","c","ä/"]}`)
	m.do(wire.OpList, "a", "").want(t, "list a", 200, `{"keys":["1","2","b/"]}`)
	m.do(wire.OpList, "ä", "").want(t, "list ä", 200, `{"keys":["x","y"]}`)
	m.do(wire.OpList, "c", "").want(t, "list c", 404, "")
}

func TestV2Versions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, mem.New(), "2")
		m.do(wire.OpRead, "data/app", "").want(t, "read of nothing", 404, "")
		m.do(wire.OpUpdate, "data/app", `{}`).want(t, "write without data", 400, "")
		m.do(wire.OpUpdate, "data/app", `{"data":"text"}`).want(t, "write of a text", 400, "")
		m.do(wire.OpUpdate, "data/app", `{"data":{"n":9007199254740993}}`).want(t, "write", 200,
			`{"version":1,"created_time":"*","deletion_time":"","destroyed":false,"custom_metadata":null}`)
		m.do(wire.OpUpdate, "data/app", `{"data":{"n":2},"options":{"cas":9}}`).want(t, "wrong cas", 400, "")
		m.do(wire.OpUpdate, "data/app", `{"data":{"n":2},"options":{"cas":"1"}}`).want(t, "right cas", 200, `{"version":2}`)
		m.do(wire.OpUpdate, "data/app", `{"data":null}`).want(t, "null", 200, `{"version":3}`)
		m.do(wire.OpUpdate, "data/fresh", `{"data":{},"options":{"cas":0}}`).want(t, "cas 0 creates", 200, `{"version":1}`)
		m.do(wire.OpUpdate, "data/fresh", `{"data":{},"options":{"cas":0}}`).want(t, "cas 0 again", 400, "")
		if r := m.do(wire.OpRead, "data/app?version=1", ""); !strings.HasPrefix(r.data, `{"data":{"n":9007199254740993},`) {
			t.Errorf("read of version 1 = %s, want the number's digits", r.data)
		}
		m.do(wire.OpRead, "data/app", "").want(t, "read", 200, `{"data":null,"metadata":{"version":3}}`)
		m.do(wire.OpRead, "data/app?version=99", "").want(t, "unknown version", 404, "")
		m.do(wire.OpRead, "data/app?version=abc", "").want(t, "no version", 400, "")

		m.do(wire.OpDelete, "data/app", "").want(t, "delete", 204, "")
		r := m.do(wire.OpRead, "data/app", "")
		r.want(t, "read of a deleted version", 404, `{"data":null,"metadata":{"version":3,"deletion_time":"*","destroyed":false}}`)
		time.Sleep(time.Second)
		m.do(wire.OpDelete, "data/app", "").want(t, "delete again", 204, "")
		if again := m.do(wire.OpRead, "data/app", ""); again.data != r.data {
			t.Errorf("deleting again changed %s to %s", r.data, again.data)
		}
		m.do(wire.OpUpdate, "undelete/app", `{"versions":[3]}`).want(t, "undelete", 204, "")
		m.do(wire.OpRead, "data/app", "").want(t, "read of an undeleted version", 200, `{"metadata":{"deletion_time":""}}`)
		m.do(wire.OpUpdate, "delete/app", `{"versions":"1,2"}`).want(t, "delete versions", 204, "")
		m.do(wire.OpUpdate, "undelete/app", `{"versions":["1"]}`).want(t, "undelete version 1", 204, "")
		m.do(wire.OpUpdate, "destroy/app", `{"versions":[1,2,77]}`).want(t, "destroy", 204, "")
		m.do(wire.OpUpdate, "undelete/app", `{"versions":[1]}`).want(t, "undelete what is destroyed", 204, "")
		m.do(wire.OpRead, "data/app?version=1", "").want(t, "read of a destroyed version", 404, `{"data":null,"metadata":{"destroyed":true,"deletion_time":""}}`)
		for _, op := range []string{"delete", "undelete", "destroy"} {
			m.do(wire.OpUpdate, op+"/app", `{}`).want(t, op+" of no version", 400, "")
			m.do(wire.OpUpdate, op+"/app", `{"versions":["x"]}`).want(t, op+" of a bad version", 400, "")
			m.do(wire.OpUpdate, op+"/none", `{"versions":[1]}`).want(t, op+" of nothing", 204, "")
		}
		m.do(wire.OpRead, "metadata/app", "").want(t, "metadata", 200, `{"current_version":3,"oldest_version":0,"max_versions":0,"cas_required":false,
			"delete_version_after":"0s","custom_metadata":null,"created_time":"*","updated_time":"*","versions":{
			"1":{"created_time":"*","deletion_time":"","destroyed":true},"2":{"created_time":"*","deletion_time":"*","destroyed":true},
			"3":{"created_time":"*","deletion_time":"","destroyed":false}}}`)
		m.do(wire.OpDelete, "data/none", "").want(t, "delete of nothing", 204, "")
		m.do(wire.OpDelete, "metadata/app", "").want(t, "delete everything", 204, "")
		m.do(wire.OpRead, "metadata/app", "").want(t, "metadata of nothing", 404, "")
		m.do(wire.OpRead, "data/app", "").want(t, "data of nothing", 404, "")
		m.do(wire.OpList, "metadata", "").want(t, "list", 200, `{"keys":["fresh"]}`)
	})
}

func TestV2Patch(t *testing.T) {
	m := open(t, mem.New(), "2")
	if r := m.do(wire.OpPatch, "data/app", `{"data":{"a":1}}`); r.status != 404 || r.data != "raw:" {
		t.Errorf("patch of nothing = %+v, want 404 without a body", r)
	}
	if r := m.do(wire.OpPatch, "data/app", `{"data":{"a":1},"options":{"cas":3}}`); r.status != 404 || r.data != "raw:" {
		t.Errorf("patch of version 3 of nothing = %+v, want 404 without a body", r)
	}
	m.do(wire.OpUpdate, "data/app", `{"data":{"user":"carol","pw":"x","nest":{"a":1,"b":{"c":2}}}}`).want(t, "write", 200, "")
	m.do(wire.OpPatch, "data/app", `{"data":{"user":"dave","pw":null,"extra":[1,null],"nest":{"b":{"d":3}},"new":{"x":null,"y":1}}}`).want(t, "patch", 200, `{"version":2}`)
	m.do(wire.OpRead, "data/app", "").want(t, "read", 200,
		`{"data":{"user":"dave","nest":{"a":1,"b":{"c":2,"d":3}},"extra":[1,null],"new":{"y":1}}}`)
	m.do(wire.OpPatch, "data/app", `{"data":{"z":1},"options":{"cas":1}}`).want(t, "wrong cas", 400, "")
	m.do(wire.OpPatch, "data/app", `{"options":{"cas":2}}`).want(t, "no data", 400, "")
	m.do(wire.OpRead, "subkeys/app", "").want(t, "subkeys", 200,
		`{"subkeys":{"user":null,"nest":{"a":null,"b":{"c":null,"d":null}},"extra":null,"new":{"y":null}},"metadata":{"version":2}}`)
	m.do(wire.OpRead, "subkeys/app?depth=1", "").want(t, "subkeys", 200, `{"subkeys":{"user":null,"nest":null,"extra":null,"new":null}}`)
	m.do(wire.OpRead, "subkeys/app?depth=2&version=1", "").want(t, "subkeys", 200, `{"subkeys":{"user":null,"pw":null,"nest":{"a":null,"b":null}},"metadata":{"version":1}}`)
	m.do(wire.OpDelete, "data/app", "").want(t, "delete", 204, "")
	m.do(wire.OpPatch, "data/app", `{"data":{"a":1}}`).want(t, "patch of a deleted version", 404, `{"version":2,"deletion_time":"*"}`)
	m.do(wire.OpRead, "subkeys/app", "").want(t, "subkeys of a deleted version", 404, `{"subkeys":null,"metadata":{"version":2}}`)
	m.do(wire.OpRead, "subkeys/none", "").want(t, "subkeys of nothing", 404, "")
}

func TestV2Limits(t *testing.T) {
	store := mem.New()
	m := open(t, store, "2")
	m.do(wire.OpRead, "config", "").want(t, "config", 200, `{"max_versions":0,"cas_required":false,"delete_version_after":"0s"}`)
	m.do(wire.OpUpdate, "config", `{"max_versions":300}`).want(t, "config", 204, "")
	for i := range 250 {
		m.do(wire.OpUpdate, "data/a", fmt.Sprintf(`{"data":{"i":%d}}`, i)).want(t, "write", 200, "")
	}
	m.do(wire.OpUpdate, "config", `{"max_versions":"3"}`).want(t, "lower limit", 204, "")
	m.do(wire.OpUpdate, "metadata/a", `{"max_versions":2}`).want(t, "lower limit of the key", 204, "")
	m.do(wire.OpUpdate, "data/a", `{"data":{"i":250}}`).want(t, "write", 200, `{"version":251}`)
	m.do(wire.OpRead, "metadata/a", "").want(t, "metadata", 200, `{"oldest_version":249,"max_versions":2,"current_version":251}`)
	m.do(wire.OpRead, "data/a?version=248", "").want(t, "read of a dropped version", 404, "")
	m.do(wire.OpRead, "data/a?version=249", "").want(t, "read of the oldest", 200, `{"data":{"i":248}}`)
	if n := count(t, store); n != 3+1+1 {
		t.Errorf("%d rows are left, want the 3 newest versions, the metadata and the configuration", n)
	}
	for range 100 {
		m.do(wire.OpUpdate, "config", `{"max_versions":300}`).want(t, "config", 204, "")
		m.do(wire.OpUpdate, "data/a", `{"data":{}}`).want(t, "write", 200, "")
	}
	m.do(wire.OpDelete, "metadata/a", "").want(t, "delete everything", 204, "")
	if n := count(t, store); n != 1 {
		t.Errorf("%d rows are left, want the configuration alone", n)
	}
}

func count(t *testing.T, store storage.Backend) (n int) {
	t.Helper()
	err := store.View(t.Context(), func(v storage.View) error {
		return v.Scan("m/", "", 0, func(string, []byte) bool { n++; return true })
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestV2DeleteAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, mem.New(), "2")
		m.do(wire.OpUpdate, "metadata/brief", `{"delete_version_after":"2s"}`).want(t, "metadata", 204, "")
		m.do(wire.OpUpdate, "data/brief", `{"data":{"a":1}}`).want(t, "write", 200, `{"deletion_time":"*"}`)
		m.do(wire.OpRead, "data/brief", "").want(t, "read", 200, `{"metadata":{"deletion_time":"*"}}`)
		time.Sleep(3 * time.Second)
		m.do(wire.OpRead, "data/brief", "").want(t, "read too late", 404, `{"data":null,"metadata":{"deletion_time":"*"}}`)
		m.do(wire.OpUpdate, "undelete/brief", `{"versions":[1]}`).want(t, "undelete", 204, "")
		m.do(wire.OpRead, "data/brief", "").want(t, "read", 200, `{"metadata":{"deletion_time":""}}`)

		m.do(wire.OpUpdate, "config", `{"delete_version_after":1}`).want(t, "config", 204, "")
		m.do(wire.OpRead, "config", "").want(t, "config", 200, `{"delete_version_after":"1s"}`)
		m.do(wire.OpUpdate, "data/brief", `{"data":{}}`).want(t, "write", 200, "")
		time.Sleep(time.Second)
		m.do(wire.OpRead, "data/brief", "").want(t, "the shorter one counts", 404, "")
		m.do(wire.OpUpdate, "config", `{"delete_version_after":"-1s"}`).want(t, "config", 204, "")
		m.do(wire.OpUpdate, "data/brief", `{"data":{}}`).want(t, "never", 200, `{"deletion_time":""}`)
		m.do(wire.OpUpdate, "config", `{"delete_version_after":"100000d"}`).want(t, "config", 204, "")
		m.do(wire.OpUpdate, "data/long", `{"data":{}}`).want(t, "write", 200, `{"deletion_time":"2262-04-11T23:47:16.854775807Z"}`)
		m.do(wire.OpRead, "data/long", "").want(t, "read of what is kept for centuries", 200, "")
		m.do(wire.OpUpdate, "config", `{"delete_version_after":"soon"}`).want(t, "bad config", 400, "")
		m.do(wire.OpUpdate, "metadata/brief", `{"delete_version_after":"-1s"}`).want(t, "bad metadata", 400, "")
	})
}

func TestV2Metadata(t *testing.T) {
	m := open(t, mem.New(), "2")
	m.do(wire.OpUpdate, "metadata/bare", `{}`).want(t, "nothing", 204, "")
	m.do(wire.OpRead, "metadata/bare", "").want(t, "metadata made of nothing", 404, "")
	if r := m.do(wire.OpPatch, "metadata/bare", `{"max_versions":1}`); r.status != 404 || r.data != "raw:" {
		t.Errorf("patch of nothing = %+v, want 404 without a body", r)
	}
	m.do(wire.OpUpdate, "metadata/m", `{"custom_metadata":{"owner":"ops","tier":1},"cas_required":true}`).want(t, "write", 204, "")
	m.do(wire.OpRead, "metadata/m", "").want(t, "read", 200, `{"custom_metadata":{"owner":"ops","tier":"1"},"current_version":0,"versions":{}}`)
	m.do(wire.OpRead, "data/m", "").want(t, "data of no version", 404, "")
	m.do(wire.OpUpdate, "data/m", `{"data":{}}`).want(t, "cas demanded", 400, "")
	m.do(wire.OpUpdate, "data/m", `{"data":{},"options":{"cas":0}}`).want(t, "with cas", 200, `{"custom_metadata":{"owner":"ops"}}`)
	m.do(wire.OpPatch, "metadata/m", `{"max_versions":4,"custom_metadata":{"tier":null,"new":"yes"},"cas_required":null}`).want(t, "patch", 204, "")
	m.do(wire.OpRead, "metadata/m", "").want(t, "read", 200, `{"custom_metadata":{"owner":"ops","new":"yes"},"max_versions":4,"cas_required":false}`)
	m.do(wire.OpUpdate, "metadata/m", `{"custom_metadata":{"only":"this"}}`).want(t, "replace", 204, "")
	m.do(wire.OpRead, "metadata/m", "").want(t, "read", 200, `{"custom_metadata":{"only":"this"},"max_versions":4}`)
	m.do(wire.OpPatch, "metadata/m", `{"custom_metadata":null}`).want(t, "remove all", 204, "")
	m.do(wire.OpRead, "metadata/m", "").want(t, "read", 200, `{"custom_metadata":null}`)
	for _, bad := range []string{
		`{"a":{"b":"c"}}`, `{"a":["b"]}`, `{"a":true}`, `{"a":null}`, `{"a":""}`, `{"":"a"}`, `{"a":"\u0007"}`,
		`{"a":"` + strings.Repeat("x", 513) + `"}`, `{"` + strings.Repeat("x", 129) + `":"a"}`, `"text"`,
	} {
		m.do(wire.OpUpdate, "metadata/m", `{"custom_metadata":`+bad+`}`).want(t, "custom metadata "+bad, 400, "")
	}
	var many []string
	for i := range 65 {
		many = append(many, fmt.Sprintf(`"k%d":"v"`, i))
	}
	m.do(wire.OpUpdate, "metadata/m", `{"custom_metadata":{`+strings.Join(many, ",")+`}}`).want(t, "too many", 400, "")
	m.do(wire.OpUpdate, "config", `{"cas_required":true}`).want(t, "config", 204, "")
	m.do(wire.OpUpdate, "data/other", `{"data":{}}`).want(t, "cas demanded by the mount", 400, "")
	for _, op := range []wire.Op{wire.OpUpdate, wire.OpPatch} {
		if r := m.do(op, "metadata/m", `{"cas_required":false}`); r.status != 204 || len(r.warnings) != 1 {
			t.Errorf("%s of cas_required=false where the mount demands it = %+v, want a warning", op, r)
		}
		if r := m.do(op, "metadata/m", `{"cas_required":true}`); r.status != 204 || len(r.warnings) != 0 {
			t.Errorf("%s of cas_required=true = %+v, want no warning", op, r)
		}
	}
}

func TestV2Misplaced(t *testing.T) {
	m := open(t, mem.New(), "2")
	for _, op := range []wire.Op{wire.OpRead, wire.OpUpdate, wire.OpDelete, wire.OpList} {
		r := m.do(op, "app", `{"a":"b"}`)
		if r.status != 404 || r.data != "null" || len(r.warnings) != 1 {
			t.Errorf("%s app = %+v, want 404 with a warning and null", op, r)
		}
	}
	// Paths of version 2 are not misplaced because of what is asked of them.
	for _, c := range []struct {
		op   wire.Op
		path string
	}{
		{wire.OpList, "data"}, {wire.OpList, "data/app"}, {wire.OpUpdate, "subkeys/app"}, {wire.OpDelete, "config"},
		{wire.OpRead, "delete/app"}, {wire.OpDelete, "destroy/app"}, {wire.OpPatch, "undelete/app"}, {wire.OpList, "subkeys/app"},
	} {
		m.do(c.op, c.path, "").want(t, c.op.String()+" "+c.path, 405, "")
	}
	for _, root := range []string{"data/", "metadata/"} {
		if r := m.do(wire.OpRead, root, ""); r.status != 404 || r.data != "" || len(r.warnings) != 0 {
			t.Errorf("read of %s = %+v, want a bare 404: nothing can be there", root, r)
		}
	}
}

func TestUpgrade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := mem.New()
		old := open(t, store, "1")
		for i := range 600 {
			old.do(wire.OpUpdate, fmt.Sprintf("dir%d/k%d", i%3, i), fmt.Sprintf(`{"i":%d}`, i)).want(t, "write", 204, "")
		}
		m := open(t, store, "2")
		synctest.Wait()
		m.do(wire.OpRead, "data/dir1/k400", "").want(t, "read", 200, `{"data":{"i":400},"metadata":{"version":1}}`)
		m.do(wire.OpList, "metadata", "").want(t, "list", 200, `{"keys":["dir0/","dir1/","dir2/"]}`)
		if n := count(t, store); n != 1201 {
			t.Errorf("%d rows after the upgrade, want two for each secret and the one that says it has begun", n)
		}
		m = open(t, store, "2")
		m.do(wire.OpRead, "data/dir0/k0", "").want(t, "read after another start", 200, `{"data":{"i":0}}`)
	})
}

// TestUpgradeOfWhatHardlyFits: a secret that fills a transaction is carried
// over, and one that cannot be does not keep the mount from serving.
func TestUpgradeOfWhatHardlyFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := mem.New()
		old := open(t, store, "1")
		most := fmt.Sprintf(`{"a":%q}`, strings.Repeat("x", storage.MaxTxBytes-60))
		old.do(wire.OpUpdate, "big", most).want(t, "write", 204, "")
		old.do(wire.OpUpdate, "damaged", `{"a":1}`).want(t, "write", 204, "")
		old.do(wire.OpUpdate, "next", `{"a":2}`).want(t, "write", 204, "")
		_, err := store.Update(t.Context(), func(tx storage.Tx) error { return tx.Put("m/root/kv/2/m/damaged", []byte{99}) })
		if err != nil {
			t.Fatal(err)
		}
		m := open(t, store, "2")
		synctest.Wait()
		m.do(wire.OpRead, "data/next", "").want(t, "read", 200, `{"data":{"a":2}}`)
		m.do(wire.OpRead, "data/big", "").want(t, "read", 200, `{"data":`+most+`,"metadata":{"version":1}}`)
	})
}

// TestUpgradeUnderWay: what version 1 was asked before the upgrade and does
// after it is refused, not done where nobody looks.
func TestUpgradeUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := mem.New()
		old := open(t, store, "1")
		old.do(wire.OpUpdate, "app", `{"a":1}`).want(t, "write", 204, "")
		m := open(t, store, "2")
		synctest.Wait()
		old.do(wire.OpUpdate, "app", `{"a":2}`).want(t, "a write that comes late", 400, "")
		old.do(wire.OpUpdate, "new", `{"a":2}`).want(t, "a write of another that comes late", 400, "")
		old.do(wire.OpDelete, "app", "").want(t, "a delete that comes late", 400, "")
		m.do(wire.OpRead, "data/app", "").want(t, "read", 200, `{"data":{"a":1}}`)
	})
}

func TestUnknownVersion(t *testing.T) {
	_, err := kv.New(t.Context(), engine.Env{Store: mem.New(), Options: map[string]string{"version": "3"}})
	if !errs.Is(err, errs.Invalid) {
		t.Errorf("New(version 3) = %v, want an Invalid", err)
	}
}

func BenchmarkV2(b *testing.B) {
	m := open(b, mem.New(), "2")
	const body = `{"data":{"username":"app","password":"correct horse battery staple","port":5432}}`
	m.do(wire.OpUpdate, "data/app", body).want(b, "write", 200, "")
	b.Run("read", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.do(wire.OpRead, "data/app", "")
		}
	})
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.do(wire.OpUpdate, "data/app", body)
		}
	})
}
