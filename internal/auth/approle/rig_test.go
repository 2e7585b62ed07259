package approle_test

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/auth/approle"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// rig is the method on a mount, with a clock that stands until it is moved.
type rig struct {
	t      testing.TB
	eng    engine.Engine
	table  *route.Table
	store  storage.Backend
	passed atomic.Int64
	writes atomic.Int64 // transactions that were begun
	remote netip.Addr
}

var begin = time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)

// counted counts the transactions on a store.
type counted struct {
	storage.Backend
	n *atomic.Int64
}

func (c counted) Update(ctx context.Context, fn func(storage.Tx) error) (storage.Revision, error) {
	c.n.Add(1)
	return c.Backend.Update(ctx, fn)
}

func start(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, table: route.NewTable(), store: mem.New(), remote: netip.MustParseAddr("192.0.2.7")}
	t.Cleanup(func() { _ = r.store.Close() })
	e, err := approle.New(t.Context(), engine.Env{
		Store: counted{r.store, &r.writes}, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return begin.Add(time.Duration(r.passed.Load())) },
		Hash: func(s string) [32]byte {
			m := hmac.New(sha256.New, []byte("of the store"))
			m.Write([]byte(s))
			return [32]byte(m.Sum(nil))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.eng = e
	t.Cleanup(func() { _ = e.(engine.Closer).Close() })
	e.Routes(r.table)
	return r
}

func (r *rig) call(op wire.Op, path, body string) (*route.Request, route.Result, error) {
	r.t.Helper()
	req := &route.Request{
		Op: op, Path: path, Remote: r.remote,
		Mount: route.MountInfo{Path: "auth/approle/", Type: "approle", Namespace: "root", DefaultTTL: time.Hour, MaxTTL: 768 * time.Hour},
	}
	if body != "" {
		req.Body = []byte(body)
	}
	ep, err := r.table.Route(req)
	if err != nil {
		return req, route.Result{}, err
	}
	res, err := ep.Call(r.t.Context(), req)
	return req, res, err
}

// do calls an endpoint and gives its data; nil for none.
func (r *rig) do(op wire.Op, path, body string) (map[string]any, error) {
	r.t.Helper()
	_, res, err := r.call(op, path, body)
	if err != nil || res.Data == nil {
		return nil, err
	}
	var data map[string]any
	if err := json.Unmarshal(res.Data.AppendJSON(nil), &data); err != nil {
		r.t.Fatal(err)
	}
	return data, nil
}

func (r *rig) must(op wire.Op, path, body string) map[string]any {
	r.t.Helper()
	data, err := r.do(op, path, body)
	if err != nil {
		r.t.Fatalf("%s %s %s = %v", op, path, body, err)
	}
	return data
}

// refused expects an error of a kind.
func (r *rig) refused(kind errs.Kind, op wire.Op, path, body string) {
	r.t.Helper()
	if _, err := r.do(op, path, body); !errs.Is(err, kind) {
		r.t.Errorf("%s %s %s = %v, want an error of kind %d", op, path, body, err, kind)
	}
}

func (r *rig) roleID(role string) string {
	r.t.Helper()
	return r.must(wire.OpRead, "role/"+role+"/role-id", "")["role_id"].(string)
}

// secretID draws one for a role.
func (r *rig) secretID(role, body string) (id, accessor string) {
	r.t.Helper()
	data := r.must(wire.OpUpdate, "role/"+role+"/secret-id", body)
	return data["secret_id"].(string), data["secret_id_accessor"].(string)
}

func (r *rig) login(roleID, secretID string) (*route.Auth, error) {
	r.t.Helper()
	body, err := json.Marshal(map[string]string{"role_id": roleID, "secret_id": secretID})
	if err != nil {
		r.t.Fatal(err)
	}
	_, res, err := r.call(wire.OpUpdate, "login", string(body))
	return res.Auth, err
}

func (r *rig) in(roleID, secretID string) *route.Auth {
	r.t.Helper()
	a, err := r.login(roleID, secretID)
	if err != nil {
		r.t.Fatalf("login = %v", err)
	}
	return a
}

// wrong expects the one answer to everything that is not right.
func (r *rig) wrong(what, roleID, secretID string) {
	r.t.Helper()
	_, err := r.login(roleID, secretID)
	if !errors.Is(err, route.ErrCredentials) || errs.Message(err) != "invalid role or secret ID" {
		r.t.Errorf("%s = %v, want that role or secret id are wrong", what, err)
	}
}

func (r *rig) sweep() {
	r.t.Helper()
	if err := r.eng.(engine.Sweeper).Sweep(r.t.Context()); err != nil {
		r.t.Errorf("Sweep = %v", err)
	}
}

// rows are all keys and values that are stored.
func (r *rig) rows() (keys []string, all string) {
	r.t.Helper()
	var b strings.Builder
	err := r.store.View(r.t.Context(), func(v storage.View) error {
		return v.Scan("", "", 0, func(k string, val []byte) bool {
			keys = append(keys, k)
			b.WriteString(k + " " + string(val) + "\n")
			return true
		})
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return keys, b.String()
}
