package core_test

import (
	"errors"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// TestMountEndsWithItsLeases removes a mount whose target is down, makes
// another one at its path, restarts the server, and lets the target come back:
// the old mount's logins go, its configuration after them, and the new one's
// stay.
func TestMountEndsWithItsLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLab(t, mem.New()), t.Context()
		l.ok(wire.OpUpdate, "db/config", l.root, "")
		_, id := l.issue("db/creds/a", l.root)
		l.issue("db/creds/b", l.root)
		l.target.setDown(true)
		if err := l.c.RemoveMount(ctx, "root", "db/"); err != nil {
			t.Fatalf("RemoveMount = %v", err)
		}
		if p := l.do(wire.OpRead, "db/creds/a", l.root, ""); !errs.Is(p.Err, errs.NotFound) {
			t.Errorf("creds of a removed mount = %v, want NotFound", p.Err)
		}
		if _, err := l.leases().Lookup(ctx, "root", id); !errs.Is(err, errs.Invalid) {
			t.Errorf("Lookup of a removed mount's lease = %v, want Invalid", err)
		}
		if n := len(l.target.users()); n != 2 {
			t.Fatalf("a target that is down lost logins: %d, want 2", n)
		}
		l.mount("db/", "issuer", nil)
		l.ok(wire.OpUpdate, "db/config", l.root, "")
		later(time.Minute)
		ids, err := l.c.MountIDs(ctx, "root")
		if err != nil {
			t.Fatal(err)
		}
		var leases []int64
		for _, id := range ids {
			if n, err := l.leases().CountMount(ctx, id); err != nil || n > 0 {
				leases = append(leases, n)
			}
		}
		if !slices.Equal(leases, []int64{2}) {
			t.Errorf("the mounts have %v leases, want the 2 of the one that ends", leases)
		}
		if n := count(l.rows(), "m/root/"); n != 2 {
			t.Errorf("%d mounts have a configuration, want 2: the leases of one still need it", n)
		}

		l.restart()
		l.target.setDown(false)
		later(time.Hour)
		user, _ := l.issue("db/creds/c", l.root)
		later(time.Minute)
		l.want("when the target is back", user)
		if n := count(l.rows(), "m/root/"); n != 1 {
			t.Errorf("%d mounts have a configuration, want only the new one", n)
		}
		if n := count(l.rows(), "mount/root/"); n != 5 {
			t.Errorf("%d mounts, want 5: no tombstone is left", n)
		}
	})
}

func count(keys []string, part string) (n int) {
	for _, k := range keys {
		if strings.Contains(k, part) {
			n++
		}
	}
	return n
}

// TestMountRemovalIsCutAnywhere kills the store at each of its calls while a
// mount is removed. After a restart the mount is either there with its lease,
// or gone with it.
func TestMountRemovalIsCutAnywhere(t *testing.T) {
	cut := func(n int) (calls int) {
		synctest.Test(t, func(t *testing.T) {
			db := fault.Wrap(mem.New())
			l := newLab(t, db)
			user, id := l.issue("db/creds/a", l.root)
			synctest.Wait()
			if n > 0 {
				db.Set(fault.From(n))
			} else {
				db.Set(nil)
			}
			err := l.c.RemoveMount(t.Context(), "root", "db/")
			calls = len(db.Calls())
			l.c.Stop(0)
			db.Set(nil)
			l.start()
			l.unseal()
			later(15 * time.Minute)

			_, there, merr := l.c.MountAt(t.Context(), "root", "db/", true)
			if merr != nil {
				t.Fatal(merr)
			}
			if err == nil && there {
				t.Errorf("call %d: the removal was acknowledged, and the mount is there", n)
			}
			if !there {
				l.want("after a removal that was cut")
				if k := l.rows(); count(k, "lease/") > 0 || count(k, "mount/root/") != 4 {
					t.Errorf("call %d: rows are left of the mount: %q", n, k)
				}
				return
			}
			l.want("after a removal that did not begin", user)
			if _, err := l.leases().Lookup(t.Context(), "root", id); err != nil {
				t.Errorf("call %d: the mount is there and its lease is not: %v", n, err)
			}
		})
		return calls
	}
	calls := cut(0)
	if calls < 10 {
		t.Fatalf("a removal makes %d calls of the store, want more: the test looks at nothing", calls)
	}
	for n := 1; n <= calls; n++ {
		cut(n)
	}
}

