package core_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// TestPolicyExpires uses a token up to the end of one of its policies: what is
// in memory ends with it, and the row goes soon after.
func TestPolicyExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := open(t, mem.New())
		defer r.c.Stop(time.Second)
		r.mount("kv/", "kv", nil)
		r.ok(wire.OpUpdate, "kv/a", r.root, `{"v":"1"}`)
		expire := func(at time.Time) {
			t.Helper()
			err := r.c.ChangePolicy(t.Context(), core.ACLPolicy, "root", "brief", func(*core.PolicyRow) (core.PolicyRow, error) {
				return core.PolicyRow{Text: `path "kv/a" { capabilities = ["read"] }`, Expires: at}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		may := func(tok secret.String, want bool) {
			t.Helper()
			if err := r.do(wire.OpRead, "kv/a", tok, "").Err; (err == nil) != want || err != nil && !errs.Is(err, errs.Denied) {
				t.Errorf("reading = %v, want it allowed: %v", err, want)
			}
		}
		expire(time.Now().Add(time.Minute))
		tok := r.token("brief", "default")
		may(tok, true)
		expire(time.Now().Add(2 * time.Minute)) // it is given more time
		may(tok, true)
		time.Sleep(90 * time.Second)
		may(tok, true)
		if row, err := r.c.Policy(t.Context(), core.ACLPolicy, "root", "brief"); err != nil || row == nil || row.Edition != 2 {
			t.Errorf("Policy = %+v, %v, want its second edition", row, err)
		}
		time.Sleep(30 * time.Second)
		may(tok, false)
		if row, err := r.c.Policy(t.Context(), core.ACLPolicy, "root", "brief"); err != nil || row != nil {
			t.Errorf("Policy = %+v, %v, want it expired", row, err)
		}
		time.Sleep(10 * time.Second) // for the sweep
		if rows, err := r.c.Policies(t.Context(), core.ACLPolicy, "root", "brief"); err != nil || len(rows) != 0 {
			t.Errorf("Policies = %+v, %v, want none", rows, err)
		}
		expire(time.Time{}) // made again, it begins anew and is seen at once
		may(tok, true)
		if row, err := r.c.Policy(t.Context(), core.ACLPolicy, "root", "brief"); err != nil || row == nil || row.Edition != 1 {
			t.Errorf("Policy = %+v, %v, want a new one", row, err)
		}
	})
}

// vanishing is an engine whose thing goes away between the policies' question
// and the write.
type vanishing struct{}

type thing struct {
	Made bool `json:"made"`
}

func (vanishing) Routes(t *route.Table) {
	route.Write(t, "thing", func(_ context.Context, req *route.Request, _ thing) (thing, error) {
		return thing{Made: !req.OnlyUpdate}, nil
	}, route.Exists(func(context.Context, *route.Request, thing) (bool, error) { return true, nil }))
}

// TestUpdateIsNoCreation writes what has just gone: only who may create it
// makes it anew.
func TestUpdateIsNoCreation(t *testing.T) {
	r := openWith(t, mem.New(), map[string]engine.Factory{
		"secret/vanishing": func(context.Context, engine.Env) (engine.Engine, error) { return vanishing{}, nil },
	})
	r.mount("v/", "vanishing", nil)
	for capabilities, want := range map[string]string{`"update"`: `{"made":false}`, `"create", "update"`: `{"made":true}`} {
		if err := r.c.WritePolicy(t.Context(), core.ACLPolicy, "root", "w", `path "v/*" { capabilities = [`+capabilities+`] }`); err != nil {
			t.Fatal(err)
		}
		if got := string(r.ok(wire.OpUpdate, "v/thing", r.token("w"), "").Data.AppendJSON(nil)); got != want {
			t.Errorf("with %s = %s, want %s", capabilities, got, want)
		}
	}
}
