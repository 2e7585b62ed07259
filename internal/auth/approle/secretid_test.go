package approle_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/auth/approle"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestSecretID(t *testing.T) {
	r := start(t)
	r.must(wire.OpUpdate, "role/web", `{"secret_id_ttl":"10m","secret_id_num_uses":3}`)
	r.refused(errs.NotFound, wire.OpList, "role/web/secret-id/", "")
	id, acc := r.secretID("web", `{"metadata":"{\"env\":\"ci\"}","cidr_list":"192.0.2.7/32","token_bound_cidrs":["192.0.2.0/24"]}`)
	r.passed.Add(int64(time.Minute))
	bySecret, byAccessor := fmt.Sprintf(`{"secret_id":%q}`, id), fmt.Sprintf(`{"secret_id_accessor":%q}`, acc)
	want := map[string]any{
		"cidr_list": []any{"192.0.2.7/32"}, "creation_time": "2026-11-23T01:02:03Z", "last_updated_time": "2026-11-23T01:02:03Z",
		"expiration_time": "2026-11-23T01:12:03Z", "metadata": map[string]any{"env": "ci"}, "secret_id_num_uses": 3.0,
		"secret_id_ttl": 600.0, "token_bound_cidrs": []any{"192.0.2.0/24"}, "secret_id_accessor": acc,
	}
	if d := cmp.Diff(want, r.must(wire.OpUpdate, "role/web/secret-id/lookup", bySecret)); d != "" {
		t.Errorf("lookup (-want +got):\n%s", d)
	}
	if d := cmp.Diff(want, r.must(wire.OpUpdate, "role/WEB/secret-id-accessor/lookup", byAccessor)); d != "" {
		t.Errorf("lookup by accessor (-want +got):\n%s", d)
	}
	forever := r.must(wire.OpUpdate, "role/free", "")
	if forever != nil {
		t.Errorf("writing a role answers %v", forever)
	}
	free, freeAcc := r.secretID("free", "")
	if got := r.must(wire.OpUpdate, "role/free/secret-id/lookup", fmt.Sprintf(`{"secret_id":%q}`, free)); got["expiration_time"] != "0001-01-01T00:00:00Z" {
		t.Errorf("a secret id that does not expire has the end %v", got["expiration_time"])
	}
	// Each belongs to its role.
	r.refused(errs.NotFound, wire.OpUpdate, "role/free/secret-id-accessor/lookup", byAccessor)
	if got := r.must(wire.OpUpdate, "role/free/secret-id/lookup", bySecret); got != nil {
		t.Errorf("looking up a secret id of another role = %v", got)
	}
	r.must(wire.OpUpdate, "role/free/secret-id/destroy", bySecret) // of another role: nothing is there
	r.in(r.roleID("web"), id)
	// Whoever looks for secret ids that nobody uses goes by these.
	got := r.must(wire.OpUpdate, "role/web/secret-id/lookup", bySecret)
	if got["secret_id_num_uses"] != 2.0 || got["last_updated_time"] != "2026-11-23T01:03:03Z" || got["creation_time"] != want["creation_time"] {
		t.Errorf("after a login a secret id reads %v, want one use less, and the time of it", got)
	}

	_, second := r.secretID("web", "")
	both := []any{acc, second}
	slices.SortFunc(both, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
	if d := cmp.Diff(both, r.must(wire.OpList, "role/web/secret-id/", "")["keys"]); d != "" {
		t.Errorf("LIST (-want +got):\n%s", d)
	}
	r.must(wire.OpDelete, "role/web/secret-id/destroy", bySecret)
	r.must(wire.OpUpdate, "role/web/secret-id/destroy", bySecret)
	r.wrong("a destroyed secret id", r.roleID("web"), id)
	r.refused(errs.Invalid, wire.OpUpdate, "role/web/secret-id-accessor/destroy", byAccessor)
	r.must(wire.OpDelete, "role/free/secret-id-accessor/destroy", fmt.Sprintf(`{"secret_id_accessor":%q}`, freeAcc))
	r.wrong("one destroyed by its accessor", r.roleID("free"), free)
	for _, what := range []string{"secret-id/lookup", "secret-id/destroy", "secret-id-accessor/lookup", "secret-id-accessor/destroy", "custom-secret-id"} {
		r.refused(errs.Invalid, wire.OpUpdate, "role/web/"+what, `{}`)
		r.refused(errs.Invalid, wire.OpUpdate, "role/none/"+what, `{"secret_id":"x","secret_id_accessor":"x"}`)
	}
	r.refused(errs.Invalid, wire.OpList, "role/none/secret-id/", "")
}

