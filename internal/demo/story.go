package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leasehold/leasehold/api"
)

// The times of the story. Logins live this long unless something happens.
const (
	loginTTL   = 16 * time.Second
	renewAt    = 4 * time.Second // after the logins were issued
	revokeAt   = 9 * time.Second
	endLimit   = 15 * time.Second // for a login that ran out to be gone, after its time
	frame      = 200 * time.Millisecond
	plainFrame = 4 * time.Second // between lines where nothing can be redrawn
)

// app is one of the three applications.
type app struct {
	name     string
	client   *api.Client // with a token that may read database/creds/reader and nothing else
	lease    string
	user     string
	password string
	session  *pgx.Conn // stays open, as an application's does
	expires  time.Time
	total    time.Duration // of the bar
	state    string        // what became of it; "" while it counts down
}

// story is the demo's plot.
type story struct {
	*screen
	lab  *lab
	root *api.Client
	apps []*app
}

func newStory(scr *screen, l *lab) (*story, error) {
	root, err := api.New(api.Config{Address: l.Addr, Token: l.Root})
	if err != nil {
		return nil, err
	}
	return &story{screen: scr, lab: l, root: root, apps: []*app{{name: "web shop"}, {name: "billing"}, {name: "reports"}}}, nil
}

func (s *story) close() {
	for _, a := range s.apps {
		if a.session != nil {
			_ = a.session.Close(context.Background())
			a.session = nil
		}
	}
}

func (s *story) tell(ctx context.Context) error {
	s.say("PostgreSQL %s at %s, with a database of %s", s.lab.Version, s.lab.Postgres, "1200 orders")
	s.say("Leasehold at %s (process %d), its data encrypted in %s", s.lab.Addr, s.lab.ServerPID, s.lab.Dir)
	for _, part := range []func(context.Context) error{s.configure, s.issue, s.countDown} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// configure tells the engine how to reach PostgreSQL and what a reader is.
func (s *story) configure(ctx context.Context) error {
	s.step("Leasehold learns how to reach the database, and what a reader may do")
	url := fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/shop?sslmode=disable", s.lab.Postgres)
	for _, w := range []struct {
		shown, path string
		body        map[string]any
	}{
		{"leasehold secrets enable database", "sys/mounts/database", map[string]any{"type": "database"}},
		{"leasehold write database/config/shop plugin_name=postgresql-database-plugin allowed_roles=reader \\\n      connection_url='" + url + "' username=leasehold password=…", "database/config/shop",
			map[string]any{"plugin_name": "postgresql-database-plugin", "allowed_roles": "reader", "connection_url": url, "username": "leasehold", "password": s.lab.Password}},
		{fmt.Sprintf("leasehold write database/roles/reader db_name=shop member_of=shop_reader default_ttl=%s max_ttl=5m", loginTTL), "database/roles/reader",
			map[string]any{"db_name": "shop", "member_of": []string{"shop_reader"}, "default_ttl": loginTTL.String(), "max_ttl": "5m"}},
		{"leasehold policy write reader -   # path \"database/creds/reader\" { capabilities = [\"read\"] }", "sys/policies/acl/reader",
			map[string]any{"policy": `path "database/creds/reader" { capabilities = ["read"] }`}},
	} {
		s.command(w.shown)
		if _, err := s.root.Write(ctx, w.path, w.body); err != nil {
			return fmt.Errorf("writing %s: %w", w.path, err)
		}
	}
	return nil
}

// issue lets each application ask for a login, with a token of its own, and
// use it.
func (s *story) issue(ctx context.Context) error {
	s.step("Three applications ask for access, log in and query")
	s.command("leasehold read database/creds/reader")
	for _, a := range s.apps {
		tok, err := s.root.Write(ctx, "auth/token/create", map[string]any{"policies": []string{"reader"}, "display_name": a.name, "ttl": "10m"})
		if err != nil {
			return fmt.Errorf("a token for %s: %w", a.name, err)
		}
		a.client = s.root.WithToken(tok.Auth.ClientToken)
		creds, err := a.client.Read(ctx, "database/creds/reader", nil)
		if err != nil {
			return fmt.Errorf("credentials for %s: %w", a.name, err)
		}
		var login struct{ Username, Password string }
		if err := creds.Decode(&login); err != nil {
			return err
		}
		a.lease, a.user, a.password = creds.LeaseID, login.Username, login.Password
		a.total = time.Duration(creds.LeaseDuration) * time.Second
		a.expires = time.Now().Add(a.total)
		if a.session, err = pgx.Connect(ctx, s.lab.dsn(a.user, a.password)); err != nil {
			return fmt.Errorf("%s logging in: %w", a.name, err)
		}
		answer, err := query(ctx, a.session)
		if err != nil {
			return fmt.Errorf("%s querying: %w", a.name, err)
		}
		s.proof("%-8s logs in as %s and reads %s", a.name, a.user, answer)
	}
	return nil
}

// countDown shows the leases while one is renewed, one revoked, and one runs out.
func (s *story) countDown(ctx context.Context) error {
	s.step("The leases count down; one is renewed, one is revoked, one runs out")
	shop, billing, reports := s.apps[0], s.apps[1], s.apps[2]
	begun := time.Now()
	events := []struct {
		at time.Time
		do func(context.Context) error
	}{
		{begun.Add(renewAt), func(ctx context.Context) error { return s.renew(ctx, shop) }},
		{begun.Add(revokeAt), func(ctx context.Context) error { return s.revoke(ctx, billing) }},
		{reports.expires, func(ctx context.Context) error { return s.runOut(ctx, reports) }},
	}
	pause := frame
	if !s.live {
		pause = plainFrame
	}
	next := time.Now()
	for len(events) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		now := time.Now()
		if !now.Before(events[0].at) {
			if err := events[0].do(ctx); err != nil {
				return err
			}
			events, next = events[1:], time.Now()
			continue
		}
		if !now.Before(next) {
			if err := s.look(ctx); err != nil {
				return err
			}
			s.draw(s.table())
			next = now.Add(pause)
		}
		wait := min(time.Until(next), time.Until(events[0].at))
		select {
		case <-ctx.Done():
		case <-time.After(max(wait, time.Millisecond)):
		}
	}
	if err := s.look(ctx); err != nil {
		return err
	}
	s.draw(s.table())
	s.keepTable()
	return nil
}

