package sys_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// rig is the engine with parts that behave as the server's do, in memory.
type rig struct {
	t      testing.TB
	cfg    sys.Config
	table  *route.Table
	boot   *route.Table
	store  storage.Backend
	engine engine.Engine
	mounts *mountBook
	leases *leaseBook
	state  *stateBook
	access accessBook
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const root = "root"

func newRig(t testing.TB, change ...func(*sys.Config)) *rig {
	t.Helper()
	r := &rig{t: t, table: route.NewTable(), boot: route.NewTable(), store: mem.New(), leases: &leaseBook{}, state: &stateBook{}}
	t.Cleanup(func() { _ = r.store.Close() })
	r.mounts = &mountBook{list: []sys.Mount{
		{Path: "sys/", Type: "system", ID: "id-sys", Accessor: "system_1", Own: true},
		{Path: "cubbyhole/", Type: "cubbyhole", ID: "id-cub", Accessor: "cubbyhole_1", Own: true},
		{Path: "auth/token/", Type: "token", ID: "id-tok", Accessor: "token_1", Own: true},
	}}
	r.access = accessBook{root: {"": {"root"}}}
	spaces := &spaceBook{}
	now := func() time.Time { return start }
	version := sys.Version{API: "1.20.0", Own: "0.1.0"}
	r.cfg = sys.Config{
		Version: version, Mounts: r.mounts, MountTable: r.mounts, MaxTTL: 768 * time.Hour,
		Policies: &policyBook{}, Passwords: &passwordBook{},
		Password: func(text string) (secret.String, error) { return secret.New("drawn by " + text), nil },
		Access:   r.access, Leases: r.leases, LeaseActions: r.leases,
		LeaseCounts: func(context.Context, string) (map[string]int64, error) {
			return map[string]int64{"id-sys": 2, "gone": 1}, nil
		},
		LeaseHolder: func(_ context.Context, owner string) string { return "holder of " + owner },
		TidyLeases:  func(context.Context) error { r.leases.tidied++; return nil },
		Fence:       r.state, Seal: func(context.Context) error { r.state.sealed = true; return nil },
		Shares: r.state, Status: r.state.Status, Wrapping: wrapBook{},
		Namespaces: spaces, NamespaceTable: spaces, NamespaceLocks: spaces,
		Tables: func(context.Context, string) (map[string]*route.Table, error) {
			return map[string]*route.Table{"sys/": r.table}, nil
		},
		Now: now, Rand: rand.Reader,
	}
	for _, fn := range change {
		fn(&r.cfg)
	}
	e, err := sys.Factory(r.cfg)(t.Context(), engine.Env{
		Namespace: "root", Store: storage.Prefix(r.store, "m/root/sys/"), Now: now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.(engine.Closer).Close() })
	r.engine = e
	e.Routes(r.table)
	if err := e.(engine.Starter).Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	sys.BootRoutes(r.boot, sys.BootConfig{Version: version, State: r.state, Now: now})
	return r
}

// answer is what an endpoint gave.
type answer struct {
	data     map[string]any
	whole    *route.Whole
	raw      *route.Raw
	status   int
	warnings []string
}

// call asks an endpoint as the holder of the root token; a path may have a
// query.
func (r *rig) call(op wire.Op, path, body string) (answer, error) {
	return r.callAs(root, r.table, op, path, body, 0)
}

func (r *rig) callAs(token string, table *route.Table, op wire.Op, path, body string, wrap time.Duration) (answer, error) {
	r.t.Helper()
	var out answer
	path, query, _ := strings.Cut(path, "?")
	req := &route.Request{
		Op: op, Path: path, WrapTTL: wrap, Mount: route.MountInfo{Path: "sys/", Namespace: "root"},
		Caller: route.Caller{Token: secret.New(token)}, Remote: netip.MustParseAddr("192.0.2.1"),
	}
	for pair := range strings.SplitSeq(query, "&") {
		if k, v, _ := strings.Cut(pair, "="); k != "" {
			if req.Query == nil {
				req.Query = map[string][]string{}
			}
			req.Query[k] = []string{v}
		}
	}
	if body != "" {
		req.Body = []byte(body)
	}
	ep, err := table.Route(req)
	if err != nil {
		return out, err
	}
	res, err := ep.Call(r.t.Context(), req)
	out.status, out.warnings, out.whole, out.raw = req.Reply().Status, req.Reply().Warnings, res.Whole, res.Raw
	if err == nil && res.Data != nil {
		if err := json.Unmarshal(res.Data.AppendJSON(nil), &out.data); err != nil {
			r.t.Fatalf("%s %s answers no JSON object: %v", op, path, err)
		}
	}
	return out, err
}

func (r *rig) must(op wire.Op, path, body string) answer {
	r.t.Helper()
	out, err := r.call(op, path, body)
	if err != nil {
		r.t.Fatalf("%s %s %s = %v, want success", op, path, body, err)
	}
	return out
}

func (r *rig) refused(kind errs.Kind, says string, op wire.Op, path, body string) {
	r.t.Helper()
	_, err := r.call(op, path, body)
	if !errs.Is(err, kind) || !strings.Contains(err.Error(), says) {
		r.t.Errorf("%s %s %s = %v, want %q", op, path, body, err, says)
	}
}

var errShares = errs.New(errs.Invalid, "the shares do not fit together")

func good(shares []*secret.Bytes) error {
	for _, sh := range shares {
		if !strings.HasPrefix(string(sh.Reveal()), "good") {
			return errShares
		}
	}
	return nil
}

var errNothingWrapped = errs.New(errs.Invalid, "wrapping token is not valid or does not exist")

// isPath reports whether an error says that there is no such path or method.
func isPath(err error) bool { return errs.Is(err, errs.NotFound) || errors.Is(err, errs.Gone) }
