package core_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// TestFullStore: what can be read is read, what would have to be written is
// refused with the cause, and what was due meanwhile is done when there is
// room again.
func TestFullStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := fault.Wrap(mem.New())
		l, ctx := newLab(t, db), t.Context()
		l.mount("kv/", "kv", nil)
		l.ok(wire.OpUpdate, "kv/app", l.root, `{"a":"b"}`)
		tok := l.make(&token.Entry{Policies: []string{"root"}, TTL: 10 * time.Minute})
		once := l.make(&token.Entry{Policies: []string{"root"}, TTL: time.Hour, NumUses: 5})
		user, id := l.issue("db/creds/a", tok.Text)
		kept, keptID := l.issue("db/creds/kept", l.root)
		full := func(c fault.Call) error {
			if c.Op == fault.Commit {
				return storage.ErrReadOnly
			}
			return nil
		}
		db.Set(full)

		l.ok(wire.OpRead, "kv/app", l.root, "")
		if _, err := l.leases().Lookup(ctx, "root", id); err != nil {
			t.Errorf("Lookup on a full store = %v", err)
		}
		for name, err := range map[string]error{
			"a write":       l.do(wire.OpUpdate, "kv/app", l.root, `{"a":"c"}`).Err,
			"an issue":      l.do(wire.OpRead, "db/creds/b", l.root, "").Err,
			"a limited use": l.do(wire.OpRead, "kv/app", once.Text, "").Err,
		} {
			if !errs.Is(err, errs.Unavailable) || !strings.Contains(errs.Message(err), "disk is full") {
				t.Errorf("%s on a full store = %v, want Unavailable with the cause", name, err)
			}
		}
		l.want("on a full store", user, kept)
		// A revocation that is not durable is not acknowledged.
		if _, err := l.leases().Revoke(ctx, "root", keptID, lease.Revoked, false); err == nil {
			t.Error("a full store acknowledged a revocation")
		}
		if err := l.c.RemoveMount(ctx, "root", "kv/"); err == nil {
			t.Error("a full store acknowledged the end of a mount")
		}
		later(20 * time.Minute)
		l.want("on a full store, after an end", user, kept)
		if p := l.do(wire.OpRead, "kv/app", tok.Text, ""); !errs.Is(p.Err, errs.Denied) {
			t.Errorf("a token that is over, on a full store = %v, want Denied", p.Err)
		}

		db.Set(nil)
		later(5 * time.Minute)
		l.want("when there is room again", kept)
		p := l.ok(wire.OpRead, "kv/app", l.root, "")
		if got := string(p.Data.AppendJSON(nil)); got != `{"a":"b"}` {
			t.Errorf("read = %s, want what was written before", got)
		}
		if n, err := mustTokens(l).UsesLeft(ctx, once.Key); err != nil || n != 5 {
			t.Errorf("UsesLeft = %d, %v, want 5: a refused use was none", n, err)
		}
	})
}

func mustTokens(l *lab) *token.Store {
	l.t.Helper()
	s, err := l.c.Tokens()
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

// TestInitOnAFullStore: the store fails at each call of initialising in turn.
// Whoever asks learns what to do: again, or after the store was emptied.
func TestInitOnAFullStore(t *testing.T) {
	emptied := 0
	for n := 1; ; n++ {
		db := fault.Wrap(mem.New())
		c := newCore(db, nil, nil)
		db.Set(func(c fault.Call) error {
			if c.N == n && c.Op == fault.Commit {
				return storage.ErrReadOnly
			}
			return nil
		})
		_, err := c.Init(t.Context(), seal.Params{Shares: 1, Threshold: 1}, secret.String{})
		calls := len(db.Calls())
		db.Set(nil)
		if err != nil {
			_, again := c.Init(t.Context(), seal.Params{Shares: 1, Threshold: 1}, secret.String{})
			if told := strings.Contains(errs.Message(err), "empty the store"); told != (again != nil) {
				t.Errorf("call %d: Init = %v, and again %v", n, err, again)
			} else if told {
				emptied++
				if _, sealed, err := c.Health(t.Context()); !sealed || err != nil {
					t.Errorf("call %d: a server that nobody has a token of is open (%v)", n, err)
				}
			}
		}
		c.Stop(time.Second)
		if n > calls {
			break
		}
	}
	if emptied == 0 {
		t.Error("no initialising was cut behind the keyring")
	}
}

// TestOpenOnAFullStore: a server that is open says so, although the slot of the
// seal's new key cannot be written yet.
func TestOpenOnAFullStore(t *testing.T) {
	db := fault.Wrap(mem.New())
	start := func(conf seal.StaticConfig) *core.Core {
		key, err := seal.NewStatic(conf)
		if err != nil {
			t.Fatal(err)
		}
		c := newCore(db, nil, func(conf *core.Config) { conf.Seal.Wrappers = []seal.Wrapper{key} })
		t.Cleanup(func() { c.Stop(time.Second) })
		return c
	}
	one := seal.StaticConfig{CurrentKeyID: "1", CurrentKey: strings.Repeat("1", 32)}
	two := seal.StaticConfig{CurrentKeyID: "2", CurrentKey: strings.Repeat("2", 32)}
	both := two
	both.PreviousKeyID, both.PreviousKey = one.CurrentKeyID, one.CurrentKey
	c := start(one)
	in, err := c.Init(t.Context(), seal.Params{Shares: 3, Threshold: 2}, secret.String{})
	if err != nil {
		t.Fatal(err)
	}
	c.Stop(time.Second)
	db.Set(func(c fault.Call) error {
		if c.Op == fault.Commit {
			return storage.ErrReadOnly
		}
		return nil
	})
	c = start(both)
	if opened, err := c.AutoUnseal(t.Context()); err != nil || !opened {
		t.Errorf("AutoUnseal with a new key = %v, %v", opened, err)
	}
	c.Stop(time.Second)
	c = start(two)
	for _, share := range in.Shares[:2] {
		if err := c.Unseal(t.Context(), share); err != nil {
			t.Errorf("Unseal by shares = %v", err)
		}
	}
	if _, sealed, err := c.Health(t.Context()); err != nil || sealed {
		t.Errorf("after enough shares sealed is %v, %v", sealed, err)
	}
}

// TestStartOnAFullStore: the server opens, reads are answered, and once there
// is room it goes on as ever.
func TestStartOnAFullStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := fault.Wrap(mem.New())
		l := newLab(t, db)
		l.mount("kv/", "kv", nil)
		l.ok(wire.OpUpdate, "kv/app", l.root, `{"a":"b"}`)
		l.c.Stop(time.Second)
		db.Set(func(c fault.Call) error {
			if c.Op == fault.Commit {
				return storage.ErrReadOnly
			}
			return nil
		})
		l.start()
		l.unseal()
		l.ok(wire.OpRead, "kv/app", l.root, "")
		if p := l.do(wire.OpRead, "db/creds/b", l.root, ""); !errs.Is(p.Err, errs.Unavailable) {
			t.Errorf("an issue on a full store = %v, want Unavailable", p.Err)
		}
		db.Set(nil)
		later(time.Minute)
		user, _ := l.issue("db/creds/b", l.root)
		l.want("when there is room again", user)
	})
}