// look asks the server until when each lease lives.
func (s *story) look(ctx context.Context) error {
	for _, a := range s.apps {
		if a.state != "" {
			continue
		}
		sec, err := s.root.Write(ctx, "sys/leases/lookup", map[string]any{"lease_id": a.lease})
		if code := api.StatusOf(err); code == 400 || code == 404 {
			continue // it has just ended; what follows finds out how
		}
		if err != nil {
			return fmt.Errorf("looking up the lease of %s: %w", a.name, err)
		}
		var lease struct {
			Expires time.Time `json:"expire_time"`
		}
		if err := sec.Decode(&lease); err != nil {
			return err
		}
		a.expires = lease.Expires
	}
	return nil
}

func (s *story) renew(ctx context.Context, a *app) error {
	s.command("leasehold lease renew -increment=30s " + short(a.lease))
	sec, err := s.root.RenewLease(ctx, a.lease, 30*time.Second)
	if err != nil {
		return fmt.Errorf("renewing: %w", err)
	}
	a.total = time.Duration(sec.LeaseDuration) * time.Second
	answer, err := query(ctx, a.session)
	if err != nil {
		return err
	}
	s.proof("%s renewed: %d more seconds; its session goes on (%s)", a.name, sec.LeaseDuration, answer)
	return nil
}