// TestLeasesOfBatchTokens checks what stands in for a batch token's row: its
// end cuts the lease, and its parent's end ends it.
func TestLeasesOfBatchTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLab(t, mem.New()), t.Context()
		parent := l.make(&token.Entry{Policies: []string{"root"}, TTL: time.Hour})
		batch := l.make(&token.Entry{Type: token.Batch, Policies: []string{"root"}, Parent: parent.Key, TTL: 10 * time.Minute})
		user, id := l.issue("db/creds/a", batch.Text)
		in, err := l.leases().Lookup(ctx, "root", id)
		if err != nil || in.TTL != 10*time.Minute || !in.Expires.Equal(batch.Expires) {
			t.Errorf("the lease of a batch token = %v until %v, %v, want its rest: 10m until %v", in.TTL, in.Expires, err, batch.Expires)
		}
		if r, err := l.leases().Renew(ctx, "root", id, time.Hour); err != nil || r.Expires.After(batch.Expires) {
			t.Errorf("renewed until %v, %v, want at most the token's end %v", r.Expires, err, batch.Expires)
		}
		l.want("while it lives", user)
		tokens, err := l.c.Tokens()
		if err != nil {
			t.Fatal(err)
		}
		if err := tokens.Revoke(ctx, parent.Key); err != nil {
			t.Fatal(err)
		}
		if _, err := l.leases().Lookup(ctx, "root", id); !errs.Is(err, errs.Invalid) {
			t.Errorf("Lookup after the parent's end = %v, want Invalid", err)
		}
		if p := l.do(wire.OpRead, "db/creds/a", batch.Text, ""); !errs.Is(p.Err, errs.Denied) {
			t.Errorf("creds with a batch token whose parent has ended = %v, want Denied", p.Err)
		}
		later(time.Minute)
		l.want("after the parent's end")

		orphan := l.make(&token.Entry{Type: token.Batch, Policies: []string{"root"}, TTL: 10 * time.Minute})
		user, _ = l.issue("db/creds/b", orphan.Text)
		later(9 * time.Minute)
		l.want("before an orphan batch token's end", user)
		later(2 * time.Minute)
		l.want("after it")
	})
}

// TestLimitedUsesAndLeases checks that a token's last use issues nothing, and
// that its leases end with it.
func TestLimitedUsesAndLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, mem.New())
		once := l.make(&token.Entry{Policies: []string{"root"}, TTL: time.Hour, NumUses: 1})
		if p := l.do(wire.OpRead, "db/creds/a", once.Text, ""); !errs.Is(p.Err, errs.Invalid) {
			t.Errorf("creds with a token's last use = %v, want Invalid", p.Err)
		}
		l.want("after a last use")
		thrice := l.make(&token.Entry{Policies: []string{"root"}, TTL: time.Hour, NumUses: 3})
		user, _ := l.issue("db/creds/a", thrice.Text)
		// A refused request is a use too.
		if p := l.do(wire.OpRead, "db/nothing", thrice.Text, ""); !errs.Is(p.Err, errs.NotFound) {
			t.Errorf("an unknown path = %v, want NotFound", p.Err)
		}
		l.want("while uses are left", user)
		l.ok(wire.OpUpdate, "db/config", thrice.Text, "")
		if p := l.do(wire.OpUpdate, "db/config", thrice.Text, ""); !errs.Is(p.Err, errs.Denied) {
			t.Errorf("a fourth use of three = %v, want Denied", p.Err)
		}
		later(time.Minute)
		l.want("after the last use")
	})
}

