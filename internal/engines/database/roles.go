package database

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/engines/database/statements"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

type roleIn struct {
	Name             string                 `json:"name" doc:"Name of the role."`
	Connection       wire.Opt[string]       `json:"db_name" doc:"Name of the connection (config/NAME) that users are made over."`
	Creation         wire.Opt[wire.Strings] `json:"creation_statements" doc:"SQL that makes a user: a list, or one text with semicolons. {{name}}, {{password}} and {{expiration}} are filled in."`
	Revocation       wire.Opt[wire.Strings] `json:"revocation_statements" doc:"SQL that ends a user, run after its login was disabled. The default needs none."`
	Rollback         wire.Opt[wire.Strings] `json:"rollback_statements" doc:"Kept for Vault's clients; never needed, as a creation is one transaction."`
	Renewal          wire.Opt[wire.Strings] `json:"renew_statements" doc:"SQL that extends a user. The default moves VALID UNTIL."`
	TTL              wire.Opt[wire.TTL]     `json:"default_ttl" doc:"How long a lease lasts; 0 is the mount's default."`
	MaxTTL           wire.Opt[wire.TTL]     `json:"max_ttl" doc:"How long renewals can make it; 0 is the mount's."`
	MaxCreation      wire.Opt[wire.TTL]     `json:"max_creation_time" doc:"How long making a user may take before it is given up and undone; 30s unless said otherwise, 10m at most."`
	Credential       wire.Opt[string]       `json:"credential_type" doc:"What is made: password."`
	CredentialConfig wire.Opt[wire.KV]      `json:"credential_config" doc:"password_policy: the policy that draws passwords, instead of the connection's."`
	MemberOf         wire.Opt[wire.CSV]     `json:"member_of" doc:"Groups that users join. With groups no statements are needed: group-role mode."`
	Sessions         wire.Opt[string]       `json:"revoke_sessions" doc:"What revoking does to open sessions: terminate or leave. The default is terminate in group-role mode; with statements, terminate when a person or program revokes and leave at expiry."`
	MaxLive          wire.Opt[int]          `json:"max_live_leases" doc:"How many leases of the role may live at once; 0 is any number. Beyond it the answer is 429 and names when the next one ends."`
	MaxLivePerEntity wire.Opt[int]          `json:"max_live_leases_per_entity" doc:"The same for the leases of one entity, or of one token where it has none, issued since this was set."`
	Coalesce         wire.Opt[wire.TTL]     `json:"coalesce_window" doc:"How long after it was made a user is given to further requests of the same entity (or token), each with a lease of its own; 0: each request makes a user. 1h at most."`
}

type roleOut struct {
	Connection       string       `json:"db_name"`
	Creation         wire.Strings `json:"creation_statements"`
	Revocation       wire.Strings `json:"revocation_statements"`
	Rollback         wire.Strings `json:"rollback_statements"`
	Renewal          wire.Strings `json:"renew_statements"`
	TTL              wire.TTL     `json:"default_ttl"`
	MaxTTL           wire.TTL     `json:"max_ttl"`
	MaxCreation      wire.TTL     `json:"max_creation_time,omitzero"`
	Credential       string       `json:"credential_type"`
	CredentialConfig wire.KV      `json:"credential_config,omitempty"`
	MemberOf         wire.CSV     `json:"member_of,omitempty"`
	Sessions         string       `json:"revoke_sessions,omitempty"`
	MaxLive          int          `json:"max_live_leases,omitempty"`
	MaxLivePerEntity int          `json:"max_live_leases_per_entity,omitempty"`
	Coalesce         wire.TTL     `json:"coalesce_window,omitzero"`
}

func (e *Engine) listRoles(ctx context.Context, _ *route.Request, _ route.None) (route.Keys, error) {
	names, err := storage.Folder(ctx, e.env.Store, rowRole)
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(names)
}

func (e *Engine) role(ctx context.Context, name string) (r *role, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) (err error) {
		r, err = getRole(v, name)
		return err
	})
	return r, err
}

func (e *Engine) roleExists(ctx context.Context, _ *route.Request, in roleIn) (bool, error) {
	r, err := e.role(ctx, in.Name)
	return r != nil, err
}

func (e *Engine) readRole(ctx context.Context, _ *route.Request, in nameIn) (roleOut, error) {
	r, err := e.role(ctx, in.Name)
	if err != nil {
		return roleOut{}, err
	}
	if r == nil {
		return roleOut{}, errs.Gone
	}
	return roleOut{
		Connection: r.Connection, Creation: r.Creation, Revocation: r.Revocation, Rollback: r.Rollback, Renewal: r.Renewal,
		TTL: r.TTL, MaxTTL: r.MaxTTL, MaxCreation: r.MaxCreation, Credential: r.Credential, CredentialConfig: r.CredentialCfg,
		MemberOf: r.MemberOf, Sessions: r.Sessions, MaxLive: r.MaxLive, MaxLivePerEntity: r.MaxLivePerEntity, Coalesce: r.Coalesce,
	}, nil
}

func (e *Engine) deleteRole(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(rowRole + in.Name) })
	return route.None{}, err
}

func (e *Engine) writeRole(ctx context.Context, req *route.Request, in roleIn) (route.None, error) {
	var r *role
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) (err error) {
		if r, err = getRole(tx, in.Name); err != nil {
			return err
		}
		if r == nil {
			r = &role{Credential: "password"}
		}
		r.V = roleVersion
		in.apply(r)
		c, err := byName(tx, r.Connection)
		if err != nil {
			return err
		}
		var settings *connection
		if c != nil {
			settings = &c.connection
		}
		if _, err := compile(r, settings); err != nil {
			return err
		}
		return tx.Put(rowRole+in.Name, wire.Marshal(r))
	})
	if err != nil {
		return route.None{}, err
	}
	advise(req, r)
	return route.None{}, nil
}

