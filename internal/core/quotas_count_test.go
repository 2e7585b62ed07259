package core_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// Leases and service tokens are counted where a quota says, and those that there
// were before it too.
func TestLeaseCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, mem.New())
		if err := l.c.WritePolicy(t.Context(), core.ACLPolicy, "root", "db", `path "db/*" { capabilities = ["read"] }`); err != nil {
			t.Fatal(err)
		}
		app := l.make(&token.Entry{Policies: []string{"db"}, TTL: 24 * time.Hour}).Text
		issue := func(path string) error {
			p := l.do(wire.OpRead, path, app, "")
			if p.Sent != nil {
				p.Sent(true)
			}
			return p.Err
		}
		for range 2 {
			if err := issue("db/creds/web"); err != nil {
				t.Fatal(err)
			}
		}
		l.quota(core.LeaseCount, core.Quota{Name: "mount", Path: "db/", MaxLeases: 4})
		l.quota(core.LeaseCount, core.Quota{Name: "web", Path: "db/creds/web", MaxLeases: 3})
		for i, c := range []struct {
			path string
			full bool
		}{
			{"db/creds/web", false}, {"db/creds/web", true}, {"db/creds/job", false}, {"db/creds/job", true},
		} {
			err := issue(c.path)
			if got := errs.Is(err, errs.TooMany); got != c.full || err != nil && !got {
				t.Errorf("lease %d at %s = %v, refused: want %v", i, c.path, err, c.full)
			}
		}
		if p := l.do(wire.OpRead, "db/creds/job", l.root, ""); p.Err != nil {
			t.Errorf("a root token is refused: %v", p.Err)
		} else {
			p.Sent(true)
		}
		q, _, err := l.c.Quota(t.Context(), token.RootNamespace, core.LeaseCount, "mount")
		if err != nil || q.Counter != 5 {
			t.Errorf("counter %d, %v, want 5", q.Counter, err)
		}
		// A token's end makes room.
		if _, err := l.leases().RevokePrefix(t.Context(), token.RootNamespace, "db/creds/", lease.Revoked, true); err != nil {
			t.Fatal(err)
		}
		later(time.Second)
		if err := issue("db/creds/web"); err != nil {
			t.Errorf("after the others ended = %v", err)
		}
		// The global one counts tokens too: two there are.
		l.quota(core.LeaseCount, core.Quota{Name: "all", MaxLeases: 4})
		if _, err := l.c.CreateToken(t.Context(), &token.Entry{Policies: []string{"db"}, Path: "auth/token/create", Expires: time.Now().Add(time.Hour), TTL: time.Hour}, noToken); err != nil {
			t.Errorf("the last of four = %v", err)
		}
		if _, err := l.c.CreateToken(t.Context(), &token.Entry{Policies: []string{"db"}, Path: "auth/token/create", Expires: time.Now().Add(time.Hour), TTL: time.Hour}, noToken); !errs.Is(err, errs.TooMany) {
			t.Errorf("a token beyond the quota = %v, want TooMany", err)
		}
		if _, err := l.c.CreateToken(t.Context(), &token.Entry{Policies: []string{"root"}, Path: "auth/token/create", Expires: time.Now().Add(time.Hour), TTL: time.Hour}, noToken); err != nil {
			t.Errorf("a root token beyond the quota = %v", err)
		}
		l.restart()
		if _, err := l.c.CreateToken(t.Context(), &token.Entry{Policies: []string{"db"}, Path: "auth/token/create", Expires: time.Now().Add(time.Hour), TTL: time.Hour}, noToken); !errs.Is(err, errs.TooMany) {
			t.Errorf("a token beyond the quota after a restart = %v, want TooMany", err)
		}
	})
}

func TestLeaseCountOfRoles(t *testing.T) {
	r := quotaRig(t, mem.New())
	in := func(role string, batch bool) error {
		return r.do(wire.OpUpdate, "auth/gate/login", noToken, fmt.Sprintf(`{"role":%q,"batch":%v}`, role, batch)).Err
	}
	if err := in("web", false); err != nil {
		t.Fatal(err)
	}
	r.quota(core.LeaseCount, core.Quota{Name: "web", Path: "auth/gate/", Role: "web", MaxLeases: 2})
	r.quota(core.LeaseCount, core.Quota{Name: "gate", Path: "auth/gate/", MaxLeases: 4})
	var got []bool
	for _, c := range []struct {
		role  string
		batch bool
	}{
		{"web", true}, // blocked when the quota is full, and never counted
		{"web", false}, {"web", false}, {"web", true}, {"job", false}, {"job", false}, {"job", false},
	} {
		err := in(c.role, c.batch)
		if err != nil && !errs.Is(err, errs.TooMany) {
			t.Fatal(err)
		}
		got = append(got, err == nil)
	}
	if want := []bool{true, true, false, false, true, true, false}; !slices.Equal(got, want) {
		t.Errorf("let in: %v, want %v", got, want)
	}
}