func TestNewSecretID(t *testing.T) {
	r := start(t)
	r.must(wire.OpUpdate, "role/web", `{"secret_id_ttl":"10m","secret_id_num_uses":3,"secret_id_bound_cidrs":"10.0.0.0/8","token_bound_cidrs":"10.1.0.0/16"}`)
	r.must(wire.OpUpdate, "role/free", "")
	r.must(wire.OpUpdate, "role/unbound", `{"bind_secret_id":false,"token_bound_cidrs":"192.0.2.0/24"}`)
	for _, c := range []struct{ role, body string }{
		{"none", ""}, {"unbound", ""}, {"web", `{"num_uses":4}`}, {"web", `{"num_uses":0}`}, {"free", `{"num_uses":-1}`},
		{"web", `{"ttl":"11m"}`}, {"web", `{"ttl":0}`}, {"free", `{"ttl":"soon"}`}, {"web", `{"cidr_list":"11.0.0.0/8"}`},
		{"web", `{"cidr_list":"10.0.0.0/7"}`}, {"web", `{"cidr_list":"::/0"}`}, {"web", `{"token_bound_cidrs":"10.2.0.0/24"}`}, {"free", `{"cidr_list":"here"}`},
		{"free", `{"metadata":5}`}, {"free", `{"metadata":"{"}`}, {"free", `{"metadata":"no pairs"}`}, {"free", `{"metadata":{"a":{}}}`},
	} {
		r.refused(errs.Invalid, wire.OpUpdate, "role/"+c.role+"/secret-id", c.body)
	}
	r.secretID("web", `{"num_uses":1,"ttl":"1m","cidr_list":"10.1.2.3","token_bound_cidrs":"10.1.2.0/24"}`)
	req, res, err := r.call(wire.OpUpdate, "role/free/secret-id", `{"ttl":"1000h","num_uses":7}`)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(res.Data.AppendJSON(nil)); !strings.Contains(got, `"secret_id_num_uses":7,"secret_id_ttl":2764800`) {
		t.Errorf("a secret id for longer than the mount allows = %s", got)
	}
	if req.Reply().WrappedAccessor == "" {
		t.Error("a wrapped secret id would not tell its accessor")
	}

	r.must(wire.OpUpdate, "role/free/custom-secret-id", `{"secret_id":" chosen "}`)
	r.in(r.roleID("free"), "chosen")
	r.refused(errs.Invalid, wire.OpUpdate, "role/free/custom-secret-id", `{"secret_id":"chosen"}`)
	r.refused(errs.Invalid, wire.OpUpdate, "role/free/custom-secret-id", `{"secret_id":"`+strings.Repeat("x", 5000)+`"}`)
	r.refused(errs.Invalid, wire.OpUpdate, "role/free/custom-secret-id", `{"secret_id":["x"]}`)
	r.must(wire.OpUpdate, "role/web/custom-secret-id", `{"secret_id":"chosen"}`) // roles may have equal ones
}

func TestMetadata(t *testing.T) {
	r := start(t)
	r.must(wire.OpUpdate, "role/web", "")
	for _, c := range []struct {
		in   string
		want map[string]string
	}{
		{`"{\"a\":\"b\",\"n\":5,\"yes\":true}"`, map[string]string{"a": "b", "n": "5", "yes": "true", "role_name": "web"}},
		{`{"a":"b"}`, map[string]string{"a": "b", "role_name": "web"}},
		{`"a=b, c = d=e"`, map[string]string{"a": "b", "c": "d=e", "role_name": "web"}},
		{`"eyJhIjoiYiJ9"`, map[string]string{"a": "b", "role_name": "web"}}, // {"a":"b"} in base64
		{`{"role_name":"admin"}`, map[string]string{"role_name": "web"}},    // is not for the writer to say
		{`""`, map[string]string{"role_name": "web"}},
		{`null`, map[string]string{"role_name": "web"}},
	} {
		id, _ := r.secretID("web", `{"metadata":`+c.in+`}`)
		if d := cmp.Diff(c.want, r.in(r.roleID("web"), id).Metadata); d != "" {
			t.Errorf("metadata %s (-want +got):\n%s", c.in, d)
		}
	}
}

