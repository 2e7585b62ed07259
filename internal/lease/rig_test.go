package lease_test

import (
	"context"
	"crypto/sha256"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
)

// ref is what the fake target needs to end a login.
type ref struct{ User string }

// target is a foreign system that behaves: logins with marks, and faults that
// a test switches on.
type target struct {
	mu     sync.Mutex
	logins map[string]string // user → mark
	down   error             // every call fails with it
	poison string            // ending this user panics
	refuse map[string]error  // dropping this user fails
	renews int
	drops  int
	slow   time.Duration // ending a batch takes so long
	lag    time.Duration // and so long passes before the answer is heard

	working int             // batches being ended
	idle    time.Time       // since when there is none, zero before the first
	pauses  []time.Duration // times between batches
}

func (g *target) create(user, mark string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down != nil {
		return lane.ConnFault(g.down)
	}
	if _, ok := g.logins[user]; ok {
		return lease.ErrNameTaken
	}
	g.logins[user] = mark
	return nil
}

func (g *target) end(_ context.Context, _ string, items []*lease.Ending[ref]) {
	g.set(func() {
		if pause := time.Since(g.idle); g.working == 0 && pause > 0 && !g.idle.IsZero() {
			g.pauses = append(g.pauses, pause)
		}
		g.working++
	})
	defer g.set(func() { g.working--; g.idle = time.Now() })
	time.Sleep(g.slow)
	defer time.Sleep(g.lag)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, it := range items {
		mark, ok := g.logins[it.Ref.User]
		switch {
		case it.Ref.User == g.poison:
			panic("a fault in an engine")
		case g.down != nil:
			it.Done(lane.ConnFault(g.down))
		case g.refuse[it.Ref.User] != nil:
			it.Done(g.refuse[it.Ref.User])
		case !ok:
			it.Done(lease.ErrAbsent)
		case mark != it.Mark:
			it.Done(lease.ErrNameTaken)
		default:
			it.Disabled()
			delete(g.logins, it.Ref.User)
			g.drops++
			it.Done(nil)
		}
	}
}

func (g *target) set(f func()) { g.mu.Lock(); f(); g.mu.Unlock() }

func (g *target) has(user string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, ok := g.logins[user]
	return ok
}

func (g *target) users() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Collect(maps.Keys(g.logins))
}

const (
	ns     = "root"
	owner  = "root/tokenhash"
	liveOf = "alive/t/root/tokenhash"
)

type rig struct {
	t      *testing.T
	db     storage.Backend
	lanes  *lane.Set
	store  *lease.Store
	kind   *lease.Kind[ref]
	target *target
	fenced atomic.Bool
	meet   atomic.Pointer[func(target string) error]
	at     string        // the target that is issued at
	mount  lease.Mount   // that issues
	mounts []lease.Mount // as core names them, whatever it is asked
	asked  func()        // runs when it is asked whether an owner lives
	stop   func()
}

var mount = lease.Mount{Namespace: ns, ID: "m1", Path: "database/"}

func newRig(t *testing.T) *rig { return newRigOn(t, mem.New()) }

func newRigOn(t *testing.T, db storage.Backend) *rig {
	return newRigWith(t, db, &target{logins: map[string]string{}, refuse: map[string]error{}})
}

