package core_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// waiting is an engine whose reads tell that they are inside and go on when
// they are let.
type waiting struct{ inside, goOn chan struct{} }

func (w waiting) Routes(t *route.Table) {
	route.Read(t, "{name}", func(context.Context, *route.Request, route.None) (route.None, error) {
		w.inside <- struct{}{}
		<-w.goOn
		return route.None{}, nil
	})
}

func TestInFlight(t *testing.T) {
	w := waiting{make(chan struct{}), make(chan struct{})}
	r := openWith(t, mem.New(), map[string]engine.Factory{
		"secret/waiting": func(context.Context, engine.Env) (engine.Engine, error) { return w, nil },
	})
	r.mount("wait/", "waiting", nil)

	const n = 50
	begun := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			req := &core.Request{
				ID: fmt.Sprintf("req-%02x", i), Begun: begun.Add(time.Duration(n-i) * time.Second),
				Op: wire.OpRead, Method: "GET", Path: fmt.Sprint("wait/", i), Token: r.root,
			}
			if resp := r.c.Handle(t.Context(), req); resp.Err != nil {
				t.Errorf("Handle(%s) = %v", req.Path, resp.Err)
			}
		})
	}
	for range n {
		<-w.inside
	}
	list := r.c.InFlight()
	if len(list) != n {
		t.Fatalf("InFlight() has %d requests, want %d", len(list), n)
	}
	for i, f := range list {
		if want := n - 1 - i; f.ID != fmt.Sprintf("req-%02x", want) || f.Path != fmt.Sprint("wait/", want) || f.Method != "GET" {
			t.Errorf("InFlight()[%d] = %+v, want request %d: the oldest come first", i, f, want)
		}
	}
	close(w.goOn)
	wg.Wait()
	if list := r.c.InFlight(); len(list) != 0 {
		t.Errorf("InFlight() after all were answered = %+v, want none", list)
	}
	if resp := r.c.Handle(t.Context(), &core.Request{ID: "last", Op: wire.OpRead, Path: "wait/x", Token: secret.New("nobody")}); resp.Err == nil {
		t.Error("Handle with an unknown token = nil, want an error")
	}
	if list := r.c.InFlight(); len(list) != 0 {
		t.Errorf("InFlight() after a refusal = %+v, want none", list)
	}
}
