package sys_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
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

// mountBook is a mount table.
type mountBook struct{ list []sys.Mount }

func (b *mountBook) List(context.Context, string) ([]sys.Mount, error) {
	slices.SortFunc(b.list, func(x, y sys.Mount) int { return strings.Compare(x.Path, y.Path) })
	return slices.Clone(b.list), nil
}

func (b *mountBook) At(_ context.Context, _, path string) (found sys.Mount, ok bool, err error) {
	for _, m := range b.list {
		if strings.HasPrefix(path, m.Path) && len(m.Path) > len(found.Path) {
			found, ok = m, true
		}
	}
	return found, ok, nil
}

func (b *mountBook) Types(class string) []string {
	if class == "auth" {
		return []string{"userpass"}
	}
	return []string{"database", "kv"}
}

func (b *mountBook) Add(_ context.Context, _ string, m sys.Mount) error {
	for _, have := range b.list {
		if have.Path == m.Path {
			return errs.New(errs.Invalid, "path is already in use at %s", m.Path)
		}
	}
	m.ID, m.Accessor = "id-"+m.Path, m.Type+"_x"
	m.DefaultTTL, m.MaxTTL = m.Config.DefaultTTL, m.Config.MaxTTL
	b.list = append(b.list, m)
	return nil
}

func (b *mountBook) Remove(_ context.Context, _, path string) error {
	b.list = slices.DeleteFunc(b.list, func(m sys.Mount) bool { return m.Path == path })
	return nil
}

func (b *mountBook) Tune(_ context.Context, _, path string, change func(*sys.Mount) error) error {
	for i := range b.list {
		if b.list[i].Path == path {
			m := b.list[i]
			if err := change(&m); err != nil {
				return err
			}
			m.DefaultTTL, m.MaxTTL = m.Config.DefaultTTL, m.Config.MaxTTL
			b.list[i] = m
		}
	}
	return nil
}

func (b *mountBook) Move(_ context.Context, _, from, to string) error {
	for i := range b.list {
		if b.list[i].Path == from {
			b.list[i].Path = to
		}
	}
	return nil
}

// policyBook is a store of policies. A text with "bad" in it does not parse.
type policyBook struct{ list map[string]sys.Policy }

func (b *policyBook) Read(_ context.Context, _, name string) (sys.Policy, bool, error) {
	p, ok := b.list[name]
	return p, ok, nil
}

func (b *policyBook) List(_ context.Context, _, prefix string) (list []sys.Policy, err error) {
	for _, name := range slices.Sorted(maps.Keys(b.list)) {
		if strings.HasPrefix(name, prefix) {
			list = append(list, b.list[name])
		}
	}
	return list, nil
}

func (b *policyBook) Check(_, text string) error {
	if strings.Contains(text, "bad") {
		return errs.New(errs.Invalid, "failed to parse policy")
	}
	return nil
}

func (b *policyBook) Write(_ context.Context, _, name string, change func(sys.Policy, bool) (sys.Policy, error)) error {
	old, ok := b.list[name]
	p, err := change(old, ok)
	if err != nil {
		return err
	}
	if b.list == nil {
		b.list = map[string]sys.Policy{}
	}
	p.Name, p.Version = name, old.Version+1
	b.list[name] = p
	return nil
}

func (b *policyBook) Delete(_ context.Context, _, name string) error {
	delete(b.list, name)
	return nil
}

// passwordBook is a store of password policies. A text with "bad" in it does
// not parse.
type passwordBook struct{ texts map[string]string }

func (b *passwordBook) Read(_ context.Context, _, name string) (string, bool, error) {
	text, ok := b.texts[name]
	return text, ok, nil
}

func (b *passwordBook) Names(context.Context, string) (names []string, err error) {
	for n := range b.texts {
		names = append(names, n)
	}
	slices.Sort(names)
	return names, nil
}

func (b *passwordBook) Write(_ context.Context, _, name, text string) error {
	if strings.Contains(text, "bad") {
		return errs.New(errs.Invalid, "failed to parse policy")
	}
	if b.texts == nil {
		b.texts = map[string]string{}
	}
	b.texts[name] = text
	return nil
}

func (b *passwordBook) Delete(_ context.Context, _, name string) error {
	delete(b.texts, name)
	return nil
}

// accessBook has the capabilities of tokens by path; "" stands for all paths.
type accessBook map[string]map[string][]string

func (b accessBook) Of(_ context.Context, _ string, token secret.String, _ netip.Addr) (sys.Rights, error) {
	r, ok := b[token.Reveal()]
	if !ok {
		return nil, errs.New(errs.Denied, "permission denied")
	}
	return rights(r), nil
}