func FuzzMetadata(f *testing.F) {
	for _, s := range []string{`{"a":"b"}`, `"a=b,c=d"`, `"eyJhIjoiYiJ9"`, `"{\"a\":1}"`, `null`, `"{"`, `5`, `""`, `{"a":[]}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		obj, err := wire.ParseObject([]byte(`{"m":` + s + `}`))
		if err != nil {
			return
		}
		v, _ := obj.Get("m")
		m, err := approle.Metadata(v)
		if err != nil && (m != nil || !errs.Is(err, errs.Invalid)) {
			t.Errorf("metadata(%q) = %v, %v", s, m, err)
		}
	})
}

// TestExpiry lets secret ids run out: logins refuse them at once, and a sweep
// deletes all that there was of them.
func TestExpiry(t *testing.T) {
	r := start(t)
	r.must(wire.OpUpdate, "role/web", `{"role_id":"web-id"}`)
	kept, keptAcc := r.secretID("web", "")
	before, _ := r.rows()
	var ids []string
	for range 60 {
		id, _ := r.secretID("web", `{"ttl":"1m"}`)
		ids = append(ids, id)
	}
	later, laterAcc := r.secretID("web", `{"ttl":"2m"}`)
	r.in("web-id", ids[0])
	r.passed.Add(int64(time.Minute))
	r.wrong("an expired secret id", "web-id", ids[0])
	if got := r.must(wire.OpUpdate, "role/web/secret-id/lookup", `{"secret_id":"`+ids[1]+`"}`); got != nil {
		t.Errorf("looking up an expired secret id = %v", got)
	}
	if got := r.must(wire.OpList, "role/web/secret-id/", "")["keys"].([]any); len(got) != 2 {
		t.Errorf("LIST = %v, want those that have not expired: %s, %s", got, keptAcc, laterAcc)
	}
	r.passed.Add(int64(time.Second)) // entries are in order of whole seconds
	r.sweep()
	if after, _ := r.rows(); len(after) != len(before)+3 {
		t.Errorf("after a sweep there are %d rows, want the 3 of the one that lives more than the %d before", len(after), len(before))
	}
	r.in("web-id", kept)
	r.in("web-id", later)

	// One made again after its like was destroyed is not taken for that.
	r.must(wire.OpUpdate, "role/web/custom-secret-id", `{"secret_id":"again","ttl":"30s"}`)
	r.must(wire.OpUpdate, "role/web/secret-id/destroy", `{"secret_id":"again"}`)
	r.must(wire.OpUpdate, "role/web/custom-secret-id", `{"secret_id":"again","ttl":"10m"}`)
	r.passed.Add(int64(5 * time.Minute))
	req, _, err := r.call(wire.OpUpdate, "tidy/secret-id", "")
	if err != nil || len(req.Reply().Warnings) != 1 || req.Reply().Status != 202 {
		t.Errorf("tidy = %v, %+v", err, req.Reply())
	}
	r.sweep()
	r.in("web-id", "again")
}

// TestDeletedRole deletes a role with many secret ids: none of them is worth
// anything from then on, nor when a role of that name and id is made again, and
// sweeping leaves nothing behind.
func TestDeletedRole(t *testing.T) {
	r := start(t)
	r.must(wire.OpUpdate, "role/other", "")
	other, _ := r.secretID("other", "")
	before, _ := r.rows()
	r.must(wire.OpUpdate, "role/web", `{"role_id":"web-id"}`)
	id, _ := r.secretID("web", "")
	for range 600 {
		r.secretID("web", "")
	}
	r.must(wire.OpDelete, "role/web", "")
	r.wrong("a secret id of a role that was deleted", "web-id", id)
	r.must(wire.OpUpdate, "role/web", `{"role_id":"web-id"}`)
	r.wrong("a secret id of the role that was there before", "web-id", id)
	r.must(wire.OpDelete, "role/web", "")
	r.sweep()
	after, _ := r.rows()
	if d := cmp.Diff(before, after); d != "" {
		t.Errorf("what is left of a role (-want +got):\n%s", d)
	}
	r.in(r.roleID("other"), other)
}
