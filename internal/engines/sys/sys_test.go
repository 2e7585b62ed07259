package sys_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestPolicies(t *testing.T) {
	r := newRig(t)
	text := `path "a/*" { capabilities = ["read"] }`
	quoted, _ := json.Marshal(text)
	if got := r.must(wire.OpUpdate, "policies/acl/Mixed", `{"policy":`+string(quoted)+`}`); len(got.warnings) != 1 {
		t.Errorf("a name in capitals warns %q, want once", got.warnings)
	}
	if got := r.must(wire.OpRead, "policies/acl/MIXED", "").data; got["policy"] != text || got["name"] != "mixed" {
		t.Errorf("the policy reads as %v", got)
	}
	r.must(wire.OpUpdate, "policies/acl/b64", `{"policy":"`+base64.StdEncoding.EncodeToString([]byte(text))+`"}`)
	if got := r.must(wire.OpRead, "policy/b64", "").data; got["rules"] != text {
		t.Errorf("a policy in base64 reads as %v", got)
	}
	if got := r.must(wire.OpUpdate, "policy/old", `{"rules":`+string(quoted)+`}`); len(got.warnings) != 1 {
		t.Errorf("rules warn %q, want once", got.warnings)
	}
	for _, op := range []wire.Op{wire.OpRead, wire.OpList} {
		if got := r.must(op, "policy", "").data; fmt.Sprint(got["keys"]) != "[b64 mixed old root]" || fmt.Sprint(got["policies"]) != "[b64 mixed old root]" {
			t.Errorf("%s policy = %v", op, got)
		}
	}
	if _, err := r.call(wire.OpRead, "policies/acl", ""); !errs.Is(err, errs.Unsupported) {
		t.Errorf("reading the list = %v, want it to be listed only", err)
	}
	r.refused(errs.Invalid, "not supplied", wire.OpUpdate, "policies/acl/x", `{}`)
	r.refused(errs.Invalid, "parse", wire.OpUpdate, "policies/acl/x", `{"policy":"bad"}`)
	r.must(wire.OpDelete, "policies/acl/MIXED", "")
	if _, err := r.call(wire.OpRead, "policies/acl/mixed", ""); !isPath(err) {
		t.Errorf("a deleted policy reads as %v, want nothing there", err)
	}
	if got := r.must(wire.OpRead, "policies/acl/root", "").data; got["policy"] != "" {
		t.Errorf("root reads as %v", got)
	}

	r.must(wire.OpUpdate, "policies/password/p", `{"policy":"length = 14"}`)
	if got := r.must(wire.OpRead, "policies/password/p/generate", "").data; got["password"] != "drawn by length = 14" {
		t.Errorf("drew %v", got)
	}
	r.refused(errs.NotFound, "does not exist", wire.OpRead, "policies/password/none/generate", "")
	r.refused(errs.Invalid, "missing policy", wire.OpUpdate, "policies/password/p", `{}`)
}