// TestLastUseThatCannotBeWritten: the token's end cannot be made durable, so
// there is no answer.
func TestLastUseThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := fault.Wrap(mem.New())
		l := newLab(t, db)
		once := l.make(&token.Entry{Policies: []string{"root"}, TTL: time.Hour, NumUses: 1})
		db.Set(fault.If(func(c fault.Call) bool { return c.Op == fault.Put && strings.HasPrefix(c.Key, "alive/t/") }))
		if p := l.do(wire.OpUpdate, "db/config", once.Text, ""); p.Err == nil {
			t.Error("a last use was answered although its end was not written")
		}
		db.Set(nil)
		if p := l.do(wire.OpUpdate, "db/config", once.Text, ""); !errs.Is(p.Err, errs.Denied) {
			t.Errorf("a second use of one = %v, want Denied", p.Err)
		}
	})
}

func TestBoundNetworks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, mem.New())
		tok := l.make(&token.Entry{Policies: []string{"root"}, TTL: time.Hour, BoundCIDRs: []netip.Prefix{
			netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8"),
		}})
		for from, want := range map[string]bool{
			"10.1.2.3:1": true, "[::ffff:10.1.2.3]:1": true, "[fd12::1]:1": true,
			"10.2.0.1:1": false, "[fe80::1]:1": false, "": false, // a unix socket is no network
		} {
			req := &core.Request{ID: "r", Op: wire.OpUpdate, Path: "db/config", Token: tok.Text}
			if from != "" {
				req.Remote = netip.MustParseAddrPort(from)
			}
			if p := l.c.Handle(t.Context(), req); (p.Err == nil) != want || !want && !errs.Is(p.Err, errs.Denied) {
				t.Errorf("a request from %q = %v, want it let in: %v", from, p.Err, want)
			}
		}
	})
}

// TestTTLsOfAMount checks that a mount's times hold for its leases, as they are
// when a lease is issued.
func TestTTLsOfAMount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLab(t, mem.New()), t.Context()
		err := l.c.TuneMount(ctx, "root", "db/", func(m *core.Mount) error {
			m.Config.DefaultTTL, m.Config.MaxTTL = 10*time.Minute, 30*time.Minute
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		_, id := l.issue("db/creds/a", l.root)
		in, err := l.leases().Lookup(ctx, "root", id)
		if err != nil || in.TTL != 10*time.Minute || in.MaxExpires.Sub(in.Issued) != 30*time.Minute {
			t.Errorf("the lease has %v of at most %v, %v, want 10m of 30m", in.TTL, in.MaxExpires.Sub(in.Issued), err)
		}
		p := l.c.Handle(ctx, &core.Request{ID: "r", Op: wire.OpRead, Path: "db/creds/a", Token: l.root, Query: map[string][]string{"ttl": {"2h"}}})
		if p.Err != nil || p.LeaseTTL != 30*time.Minute || len(p.Warnings) != 1 {
			t.Errorf("two hours of at most 30 minutes = %v, %q, %v, want 30m and a warning", p.LeaseTTL, p.Warnings, p.Err)
		}
		p.Sent(true)
		later(20 * time.Minute)
		if _, err := l.leases().Lookup(ctx, "root", id); err == nil {
			t.Error("a lease outlived its mount's default")
		}
	})
}

// TestEndsAreRecorded checks that the log tells of leases and tokens that ended
// by themselves, also when no device took records at the time, and that it
// shows no id.
func TestEndsAreRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLab(t, mem.New()), t.Context()
		path := filepath.Join(t.TempDir(), "audit.log")
		err := l.c.EnableAudit(ctx, core.AuditDevice{Path: "file/", Type: "file", Options: map[string]string{"file_path": path}})
		if err != nil {
			t.Fatal(err)
		}
		tok := l.make(&token.Entry{Policies: []string{"root"}, TTL: 10 * time.Minute, Path: "auth/token/create"})
		_, id := l.issue("db/creds/a", tok.Text)
		_, short := l.issue("db/creds/b", l.root)
		if _, err := l.leases().Revoke(ctx, "root", short, lease.Revoked, true); err != nil {
			t.Fatal(err)
		}
		later(20 * time.Minute)
		l.want("after all ends")
		log := readFile(t, path)
		for _, want := range []string{
			`"cause":"token"`, `"cause":"revoked"`, `"cause":"expired"`, `"token_accessor":`, `"kind":"token"`, `"path":"auth/token/create"`, `"path":"db/creds/a"`, `"path":"db/creds/b"`,
		} {
			if !strings.Contains(log, want) {
				t.Errorf("the log has no %s:\n%s", want, log)
			}
		}
		for _, secret := range []string{string(id), string(short), strings.TrimPrefix(string(id), "db/creds/a/"), tok.Text.Reveal()} {
			if strings.Contains(log, secret) {
				t.Errorf("the log shows %q:\n%s", secret, log)
			}
		}
		if n := count(l.rows(), "outbox/"); n > 0 {
			t.Errorf("%d delivered records are still stored", n)
		}
	})
}

