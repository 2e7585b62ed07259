package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// memory is a device that keeps what it takes, or fails while err is set.
type memory struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	err    error
	closed bool
}

func (m *memory) Write(lines []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return audit.ErrClosed
	}
	if m.err == nil {
		m.buf.Write(lines)
	}
	return m.err
}

func (m *memory) Reopen() error { return nil }

func (m *memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *memory) text() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.buf.String()
}

var format = audit.Format{Salt: secret.New("salt"), HMACAccessor: true}

func brokerFor(t testing.TB, f audit.Format) (*audit.Broker, *memory) {
	t.Helper()
	b := audit.NewBroker(slog.New(slog.DiscardHandler))
	m := &memory{}
	if err := b.Set([]audit.Enabled{{Path: "mem/", Format: f, Device: m}}); err != nil {
		t.Fatal(err)
	}
	return b, m
}

type creds struct {
	Username string        `json:"username"`
	Password secret.String `json:"password"`
	Nested   *creds        `json:"nested,omitempty"`
	List     []string      `json:"list,omitempty"`
}

func entry() *audit.Entry {
	at := time.Date(2026, 11, 23, 10, 0, 0, 123456789, time.UTC)
	return &audit.Entry{
		Time: at,
		Auth: &audit.Auth{
			ClientToken: secret.New("hvs.token"), Accessor: "acc1", DisplayName: "token-app", EntityID: "ent",
			Policies: []string{"app", "default"}, TokenPolicies: []string{"app", "default"},
			Results: &audit.PolicyResults{Allowed: true, Granting: []audit.GrantingPolicy{
				{Name: "app", Namespace: audit.Namespace{ID: "root"}, Type: "acl"},
			}},
			Metadata: map[string]string{"b": "2", "a": "1"}, TokenType: "service", TTL: time.Hour, IssueTime: at,
		},
		Request: audit.Request{
			ID: "req1", Operation: "read", Path: "database/creds/app",
			ClientToken: secret.New("hvs.token"), ClientTokenAccessor: "acc1",
			Mount:     audit.Mount{Point: "database/", Type: "database", Accessor: "database_1", Class: "secret"},
			Namespace: audit.Namespace{ID: "root"},
			Remote:    netip.MustParseAddrPort("10.0.0.1:5555"), WrapTTL: time.Minute,
			Headers: []audit.Header{{Name: "x-trace", Values: []string{"t1"}}, {Name: "x-secret", Values: []string{"t2"}, HMAC: true}},
			Data:    wire.Of(map[string]string{"role": "app", "note": "plain"}).AppendHashed, NonHMACKeys: []string{"note"},
		},
	}
}

func response() *audit.Response {
	return &audit.Response{
		LeaseID: secret.New("database/creds/app/abc"), Warnings: []string{"careful"},
		Data:        wire.Of(creds{Username: "v-app", Password: secret.New("pw"), List: []string{"x"}}).AppendHashed,
		NonHMACKeys: []string{"username", "password"},
		WrapInfo:    &audit.WrapInfo{TTL: time.Minute, Token: secret.New("hvs.wrap"), Accessor: "wacc", CreationPath: "p"},
	}
}

// decode is what a reader of the log makes of one line.
func decode(t testing.TB, line string) map[string]any {
	t.Helper()
	if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
		t.Fatalf("record %q is not one line", line)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		t.Fatalf("record %q: %v", line, err)
	}
	return m
}