// newRigWith starts a process on a store, beside a target that may have logins.
func newRigWith(t *testing.T, db storage.Backend, g *target) *rig {
	r := &rig{t: t, db: db, target: g, at: "conn-1", mount: mount, mounts: []lease.Mount{mount}}
	r.kind = &lease.Kind[ref]{Name: "user", Version: 1, End: r.target.end}
	r.kind.Meet = func(_ context.Context, target string, _ ref) error {
		if meet := r.meet.Load(); meet != nil {
			return (*meet)(target)
		}
		return nil
	}
	r.kind.Renew = func(context.Context, string, ref, string, time.Time) error {
		r.target.set(func() { r.target.renews++ })
		return r.target.down
	}
	handlers := map[string]lane.Handler{}
	r.lanes = lane.New(lane.Config{Store: r.db, Handlers: handlers, Held: r.fenced.Load})
	r.store = lease.New(lease.Config{
		Store: r.db, Lanes: r.lanes, Origin: lease.Origin{Instance: "inst", Epoch: 3},
		Hash:   func(s string) [32]byte { return sha256.Sum256([]byte("key" + s)) },
		Kind:   func(m, k string) (lease.AnyKind, bool) { return r.kind, m == "m1" && k == "user" },
		Mounts: func(string, string) []lease.Mount { return r.mounts },
		Alive: func(ctx context.Context, _, key string) (bool, error) {
			if r.asked != nil {
				r.asked()
			}
			alive := false
			err := r.db.View(ctx, func(v storage.View) error {
				b, err := v.Get("alive/t/" + key)
				alive = string(b) == lease.Alive
				return err
			})
			return alive, err
		},
		Fenced: r.fenced.Load,
	})
	handlers[lease.DueKind] = r.store.Handler()
	handlers[lease.OfferKind] = r.store.Offers()
	r.put(liveOf, lease.Alive)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.lanes.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	}()
	r.stop = func() { cancel(); <-done }
	return r
}

func (r *rig) put(key, value string) {
	r.t.Helper()
	_, err := r.db.Update(context.Background(), func(tx storage.Tx) error { return tx.Put(key, []byte(value)) })
	if err != nil {
		r.t.Fatal(err)
	}
}

// left counts the keys under a prefix.
func (r *rig) left(prefix string) (n int) { r.t.Helper(); return len(r.keys(prefix)) }

func (r *rig) keys(prefix string) (keys []string) {
	r.t.Helper()
	err := r.db.View(context.Background(), func(v storage.View) error {
		return v.Scan(prefix, storage.PrefixEnd(prefix), 0, func(key string, _ []byte) bool {
			keys = append(keys, key)
			return true
		})
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return keys
}

func (r *rig) draft() *lease.Draft { return r.store.Draft("database/creds/app", "") }

// issue walks a lease through the four steps. make is nil for a creation that
// works.
func (r *rig) issue(d *lease.Draft, user string, ttl time.Duration, mk func(ctx context.Context, m lease.Made) error) (*lease.Issued, error) {
	plan, err := lease.Erase(r.kind, lease.Grant[ref, string]{
		Target: r.at, Ref: ref{User: user}, Names: []string{"id/" + user}, Group: "app",
		Make: func(ctx context.Context, m lease.Made) (string, error) {
			return user, r.lanes.Create(ctx, r.at, func(ctx context.Context) error {
				if mk != nil {
					return mk(ctx, m)
				}
				return r.target.create(user, m.Mark)
			})
		},
	})
	if err != nil {
		return nil, err
	}
	h := lease.Holder{Namespace: ns, Mount: r.mount, Owner: owner, Live: []string{liveOf}}
	l, err := r.store.Commit(r.t.Context(), d, h, plan, ttl, 24*time.Hour)
	if err != nil {
		return nil, err
	}
	if _, err := r.store.Make(r.t.Context(), l); err != nil {
		return l, err
	}
	return l, r.store.Confirm(r.t.Context(), l)
}

func (r *rig) mustIssue(user string, ttl time.Duration) *lease.Issued {
	r.t.Helper()
	l, err := r.issue(r.draft(), user, ttl, nil)
	if err != nil {
		r.t.Fatalf("issue(%q) = %v", user, err)
	}
	return l
}

// nothingLeft fails unless every row of every lease is gone.
func (r *rig) nothingLeft() {
	r.t.Helper()
	for _, p := range []string{"lease/", "due/", "own/", "name/", "count/"} {
		if n := r.left(p); n != 0 {
			r.t.Errorf("%d keys left under %s", n, p)
		}
	}
}

func run(t *testing.T, f func(r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		defer r.stop()
		f(r)
	})
}