func (in roleIn) apply(r *role) {
	in.Connection.Apply(&r.Connection)
	list := func(o wire.Opt[wire.Strings], to *[]string) {
		if v, ok := o.Get(); ok {
			*to = v
		}
	}
	list(in.Creation, &r.Creation)
	list(in.Revocation, &r.Revocation)
	list(in.Rollback, &r.Rollback)
	list(in.Renewal, &r.Renewal)
	in.TTL.Apply(&r.TTL)
	in.MaxTTL.Apply(&r.MaxTTL)
	in.MaxCreation.Apply(&r.MaxCreation)
	if v, ok := in.Credential.Get(); ok && v != "" {
		r.Credential = v
	}
	if v, ok := in.CredentialConfig.Get(); ok {
		r.CredentialCfg = v
	}
	if v, ok := in.MemberOf.Get(); ok {
		r.MemberOf = slices.DeleteFunc(slices.Clone(v), func(s string) bool { return s == "" })
	}
	in.Sessions.Apply(&r.Sessions)
	in.MaxLive.Apply(&r.MaxLive)
	in.MaxLivePerEntity.Apply(&r.MaxLivePerEntity)
	in.Coalesce.Apply(&r.Coalesce)
}

// advise warns of what works today and will not for ever. (A warning makes the
// answer 200, where clients of Vault expect 204; what is only unusual is the
// doctor's to say.)
func advise(req *route.Request, r *role) {
	if p, err := compile(r, nil); err == nil && p.creation.GrantsOnAll() {
		req.Warn("GRANT ... ON ALL writes an entry for every user into the access list of every table, and PostgreSQL keeps a list in a row of at most 8,160 bytes: " +
			"with some hundreds of users at a time creating them fails with \"row is too big\". Grant to a group once and give the role member_of instead")
	}
}

// mostCreation bounds max_creation_time: a lease whose creation has an unknown
// end waits that long before it can go.
const mostCreation = 10 * time.Minute

// mostWindow bounds coalesce_window: a password is kept that long.
const mostWindow = time.Hour

// mostPerEntity bounds max_live_leases_per_entity: so many keys are looked at
// before another lease.
const mostPerEntity = 10_000

// program is a role's statements, ready to be filled in.
type program struct {
	creation, revocation, renewal *statements.Set
}

// compile checks a role and reads its statements. c is its connection, nil
// where there is none yet.
func compile(r *role, c *connection) (p program, err error) {
	bad := func(format string, args ...any) (program, error) {
		return program{}, errs.New(errs.Invalid, format, args...)
	}
	switch {
	case r.Connection == "":
		return bad("empty database name attribute: db_name names the connection of the role")
	case r.Credential != "password":
		return bad("credential_type %q is not supported; use password", r.Credential)
	case r.Sessions != "" && r.Sessions != "terminate" && r.Sessions != "leave":
		return bad("revoke_sessions is terminate or leave, not %q", r.Sessions)
	case r.MaxCreation.Duration() > mostCreation:
		return bad("max_creation_time is %s at most", mostCreation)
	case r.MaxLive < 0:
		return bad("max_live_leases is 0 (any number) or more, not %d", r.MaxLive)
	case r.MaxLivePerEntity < 0 || r.MaxLivePerEntity > mostPerEntity:
		return bad("max_live_leases_per_entity is 0 (any number) to %d, not %d", mostPerEntity, r.MaxLivePerEntity)
	case r.Coalesce.Duration() > mostWindow:
		return bad("coalesce_window is %s at most: the password is kept that long", mostWindow)
	case r.ours() && (len(r.Creation) > 0 || len(r.Renewal) > 0):
		return bad("give either member_of or statements: with groups, users are made and extended by SQL of our own")
	}
	for key := range r.CredentialCfg {
		if key != "password_policy" {
			return bad("credential_config has no %q for passwords; use password_policy", key)
		}
	}
	for _, g := range r.MemberOf {
		if strings.ContainsRune(g, 0) || len(g) > 63 {
			return bad("member_of: %q is no role's name", g)
		}
	}
	for _, part := range []struct {
		field string
		from  []string
		to    **statements.Set
	}{
		{"creation_statements", r.Creation, &p.creation},
		{"revocation_statements", r.Revocation, &p.revocation},
		{"renew_statements", r.Renewal, &p.renewal},
	} {
		if *part.to, err = statements.Compile(part.from); err != nil {
			return bad("%s: %v", part.field, err)
		}
	}
	if p.revocation.UsesPassword() || p.renewal.UsesPassword() {
		return bad("{{password}} is known at creation only")
	}
	if c != nil && c.PasswordAuth == scram {
		if err := p.creation.CheckSCRAM(); err != nil {
			return bad("creation_statements: %v", err)
		}
	}
	return p, nil
}

// allowed reports whether a connection lets a role use it. Patterns may begin
// or end with an asterisk.
func allowed(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		head, tail := strings.HasPrefix(p, "*"), strings.HasSuffix(p, "*")
		switch {
		case p == "*":
			return true
		case head && tail:
			return strings.Contains(name, strings.Trim(p, "*"))
		case head:
			return strings.HasSuffix(name, p[1:])
		case tail:
			return strings.HasPrefix(name, p[:len(p)-1])
		}
		return p == name
	})
}