func TestRecordsHaveVaultsShape(t *testing.T) {
	b, m := brokerFor(t, format)
	e := entry()
	if err := b.Request(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	e.Response = response()
	e.Error = "it failed"
	if err := b.Response(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	h := format.Hash
	auth := map[string]any{
		"accessor": h("acc1"), "client_token": h("hvs.token"), "display_name": "token-app", "entity_id": "ent",
		"metadata": map[string]any{"a": "1", "b": "2"},
		"policies": []any{"app", "default"}, "token_policies": []any{"app", "default"},
		"policy_results": map[string]any{"allowed": true, "granting_policies": []any{
			map[string]any{"name": "app", "namespace_id": "root", "type": "acl"},
		}},
		"token_issue_time": "2026-11-23T10:00:00Z", "token_ttl": 3600.0, "token_type": "service",
	}
	request := map[string]any{
		"id": "req1", "operation": "read", "path": "database/creds/app",
		"client_token": h("hvs.token"), "client_token_accessor": h("acc1"),
		"mount_point": "database/", "mount_type": "database", "mount_accessor": "database_1", "mount_class": "secret",
		"namespace": map[string]any{"id": "root"}, "remote_address": "10.0.0.1", "remote_port": 5555.0, "wrap_ttl": 60.0,
		"headers": map[string]any{"x-trace": []any{"t1"}, "x-secret": []any{h("t2")}},
		"data":    map[string]any{"role": h("app"), "note": "plain"},
	}
	lines := strings.SplitAfter(m.text(), "\n")
	want := map[string]any{"time": "2026-11-23T10:00:00.123456789Z", "type": "request", "auth": auth, "request": request}
	if diff := cmp.Diff(want, decode(t, lines[0])); diff != "" {
		t.Errorf("request record (-want +got):\n%s", diff)
	}
	want["type"], want["error"] = "response", "it failed"
	want["response"] = map[string]any{
		"data":        map[string]any{"username": "v-app", "password": h("pw"), "list": []any{h("x")}},
		"mount_point": "database/", "mount_type": "database", "mount_accessor": "database_1", "mount_class": "secret",
		"secret": map[string]any{"lease_id": h("database/creds/app/abc")}, "warnings": []any{"careful"},
		"wrap_info": map[string]any{"ttl": 60.0, "token": h("hvs.wrap"), "accessor": h("wacc"), "creation_path": "p"},
	}
	if diff := cmp.Diff(want, decode(t, lines[1])); diff != "" {
		t.Errorf("response record (-want +got):\n%s", diff)
	}
}

func TestEventRecord(t *testing.T) {
	b, m := brokerFor(t, format)
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	err := b.Deliver(context.Background(), []audit.Stored{{
		ID: "lane/1/0", Time: at, Kind: "lease", Operation: "revoke", Cause: "expired", Outcome: "gone",
		Path: "database/creds/app", LeaseID: secret.New("database/creds/app/abc"), Target: "c1-1",
		Credential: secret.New("v-app"), TokenAccessor: "acc1", Namespace: audit.Namespace{ID: "root"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"time": "2026-11-23T10:00:00Z", "type": "event", "event": map[string]any{
		"id": "lane/1/0", "kind": "lease", "operation": "revoke", "cause": "expired", "outcome": "gone",
		"path": "database/creds/app", "lease_id": format.Hash("database/creds/app/abc"), "target": "c1-1",
		"credential": format.Hash("v-app"), "token_accessor": format.Hash("acc1"), "namespace": map[string]any{"id": "root"},
	}}
	if diff := cmp.Diff(want, decode(t, m.text())); diff != "" {
		t.Errorf("event record (-want +got):\n%s", diff)
	}
}

func TestFormatOptions(t *testing.T) {
	tests := []struct {
		name          string
		format        audit.Format
		want, notWant []string
	}{
		{"accessors in clear", audit.Format{Salt: format.Salt}, []string{`"accessor":"acc1"`, `"client_token_accessor":"acc1"`}, []string{"hvs.token"}},
		{"raw", audit.Format{Raw: true, HMACAccessor: true}, []string{`"hvs.token"`, `"acc1"`, `"role":"app"`, `"pw"`, `"database/creds/app/abc"`}, []string{"hmac-sha256"}},
		{"prefix", audit.Format{Salt: format.Salt, Prefix: "@cee: "}, []string{`@cee: {"time"`}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, m := brokerFor(t, tt.format)
			e := entry()
			e.Response = response()
			if err := b.Response(context.Background(), e); err != nil {
				t.Fatal(err)
			}
			for _, s := range tt.want {
				if !strings.Contains(m.text(), s) {
					t.Errorf("record %s lacks %s", m.text(), s)
				}
			}
			for _, s := range tt.notWant {
				if strings.Contains(m.text(), s) {
					t.Errorf("record %s holds %s", m.text(), s)
				}
			}
		})
	}
}

func TestListingsAreElided(t *testing.T) {
	f := format
	f.ElideListings = true
	tests := []struct{ op, data, want string }{
		{"list", `{"keys":["a","b,]c","d\"e"],"key_info":{"a":{"x":[1,2]},"b":{}},"other":["o"]}`,
			`{"keys":3,"key_info":2,"other":["` + f.Hash("o") + `"]}`},
		{"list", `{"keys":[],"key_info":{}}`, `{"keys":0,"key_info":0}`},
		{"list", `{"keys":"no list","sub":{"keys":["a"]}}`, `{"keys":"","sub":{"keys":["` + f.Hash("a") + `"]}}`},
		{"read", `{"keys":["a"]}`, `{"keys":["` + f.Hash("a") + `"]}`},
	}
	for _, tt := range tests {
		b, m := brokerFor(t, f)
		e := &audit.Entry{Request: audit.Request{Operation: tt.op}, Response: &audit.Response{
			Data: func(dst []byte, hash wire.Hasher) []byte { return wire.AppendHashedBody(dst, []byte(tt.data), hash) },
		}}
		if err := b.Response(context.Background(), e); err != nil {
			t.Fatal(err)
		}
		decode(t, m.text())
		if want := `"response":{"data":` + tt.want + `}`; !strings.Contains(m.text(), want) {
			t.Errorf("record of %s = %s, want %s in it", tt.data, m.text(), want)
		}
	}
}

func TestSecretsInPathsAndQueries(t *testing.T) {
	b, m := brokerFor(t, format)
	e := &audit.Entry{Request: audit.Request{
		Path: "sys/leases/renew/database/creds/app/abc", SecretFrom: len("sys/leases/renew/"),
		Remote: netip.AddrPortFrom(netip.MustParseAddr(`fe80::1%"x`), 1),
		Data: audit.Query(url.Values{"token": {"s1"}, "many": {"s2", "s3"}, "shown": {"yes"}},
			func(name string) bool { return name == "token" }),
		NonHMACKeys: []string{"token", "shown"},
	}}
	if err := b.Request(context.Background(), e); err != nil {
		t.Fatal(err)
	}
	got := decode(t, m.text())["request"].(map[string]any)
	want := map[string]any{
		"path": "sys/leases/renew/" + format.Hash("database/creds/app/abc"), "remote_address": `fe80::1%"x`, "remote_port": 1.0,
		"data": map[string]any{"token": format.Hash("s1"), "many": []any{format.Hash("s2"), format.Hash("s3")}, "shown": "yes"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

// TestNothingMarkedLeaks logs random nested data whose strings all carry a
// mark, through every way that data takes into a record, and looks for it.
func TestNothingMarkedLeaks(t *testing.T) {
	const mark = "MARKED"
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.Custom(func(t *rapid.T) string { return mark + rapid.String().Draw(t, "text") })
		name := rapid.SampledFrom([]string{"a", "password", "keys", "key_info", "weird \" \n\u2028 name", "é"})
		var value func(depth int) *rapid.Generator[any]
		value = func(depth int) *rapid.Generator[any] {
			kinds := []*rapid.Generator[any]{
				rapid.Map(text, func(s string) any { return s }),
				rapid.Map(rapid.Int(), func(i int) any { return i }),
				rapid.Map(rapid.Bool(), func(v bool) any { return v }),
				rapid.Just[any](nil),
			}
			if depth < 4 {
				kinds = append(kinds,
					rapid.Map(rapid.SliceOfN(value(depth+1), 0, 3), func(v []any) any { return v }),
					rapid.Map(rapid.MapOfN(name, value(depth+1), 0, 3), func(v map[string]any) any { return v }))
			}
			return rapid.OneOf(kinds...)
		}
		body, err := json.Marshal(rapid.MapOfN(name, value(0), 0, 4).Draw(t, "body"))
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "broken") {
			body = body[:rapid.IntRange(0, len(body)).Draw(t, "cut")]
		}
		f := format
		f.ElideListings = rapid.Bool().Draw(t, "elide")
		b := audit.NewBroker(slog.New(slog.DiscardHandler))
		m := &memory{}
		if err := b.Set([]audit.Enabled{{Path: "mem/", Format: f, Device: m}}); err != nil {
			t.Fatal(err)
		}
		s := func(label string) secret.String { return secret.New(text.Draw(t, label)) }
		raw := func(dst []byte, hash wire.Hasher) []byte { return wire.AppendHashedBody(dst, body, hash) }
		path := "sys/leases/" + text.Draw(t, "path")
		e := &audit.Entry{
			Auth: &audit.Auth{ClientToken: s("token"), Accessor: text.Draw(t, "accessor")},
			Request: audit.Request{
				Operation: "list", ClientToken: s("token"), ClientTokenAccessor: text.Draw(t, "accessor"),
				Path: path, SecretFrom: len("sys/leases/"), Data: raw,
				Headers: []audit.Header{{Name: "h", Values: []string{text.Draw(t, "header")}, HMAC: true}},
			},
			Response: &audit.Response{
				LeaseID:     s("lease"),
				Auth:        &audit.Auth{ClientToken: s("token"), Accessor: text.Draw(t, "accessor")},
				NonHMACKeys: []string{"password"}, // its type is secret all the same
				Data: wire.Of(struct {
					Password secret.String            `json:"password"`
					Deep     map[string]creds         `json:"deep"`
					List     []secret.String          `json:"list"`
					Any      map[string]secret.String `json:"any"`
				}{s("pw"), map[string]creds{"d": {Username: text.Draw(t, "user"), Password: s("pw")}}, []secret.String{s("l")}, map[string]secret.String{"k": s("m")}}).AppendHashed,
				WrapInfo: &audit.WrapInfo{Token: s("wrap"), Accessor: text.Draw(t, "accessor"), WrappedAccessor: text.Draw(t, "accessor")},
			},
		}
		for _, write := range []func(context.Context, *audit.Entry) error{b.Request, b.Response} {
			if err := write(context.Background(), e); err != nil {
				t.Fatal(err)
			}
		}
		for line := range audit.Lines([]byte(m.text())) {
			if !json.Valid(line) {
				t.Fatalf("record %q is not JSON", line)
			}
			if bytes.Contains(line, []byte(mark)) {
				t.Fatalf("record %q holds the mark", line)
			}
		}
		if n := strings.Count(m.text(), "\n"); n != 2 {
			t.Fatalf("%d lines, want 2", n)
		}
	})
}

func TestStringsKeepTheirText(t *testing.T) {
	b, m := brokerFor(t, format)
	want := "a\"\\\n\r\t\x00\x1f\x7f\u2028\u2029é\U0001f600"
	if err := b.Request(context.Background(), &audit.Entry{Error: want}); err != nil {
		t.Fatal(err)
	}
	if got := decode(t, m.text())["error"]; got != want {
		t.Errorf("error = %q, want %q", got, want)
	}
	if err := b.Request(context.Background(), &audit.Entry{Error: "a\xffb"}); err != nil {
		t.Fatal(err)
	}
	_, second, _ := strings.Cut(m.text(), "\n")
	if got := decode(t, second)["error"]; got != "a\ufffdb" {
		t.Errorf("error = %q, want the replacement character", got)
	}
}

func BenchmarkEncode(b *testing.B) {
	broker, _ := brokerFor(b, format)
	if err := broker.Set([]audit.Enabled{{Path: "none/", Format: format, Device: none{}}}); err != nil {
		b.Fatal(err)
	}
	e := entry()
	e.Response = response()
	b.ReportAllocs()
	for b.Loop() {
		if err := broker.Response(context.Background(), e); err != nil {
			b.Fatal(err)
		}
	}
}

type none struct{}

func (none) Write([]byte) error { return nil }
func (none) Reopen() error      { return nil }
func (none) Close() error       { return nil }

func ExampleFormat_Hash() {
	f := audit.Format{Salt: secret.New("salt")}
	fmt.Println(f.Hash("hello"))
	// Output: hmac-sha256:86a81c3023136e5ef95a5545563804237182a5e2fafb5fd44adb958873182f48
}