// TestNothingIsLeft issues, renews, revokes and lets expire, with tokens of all
// kinds, and checks that no row is left of any of it.
func TestNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLab(t, mem.New()), t.Context()
		l.mount("kv/", "kv", nil)
		synctest.Wait()
		before := l.rows()
		parent := l.make(&token.Entry{Policies: []string{"root"}, TTL: 30 * time.Minute, NumUses: 1000})
		child := l.make(&token.Entry{Policies: []string{"root"}, TTL: time.Hour, Parent: parent.Key})
		batch := l.make(&token.Entry{Type: token.Batch, Policies: []string{"root"}, TTL: time.Hour, Parent: child.Key})
		for _, tok := range []*token.Token{parent, child, batch} {
			_, id := l.issue("db/creds/a", tok.Text)
			if _, err := l.leases().Renew(ctx, "root", id, 20*time.Minute); err != nil {
				t.Errorf("Renew = %v", err)
			}
			if _, gone := l.issue("db/creds/b", tok.Text); gone != "" {
				if _, err := l.leases().Revoke(ctx, "root", gone, lease.Revoked, true); err != nil {
					t.Errorf("Revoke = %v", err)
				}
			}
			p := l.c.Handle(ctx, &core.Request{ID: "w", Op: wire.OpRead, Path: "db/creds/a", Token: tok.Text, WrapTTL: time.Minute})
			if p.Err != nil {
				t.Fatal(p.Err)
			}
			p.Sent(true)
			if tok.Type == token.Service {
				l.ok(wire.OpUpdate, "cubbyhole/deep/er", tok.Text, `{"mine":"alone"}`)
			}
		}
		if len(l.target.users()) != 6 || len(l.rows()) < len(before)+30 {
			t.Fatalf("%d logins and %d new rows; the test looks at nothing", len(l.target.users()), len(l.rows())-len(before))
		}
		later(2 * time.Hour)
		l.want("after all ends")
		after := l.rows()
		for _, k := range after {
			if !slices.Contains(before, k) {
				t.Errorf("a row is left: %s", k)
			}
		}
		for _, k := range before {
			if !slices.Contains(after, k) {
				t.Errorf("a row of something else is gone: %s", k)
			}
		}
	})
}

// TestPanics: one request's fault is its own. A login that was made for it is
// taken back, its record is complete, and the server goes on.
func TestPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, ctx := newLab(t, mem.New()), t.Context()
		path := filepath.Join(t.TempDir(), "audit.log")
		err := l.c.EnableAudit(ctx, core.AuditDevice{Path: "file/", Type: "file", Options: map[string]string{"file_path": path}})
		if err != nil {
			t.Fatal(err)
		}
		l.target.making = func() { panic("a fault in an engine") }
		p := l.do(wire.OpRead, "db/creds/a", l.root, "")
		if !errs.Is(p.Err, errs.Internal) || p.Sent != nil || strings.Contains(errs.Message(p.Err), "fault in an engine") {
			t.Errorf("a panic was answered with %+v, want an internal error", p)
		}
		l.target.making = nil
		if log := l.log.String(); !strings.Contains(log, "a fault in an engine") || !strings.Contains(log, "target_test.go") {
			t.Errorf("the log does not say where it was:\n%s", log)
		}
		if n := strings.Count(readFile(t, path), `"type":"response"`); n != 1 {
			t.Errorf("%d records of answers, want one", n)
		}
		later(time.Hour)
		user, _ := l.issue("db/creds/a", l.root)
		l.want("after a panic and a login", user)
		if n := len(l.c.InFlight()); n != 0 {
			t.Errorf("%d requests are in flight, want none", n)
		}
	})
}

