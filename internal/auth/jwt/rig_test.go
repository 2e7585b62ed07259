package jwt_test

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/auth/jwt"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// node is the engine of one mount as one server has it. Several may share a
// store.
type node struct {
	t     *testing.T
	eng   engine.Engine
	table *route.Table
	clock *clock
	log   *strings.Builder
}

// clock is moved by hand.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newStore(t *testing.T) storage.Backend {
	s := mem.New()
	t.Cleanup(func() { _ = s.Close() })
	return storage.Prefix(s, "m/root/x/")
}

func start(t *testing.T, store storage.Backend) *node {
	t.Helper()
	n := &node{t: t, table: route.NewTable(), clock: &clock{at: time.Now()}, log: new(strings.Builder)}
	e, err := jwt.New(t.Context(), engine.Env{
		Store: store, Now: n.clock.now, Log: slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	n.eng = e
	e.Routes(n.table)
	t.Cleanup(func() { _ = e.(engine.Closer).Close() })
	return n
}

// reply is what came back.
type reply struct {
	auth     *route.Auth
	data     map[string]any
	raw      *route.Raw
	warnings []string
}

// body is a request's body.
type body map[string]any

func (n *node) do(op wire.Op, path string, b body, query url.Values) (reply, error) {
	n.t.Helper()
	req := &route.Request{
		Op: op, Path: path, Query: query, Remote: netip.MustParseAddr("127.0.0.1"),
		Mount: route.MountInfo{Path: "auth/jwt/", Namespace: "root", DefaultTTL: time.Hour, MaxTTL: 768 * time.Hour},
	}
	if b != nil {
		text, err := json.Marshal(b)
		if err != nil {
			n.t.Fatal(err)
		}
		req.Body = text
	}
	ep, err := n.table.Route(req)
	if err != nil {
		n.t.Fatalf("%s %s: %v", op, path, err)
	}
	res, err := ep.Call(n.t.Context(), req)
	out := reply{auth: res.Auth, raw: res.Raw, warnings: req.Reply().Warnings}
	if err == nil && res.Data != nil {
		if err := json.Unmarshal(res.Data.AppendJSON(nil), &out.data); err != nil {
			n.t.Fatal(err)
		}
	}
	return out, err
}

func (n *node) write(path string, b body) {
	n.t.Helper()
	if _, err := n.do(wire.OpUpdate, path, b, nil); err != nil {
		n.t.Fatalf("writing %s: %v", path, err)
	}
}

func (n *node) read(path string) map[string]any {
	n.t.Helper()
	r, err := n.do(wire.OpRead, path, nil, nil)
	if err != nil {
		n.t.Fatalf("reading %s: %v", path, err)
	}
	return r.data
}

func (n *node) login(role, token string) (*route.Auth, error) {
	n.t.Helper()
	r, err := n.do(wire.OpUpdate, "login", body{"role": role, "jwt": token}, nil)
	return r.auth, err
}
