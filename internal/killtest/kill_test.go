package killtest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
	"github.com/leasehold/leasehold/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	kills     = 20
	issuers   = 16 // each with one creation in flight at nearly any time
	revokers  = 4
	ttl       = 60 * time.Second
	endsAfter = 90 * time.Second // of a lease whose making was cut: make_by, settling and one breaker pause
)

// credential is one that a client was given with 200.
type credential struct {
	lease, user, password string
	shared                bool // others may hold the login too
	at                    time.Time
}

// own reports whether the login's being there says that this lease must be.
func (c credential) own() bool { return !c.shared || time.Since(c.at) < ttl/2 }

// run is what the clients have seen, over all rounds.
type run struct {
	mu        sync.Mutex
	delivered []credential      // not revoked yet
	revoked   map[string]string // user → lease, acknowledged with 2xx
	unsure    map[string]bool   // leases whose revocation got no answer: either end is right
	users     map[string]bool   // shared logins of which a lease was revoked

	creating atomic.Int32 // in flight
	issued   atomic.Int64
	failed   sync.Map // texts of error answers
}

// TestKill kills the server at random moments while 16 clients issue and 4
// revoke, without VALID UNTIL, so that nothing but a lease ends a login.
func TestKill(t *testing.T) {
	pg := testenv.Postgres(t, testenv.Config{Durable: true})
	pg.Exec(t, "postgres", `CREATE ROLE app_readonly NOLOGIN`)
	srv := leaseholdtest.Start(t, leaseholdtest.Config{})
	setUp(t, srv, pg)

	r := &run{revoked: map[string]string{}, unsure: map[string]bool{}, users: map[string]bool{}}
	inFlight := 0
	for round := range kills {
		r.round(t, srv, &inFlight)
		if err := srv.Restart(t.Context()); err != nil {
			t.Fatalf("round %d: restarting: %v", round, err)
		}
		r.compare(t, srv, pg, round)
	}

	// Everything ends: what was delivered by its expiry, what was being made
	// at a kill by the lease that was committed before.
	lost, undone := r.settle(t, srv, pg)
	t.Logf("%d kills, %d creations in flight at them; %d credentials delivered, %d revocations acknowledged, leases of %d shared logins too: "+
		"%d logins without a lease, %d delivered credentials whose lease is unknown, %d revocations undone",
		kills, inFlight, r.issued.Load(), len(r.revoked), len(r.users), r.orphans(t, pg), lost, undone)
}

func setUp(t *testing.T, srv *leaseholdtest.Server, pg *testenv.PG) {
	t.Helper()
	must := func(path string, body any) {
		t.Helper()
		if err := srv.Call(t.Context(), http.MethodPost, path, srv.Root, body, nil); err != nil {
			t.Fatalf("writing %s: %v", path, err)
		}
	}
	must("sys/mounts/database", map[string]any{"type": "database"})
	must("database/config/pg", map[string]any{
		"plugin_name":    "postgresql-database-plugin",
		"connection_url": "postgresql://{{username}}:{{password}}@" + pg.Addr() + "/postgres?sslmode=disable",
		"username":       testenv.Superuser, "password": pg.Password,
		"allowed_roles": "*", "max_open_connections": issuers + 4, "scram_iterations": 64,
		"password_authentication": "scram-sha-256",
	})
	// The operator's own statements, and the group-role form of our own.
	must("database/roles/own", map[string]any{
		"db_name": "pg", "default_ttl": ttl.String(), "max_ttl": "10m",
		"creation_statements": `CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' IN ROLE app_readonly`,
	})
	must("database/roles/group", map[string]any{
		"db_name": "pg", "default_ttl": ttl.String(), "max_ttl": "10m", "member_of": "app_readonly",
	})
	// Requests in each second share a login.
	must("database/roles/shared", map[string]any{
		"db_name": "pg", "default_ttl": ttl.String(), "max_ttl": "10m", "member_of": "app_readonly", "coalesce_window": "1s",
	})
}

// round lets the clients loose, waits for a moment with all creations in
// flight, and kills.
func (r *run) round(t *testing.T, srv *leaseholdtest.Server, inFlight *int) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range issuers {
		role := []string{"own", "group"}[i%2]
		if i == 0 {
			role = "shared" // one is enough: most of its requests make nothing
		}
		clients.Go(func() { r.issue(ctx, srv, role) })
	}
	for i := range revokers {
		clients.Go(func() { r.revoke(ctx, srv, i%2 == 0) })
	}
	moment := time.NewTimer(time.Duration(100+rand.IntN(900)) * time.Millisecond)
	<-moment.C
	for range 100_000 {
		if r.creating.Load() >= issuers {
			break
		}
		time.Sleep(20 * time.Microsecond) // a moment with all in flight; not a wait for something
	}
	n := int(r.creating.Load())
	srv.Kill()
	stop()
	clients.Wait()
	if n < issuers {
		t.Errorf("only %d creations were in flight at the kill, want %d", n, issuers)
	}
	*inFlight += n
}

type creds struct {
	LeaseID string `json:"lease_id"`
	Data    struct{ Username, Password string }
}