// TestUnreadableRows damages rows of the server's own, one at a time: none of
// them keeps the server sealed or widens access, and what has nothing to do
// with the row goes on.
func TestUnreadableRows(t *testing.T) {
	for _, c := range []struct {
		row    string // a part of its key
		denied bool   // nothing is answered
		lost   string // a path that is not there any more
	}{
		{row: "mount/root/", lost: "kv/app"},
		{row: "policy/root/default"},
		{row: "auditdev/file/", denied: true},
		{row: "audithdr/x-app"},
		{row: "core/cors"},
		{row: "count/n/root/"},
		{row: "count/t/root/"},
	} {
		t.Run(strings.ReplaceAll(c.row, "/", "-"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := mem.New()
				l, ctx := newLab(t, db), t.Context()
				l.mount("kv/", "kv", nil)
				l.ok(wire.OpUpdate, "kv/app", l.root, `{"a":"b"}`)
				m, _, err := l.c.MountAt(ctx, "root", "kv/", true)
				err = errors.Join(err, l.c.TuneMount(ctx, "root", "db/", func(m *core.Mount) error {
					m.Config.DefaultTTL = 10 * time.Minute
					return nil
				}))
				l.issue("db/creds/a", l.root)
				err = errors.Join(err, l.c.SetCORS(ctx, core.CORS{Enabled: true, Origins: []string{"*"}}),
					l.c.SetAuditHeader(ctx, core.AuditHeader{Name: "x-app"}, false))
				if c.denied {
					err = errors.Join(err, l.c.EnableAudit(ctx, core.AuditDevice{
						Path: "file/", Type: "file", Options: map[string]string{"file_path": filepath.Join(t.TempDir(), "audit.log")},
					}))
				}
				if err != nil {
					t.Fatal(err)
				}
				l.c.Stop(time.Second)
				damaged := false
				for _, key := range l.rows() {
					if !strings.HasPrefix(key, c.row) || c.lost != "" && !strings.HasSuffix(key, m.ID) {
						continue
					}
					damaged = true
					_, err := db.Update(ctx, func(tx storage.Tx) error { return tx.Put(key, []byte("\x01nonsense that nobody encrypted")) })
					if err != nil {
						t.Fatal(err)
					}
				}
				if !damaged {
					t.Fatalf("there is no row %s", c.row)
				}
				l.start()
				l.unseal()
				if c.lost != "" {
					if p := l.do(wire.OpRead, c.lost, l.root, ""); !errs.Is(p.Err, errs.NotFound) {
						t.Errorf("read of a mount that cannot be read = %v, want NotFound", p.Err)
					}
				}
				p := l.do(wire.OpRead, "db/creds/a", l.root, "")
				if c.denied {
					if !errs.Is(p.Err, errs.Unavailable) {
						t.Errorf("an answer without a record = %v, want Unavailable", p.Err)
					}
					return
				}
				if p.Err != nil {
					t.Errorf("creds beside a damaged row = %v", p.Err)
				}
				if l.c.CORS().Enabled && c.row == "core/cors" {
					t.Error("a setting that cannot be read lets pages in")
				}
				if c.row == "policy/root/default" {
					tok := l.make(&token.Entry{Policies: []string{"default"}, TTL: time.Hour})
					if p := l.do(wire.OpRead, "cubbyhole/x", tok.Text, ""); !errs.Is(p.Err, errs.Denied) {
						t.Errorf("a token with a policy that cannot be read = %v, want Denied", p.Err)
					}
					if names, err := l.c.PolicyNames(ctx, core.ACLPolicy, "root"); err != nil || !slices.Contains(names, "default") {
						t.Errorf("PolicyNames = %q, %v, want default among them", names, err)
					}
				}
				l.make(&token.Entry{Policies: []string{"default"}, TTL: time.Minute})
				later(time.Hour)
				l.want("beside a damaged row")
			})
		})
	}
}