func (b accessBook) Spend(ctx context.Context, ns string, token secret.String, from netip.Addr) (sys.Rights, error) {
	return b.Of(ctx, ns, token, from)
}

func (b accessBook) OfAccessor(ctx context.Context, _, accessor string) (sys.Rights, error) {
	r, err := b.Of(ctx, "root", secret.New(strings.TrimPrefix(accessor, "acc-")), netip.Addr{})
	if err != nil {
		return nil, errs.New(errs.Invalid, "invalid accessor")
	}
	return r, nil
}

func (b accessBook) Resultant(context.Context, secret.String) (wire.Data, error) {
	return wire.Object(`{"root":true}`), nil
}

type rights map[string][]string

func (r rights) Capabilities(path string) []string {
	if all, ok := r[""]; ok {
		return all
	}
	if caps, ok := r[path]; ok {
		return caps
	}
	return []string{"deny"}
}

func (r rights) Reaches(mount string) bool {
	for path := range r {
		if path == "" || strings.HasPrefix(path, mount) {
			return true
		}
	}
	return false
}

// leaseBook is a list of leases.
type leaseBook struct {
	list   []lease.Info
	tidied int
}

func (b *leaseBook) Lookup(_ context.Context, _ string, id lease.ID) (lease.Info, error) {
	for _, l := range b.list {
		if l.ID == id {
			return l, nil
		}
	}
	return lease.Info{}, errs.New(errs.Invalid, "invalid lease")
}

func (b *leaseBook) Keys(_ context.Context, _, prefix string) (keys []string, err error) {
	for _, l := range b.list {
		if rest, ok := strings.CutPrefix(string(l.ID), prefix+"/"); ok {
			keys = append(keys, rest)
		}
	}
	return keys, nil
}

func (b *leaseBook) List(_ context.Context, _ string, q lease.Query) (out []lease.Info, more bool, err error) {
	for _, l := range b.list {
		if !strings.HasPrefix(string(l.ID), q.Prefix) || q.Irrevocable && !l.Irrevocable || l.ID <= q.After {
			continue
		}
		if len(out) == q.Limit {
			return out, true, nil
		}
		out = append(out, l)
	}
	return out, false, nil
}

func (b *leaseBook) Renew(ctx context.Context, ns string, id lease.ID, increment time.Duration) (lease.Renewed, error) {
	l, err := b.Lookup(ctx, ns, id)
	if most := l.MaxExpires.Sub(l.Issued); increment > most {
		l.TTL = most
		return lease.Renewed{Info: l, Capped: true}, err
	}
	l.TTL = increment
	return lease.Renewed{Info: l}, err
}

func (b *leaseBook) Revoke(_ context.Context, _ string, id lease.ID, _ lease.Cause, sync bool) (lease.Pending, error) {
	b.list = slices.DeleteFunc(b.list, func(l lease.Info) bool { return l.ID == id })
	return lease.Pending{Cleaning: sync}, nil
}

func (b *leaseBook) RevokePrefix(_ context.Context, _, prefix string, _ lease.Cause, _ bool) (lease.Pending, error) {
	b.list = slices.DeleteFunc(b.list, func(l lease.Info) bool { return strings.HasPrefix(string(l.ID), prefix) })
	return lease.Pending{}, nil
}

// stateBook is the seal: its shares are good when they begin with "good".
type stateBook struct {
	initialized, sealed, recovery bool
	threshold                     int
	given                         int
	fence                         sys.Fence
	committed                     int
}

func (s *stateBook) Health(context.Context) (sys.Health, error) {
	return sys.Health{Initialized: s.initialized, Sealed: s.sealed || !s.initialized, Fence: s.fence}, nil
}

func (s *stateBook) Status(ctx context.Context) (sys.Status, error) {
	h, err := s.Health(ctx)
	return sys.Status{Health: h, SealType: "shamir", Threshold: s.threshold, Progress: s.given, RecoverySeal: s.recovery}, err
}

func (s *stateBook) Init(_ context.Context, p sys.InitParams) (sys.InitResult, error) {
	s.initialized, s.sealed, s.threshold = true, true, p.Threshold
	var made []*secret.Bytes
	for range p.Shares {
		made = append(made, secret.NewBytes([]byte("good share of a root key, 33 bytes")))
	}
	return sys.InitResult{Shares: made, Root: secret.New("hvs.first")}, nil
}

func (s *stateBook) Unseal(_ context.Context, share *secret.Bytes) error {
	if !strings.HasPrefix(string(share.Reveal()), "good") {
		s.given = 0
		return errs.New(errs.Invalid, "the shares do not fit together")
	}
	if s.given++; s.given == s.threshold {
		s.sealed, s.given = false, 0
	}
	return nil
}