func (s *story) revoke(ctx context.Context, a *app) error {
	s.command("leasehold lease revoke -sync " + short(a.lease))
	begun := time.Now()
	if _, err := s.root.Write(ctx, "sys/leases/revoke", map[string]any{"lease_id": a.lease, "sync": true}); err != nil {
		return fmt.Errorf("revoking: %w", err)
	}
	took := time.Since(begun).Round(time.Millisecond)
	why, err := s.lab.refused(ctx, a.user, a.password)
	if err != nil {
		return err
	}
	_, err = query(ctx, a.session)
	if err == nil {
		return fmt.Errorf("the open session of %s still works", a.name)
	}
	s.proof("%s revoked in %s: a new login is refused (%s)", a.name, took, why)
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		s.proof("its open session is gone (%s)", pe.Message)
	} else {
		s.proof("its open session is gone (the connection was closed)")
	}
	a.state = "revoked"
	return s.gone(ctx, a)
}

func (s *story) runOut(ctx context.Context, a *app) error {
	for begun := time.Now(); ; {
		there, err := s.lab.roleExists(ctx, a.user)
		if err != nil {
			return err
		}
		if !there {
			break
		}
		if time.Since(begun) > endLimit {
			return fmt.Errorf("the role %s is still there %s after its lease ended", a.user, endLimit)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	late := time.Since(a.expires).Round(10 * time.Millisecond)
	why, err := s.lab.refused(ctx, a.user, a.password)
	if err != nil {
		return err
	}
	s.proof("%s ran out; its login is refused (%s)", a.name, why)
	s.proof("its role was gone from PostgreSQL %s after the lease ended", late)
	a.state = "ran out"
	return nil
}

// gone proves that a revoked role has left the catalogue.
func (s *story) gone(ctx context.Context, a *app) error {
	there, err := s.lab.roleExists(ctx, a.user)
	if err == nil && there {
		err = fmt.Errorf("the role %s is still there", a.user)
	}
	if err == nil {
		s.proof("its role is gone from PostgreSQL")
	}
	return err
}

// table is the leases as they stand.
func (s *story) table() []string {
	const width = 24
	var rows []string
	for _, a := range s.apps {
		left := max(0, time.Until(a.expires))
		if a.state != "" {
			rows = append(rows, fmt.Sprintf("%-9s %s  %s", a.name, strings.Repeat("·", width), s.paint(red, a.state)))
			continue
		}
		n := min(width, int(float64(width)*float64(left)/float64(max(a.total, time.Second))+0.5))
		bar := s.paint(green, strings.Repeat("█", n)) + s.paint(dim, strings.Repeat("░", width-n))
		rows = append(rows, fmt.Sprintf("%-9s %s  %2.0f s left", a.name, bar, left.Seconds()))
	}
	if !s.live { // one line is enough where lines pile up
		return []string{strings.Join(s.plainTable(), "   ")}
	}
	return rows
}

func (s *story) plainTable() []string {
	var cells []string
	for _, a := range s.apps {
		if a.state != "" {
			cells = append(cells, fmt.Sprintf("%s: %s", a.name, a.state))
		} else {
			cells = append(cells, fmt.Sprintf("%s: %.0f s left", a.name, max(0, time.Until(a.expires)).Seconds()))
		}
	}
	return cells
}

// short cuts a lease id for a line; it is a secret and nobody needs to copy it.
func short(lease string) string {
	if i := strings.LastIndexByte(lease, '/'); i >= 0 && len(lease) > i+7 {
		return lease[:i+7] + "…"
	}
	return lease
}

func (s *story) farewell() {
	s.step("Everything is stopped and removed. What to type next")
	s.line(`
   make demo KEEP=1                 the same, and the lab stays for you to play with
   bin/leasehold server -dev        a server of your own, in memory
   bin/leasehold                    what else there is
   less docs/lessons/11-dynamic-secrets-concepts.md
`)
}

func (s *story) farewellKept() {
	s.step("The lab keeps running. What to type next")
	s.line(`
   export VAULT_ADDR=%s VAULT_TOKEN=%s PATH=$PWD/bin:$PATH

   leasehold read database/creds/reader               a login of your own, for %s
   leasehold lease list                               who has what until when
   leasehold lease revoke -prefix database/creds      all of them at once
   psql '%s'

   kill %-8d                                      stop the lab and remove it
`, s.lab.Addr, s.lab.Root, loginTTL, s.lab.Superuser, s.lab.pid())
}