func (r *run) issue(ctx context.Context, srv *leaseholdtest.Server, role string) {
	for ctx.Err() == nil {
		var c creds
		r.creating.Add(1)
		err := srv.Call(ctx, http.MethodGet, "database/creds/"+role, srv.Root, nil, &c)
		r.creating.Add(-1)
		if err != nil {
			if se, ok := err.(*leaseholdtest.StatusError); ok {
				r.failed.Store(fmt.Sprint(se), true)
			}
			continue
		}
		r.issued.Add(1)
		r.mu.Lock()
		r.delivered = append(r.delivered, credential{c.LeaseID, c.Data.Username, c.Data.Password, role == "shared", time.Now()})
		r.mu.Unlock()
	}
}

func (r *run) revoke(ctx context.Context, srv *leaseholdtest.Server, sync bool) {
	for ctx.Err() == nil {
		r.mu.Lock()
		var c credential
		if n := len(r.delivered); n > 60 {
			i := rand.IntN(n)
			c = r.delivered[i]
			r.delivered = slices.Delete(r.delivered, i, i+1)
		}
		r.mu.Unlock()
		if c.lease == "" {
			time.Sleep(time.Millisecond) // nothing to revoke yet
			continue
		}
		err := srv.Call(ctx, http.MethodPut, "sys/leases/revoke", srv.Root, map[string]any{"lease_id": c.lease, "sync": sync}, nil)
		r.mu.Lock()
		if c.shared {
			r.users[c.user] = true // it goes with its last lease
		} else if err == nil {
			r.revoked[c.user] = c.lease
		} else {
			r.unsure[c.user] = true
		}
		r.mu.Unlock()
	}
}

// compare checks, right after a restart, what clients hold against what the
// server knows.
func (r *run) compare(t *testing.T, srv *leaseholdtest.Server, pg *testenv.PG, round int) {
	t.Helper()
	logins := loginRoles(t, pg)
	for user := range r.revoked {
		if logins[user] {
			t.Errorf("round %d: the acknowledged revocation of %s is undone: it can log in", round, user)
		}
	}
	// A sample of what was delivered, the newest first: those are the ones
	// that a lost write would take.
	n := len(r.delivered)
	for _, c := range r.delivered[max(n-50, 0):] {
		err := srv.Call(t.Context(), http.MethodPut, "sys/leases/lookup", srv.Root, map[string]any{"lease_id": c.lease}, nil)
		if err != nil && logins[c.user] && c.own() {
			t.Errorf("round %d: a credential was delivered whose lease is unknown: %v", round, err)
		}
	}
}

// settle waits until every lease has ended and counts what is wrong then.
func (r *run) settle(t *testing.T, srv *leaseholdtest.Server, pg *testenv.PG) (lost, undone int) {
	t.Helper()
	for _, c := range r.delivered {
		// Alive by the clock and unknown to the server is a lost lease; the
		// login's being there tells the two ends of a lease apart.
		err := srv.Call(t.Context(), http.MethodPut, "sys/leases/lookup", srv.Root, map[string]any{"lease_id": c.lease}, nil)
		if err != nil && canLogIn(t, pg, c) && c.own() {
			// It may have expired between the two looks: the drop follows.
			lost++
		}
	}
	deadline := time.Now().Add(ttl + endsAfter)
	for time.Now().Before(deadline) {
		if len(loginRoles(t, pg)) == 0 {
			break
		}
		time.Sleep(250 * time.Millisecond)
	}
	if left := loginRoles(t, pg); len(left) > 0 {
		t.Errorf("%d logins are left although every lease has ended: %v", len(left), slices.Sorted(maps.Keys(left)))
	}
	var list struct {
		Data struct{ Keys []string }
	}
	for _, role := range []string{"own", "shared"} {
		err := srv.Call(t.Context(), "LIST", "sys/leases/lookup/database/creds/"+role+"/", srv.Root, nil, &list)
		if err == nil && len(list.Data.Keys) > 0 {
			t.Errorf("%d leases of the role %s are left although every login has ended", len(list.Data.Keys), role)
		}
	}
	for user := range r.revoked {
		if loginRoles(t, pg)[user] {
			undone++
		}
	}
	if lost > 0 || undone > 0 {
		t.Errorf("%d delivered credentials whose lease is unknown, %d revocations undone", lost, undone)
	}
	r.failed.Range(func(text, _ any) bool {
		t.Logf("an error answer on the way: %v", text)
		return true
	})
	return lost, undone
}

func (r *run) orphans(t *testing.T, pg *testenv.PG) int {
	t.Helper()
	return len(loginRoles(t, pg))
}

// loginRoles are the logins that Leasehold made and that still work.
func loginRoles(t *testing.T, pg *testenv.PG) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for name := range strings.SplitSeq(pg.Query(t, "postgres", `SELECT string_agg(rolname, ' ') FROM pg_roles WHERE rolcanlogin AND rolname LIKE 'v-%'`), " ") {
		if name != "" {
			out[name] = true
		}
	}
	return out
}

func canLogIn(t *testing.T, pg *testenv.PG, c credential) bool {
	t.Helper()
	_, err := pg.QueryAs(t.Context(), c.user, c.password, "postgres", "SELECT 1")
	return err == nil
}
