package transit_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/transit"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// mount is one transit mount with its store, called as core calls it.
type mount struct {
	t     testing.TB
	table *route.Table
}

func open(t testing.TB, store storage.Backend) *mount { return openAhead(t, store, 0) }

// openAhead opens a mount whose clock is ahead of ours.
func openAhead(t testing.TB, store storage.Backend, ahead time.Duration) *mount {
	t.Helper()
	m := &mount{t: t, table: route.NewTable()}
	slice := storage.Prefix(store, "m/root/transit/")
	now := func() time.Time { return time.Now().Add(ahead) }
	e, err := transit.New(t.Context(), engine.Env{
		Store: slice, Log: slog.New(slog.DiscardHandler), Now: now, Due: engine.DueOf("transit"),
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Routes(m.table)
	watch(t, slice, e.(engine.Watcher))
	work(t, store, e.(engine.Worker), now)
	return m
}

// work runs the lanes of a store for one mount, as core does.
func work(t testing.TB, store storage.Backend, w engine.Worker, now func() time.Time) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	lanes := lane.New(lane.Config{Store: store, Now: now, Log: log, Handlers: map[string]lane.Handler{
		engine.DueKind: engine.DueHandler(func(mount string) engine.Worker {
			if mount != "transit" {
				t.Errorf("work is due of the mount %q", mount)
			}
			return w
		}, log),
	}})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := lanes.Run(ctx); err != nil {
			t.Errorf("running the lanes: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
}

// watch tells an engine of the changes in its slice, as core does.
func watch(t testing.TB, slice storage.Backend, w engine.Watcher) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var from storage.Revision
	if err := slice.View(ctx, func(v storage.View) error { from = v.Revision(); return nil }); err != nil {
		t.Fatal(err)
	}
	running, ended := make(chan struct{}), make(chan struct{})
	var once sync.Once
	go func() {
		defer close(ended)
		err := slice.Watch(ctx, from, func(changes []storage.Change) error {
			once.Do(func() { close(running) })
			for _, c := range changes {
				w.Changed(c.Key, c.Rev)
			}
			return nil
		})
		if ctx.Err() == nil && !errors.Is(err, storage.ErrClosed) {
			t.Errorf("watching the store: %v", err)
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	<-running
}

func newMount(t testing.TB) *mount { return open(t, mem.New()) }

type object map[string]any

// ask gives the status and the data of an answer, or the error.
func (m *mount) ask(op wire.Op, path string, body any) (status int, data []byte, err error) {
	m.t.Helper()
	req := &route.Request{Op: op}
	if body != nil {
		if req.Body, err = json.Marshal(body); err != nil {
			m.t.Fatal(err)
		}
	}
	return m.call(req, path)
}

// askOctets sends bytes.
func (m *mount) askOctets(path, body string) (status int, data []byte, err error) {
	m.t.Helper()
	return m.call(&route.Request{Op: wire.OpUpdate, Octets: []byte(body)}, path)
}

func (m *mount) octets(path, body string) []byte {
	m.t.Helper()
	status, out, err := m.askOctets(path, body)
	if err != nil {
		m.t.Fatalf("%s = %d, %v", path, status, err)
	}
	return out
}

func (m *mount) call(req *route.Request, path string) (status int, data []byte, err error) {
	m.t.Helper()
	return m.callWithin(m.t.Context(), req, path)
}

func (m *mount) callWithin(ctx context.Context, req *route.Request, path string) (status int, data []byte, err error) {
	m.t.Helper()
	path, query, _ := strings.Cut(path, "?")
	if req.Query, err = url.ParseQuery(query); err != nil {
		m.t.Fatal(err)
	}
	req.Path = path
	ep, err := m.table.Route(req)
	if err != nil {
		return 404, nil, err
	}
	res, err := ep.Call(ctx, req)
	switch {
	case errs.Is(err, errs.Invalid):
		return 400, nil, err
	case errs.Is(err, errs.NotFound):
		return 404, nil, err
	case err != nil:
		return 500, nil, err
	case res.Raw != nil:
		data = res.Raw.Body
	case res.Data != nil:
		data = res.Data.AppendJSON(nil)
	}
	status = route.SuccessStatus(req.Reply().Status, data != nil)
	if lent := req.Reply().Lent; lent != nil {
		// As the listener does: what the answer and the body lay in is used again.
		data = bytes.Clone(data)
		lent.Release()
		clear(req.Body)
		clear(req.Octets)
	}
	return status, data, nil
}

// must writes and reads the answer into out, which may be nil.
func (m *mount) must(path string, body any, out any) {
	m.t.Helper()
	m.mustDo(wire.OpUpdate, path, body, out)
}

func (m *mount) mustDo(op wire.Op, path string, body any, out any) {
	m.t.Helper()
	status, data, err := m.ask(op, path, body)
	if err != nil || status >= 300 {
		m.t.Fatalf("%s %s = %d, %v, want success", op, path, status, err)
	}
	if out != nil {
		if err := json.Unmarshal(data, out); err != nil {
			m.t.Fatalf("%s %s: %v in %s", op, path, err, data)
		}
	}
}

// refused asks for what must be the caller's fault, and gives the sentence.
func (m *mount) refused(path string, body any) string {
	m.t.Helper()
	status, data, err := m.ask(wire.OpUpdate, path, body)
	if status != 400 || err == nil {
		m.t.Fatalf("%s %v = %d, %s, %v, want a refusal", path, body, status, data, err)
	}
	var e *errs.Error
	if !errors.As(err, &e) || e.Msg == "" {
		m.t.Fatalf("%s %v is refused without a sentence: %v", path, body, err)
	}
	return e.Msg
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func (m *mount) encrypt(key, plain string, more object) string {
	m.t.Helper()
	body := object{"plaintext": b64(plain)}
	for k, v := range more {
		body[k] = v
	}
	var out struct{ Ciphertext string }
	m.must("encrypt/"+key, body, &out)
	return out.Ciphertext
}

func (m *mount) decrypt(key, text string, more object) string {
	m.t.Helper()
	body := object{"ciphertext": text}
	for k, v := range more {
		body[k] = v
	}
	var out struct{ Plaintext string }
	m.must("decrypt/"+key, body, &out)
	b, err := base64.StdEncoding.DecodeString(out.Plaintext)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(b)
}

// within waits for what another goroutine brings about.
func within(t testing.TB, done func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-limit.C:
			return // the caller looks and says what is missing
		}
	}
}
