package sys_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

// TestWhatThereIsNot asks for what Vault's community edition answers without
// having it.
func TestWhatThereIsNot(t *testing.T) {
	r := newRig(t)
	for path, want := range map[string]string{
		"experiments":                    "map[available:[] enabled:[]]",
		"replication/status":             "map[dr:map[mode:disabled] mode:disabled performance:map[mode:disabled]]",
		"replication/dr/status":          "map[mode:disabled]",
		"replication/performance/status": "map[mode:disabled]",
		"internal/counters/config":       "map[default_report_months:0 enabled:default-disabled queries_available:false retention_months:0]",
		"internal/counters/activity":     "map[]",
	} {
		if got := fmt.Sprint(r.must(wire.OpRead, path, "").data); got != want {
			t.Errorf("%s = %s, want %s", path, got, want)
		}
	}
	r.refused(errs.NotFound, "removed", wire.OpRead, "internal/counters/requests", "")
	r.must(wire.OpUpdate, "internal/counters/config", `{"enabled":"disable"}`)
	r.refused(errs.Invalid, "not counted", wire.OpUpdate, "internal/counters/config", `{"enabled":"enable"}`)
	r.refused(errs.Invalid, "unrecognized", wire.OpUpdate, "internal/counters/config", `{"enabled":"perhaps"}`)
}

func TestPlugins(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"plugins/catalog/kv", "plugins/catalog/secret/kv"} {
		if got := r.must(wire.OpRead, path, "").data; got["name"] != "kv" || got["builtin"] != true {
			t.Errorf("%s = %v", path, got)
		}
		r.must(wire.OpDelete, path, "")
		r.refused(errs.Invalid, "not supported", wire.OpUpdate, path, `{"sha256":"00","command":"x"}`)
	}
	for _, path := range []string{"plugins/catalog/none", "plugins/catalog/auth/kv"} {
		if _, err := r.call(wire.OpRead, path, ""); !isPath(err) {
			t.Errorf("%s = %v, want nothing there", path, err)
		}
	}
	for _, body := range []string{`{"plugin":"kv"}`, `{"mounts":"cubbyhole"}`, `{"mounts":["cubbyhole/","auth/token"],"scope":"global"}`} {
		if got := r.must(wire.OpUpdate, "plugins/reload/backend", body); len(got.warnings) != 1 || got.data["reload_id"] == "" {
			t.Errorf("reloading %s = %v, %q", body, got.data, got.warnings)
		}
	}
	for why, body := range map[string]string{
		"must be provided": `{}`, "same time": `{"plugin":"kv","mounts":"cubbyhole"}`, "no engine": `{"plugin":"none"}`,
		"no mount": `{"mounts":"cubbyhole/x"}`, "scope": `{"plugin":"kv","scope":"all"}`,
	} {
		r.refused(errs.Invalid, why, wire.OpUpdate, "plugins/reload/backend", body)
	}
}

func TestInspectRouter(t *testing.T) {
	r := newRig(t)
	for tag, want := range map[string]string{
		"root": "auth/token/ cubbyhole/ sys/", "uuid": "cubbyhole/ sys/ auth/token/", "accessor": "cubbyhole/ sys/ auth/token/",
	} {
		list, _ := r.must(wire.OpRead, "internal/inspect/router/"+tag, "").data[tag].([]any)
		var paths []string
		for _, one := range list {
			paths = append(paths, one.(map[string]any)["mount_path"].(string))
		}
		if got := strings.Join(paths, " "); got != want {
			t.Errorf("by %s there are %s, want %s", tag, got, want)
		}
	}
	r.refused(errs.Invalid, "no tag", wire.OpRead, "internal/inspect/router/other", "")
}

func TestRandomBytes(t *testing.T) {
	r := newRig(t)
	for path, body := range map[string]string{
		"tools/random/8": `{"format":"hex"}`, "tools/random/platform/8": `{"format":"hex"}`, "tools/random/platform": `{"format":"hex","urlbytes":8}`,
		"tools/random": `{"format":"hex","bytes":"8"}`,
	} {
		if got, _ := r.must(wire.OpUpdate, path, body).data["random_bytes"].(string); len(got) != 16 {
			t.Errorf("%s %s = %q, want 8 bytes in hex", path, body, got)
		}
	}
	for why, path := range map[string]string{"parsing": "tools/random/no-number", "entropy source": "tools/random/none/8", "less than 1": "tools/random/0"} {
		r.refused(errs.Invalid, why, wire.OpUpdate, path, `{}`)
	}
}
