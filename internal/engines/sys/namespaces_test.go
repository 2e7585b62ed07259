package sys_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestNamespaces(t *testing.T) {
	r := newRig(t)
	if _, err := r.call(wire.OpList, "namespaces", ""); !errs.Is(err, errs.NotFound) {
		t.Errorf("LIST of none = %v, want NotFound", err)
	}
	for _, tt := range []struct {
		op         wire.Op
		path, body string
		want       string // custom_metadata
	}{
		{wire.OpUpdate, "namespaces/team", `{"custom_metadata":{"a":"1","b":"2"}}`, `map[a:1 b:2]`},
		{wire.OpUpdate, "namespaces/team/", ``, `map[a:1 b:2]`},
		{wire.OpPatch, "namespaces/team", `{"custom_metadata":{"a":null,"c":3}}`, `map[b:2 c:3]`},
		{wire.OpPatch, "namespaces/team", `{}`, `map[b:2 c:3]`},
		{wire.OpUpdate, "namespaces/team", `{"custom_metadata":"d=4"}`, `map[d:4]`},
		{wire.OpPatch, "namespaces/team", `{"custom_metadata":null}`, `map[]`},
		{wire.OpRead, "namespaces/team", ``, `map[]`},
		{wire.OpUpdate, "namespaces/team/app", ``, `map[]`},
	} {
		got := r.must(tt.op, tt.path, tt.body).data
		if s := fmt.Sprint(got["custom_metadata"]); s != tt.want || got["id"] == "" || got["tainted"] != false || got["locked"] != false {
			t.Errorf("%s %s %s = %v, want metadata %s", tt.op, tt.path, tt.body, got, tt.want)
		}
	}
	list := r.must(wire.OpList, "namespaces", "").data
	if got := list["keys"]; !reflect.DeepEqual(got, []any{"team/"}) {
		t.Errorf("keys = %v, want team/ alone", got)
	}
	if info := list["key_info"].(map[string]any)["team/"].(map[string]any); info["path"] != "team/" {
		t.Errorf("key_info = %v", info)
	}
	if got := r.must(wire.OpRead, "internal/ui/namespaces", "").data["keys"]; !reflect.DeepEqual(got, []any{"team/", "team/app/"}) {
		t.Errorf("internal/ui/namespaces = %v, want both", got)
	}
	key := r.must(wire.OpUpdate, "namespaces/api-lock/lock/team", "").data["unlock_key"]
	if got := r.must(wire.OpRead, "namespaces/team", "").data["locked"]; key != "key" || got != true {
		t.Errorf("locked = %v with key %v", got, key)
	}
	r.must(wire.OpUpdate, "namespaces/api-lock/unlock/team", `{"unlock_key":"key"}`)
	if got := r.must(wire.OpDelete, "namespaces/team/app", "").data["status"]; got != "in-progress" {
		t.Errorf("DELETE = %v, want in-progress", got)
	}
	if got := r.must(wire.OpDelete, "namespaces/team/app", ""); len(got.warnings) != 1 {
		t.Errorf("DELETE again = %v, want a warning", got)
	}
	for _, tt := range []struct {
		op         wire.Op
		path, body string
	}{
		{wire.OpUpdate, "namespaces/team/seal", ""},
		{wire.OpUpdate, "namespaces/team/unseal", ""},
		{wire.OpRead, "namespaces/team/seal-status", ""},
		{wire.OpDelete, "namespaces/team/delete-sealed", ""},
		{wire.OpUpdate, "namespaces/other", `{"seal":"shamir"}`},
		{wire.OpUpdate, "namespaces/other", `{"pgp_keys":["a"]}`},
	} {
		if _, err := r.call(tt.op, tt.path, tt.body); !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), "no seal of its own") {
			t.Errorf("%s %s = %v, want a refusal", tt.op, tt.path, err)
		}
	}
}
