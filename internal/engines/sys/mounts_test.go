package sys_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestEnableTuneAndDisable(t *testing.T) {
	r := newRig(t)
	r.must(wire.OpUpdate, "mounts/team/kv", `{"type":"kv","description":"d","config":{"default_lease_ttl":"1h","max_lease_ttl":18000,"listing_visibility":"unauth"},"options":{"version":"1"}}`)
	got := r.must(wire.OpRead, "mounts/team/kv", "").data
	conf := got["config"].(map[string]any)
	if got["type"] != "kv" || got["description"] != "d" || conf["default_lease_ttl"] != 3600.0 || conf["max_lease_ttl"] != 18000.0 ||
		conf["listing_visibility"] != "unauth" || fmt.Sprint(got["options"]) != "map[version:1]" {
		t.Errorf("the mount reads as %v", got)
	}
	r.must(wire.OpUpdate, "mounts/team/kv/tune", `{"default_lease_ttl":"system","max_lease_ttl":"2h","description":"e","audit_non_hmac_request_keys":["a","b"],"passthrough_request_headers":"X-A,X-B"}`)
	got = r.must(wire.OpRead, "mounts/team/kv/tune", "").data
	if got["default_lease_ttl"] != 0.0 || got["max_lease_ttl"] != 7200.0 || got["description"] != "e" || got["listing_visibility"] != "unauth" ||
		fmt.Sprint(got["audit_non_hmac_request_keys"], got["passthrough_request_headers"]) != "[a b] [X-A X-B]" {
		t.Errorf("the tuning reads as %v", got)
	}
	r.must(wire.OpUpdate, "mounts/team/kv/tune", `{"audit_non_hmac_request_keys":[""]}`)
	if got = r.must(wire.OpRead, "mounts/team/kv/tune", "").data; got["audit_non_hmac_request_keys"] != nil {
		t.Errorf("an empty key leaves %v, want none", got["audit_non_hmac_request_keys"])
	}
	if up := r.must(wire.OpUpdate, "mounts/team/kv/tune", `{"options":{"version":"2"}}`); len(up.warnings) != 1 {
		t.Errorf("the upgrade of kv warns %q, want once", up.warnings)
	}
	r.refused(errs.Invalid, "downgrade", wire.OpUpdate, "mounts/team/kv/tune", `{"options":{"version":"1"}}`)
	r.must(wire.OpDelete, "mounts/team/kv", "")
	r.must(wire.OpDelete, "mounts/team/kv", "") // gone already
	r.refused(errs.Invalid, "no secrets engine", wire.OpRead, "mounts/team/kv", "")
}

func TestMountsThatAreRefused(t *testing.T) {
	r := newRig(t)
	r.must(wire.OpUpdate, "mounts/kv", `{"type":"kv-v2"}`)
	if v := r.mounts.list[len(r.mounts.list)-1].Options["version"]; v != "2" {
		t.Errorf("kv-v2 was mounted with version %q, want 2", v)
	}
	for _, c := range []struct{ path, body, says string }{
		{"mounts/kv", `{"type":"kv"}`, "already in use"},
		{"mounts/x", `{}`, "backend type must be specified"},
		{"mounts/x", `{"type":"banana"}`, "not found in the catalog"},
		{"mounts/x", `{"type":"system"}`, "not found in the catalog"},
		{"mounts/sys", `{"type":"kv"}`, "cannot mount"},
		{"mounts/auth/x", `{"type":"kv"}`, "cannot mount"},
		{"mounts/cubbyhole/x", `{"type":"kv"}`, "cannot mount"},
		{"mounts/x", `{"type":"kv","config":{"default_lease_ttl":"2h","max_lease_ttl":"1h"}}`, "would be less than"},
		{"mounts/x", `{"type":"kv","config":{"default_lease_ttl":"1000h"}}`, "greater than system max"},
		{"mounts/x", `{"type":"kv","config":{"default_lease_ttl":"soon"}}`, "default_lease_ttl"},
		{"mounts/x", `{"type":"kv","config":{"listing_visibility":"perhaps"}}`, "listing_visibility"},
		{"mounts/x", `{"type":"kv","config":{"token_type":"batch"}}`, "auth mounts"},
		{"mounts/x", `{"type":"kv","options":{"version":"3"}}`, "version"},
		{"mounts/kv/tune", `{"options":{"version":"3"}}`, "version"},
		{"auth/token", `{"type":"userpass"}`, "already in use"},
		{"auth/x", `{"type":"kv"}`, "not found in the catalog"},
		{"mounts/none/tune", `{"description":"x"}`, "no mount entry found"},
		{"auth/token/tune", `{"token_type":"batch"}`, "token"},
	} {
		r.refused(errs.Invalid, c.says, wire.OpUpdate, c.path, c.body)
	}
	r.refused(errs.Invalid, "cannot unmount", wire.OpDelete, "mounts/cubbyhole", "")
	r.refused(errs.Invalid, "auth methods are disabled at", wire.OpDelete, "mounts/auth/token", "")
	r.refused(errs.Invalid, "cannot be disabled", wire.OpDelete, "auth/token", "")
}

