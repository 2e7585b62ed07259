package mfa_test

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/identity/mfa"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// rig is the engine over a real store, with a clock that the test moves.
type rig struct {
	t      testing.TB
	store  storage.Backend
	engine *mfa.Engine
	table  *route.Table
	now    atomic.Int64
}

type people map[string]*engine.Identified

func (p people) Identify(_ context.Context, id string) (*engine.Identified, error) { return p[id], nil }

func (p people) HasGroup(_ context.Context, id string) (bool, error) { return id == "g1", nil }

func (p people) Logins(context.Context) ([]mfa.Login, error) {
	return []mfa.Login{{Accessor: "acc1", Type: "userpass"}, {Accessor: "acc2", Type: "ldap"}}, nil
}

var (
	ann = &engine.Identified{ID: "ann", Name: "Ann", Groups: []engine.IdentifiedGroup{{ID: "g1"}}}
	bob = &engine.Identified{ID: "bob", Name: "Bob"}
)

func newRig(t testing.TB) *rig {
	r := &rig{t: t, store: mem.New()}
	r.now.Store(time.Now().Truncate(30 * time.Second).UnixNano())
	t.Cleanup(func() { _ = r.store.Close() })
	r.engine, r.table = r.open()
	return r
}

// open is one more server on the same store. Like core it passes on what
// changes.
func (r *rig) open() (*mfa.Engine, *route.Table) {
	slice := storage.Prefix(r.store, "m/root/id/")
	e := mfa.New(mfa.Config{People: people{"ann": ann, "bob": bob, "merged": ann}, Env: engine.Env{
		Store: slice, Now: r.clock, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	}})
	running := make(chan struct{})
	var once sync.Once
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = slice.Watch(ctx, 0, func(changes []storage.Change) error {
			for _, c := range changes {
				e.Changed(c.Key, c.Rev)
			}
			once.Do(func() { close(running) })
			return nil
		})
	}()
	<-running
	r.t.Cleanup(func() { cancel(); <-done })
	t := route.NewTable()
	e.Routes(t)
	return e, t
}

func (r *rig) clock() time.Time { return time.Unix(0, r.now.Load()) }

func (r *rig) pass(d time.Duration) { r.now.Add(int64(d)) }

type obj = map[string]any

// do sends a request as ann and wants a status.
func (r *rig) do(status int, op wire.Op, path string, body obj) obj {
	r.t.Helper()
	if op == wire.OpList {
		path += "/"
	}
	req := &route.Request{Op: op, Path: path, Mount: route.MountInfo{Path: "identity/", Namespace: "root"}}
	req.Caller.EntityID = "ann"
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			r.t.Fatal(err)
		}
		req.Body = b
	}
	ep, err := r.table.Route(req)
	var res route.Result
	if err == nil {
		res, err = ep.Call(context.Background(), req)
	}
	got, text, out := 204, "", obj{}
	switch {
	case err != nil:
		got = map[errs.Kind]int{errs.Invalid: 400, errs.Denied: 403, errs.NotFound: 404, errs.Unsupported: 405, errs.Internal: 500}[errs.KindOf(err)]
		text = err.Error()
	case res.Data != nil:
		text = string(res.Data.AppendJSON(nil))
		if err := json.Unmarshal([]byte(text), &out); err != nil {
			r.t.Fatal(err)
		}
		got = 200
	case len(req.Reply().Warnings) > 0:
		got, text = 200, req.Reply().Warnings[0]
	}
	if got != status {
		r.t.Fatalf("%s %s %v = %d %s, want %d", op, path, body, got, text, status)
	}
	return out
}

// method makes a TOTP method and gives its id.
func (r *rig) method(settings obj) string {
	r.t.Helper()
	body := obj{"issuer": "Leasehold"}
	for k, v := range settings {
		body[k] = v
	}
	id, _ := r.do(200, wire.OpUpdate, "mfa/method/totp", body)["method_id"].(string)
	return id
}

// device is what a person has after they have taken in the URL.
type device struct {
	r      *rig
	key    []byte
	digits int
	alg    string
	period int64
}

func (r *rig) device(answer obj) *device {
	r.t.Helper()
	text, _ := answer["url"].(string)
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "otpauth" || u.Host != "totp" {
		r.t.Fatalf("the URL of a secret is %q", text)
	}
	q := u.Query()
	d := &device{r: r, alg: q.Get("algorithm")}
	if d.key, err = base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(q.Get("secret")); err != nil {
		r.t.Fatal(err)
	}
	if _, err := fmt.Sscan(q.Get("digits"), &d.digits); err != nil {
		r.t.Fatal(err)
	}
	if _, err := fmt.Sscan(q.Get("period"), &d.period); err != nil {
		r.t.Fatal(err)
	}
	return d
}

// code is the passcode shown steps from now.
func (d *device) code(steps int64) string {
	return mfa.Code(d.key, d.r.clock().Unix()/d.period+steps, d.digits, d.alg)
}

// wrong is a passcode that does not count at the moment.
func (d *device) wrong() string {
	for n := 0; ; n++ {
		s := fmt.Sprintf("%0*d", d.digits, n)
		if s != d.code(-1) && s != d.code(0) && s != d.code(1) {
			return s
		}
	}
}

// demand is what a login of ann must show of some methods, all of them.
func demand(methods ...string) *engine.Demand {
	d := &engine.Demand{EntityID: "ann", Constraints: map[string]route.MFAConstraint{}}
	for _, m := range methods {
		d.Constraints["needs "+m] = route.MFAConstraint{Any: []route.MFAMethod{{Type: "totp", ID: m, UsesPasscode: true}}}
	}
	return d
}

func (r *rig) prove(method, code string) error {
	return r.engine.Prove(r.t.Context(), demand(method), engine.Shown{method: {code}})
}