// TestPolicyVersions writes policies the way OpenBao's clients do, who say
// which version they have seen and how long a policy is to last.
func TestPolicyVersions(t *testing.T) {
	r := newRig(t)
	const body = `"policy":"path \"a\" { capabilities = [\"read\"] }"`
	r.must(wire.OpUpdate, "policies/acl/team/app", `{`+body+`,"cas":-1,"cas_required":true,"ttl":"1h"}`)
	got := r.must(wire.OpRead, "policies/acl/team/app", "").data
	if fmt.Sprintf("%v %v %v", got["version"], got["cas_required"], got["expiration"]) != "1 true 2026-01-02T04:04:05Z" {
		t.Errorf("the policy reads as %v", got)
	}
	for _, c := range []struct{ why, op, body string }{
		{"check-and-set parameter required", "POST", `{` + body + `}`},
		{"check-and-set parameter required", "PATCH", `{"ttl":"2h"}`},
		{"did not match", "POST", `{` + body + `,"cas":-1}`},
		{"did not match", "PATCH", `{"cas":2}`},
		{"exclude each other", "PATCH", `{"cas":1,"ttl":"1h","expiration":"2026-02-02T00:00:00Z"}`},
		{"in the past", "PATCH", `{"cas":1,"expiration":"2026-01-01T00:00:00Z"}`},
		{"not supported", "PATCH", `{"cas":1,"allow_slashes_in_identity_templates":true}`},
		{"parse", "PATCH", `{"cas":1,"policy":"bad"}`},
	} {
		op := wire.OpUpdate
		if c.op == "PATCH" {
			op = wire.OpPatch
		}
		r.refused(errs.Invalid, c.why, op, "policies/acl/team/app", c.body)
	}

	// What a patch does not name stays; a write sets it back.
	r.must(wire.OpPatch, "policies/acl/team/app", `{"cas":1,"policy":"path \"b\" {}"}`)
	if got := r.must(wire.OpRead, "policy/team/app", "").data; fmt.Sprintf("%v %v %v %v", got["version"], got["cas_required"], got["expiration"], got["rules"]) != `2 true 2026-01-02T04:04:05Z path "b" {}` {
		t.Errorf("after a patch the policy reads as %v", got)
	}
	r.must(wire.OpPatch, "policies/acl/team/app", `{"cas":2,"expiration":null}`)
	if got := r.must(wire.OpRead, "policies/acl/team/app", "").data; got["expiration"] != nil {
		t.Errorf("without its expiration the policy reads as %v", got)
	}
	r.must(wire.OpUpdate, "policies/acl/team/app", `{`+body+`,"cas":3}`)
	if got := r.must(wire.OpRead, "policies/acl/team/app", "").data; fmt.Sprint(got["version"], got["cas_required"]) != "4 false" {
		t.Errorf("after a write the policy reads as %v", got)
	}
	r.refused(errs.NotFound, "no policy", wire.OpPatch, "policies/acl/none", `{"ttl":"1h"}`)

	r.must(wire.OpUpdate, "policies/acl/other", `{`+body+`}`)
	for path, want := range map[string]string{
		"policies/acl": "[other team/app root]", "policies/acl/team": "[team/app]", "policy/team": "[team/app]",
		"policies/detailed/acl": "[other team/app root]", "policies/detailed/acl/team/": "[team/app]",
	} {
		if got := r.must(wire.OpList, path, "").data; fmt.Sprint(got["keys"]) != want {
			t.Errorf("LIST %s = %v, want %s", path, got, want)
		}
	}
	if _, err := r.call(wire.OpList, "policies/acl/none", ""); !isPath(err) {
		t.Errorf("listing below a prefix that there is not = %v, want nothing there", err)
	}
	info, _ := r.must(wire.OpList, "policies/detailed/acl", "").data["key_info"].(map[string]any)
	if one, _ := info["team/app"].(map[string]any); one["name"] != "team/app" || fmt.Sprint(one["version"]) != "4" || one["policy"] == "" {
		t.Errorf("the detailed list has %v", info)
	}
}

func TestCapabilities(t *testing.T) {
	r := newRig(t)
	r.access["app"] = map[string][]string{"kv/a": {"list", "read"}}
	for _, c := range []struct{ path, body, want string }{
		{"capabilities-self", `{"paths":["kv/a","kv/b"]}`, `map[kv/a:[root] kv/b:[root]]`},
		{"capabilities-self", `{"path":"kv/a"}`, `map[capabilities:[root] kv/a:[root]]`},
		{"capabilities", `{"token":"app","paths":"kv/a,kv/b"}`, `map[kv/a:[list read] kv/b:[deny]]`},
		{"capabilities-accessor", `{"accessor":"acc-app","path":["kv/a"]}`, `map[capabilities:[list read] kv/a:[list read]]`},
	} {
		if got := fmt.Sprint(r.must(wire.OpUpdate, c.path, c.body).data); got != c.want {
			t.Errorf("%s %s = %s, want %s", c.path, c.body, got, c.want)
		}
	}
	r.refused(errs.Invalid, "paths must be supplied", wire.OpUpdate, "capabilities-self", `{}`)
	r.refused(errs.Invalid, "invalid token", wire.OpUpdate, "capabilities", `{"token":"none","path":"a"}`)
	r.refused(errs.Invalid, "missing token", wire.OpUpdate, "capabilities", `{"path":"a"}`)
	r.refused(errs.Invalid, "invalid accessor", wire.OpUpdate, "capabilities-accessor", `{"accessor":"none","path":"a"}`)
}

