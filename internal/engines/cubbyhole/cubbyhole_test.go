package cubbyhole_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/cubbyhole"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

var (
	alice = route.Caller{Key: "aaaa"}
	bob   = route.Caller{Key: "aaaab"} // its rows stand beside alice's
	batch = route.Caller{Key: "cccc", Batch: true}
)

type hole struct {
	t *testing.T
	e *cubbyhole.Engine
	r *route.Table
}

func open(t *testing.T) *hole {
	t.Helper()
	e, err := cubbyhole.New(t.Context(), engine.Env{Store: mem.New(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	h := &hole{t, e.(*cubbyhole.Engine), route.NewTable()}
	e.Routes(h.r)
	return h
}

// do calls as core does and gives the data, or the kind of error.
func (h *hole) do(who route.Caller, op wire.Op, path, body string) string {
	h.t.Helper()
	req := &route.Request{Op: op, Path: path, Caller: who, Mount: route.MountInfo{DefaultTTL: time.Hour}}
	if body != "" {
		req.Body = []byte(body)
	}
	ep, err := h.r.Route(req)
	if err != nil {
		h.t.Fatal(err)
	}
	res, err := ep.Call(context.Background(), req)
	switch {
	case errs.Is(err, errs.NotFound):
		return "not found"
	case errs.Is(err, errs.Invalid):
		return "invalid"
	case err != nil:
		h.t.Fatal(err)
	case req.Reply().LeaseDuration != 0:
		h.t.Errorf("%s %s leases for %v, want nothing", op, path, req.Reply().LeaseDuration)
	case res.Data == nil:
		return ""
	}
	return string(res.Data.AppendJSON(nil))
}

func TestPrivate(t *testing.T) {
	h := open(t)
	steps := []struct {
		who              route.Caller
		op               wire.Op
		path, body, want string
	}{
		{alice, wire.OpList, "", "", "not found"},
		{alice, wire.OpUpdate, "x/y", `{"k":"v","n":3.10}`, ""},
		{alice, wire.OpRead, "x/y", "", `{"k":"v","n":3.10}`},
		{bob, wire.OpRead, "x/y", "", "not found"},
		{bob, wire.OpList, "", "", "not found"},
		{alice, wire.OpList, "", "", `{"keys":["x/"]}`},
		{alice, wire.OpList, "x/", "", `{"keys":["y"]}`},
		{bob, wire.OpUpdate, "x/y", `{"k":"bob's"}`, ""},
		{alice, wire.OpUpdate, "x/y", `{"k":"w"}`, ""},
		{alice, wire.OpRead, "x/y", "", `{"k":"w"}`},
		{alice, wire.OpDelete, "x/y", "", ""},
		{alice, wire.OpDelete, "x/y", "", ""},
		{alice, wire.OpRead, "x/y", "", "not found"},
		{bob, wire.OpRead, "x/y", "", `{"k":"bob's"}`},
		{alice, wire.OpUpdate, "x", `{}`, "invalid"},
		{alice, wire.OpUpdate, "x/", `{"a":1}`, "invalid"},
		{batch, wire.OpUpdate, "x", `{"a":1}`, "invalid"},
		{batch, wire.OpRead, "x", "", "invalid"},
		{batch, wire.OpList, "", "", "invalid"},
		{route.Caller{}, wire.OpDelete, "x", "", "invalid"},
	}
	for _, s := range steps {
		if got := h.do(s.who, s.op, s.path, s.body); got != s.want {
			t.Errorf("%s %s %s by %s = %s, want %s", s.op, s.path, s.body, s.who.Key, got, s.want)
		}
	}
}

func TestDrop(t *testing.T) {
	h := open(t)
	for i := range 250 {
		h.do(alice, wire.OpUpdate, fmt.Sprintf("f/%d", i), `{"a":1}`)
	}
	h.do(bob, wire.OpUpdate, "mine", `{"a":1}`)
	for range 2 {
		if err := h.e.Drop(t.Context(), alice.Key); err != nil {
			t.Fatal(err)
		}
	}
	if got := h.do(alice, wire.OpList, "", ""); got != "not found" {
		t.Errorf("after Drop the list is %s", got)
	}
	if got := h.do(bob, wire.OpList, "", ""); got != `{"keys":["mine"]}` {
		t.Errorf("after Drop of another token the list is %s", got)
	}
}
