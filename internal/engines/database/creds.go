package database

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/leasehold/leasehold/internal/engines/database/postgres"
	"github.com/leasehold/leasehold/internal/engines/database/statements"
	"github.com/leasehold/leasehold/internal/engines/database/username"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// scram is the password_authentication that sends verifiers only.
const scram = "scram-sha-256"

// longestName is how long PostgreSQL lets a role's name be.
const longestName = 63

// ref is all that ending and extending a user needs. Version 1.
type ref struct {
	User       string   `json:"user"`
	Connection string   `json:"connection"` // its id
	Generation int      `json:"generation"`
	Identity   string   `json:"identity"` // of the server that the user is on
	Heir       string   `json:"heir,omitempty"`
	Revocation []string `json:"revocation,omitempty"` // filled in
	Renewal    []string `json:"renewal,omitempty"`    // as configured: the date goes in
	Sessions   string   `json:"sessions,omitempty"`
	Ours       bool     `json:"ours,omitempty"`
}

type credsOut struct {
	Username string        `json:"username"`
	Password secret.String `json:"password"`
}

// plan is what issue decides before anything is asked of the database.
type plan struct {
	e        *Engine
	role     *role
	program  program
	c        *stored
	user     string
	password secret.String
}

func (e *Engine) issue(ctx context.Context, req *route.Request, in nameIn) (g lease.Grant[ref, credsOut], err error) {
	var r *role
	var c *stored
	err = e.env.Store.View(ctx, func(v storage.View) (err error) {
		if r, err = getRole(v, in.Name); err == nil && r != nil {
			c, err = byName(v, r.Connection)
		}
		return err
	})
	switch {
	case err != nil:
		return g, err
	case r == nil:
		return g, errs.New(errs.Invalid, "unknown role: %s", in.Name)
	case c == nil:
		return g, errNoConnection(r.Connection)
	}
	if !allowed(c.AllowedRoles, in.Name) {
		return g, errs.New(errs.Invalid, "%q is not an allowed role", in.Name)
	}
	p := &plan{e: e, role: r, c: c}
	if p.program, err = compile(r, &c.connection); err != nil {
		return g, err
	}
	if !r.ours() && p.program.creation.Len() == 0 {
		return g, errs.New(errs.Invalid, "role %q has neither creation_statements nor member_of", in.Name)
	}
	if err := p.known(ctx); err != nil {
		return g, err
	}
	if err := p.name(req, in.Name); err != nil {
		return g, err
	}
	policy := r.CredentialCfg["password_policy"]
	if policy == "" {
		policy = p.c.PasswordPolicy
	}
	if p.password, err = e.env.Password(ctx, policy); err != nil {
		return g, err
	}
	// A value that the statements cannot take is found out now, not after
	// the lease was written.
	if _, err := p.program.creation.Render(statements.Values{
		Name: p.user, Password: p.password.Reveal(), Expiration: postgres.FormatExpiration(e.env.Now()),
	}); err != nil {
		return g, errs.New(errs.Invalid, "creation_statements: %v", err)
	}
	revocation, err := p.program.revocation.Render(statements.Values{Name: p.user, Expiration: postgres.FormatExpiration(e.env.Now())})
	if err != nil {
		return g, errs.New(errs.Invalid, "revocation_statements: %v", err)
	}
	g.Ref = ref{
		User: p.user, Connection: p.c.ID, Generation: p.c.Generation, Identity: p.c.Identity,
		Revocation: revocation, Renewal: r.Renewal, Sessions: r.Sessions, Ours: r.ours(),
	}
	if r.ours() {
		g.Ref.Heir = r.MemberOf[0]
	}
	g.Target = p.c.generation()
	g.TTL, g.MaxTTL = r.TTL.Duration(), r.MaxTTL.Duration()
	g.Names = []string{p.c.Identity + "/" + p.user}
	g.Live = []string{e.env.Key(rowLive + p.c.generation())}
	g.Group = in.Name
	g.Caps = lease.Caps{Group: r.MaxLive, PerHolder: r.MaxLivePerEntity}
	if window := r.Coalesce.Duration(); window > 0 {
		g.Share = &lease.Share{Window: window, Like: r.like(p.c)}
	}
	g.Limit = r.MaxCreation.Duration()
	g.Make = p.make
	return g, nil
}