func TestLeases(t *testing.T) {
	r := newRig(t)
	add := func(id string, irrevocable bool) {
		r.leases.list = append(r.leases.list, lease.Info{
			ID: lease.ID(id), Path: "db/creds/x", MountID: "id-sys", Owner: "o1", Issued: start, Expires: start.Add(time.Hour),
			MaxExpires: start.Add(2 * time.Hour), Renewable: true, Irrevocable: irrevocable, Ending: irrevocable, Error: "no such role",
		})
	}
	for i := range 3 {
		add(fmt.Sprintf("db/creds/read/%d", i), i == 2)
		add(fmt.Sprintf("db/creds/readonly/%d", i), false)
	}
	slices.SortFunc(r.leases.list, func(a, b lease.Info) int { return strings.Compare(string(a.ID), string(b.ID)) })

	got := r.must(wire.OpUpdate, "leases/lookup", `{"lease_id":"db/creds/read/0"}`).data
	if got["ttl"] != 3600.0 || got["last_renewal"] != nil || got["renewable"] != true {
		t.Errorf("lookup = %v", got)
	}
	renewed := r.must(wire.OpUpdate, "leases/renew/db/creds/read/0", `{"increment":"5h"}`)
	if renewed.whole.LeaseID != "db/creds/read/0" || renewed.whole.LeaseDuration != 2*time.Hour || len(renewed.warnings) != 1 {
		t.Errorf("renewed to %+v with %q, want the maximum and a warning", renewed.whole, renewed.warnings)
	}
	for _, path := range []string{"leases/lookup", "leases/renew", "leases/revoke", "renew", "revoke"} {
		r.refused(errs.Invalid, "lease_id must be specified", wire.OpUpdate, path, `{}`)
	}

	page := r.must(wire.OpRead, "leases?prefix=db/creds/read&limit=2", "").data
	rows := page["leases"].([]any)
	if len(rows) != 2 || page["more"] != true || rows[0].(map[string]any)["holder"] != "holder of o1" {
		t.Errorf("the first page is %v", page)
	}
	if page = r.must(wire.OpRead, "leases?type=irrevocable&limit=none", "").data; page["lease_count"] != 1.0 || fmt.Sprint(page["counts"]) != "map[system_1:1]" {
		t.Errorf("irrevocable leases = %v, want one", page)
	}
	r.refused(errs.Invalid, "limit", wire.OpRead, "leases?limit=-1", "")
	if n := r.must(wire.OpRead, "leases/count", "").data; n["lease_count"] != 3.0 || fmt.Sprint(n["counts"]) != "map[gone:1 system_1:2]" {
		t.Errorf("count = %v, want what the counters say", n)
	}
	if n := r.must(wire.OpRead, "leases/count?type=irrevocable", "").data; n["lease_count"] != 1.0 {
		t.Errorf("count of irrevocable ones = %v, want 1", n)
	}

	// A path ends with a segment.
	r.must(wire.OpUpdate, "leases/revoke-prefix/db/creds/read", `{"sync":true}`)
	for _, l := range r.leases.list {
		if !strings.HasPrefix(string(l.ID), "db/creds/readonly/") {
			t.Errorf("%s is left", l.ID)
		}
	}
	if len(r.leases.list) != 3 {
		t.Errorf("%d leases are left, want the 3 of another role", len(r.leases.list))
	}
	if got := r.must(wire.OpUpdate, "leases/revoke", `{"lease_id":"db/creds/readonly/0","sync":true}`); len(got.warnings) != 1 || got.status != 0 {
		t.Errorf("a revocation that still cleans up answers %d %q, want a warning", got.status, got.warnings)
	}
	if got := r.must(wire.OpUpdate, "revoke/db/creds/readonly/1", `{"sync":false}`); got.status != http.StatusAccepted {
		t.Errorf("sync=false answers %d, want 202", got.status)
	}
	r.must(wire.OpUpdate, "revoke-force/db/creds/readonly/2", "")
	if len(r.leases.list) != 0 {
		t.Errorf("%d leases are left, want none", len(r.leases.list))
	}
	if got := r.must(wire.OpUpdate, "leases/tidy", ""); got.status != http.StatusAccepted || len(got.warnings) != 1 {
		t.Errorf("tidy answers %d %q, want 202 and a warning", got.status, got.warnings)
	}
}

