package approle_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestRole(t *testing.T) {
	r := start(t)
	r.refused(errs.NotFound, wire.OpRead, "role/web", "")
	r.refused(errs.NotFound, wire.OpList, "role/", "")
	r.must(wire.OpUpdate, "role/Web", "")
	want := map[string]any{
		"bind_secret_id": true, "local_secret_ids": false, "secret_id_bound_cidrs": nil, "secret_id_num_uses": 0.0,
		"secret_id_ttl": 0.0, "token_bound_cidrs": []any{}, "token_explicit_max_ttl": 0.0, "token_max_ttl": 0.0,
		"token_no_default_policy": false, "token_num_uses": 0.0, "token_period": 0.0, "token_policies": []any{},
		"token_ttl": 0.0, "token_type": "default",
	}
	if d := cmp.Diff(want, r.must(wire.OpRead, "role/web", "")); d != "" {
		t.Errorf("a role by default (-want +got):\n%s", d)
	}
	r.must(wire.OpUpdate, "role/web", `{"token_policies":"a,b","secret_id_bound_cidrs":"192.0.2.0/24,192.0.2.7","secret_id_ttl":"10m",
		"secret_id_num_uses":"3","token_ttl":"20m","token_bound_cidrs":["192.0.2.7/32"],"token_no_default_policy":true,"token_type":"batch"}`)
	r.must(wire.OpUpdate, "role/WEB", `{"token_max_ttl":"1h"}`) // the rest stays
	want["token_policies"], want["token_type"], want["token_no_default_policy"] = []any{"a", "b"}, "batch", true
	want["secret_id_bound_cidrs"], want["token_bound_cidrs"] = []any{"192.0.2.0/24", "192.0.2.7"}, []any{"192.0.2.7"}
	want["secret_id_ttl"], want["secret_id_num_uses"], want["token_ttl"], want["token_max_ttl"] = 600.0, 3.0, 1200.0, 3600.0
	if d := cmp.Diff(want, r.must(wire.OpRead, "role/web", "")); d != "" {
		t.Errorf("a role that was written (-want +got):\n%s", d)
	}
	r.must(wire.OpUpdate, "role/old", `{"policies":"a","period":"1h","bound_cidr_list":"10.0.0.0/8","local_secret_ids":true}`)
	got := r.must(wire.OpRead, "role/old", "")
	if fmt.Sprint(got["policies"], got["token_policies"], got["period"], got["token_period"], got["secret_id_bound_cidrs"], got["local_secret_ids"]) !=
		"[a] [a] 3600 3600 [10.0.0.0/8] true" {
		t.Errorf("a role written by older names reads %v", got)
	}
	r.must(wire.OpUpdate, "role/old", `{"token_policies":"b"}`)
	if got := r.must(wire.OpRead, "role/old", ""); got["policies"] != nil || got["period"] != 3600.0 {
		t.Errorf("after the newer name of one field was used it reads %v", got)
	}
	if got := fmt.Sprint(r.must(wire.OpList, "role/", "")["keys"]); got != "[old web]" {
		t.Errorf("LIST = %s", got)
	}
	r.must(wire.OpDelete, "role/OLD", "")
	r.must(wire.OpDelete, "role/old", "")
	r.refused(errs.NotFound, wire.OpRead, "role/old", "")
}

func TestRoleFaults(t *testing.T) {
	r := start(t)
	r.must(wire.OpUpdate, "role/first", `{"role_id":"taken"}`)
	for _, body := range []string{
		`{"bind_secret_id":false}`, `{"secret_id_num_uses":-1}`, `{"secret_id_ttl":"-1s"}`, `{"token_ttl":"2h","token_max_ttl":"1h"}`,
		`{"token_type":"gold"}`, `{"token_type":"batch","token_period":"1h"}`, `{"secret_id_bound_cidrs":"10.0.0.0/33"}`,
		`{"token_bound_cidrs":"everywhere"}`, `{"role_id":""}`, `{"role_id":"  "}`, `{"role_id":"taken"}`,
		`{"role_id":"` + strings.Repeat("x", 513) + `"}`, `{"role_id":{}}`, `{"secret_id_ttl":[]}`, `{"token_policies":{"a":1}}`,
	} {
		r.refused(errs.Invalid, wire.OpUpdate, "role/bad", body)
	}
	r.refused(errs.NotFound, wire.OpRead, "role/bad", "")
	r.refused(errs.Invalid, wire.OpUpdate, "role/"+strings.Repeat("n", 257), "")
	r.refused(errs.Invalid, wire.OpUpdate, "role/first", `{"local_secret_ids":true}`)
	r.must(wire.OpUpdate, "role/first", `{"local_secret_ids":false}`)
	for _, name := range []string{"a b", "ü", "%41", "x'y\"z", "..", "*", "sid"} {
		r.must(wire.OpUpdate, "role/"+name, `{"token_policies":"p"}`)
		id, _ := r.secretID(name, "")
		if a := r.in(r.roleID(name), id); a.Metadata["role_name"] != strings.ToLower(name) {
			t.Errorf("a login of the role %q has the metadata %v", name, a.Metadata)
		}
	}
}