// like is a fingerprint of what users of the role are made by. Whoever asks
// after a change gets a user made by that, and none of before it.
func (r *role) like(c *stored) string {
	sum := sha256.Sum256(append(wire.Marshal(r), c.generation()...))
	return hex.EncodeToString(sum[:])
}

// known asks the server who it is, where that is not known yet: the lease must
// say which server it is on. Under the lane's breaker, as it is a call.
func (p *plan) known(ctx context.Context) error {
	if p.c.Identity != "" {
		return nil
	}
	t, release, err := p.e.use(p.c)
	if err != nil {
		return err
	}
	defer release()
	err = p.e.env.Lanes.Create(ctx, p.c.generation(), func(ctx context.Context) (err error) {
		c, err := p.e.meet(ctx, p.c, t)
		if err == nil {
			p.c = c
		}
		return err
	})
	return readable(err, "connecting to the database")
}

// template compiles a connection's template for user names, once.
func (e *Engine) template(text string) (*username.Template, error) {
	if t, ok := e.templates.Load(text); ok {
		return t.(*username.Template), nil
	}
	t, err := username.Compile(text, longestName)
	if err == nil {
		e.templates.Store(text, t)
	}
	return t, err
}

func (p *plan) name(req *route.Request, roleName string) error {
	text := p.c.UsernameTemplate
	if text == "" {
		text = username.Default
	}
	tmpl, err := p.e.template(text)
	if err != nil {
		return errs.New(errs.Invalid, "%v", err)
	}
	p.user, err = tmpl.Make(username.Input{
		DisplayName: req.Caller.DisplayName, RoleName: roleName, Now: p.e.env.Now(),
		Random: func(n int) []byte { return req.Lease.Random("username", n) },
	})
	if err != nil {
		return errs.New(errs.Invalid, "%v", err)
	}
	return nil
}

// make asks the database for the user: the lease is durable.
func (p *plan) make(ctx context.Context, m lease.Made) (out credsOut, err error) {
	t, release, err := p.e.use(p.c)
	if err != nil {
		return out, err
	}
	defer release()
	c := postgres.Creation{
		Role: p.user, Mark: m.Mark, MakeBy: m.MakeBy, Password: p.password,
		ValidUntil: t.Expiration(m.Expires), Alone: p.program.creation.GrantsOnAll(), Dirty: p.program.creation.TouchesSession(),
	}
	if p.c.PasswordAuth == scram || p.role.ours() && p.c.PasswordAuth == "" {
		if c.Password, err = postgres.Verifier(p.password, p.c.iterations()); err != nil {
			return out, err
		}
	}
	share := "group" // creations of ours share a transaction
	if p.role.ours() {
		c.MemberOf = p.role.MemberOf
	} else {
		share = ""
		c.SQL, err = p.program.creation.Render(statements.Values{
			Name: p.user, Password: c.Password.Reveal(), Expiration: postgres.FormatExpiration(c.ValidUntil),
		})
		if err != nil {
			return out, errs.New(errs.Invalid, "creation_statements: %v", err)
		}
	}
	err = lane.CreateBatch(ctx, p.e.env.Lanes, p.c.generation(), share, postgres.BatchSize, c,
		func(ctx context.Context, list []postgres.Creation) []error {
			// Each has its own time; who runs them all may have the least left.
			last := slices.MaxFunc(list, func(a, b postgres.Creation) int { return a.MakeBy.Compare(b.MakeBy) })
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), last.MakeBy.Sub(p.e.env.Now()))
			defer cancel()
			return t.Create(ctx, p.c.Identity, list)
		})
	if err != nil {
		return out, readable(err, "failed to create the database user")
	}
	return credsOut{Username: p.user, Password: p.password}, nil
}

func (c *connection) iterations() int {
	if c.Iterations > 0 {
		return c.Iterations
	}
	return postgres.DefaultIterations
}

// terminates reports whether a cause ends open sessions: where the session's
// rights come from a group they would outlive the role; otherwise a role's
// owner may want them to run out at expiry, as Vault does.
func (r *ref) terminates(cause lease.Cause) bool {
	switch r.Sessions {
	case "terminate":
		return true
	case "leave":
		return false
	}
	return r.Ours || cause.Explicit()
}