func TestWrapping(t *testing.T) {
	r := newRig(t)
	r.access["app"] = map[string][]string{"sys/wrapping/unwrap": {"update"}}
	r.access["weak"] = map[string][]string{}
	for _, c := range []struct {
		caller, body string
		kind         errs.Kind
		ok           bool
	}{
		{"wrapping", "", 0, true},
		{"app", `{"token":"wrapping"}`, 0, true},
		{"wrapping", `{"token":"wrapping"}`, 0, true},
		{"weak", `{"token":"wrapping"}`, errs.Denied, false},
		{"", `{"token":"wrapping"}`, errs.Denied, false},
		{"", "", errs.Invalid, false},
		{"app", `{"token":"used"}`, errs.Invalid, false},
		{"used", "", errs.Invalid, false},
	} {
		got, err := r.callAs(c.caller, r.table, wire.OpUpdate, "wrapping/unwrap", c.body, 0)
		if c.ok != (err == nil) || err != nil && !errs.Is(err, c.kind) {
			t.Errorf("unwrap %s by %q = %v, want success %v", c.body, c.caller, err, c.ok)
		}
		if err == nil && string(got.whole.Data.AppendJSON(nil)) != `{"a":1}` {
			t.Errorf("unwrap %s by %q gives %s", c.body, c.caller, got.whole.Data.AppendJSON(nil))
		}
	}
	if got, err := r.callAs("", r.table, wire.OpRead, "wrapping/lookup?token=wrapping", "", 0); err != nil || got.data["creation_ttl"] != 60.0 {
		t.Errorf("lookup = %v, %v", got.data, err)
	}
	r.refused(errs.Invalid, "requires response wrapping", wire.OpUpdate, "wrapping/wrap", `{"a":1}`)
	got, err := r.callAs(root, r.table, wire.OpUpdate, "wrapping/wrap", `{"any":{"n":1.50}}`, time.Minute)
	if err != nil || fmt.Sprint(got.data) != "map[any:map[n:1.5]]" {
		t.Errorf("wrap = %v, %v, want what was sent", got.data, err)
	}
	if got := r.must(wire.OpUpdate, "wrapping/rewrap", `{"token":"wrapping"}`); got.whole.Wrap.CreationPath != "kv/a" {
		t.Errorf("rewrap = %+v", got.whole)
	}
}

func TestTools(t *testing.T) {
	r := newRig(t)
	for body, want := range map[string]string{
		`{"input":"aGVsbG8="}`:                        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
		`{"input":"aGVsbG8=","algorithm":"sha3-256"}`: "3338be694f50c5f338814986cdf0686453a888b84f424d792af4b9202398f392",
	} {
		if got := r.must(wire.OpUpdate, "tools/hash", body).data["sum"]; got != want {
			t.Errorf("hash %s = %v, want %s", body, got, want)
		}
	}
	for path, want := range map[string]int{"tools/random/16": 16, "tools/random": 32, "tools/random/platform/8": 8, "tools/random/platform": 32} {
		got := r.must(wire.OpUpdate, path, `{"format":"hex"}`).data["random_bytes"].(string)
		if len(got) != 2*want {
			t.Errorf("%s gives %d bytes, want %d", path, len(got)/2, want)
		}
	}
	for _, c := range []struct{ path, body string }{
		{"tools/random/0", ""}, {"tools/random/x", ""}, {"tools/random/200000", ""}, {"tools/random/8", `{"format":"octal"}`},
		{"tools/random/dice/8", ""}, {"tools/hash", `{"input":"not base64!"}`}, {"tools/hash/md5", `{"input":""}`},
	} {
		r.refused(errs.Invalid, "", wire.OpUpdate, c.path, c.body)
	}
}