func TestRemount(t *testing.T) {
	r := newRig(t)
	r.must(wire.OpUpdate, "mounts/kv", `{"type":"kv"}`)
	r.must(wire.OpUpdate, "auth/up", `{"type":"userpass","config":{"token_type":"batch"}}`)
	moved := r.must(wire.OpUpdate, "remount", `{"from":"kv","to":"team/kv"}`)
	id, _ := moved.data["migration_id"].(string)
	info, _ := r.must(wire.OpRead, "remount/status/"+id, "").data["migration_info"].(map[string]any)
	if info["status"] != "success" || info["source_mount"] != "kv/" || info["target_mount"] != "team/kv/" || len(moved.warnings) != 1 {
		t.Errorf("the move reads as %v with warnings %q", info, moved.warnings)
	}
	r.must(wire.OpRead, "mounts/team/kv", "")
	for _, body := range []string{
		`{"from":"none","to":"x"}`, `{"from":"team/kv","to":"sys/x"}`, `{"from":"team/kv","to":"auth/x"}`,
		`{"from":"auth/up","to":"x"}`, `{"from":"cubbyhole","to":"x"}`, `{"from":"team/kv"}`, `{"from":"team/kv","to":"team/kv"}`,
	} {
		r.refused(errs.Invalid, "", wire.OpUpdate, "remount", body)
	}
	if _, err := r.call(wire.OpRead, "remount/status/none", ""); !isPath(err) {
		t.Errorf("the status of no move = %v, want nothing there", err)
	}
	if got := r.must(wire.OpRead, "auth/up/tune", "").data["token_type"]; got != "batch" {
		t.Errorf("token_type = %v, want batch", got)
	}
}

func TestWhoSeesWhichMounts(t *testing.T) {
	r := newRig(t)
	r.must(wire.OpUpdate, "mounts/open", `{"type":"kv","config":{"listing_visibility":"unauth"}}`)
	r.must(wire.OpUpdate, "mounts/mine", `{"type":"kv"}`)
	r.must(wire.OpUpdate, "mounts/theirs", `{"type":"kv"}`)
	r.access["app"] = map[string][]string{"mine/data/x": {"read"}}
	seen := func(token string) []string {
		got, err := r.callAs(token, r.table, wire.OpRead, "internal/ui/mounts", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		return slices.Sorted(maps.Keys(got.data["secret"].(map[string]any)))
	}
	for token, want := range map[string][]string{
		"": {"open/"}, "bogus": {"open/"}, "app": {"mine/", "open/"}, root: {"cubbyhole/", "mine/", "open/", "sys/", "theirs/"},
	} {
		if got := seen(token); !slices.Equal(got, want) {
			t.Errorf("%q sees %v, want %v", token, got, want)
		}
	}
	stranger, err := r.callAs("", r.table, wire.OpRead, "internal/ui/mounts", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if open := stranger.data["secret"].(map[string]any)["open/"].(map[string]any); open["accessor"] != nil || open["type"] != "kv" {
		t.Errorf("a stranger reads %v, want type, description and options alone", open)
	}

	got, err := r.callAs("app", r.table, wire.OpRead, "internal/ui/mounts/mine/data/deep", "", 0)
	if err != nil || got.data["path"] != "mine/" {
		t.Errorf("the mount of mine/data/deep = %v, %v, want mine/", got.data["path"], err)
	}
	for token, path := range map[string]string{"app": "theirs/x", "": "open/x", root: "none/x"} {
		if _, err := r.callAs(token, r.table, wire.OpRead, "internal/ui/mounts/"+path, "", 0); !errs.Is(err, errs.Denied) {
			t.Errorf("%q asks for %s = %v, want a denial", token, path, err)
		}
	}
}
