package core_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// target is a foreign system that behaves: logins with their marks, and what a
// test switches on.
type target struct {
	mu     sync.Mutex
	logins map[string]string // by user: the mark
	down   bool
	newest uint64 // the newest epoch of a mark, also of logins that are gone
	making func() // called by each creation, before it
}

func (g *target) users() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(maps.Keys(g.logins))
}

func (g *target) setDown(down bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down = down
}

func (g *target) make(user, mark string) error {
	if g.making != nil {
		g.making()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.down {
		return lane.ConnFault(errors.New("the target is down"))
	}
	g.logins[user] = mark
	if part := strings.Split(mark, ":"); len(part) > 2 {
		epoch, _ := strconv.ParseUint(part[2], 10, 64)
		g.newest = max(g.newest, epoch)
	}
	return nil
}

// shows lets the target have marks of an epoch.
func (g *target) shows(epoch uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.newest = epoch
}

func (g *target) end(_ context.Context, _ string, items []*lease.Ending[login]) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, it := range items {
		mark, ok := g.logins[it.Ref.User]
		switch {
		case g.down:
			it.Done(lane.ConnFault(errors.New("the target is down")))
		case !ok:
			it.Done(lease.ErrAbsent)
		case mark != it.Mark:
			it.Done(lease.ErrNameTaken)
		default:
			delete(g.logins, it.Ref.User)
			it.Disabled()
			it.Done(nil)
		}
	}
}

type login struct{ User string }

// issuer is an engine that issues logins of a target.
type issuer struct {
	env  engine.Env
	at   *target
	kind *lease.Kind[login]
	met  atomic.Bool
}

type issued struct {
	User     string        `json:"user"`
	Password secret.String `json:"password"`
}

type credsIn struct {
	Name string   `json:"name"`
	TTL  wire.TTL `json:"ttl"`
}

func issuers(at *target) map[string]engine.Factory {
	return map[string]engine.Factory{"secret/issuer": func(_ context.Context, env engine.Env) (engine.Engine, error) {
		e := &issuer{env: env, at: at}
		e.kind = &lease.Kind[login]{Name: "login", Version: 1, Meet: e.meet, End: at.end}
		return e, nil
	}}
}

// meet looks for marks of a later life of the store, once.
func (e *issuer) meet(context.Context, string, login) error {
	if e.met.Load() {
		return nil
	}
	e.at.mu.Lock()
	down, newest := e.at.down, e.at.newest
	e.at.mu.Unlock()
	if down {
		return lane.ConnFault(errors.New("the target is down"))
	}
	if newest > e.env.Origin.Epoch {
		e.env.Fence(newest, fmt.Sprintf("the target shows marks of epoch %d", newest))
	}
	e.met.Store(true)
	return nil
}

func (e *issuer) Kinds() []lease.AnyKind { return []lease.AnyKind{e.kind} }

func (e *issuer) Routes(t *route.Table) {
	route.Issue(t, wire.OpRead, "creds/{name}", e.kind, e.creds)
	route.Write(t, "config", func(ctx context.Context, _ *route.Request, _ route.None) (route.None, error) {
		_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Put("config", []byte("1")) })
		return route.None{}, err
	})
	// As when a connection is written anew: the target is met another time.
	route.Write(t, "meet", func(ctx context.Context, _ *route.Request, _ route.None) (route.None, error) {
		e.met.Store(false)
		return route.None{}, e.meet(ctx, "", login{})
	})
}

func (e *issuer) creds(_ context.Context, req *route.Request, in credsIn) (lease.Grant[login, issued], error) {
	user := in.Name + "-" + hex.EncodeToString(req.Lease.Random("user", 6))
	return lease.Grant[login, issued]{
		Target: e.env.MountID + "-1", Ref: login{user}, TTL: in.TTL.Duration(), Names: []string{e.env.MountID + "/" + user}, Group: in.Name,
		Make: func(ctx context.Context, m lease.Made) (issued, error) {
			return issued{user, secret.New("pw-" + user)}, e.at.make(user, m.Mark)
		},
	}, nil
}

// lab is a core with an issuer at "db/", whose clock and store a test holds.
type lab struct {
	*rig
	db     storage.Backend
	target *target
	ahead  atomic.Int64 // nanoseconds of the server's clock before the world's
	maxGap time.Duration
	log    bytes.Buffer
}

func newLab(t *testing.T, db storage.Backend) *lab {
	t.Helper()
	l := &lab{rig: &rig{t: t}, db: db, target: &target{logins: map[string]string{}}}
	l.start()
	in, err := l.c.Init(t.Context(), seal.Params{Shares: 3, Threshold: 2}, secret.String{})
	if err != nil {
		t.Fatalf("Init = %v", err)
	}
	l.root, l.keys = in.Root, in.Shares
	t.Cleanup(func() { l.c.Stop(time.Second) })
	l.unseal()
	l.mount("db/", "issuer", nil)
	return l
}

// start makes a core that is sealed, in place of the one there is.
func (l *lab) start() {
	l.c = newCore(l.db, issuers(l.target), func(conf *core.Config) {
		conf.Now = func() time.Time { return time.Now().Add(time.Duration(l.ahead.Load())) }
		conf.MaxGap = l.maxGap
		conf.Log = slog.New(slog.NewTextHandler(&l.log, nil))
	})
}

// restart stops the server and starts it again.
func (l *lab) restart() {
	l.t.Helper()
	l.c.Stop(time.Second)
	l.start()
	l.unseal()
}

// issue asks for a login and gives the user's name and the lease's id.
func (l *lab) issue(path string, tok secret.String) (string, lease.ID) {
	l.t.Helper()
	p := l.ok(wire.OpRead, path, tok, "")
	var out struct {
		User string `json:"user"`
	}
	if err := json.Unmarshal(p.Data.AppendJSON(nil), &out); err != nil || out.User == "" {
		l.t.Fatalf("read %s = %s, %v, want a user", path, p.Data.AppendJSON(nil), err)
	}
	p.Sent(true)
	return out.User, lease.ID(p.LeaseID)
}

func (l *lab) leases() *lease.Store {
	l.t.Helper()
	s, err := l.c.Leases()
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

// want checks which users the target has.
func (l *lab) want(when string, users ...string) {
	l.t.Helper()
	slices.Sort(users)
	if got := l.target.users(); !slices.Equal(got, users) {
		l.t.Errorf("%s the target has %v, want %v", when, got, users)
	}
}

// later lets virtual time pass.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// make makes a token of what e says.
func (l *lab) make(e *token.Entry) *token.Token {
	l.t.Helper()
	if e.TTL > 0 {
		e.Expires = time.Now().Add(e.TTL)
	}
	t, err := l.c.CreateToken(l.t.Context(), e, secret.String{})
	if err != nil {
		l.t.Fatalf("CreateToken = %v", err)
	}
	return t
}

// rows are all keys of the store, but those that come and go by themselves.
func (l *lab) rows() []string {
	l.t.Helper()
	var keys []string
	err := l.db.View(l.t.Context(), func(v storage.View) error {
		return v.Scan("", "", 0, func(key string, _ []byte) bool {
			if !strings.HasPrefix(key, lane.MarkPrefix) {
				keys = append(keys, key)
			}
			return true
		})
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return keys
}