func TestRawRows(t *testing.T) {
	off := newRig(t)
	off.refused(errs.NotFound, "raw_storage_endpoint", wire.OpRead, "raw/core/x", "")

	var store storage.Backend
	r := newRig(t, func(c *sys.Config) {
		c.Raw = func() (storage.Backend, error) { return store, nil }
	})
	store = r.store
	_, err := store.Update(context.Background(), func(tx storage.Tx) error {
		for _, k := range []string{"a", "dir/1", "dir/2", "dir/sub/3", "z"} {
			if err := tx.Put(k, []byte("value of "+k)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"raw/": "[a dir/ m/ z]", "raw/dir/": "[1 2 sub/]", "raw/dir": "[1 2 sub/]"} {
		if got := fmt.Sprint(r.must(wire.OpList, path, "").data["keys"]); got != want {
			t.Errorf("LIST %s = %s, want %s", path, got, want)
		}
	}
	r.must(wire.OpUpdate, "raw/dir/4", `{"value":"bmV3","encoding":"base64"}`)
	if got := r.must(wire.OpRead, "raw/dir/4", "").data["value"]; got != "new" {
		t.Errorf("the row reads as %v, want new", got)
	}
	r.must(wire.OpDelete, "raw/dir/4", "")
	if _, err := r.call(wire.OpRead, "raw/dir/4", ""); !isPath(err) {
		t.Errorf("a deleted row reads as %v, want nothing there", err)
	}
}

// TestOpenAPI checks that the document is whole: every parameter in a path is
// declared, and no operation has another's id.
func TestOpenAPI(t *testing.T) {
	r := newRig(t)
	doc := r.must(wire.OpRead, "internal/specs/openapi", "").data
	if doc["openapi"] != "3.0.2" {
		t.Fatalf("openapi = %v", doc["openapi"])
	}
	ids := map[string]string{}
	paths := doc["paths"].(map[string]any)
	for path, v := range paths {
		item := v.(map[string]any)
		declared := map[string]bool{}
		if params, ok := item["parameters"].([]any); ok {
			for _, p := range params {
				declared[p.(map[string]any)["name"].(string)] = true
			}
		}
		for segment := range strings.SplitSeq(path, "/") {
			if name, ok := strings.CutPrefix(segment, "{"); ok && !declared[strings.TrimSuffix(name, "}")] {
				t.Errorf("%s does not declare %s", path, segment)
			}
		}
		for _, method := range []string{"get", "post", "delete", "patch"} {
			op, ok := item[method].(map[string]any)
			if !ok {
				continue
			}
			id := op["operationId"].(string)
			if other := ids[id]; other != "" {
				t.Errorf("%s %s and %s have the id %s", method, path, other, id)
			}
			ids[id] = method + " " + path
			if len(op["responses"].(map[string]any)) == 0 {
				t.Errorf("%s %s answers nothing", method, path)
			}
		}
	}
	if len(ids) < 140 {
		t.Errorf("the document has %d operations, want all of sys", len(ids))
	}
	item := paths["/sys/mounts/{path}/tune"].(map[string]any)["post"].(map[string]any)
	schema := item["requestBody"].(map[string]any)["content"].(map[string]any)["application/json"].(map[string]any)["schema"].(map[string]any)
	name, _ := strings.CutPrefix(schema["$ref"].(string), "#/components/schemas/")
	schema = doc["components"].(map[string]any)["schemas"].(map[string]any)[name].(map[string]any)
	if _, ok := schema["properties"].(map[string]any)["listing_visibility"]; !ok {
		t.Errorf("the body of tune is %v, want its fields", schema)
	}
}

// BenchmarkOpenAPI tells what a document costs: it is made for each request,
// of which anybody may send some.
func BenchmarkOpenAPI(b *testing.B) {
	r := newRig(b)
	req := func() *route.Request {
		return &route.Request{Op: wire.OpRead, Path: "internal/specs/openapi", Mount: route.MountInfo{Path: "sys/", Namespace: "root"}}
	}
	for b.Loop() {
		one := req()
		ep, err := r.table.Route(one)
		if err != nil {
			b.Fatal(err)
		}
		res, err := ep.Call(b.Context(), one)
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(res.Data.AppendJSON(nil))))
	}
}

func TestVersionsAreNoted(t *testing.T) {
	r := newRig(t)
	got := r.must(wire.OpList, "version-history", "").data
	if fmt.Sprint(got["keys"]) != "[0.1.0]" {
		t.Errorf("versions = %v, want the one that runs", got["keys"])
	}
}

func TestUIHeaders(t *testing.T) {
	r := newRig(t)
	if _, err := r.call(wire.OpList, "config/ui/headers", ""); !isPath(err) {
		t.Errorf("no headers list as %v, want nothing there", err)
	}
	r.must(wire.OpUpdate, "config/ui/headers/x-frame-options", `{"values":["DENY"]}`)
	if got := r.must(wire.OpRead, "config/ui/headers/X-Frame-Options", "").data["value"]; got != "DENY" {
		t.Errorf("the header reads as %v, want DENY", got)
	}
	if got := fmt.Sprint(r.must(wire.OpList, "config/ui/headers", "").data["keys"]); got != "[X-Frame-Options]" {
		t.Errorf("headers = %s", got)
	}
	r.refused(errs.Invalid, "X-Vault", wire.OpUpdate, "config/ui/headers/X-Vault-Token", `{"values":["x"]}`)
	r.refused(errs.Invalid, "line breaks", wire.OpUpdate, "config/ui/headers/X-A", `{"values":["a\r\nb"]}`)
	r.must(wire.OpDelete, "config/ui/headers/X-Frame-Options", "")
}