// TestRoleID changes the role id, by which a role is found.
func TestRoleID(t *testing.T) {
	r := start(t)
	r.must(wire.OpUpdate, "role/web", "")
	r.must(wire.OpUpdate, "role/other", `{"role_id":"other-id"}`)
	drawn := r.roleID("web")
	id, _ := r.secretID("web", "")
	r.in(drawn, id)
	r.must(wire.OpUpdate, "role/web/role-id", `{"role_id":"chosen"}`)
	r.in("chosen", id)
	r.wrong("the former role id", drawn, id)
	r.wrong("a secret id of another role", "other-id", id)
	r.refused(errs.Invalid, wire.OpUpdate, "role/web/role-id", `{"role_id":"other-id"}`)
	r.must(wire.OpDelete, "role/other", "")
	r.must(wire.OpUpdate, "role/web/role-id", `{"role_id":"other-id"}`)
	r.in("other-id", id)
	keys, all := r.rows()
	for _, k := range keys {
		if strings.Contains(k, "other-id") || strings.Contains(k, id) {
			t.Errorf("a key shows a credential: %s", k)
		}
	}
	if strings.Contains(all, id) {
		t.Error("the secret id is stored")
	}
}

// TestPeriodOverTheMaximum: the mount's maximum bounds a period, but where
// Vault takes one that its logins then cut.
func TestPeriodOverTheMaximum(t *testing.T) {
	r := start(t)
	r.must(wire.OpUpdate, "role/web", `{"period":"768h"}`)
	for path, body := range map[string]string{"role/web": `{"period":"769h"}`, "role/new": `{"period":"769h"}`, "role/web/period": `{"token_period":"769h"}`} {
		r.refused(errs.Invalid, wire.OpUpdate, path, body)
	}
	r.refused(errs.Invalid, wire.OpUpdate, "role/web/period", `{"period":"769h"}`)
	r.refused(errs.NotFound, wire.OpRead, "role/new", "")
	if got := r.must(wire.OpRead, "role/web", ""); got["token_period"] != 768*3600.0 {
		t.Errorf("token_period = %v, want it as it was", got["token_period"])
	}
	r.must(wire.OpUpdate, "role/web", `{"token_period":"769h"}`)
	r.must(wire.OpUpdate, "role/web/token-ttl", `{"token_ttl":"1h"}`)
}

func TestFields(t *testing.T) {
	r := start(t)
	r.must(wire.OpUpdate, "role/web", "")
	for _, c := range []struct{ path, body, wrote, cleared string }{
		{"bind-secret-id", `{"bind_secret_id":true}`, `{"bind_secret_id":true}`, `{"bind_secret_id":true}`},
		{"secret-id-bound-cidrs", `{"secret_id_bound_cidrs":"10.0.0.0/8"}`, `{"secret_id_bound_cidrs":["10.0.0.0/8"]}`, `{"secret_id_bound_cidrs":null}`},
		{"bound-cidr-list", `{"bound_cidr_list":["10.0.0.0/8"]}`, `{"bound_cidr_list":["10.0.0.0/8"]}`, `{"bound_cidr_list":null}`},
		{"secret-id-num-uses", `{"secret_id_num_uses":"9"}`, `{"secret_id_num_uses":9}`, `{"secret_id_num_uses":0}`},
		{"secret-id-ttl", `{"secret_id_ttl":"7m"}`, `{"secret_id_ttl":420}`, `{"secret_id_ttl":0}`},
		{"policies", `{"token_policies":"b,a"}`, `{"token_policies":["b","a"]}`, `{"token_policies":[]}`},
		{"policies", `{"policies":["p"]}`, `{"token_policies":["p"],"policies":["p"]}`, `{"token_policies":[]}`},
		{"period", `{"token_period":"40m"}`, `{"token_period":2400}`, `{"token_period":0}`},
		{"period", `{"period":60}`, `{"token_period":60,"period":60}`, `{"token_period":0}`},
		{"token-bound-cidrs", `{"token_bound_cidrs":"10.0.0.0/8,10.1.1.1/32"}`, `{"token_bound_cidrs":["10.0.0.0/8","10.1.1.1"]}`, `{"token_bound_cidrs":null}`},
		{"token-num-uses", `{"token_num_uses":4}`, `{"token_num_uses":4}`, `{"token_num_uses":0}`},
		{"token-ttl", `{"token_ttl":"7m"}`, `{"token_ttl":420}`, `{"token_ttl":0}`},
		{"token-max-ttl", `{"token_max_ttl":"1h"}`, `{"token_max_ttl":3600}`, `{"token_max_ttl":0}`},
	} {
		path := "role/web/" + c.path
		read := func() string {
			_, res, err := r.call(wire.OpRead, path, "")
			if err != nil {
				t.Fatalf("reading %s = %v", path, err)
			}
			return string(res.Data.AppendJSON(nil))
		}
		r.must(wire.OpUpdate, path, c.body)
		if got := read(); got != c.wrote {
			t.Errorf("%s after %s = %s, want %s", c.path, c.body, got, c.wrote)
		}
		r.must(wire.OpDelete, path, "")
		if got := read(); got != c.cleared {
			t.Errorf("%s after it was cleared = %s, want %s", c.path, got, c.cleared)
		}
		r.refused(errs.Invalid, wire.OpUpdate, path, `{}`)
		for _, op := range []wire.Op{wire.OpRead, wire.OpUpdate} {
			r.refused(errs.NotFound, op, "role/none/"+c.path, c.body)
		}
		r.must(wire.OpDelete, "role/none/"+c.path, "") // nothing to put back is no error
	}
	if got := r.must(wire.OpRead, "role/web/local-secret-ids", ""); got["local_secret_ids"] != false {
		t.Errorf("local-secret-ids = %v", got)
	}
	r.refused(errs.Invalid, wire.OpUpdate, "role/web/bind-secret-id", `{"bind_secret_id":false}`) // nothing else binds it
	r.must(wire.OpUpdate, "role/web/token-max-ttl", `{"token_max_ttl":"1h"}`)
	r.refused(errs.Invalid, wire.OpUpdate, "role/web/token-ttl", `{"token_ttl":"2h"}`)
}