// end implements lease.Kind.
func (e *Engine) end(ctx context.Context, _ string, items []*lease.Ending[ref]) {
	type way struct{ generation, identity string }
	batches := map[way][]*postgres.Ending{}
	through := map[string]*stored{}
	for _, it := range items {
		c, err := e.onward(ctx, &it.Ref)
		if err != nil {
			it.Done(err)
			continue
		}
		w := way{c.generation(), it.Ref.Identity}
		if slices.Contains(c.Succeeds, it.Ref.Identity) {
			w.identity = c.Identity
		}
		through[w.generation] = c
		batches[w] = append(batches[w], &postgres.Ending{
			Role: it.Ref.User, Mark: it.Mark, Heir: it.Ref.Heir, SQL: it.Ref.Revocation,
			Terminate: it.Ref.terminates(it.Cause), Late: it.Late, Disabled: it.Disabled, Done: it.Done,
		})
	}
	for w, batch := range batches {
		if err := e.endThrough(ctx, through[w.generation], w.identity, batch); err != nil {
			for _, it := range batch {
				it.Done(err)
			}
		}
	}
}

// meetLimit bounds asking a server who it is, where the caller has no deadline
// of his own: it may be silent for ever.
const meetLimit = 15 * time.Second

// endThrough ends a batch through one generation. An error is everybody's;
// without one each has its own.
func (e *Engine) endThrough(ctx context.Context, c *stored, identity string, batch []*postgres.Ending) error {
	t, release, err := e.use(c)
	if err != nil {
		return err
	}
	defer release()
	if err := e.acquaint(ctx, c, t); err != nil {
		return err
	}
	t.End(ctx, identity, batch)
	return nil
}

func (e *Engine) acquaint(ctx context.Context, c *stored, t *target) error {
	ctx, cancel := context.WithTimeout(ctx, meetLimit)
	defer cancel()
	_, err := e.meet(ctx, c, t)
	if errors.Is(err, errChanged) {
		return nil
	}
	return err
}

// meetFor implements lease.Kind.
func (e *Engine) meetFor(ctx context.Context, _ string, r ref) error {
	c, err := e.onward(ctx, &r)
	if err != nil {
		return err
	}
	t, release, err := e.use(c)
	if err != nil {
		return err
	}
	defer release()
	return e.acquaint(ctx, c, t)
}

// renew implements lease.Kind.
func (e *Engine) renew(ctx context.Context, _ string, r ref, mark string, until time.Time) error {
	c, err := e.onward(ctx, &r)
	if err != nil {
		return readable(err, "extending the database user")
	}
	t, release, err := e.use(c)
	if err != nil {
		return err
	}
	defer release()
	identity := r.Identity
	if slices.Contains(c.Succeeds, identity) {
		identity = c.Identity
	}
	until = t.Expiration(until)
	set, err := statements.Compile(r.Renewal)
	if err != nil {
		return errs.New(errs.Invalid, "renew_statements: %v", err)
	}
	sql, err := set.Render(statements.Values{Name: r.User, Expiration: postgres.FormatExpiration(until)})
	if err != nil {
		return errs.New(errs.Invalid, "renew_statements: %v", err)
	}
	if err := t.Renew(ctx, identity, r.User, mark, until, sql); err != nil {
		return readable(fmt.Errorf("user %q: %w", r.User, err), "extending the database user")
	}
	return nil
}

// staticRoutes keeps the place of static roles, which come later: none exist.
func (e *Engine) staticRoutes(t *route.Table) {
	route.List(t, "static-roles", func(context.Context, *route.Request, route.None) (route.Keys, error) {
		return route.Keys{}, errs.Gone
	}, route.Hidden())
	route.Read(t, "static-roles/{name}", func(context.Context, *route.Request, nameIn) (wire.Object, error) {
		return nil, errs.Gone
	}, route.Hidden())
	route.Delete(t, "static-roles/{name}", func(context.Context, *route.Request, nameIn) (route.None, error) {
		return route.None{}, nil
	}, route.Hidden())
	route.Read(t, "static-creds/{name}", func(_ context.Context, _ *route.Request, in nameIn) (wire.Object, error) {
		return nil, errs.New(errs.Invalid, "unknown role: %s", in.Name)
	}, route.Hidden())
}