func (s *stateBook) ResetUnseal(context.Context) error { s.given = 0; return nil }

func (s *stateBook) Read(context.Context) (sys.Fence, error) { return s.fence, nil }
func (s *stateBook) Lift(context.Context) error              { s.fence = sys.Fence{}; return nil }

func (s *stateBook) Required(context.Context) (int, error) { return s.threshold, nil }

var errShares = errs.New(errs.Invalid, "the shares do not fit together")

func good(shares []*secret.Bytes) error {
	for _, sh := range shares {
		if !strings.HasPrefix(string(sh.Reveal()), "good") {
			return errShares
		}
	}
	return nil
}

func (s *stateBook) Split(_ context.Context, shares []*secret.Bytes, n, threshold int) ([]*secret.Bytes, func(context.Context) error, error) {
	if err := good(shares); err != nil {
		return nil, nil, err
	}
	var next []*secret.Bytes
	for i := range n {
		next = append(next, secret.NewBytes([]byte("good new share "+string(rune('A'+i))+" of a root key")))
	}
	return next, func(context.Context) error { s.threshold = threshold; s.committed++; return nil }, nil
}

func (s *stateBook) RootToken(_ context.Context, shares []*secret.Bytes) (secret.String, error) {
	return secret.New("hvs.abcdefghijklmnopqrstuvwx"), good(shares)
}

// wrapBook wraps under the token "wrapping" alone.
type wrapBook struct{}

var errNothingWrapped = errs.New(errs.Invalid, "wrapping token is not valid or does not exist")

func (wrapBook) Unwrap(_ context.Context, _ string, token secret.String) (*route.Whole, error) {
	if token.Reveal() != "wrapping" {
		return nil, errNothingWrapped
	}
	return &route.Whole{Data: wire.Object(`{"a":1}`)}, nil
}

func (wrapBook) Rewrap(_ context.Context, _ string, token secret.String) (*route.WrapInfo, error) {
	if token.Reveal() != "wrapping" {
		return nil, errNothingWrapped
	}
	return &route.WrapInfo{CreationPath: "kv/a"}, nil
}

func (wrapBook) Lookup(_ context.Context, _ string, token secret.String) (sys.Wrapped, error) {
	if token.Reveal() != "wrapping" {
		return sys.Wrapped{}, errNothingWrapped
	}
	return sys.Wrapped{Path: "kv/a", Created: start, TTL: time.Minute}, nil
}

// isPath reports whether an error says that there is no such path or method.
func isPath(err error) bool { return errs.Is(err, errs.NotFound) || errors.Is(err, errs.Gone) }

// spaceBook is a list of namespaces below the root.
type spaceBook struct{ list []sys.Namespace }

func (b *spaceBook) Below(_ context.Context, _ string, deep bool) (out []sys.Namespace, err error) {
	for _, n := range b.list {
		if deep || strings.Count(n.Path, "/") == 1 {
			out = append(out, n)
		}
	}
	return out, nil
}

func (b *spaceBook) find(path string) *sys.Namespace {
	for i := range b.list {
		if b.list[i].Path == strings.Trim(path, "/")+"/" {
			return &b.list[i]
		}
	}
	return nil
}

func (b *spaceBook) At(_ context.Context, _, path string) (sys.Namespace, bool, error) {
	if n := b.find(path); n != nil {
		return *n, true, nil
	}
	return sys.Namespace{}, false, nil
}

func (b *spaceBook) Add(_ context.Context, _, path string, metadata map[string]string) (sys.Namespace, error) {
	n := sys.Namespace{ID: "id-" + path, UUID: "uuid", Path: strings.Trim(path, "/") + "/", Metadata: metadata}
	b.list = append(b.list, n)
	return n, nil
}

func (b *spaceBook) Tune(_ context.Context, _, path string, change func(map[string]string) map[string]string) (sys.Namespace, error) {
	n := b.find(path)
	if n == nil {
		return sys.Namespace{}, errs.New(errs.NotFound, "no namespace")
	}
	n.Metadata = change(n.Metadata)
	return *n, nil
}

func (b *spaceBook) Remove(_ context.Context, _, path string) (bool, error) {
	n := b.find(path)
	b.list = slices.DeleteFunc(b.list, func(one sys.Namespace) bool { return n != nil && one.Path == n.Path })
	return n != nil, nil
}

func (b *spaceBook) Lock(_ context.Context, _, path string) (secret.String, error) {
	b.find(path).Locked = true
	return secret.New("key"), nil
}

func (b *spaceBook) Unlock(_ context.Context, _, path string, key secret.String, whatever bool) error {
	if !whatever && key.Reveal() != "key" {
		return errs.New(errs.Invalid, "wrong key")
	}
	b.find(path).Locked = false
	return nil
}
