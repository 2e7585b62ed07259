package jwt

import (
	"context"
	"crypto/rand"
	"slices"
	"strconv"
	"time"

	"github.com/leasehold/leasehold/internal/auth/claims"
	"github.com/leasehold/leasehold/internal/auth/roles"
	"github.com/leasehold/leasehold/internal/auth/tokenparams"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// roleRow is a role as it is stored under role/<name>. Version 1. Leeways are
// whole seconds; negative is none, zero the default.
type roleRow struct {
	roles.Head
	Type        string            `json:"type"`
	Audiences   []string          `json:"aud,omitempty"`
	Subject     string            `json:"sub,omitempty"`
	Claims      wire.Object       `json:"claims,omitempty"`
	ClaimsType  string            `json:"ctype"`
	Mappings    map[string]string `json:"map,omitempty"`
	User        string            `json:"user"`
	UserPointer bool              `json:"userptr,omitempty"`
	Groups      string            `json:"groups,omitempty"`
	Expiration  int64             `json:"exp,omitempty"`
	NotBefore   int64             `json:"nbf,omitempty"`
	ClockSkew   int64             `json:"skew,omitempty"`
	MaxAge      wire.TTL          `json:"maxage,omitempty"`
	Redirects   []string          `json:"redirect,omitempty"`
	Scopes      []string          `json:"scopes,omitempty"`
	Verbose     bool              `json:"verbose,omitempty"`
}

const (
	roleVersion = 1

	typeJWT  = "jwt"
	typeOIDC = "oidc"

	boundString = "string"
	boundGlob   = "glob"

	modeClient = "client" // the browser comes back to the client that sent it
)

type writeRoleIn struct {
	Name        string                `json:"name" doc:"Name of the role; upper case counts as lower."`
	Type        wire.Opt[string]      `json:"role_type" doc:"jwt for tokens that the client has; oidc for logins by browser, which is the default."`
	Audiences   wire.Opt[wire.CSV]    `json:"bound_audiences" doc:"Audiences (aud), one of which the token must be for."`
	Subject     wire.Opt[string]      `json:"bound_subject" doc:"Subject (sub) that the token must have."`
	Claims      wire.Opt[wire.Object] `json:"bound_claims" doc:"Claims that the token must have, each with a value or a list of values of which one must match. A name that begins with / is a JSON pointer."`
	ClaimsType  wire.Opt[string]      `json:"bound_claims_type" doc:"string, or glob: then * in a value of bound_claims stands for any text."`
	Mappings    wire.Opt[wire.KV]     `json:"claim_mappings" doc:"Claims that become metadata: from a claim or JSON pointer to a name."`
	User        wire.Opt[string]      `json:"user_claim" doc:"Claim that names the user, the alias of an entity."`
	UserPointer wire.Opt[bool]        `json:"user_claim_json_pointer" doc:"user_claim is a JSON pointer."`
	Groups      wire.Opt[string]      `json:"groups_claim" doc:"Claim or JSON pointer that lists the user's groups."`
	Expiration  wire.Opt[wire.Value]  `json:"expiration_leeway" doc:"How long a token without exp is valid; 0 is 150 seconds, -1 none."`
	NotBefore   wire.Opt[wire.Value]  `json:"not_before_leeway" doc:"How long before exp a token without nbf and iat is valid; 0 is 150 seconds, -1 none."`
	ClockSkew   wire.Opt[wire.Value]  `json:"clock_skew_leeway" doc:"How far the issuer's clock may be off; 0 is 60 seconds, -1 not at all."`
	MaxAge      wire.Opt[wire.TTL]    `json:"max_age" doc:"How long ago the user may have proved who they are to the provider; 0: any time."`
	Redirects   wire.Opt[wire.CSV]    `json:"allowed_redirect_uris" doc:"Addresses that the provider may send the browser back to. The port of one on the user's own machine does not count."`
	Scopes      wire.Opt[wire.CSV]    `json:"oidc_scopes" doc:"Scopes to ask for beside openid."`
	Verbose     wire.Opt[bool]        `json:"verbose_oidc_logging" doc:"Log what providers say of users, at level debug."`
	Callback    wire.Opt[string]      `json:"callback_mode" doc:"client: the browser comes back to the client. No other is supported."`
	tokenparams.Change
	tokenparams.Older
}

type roleOut struct {
	Redirects   []string          `json:"allowed_redirect_uris" wire:"null"`
	Audiences   []string          `json:"bound_audiences" wire:"null"`
	Claims      wire.Object       `json:"bound_claims"`
	ClaimsType  string            `json:"bound_claims_type"`
	Subject     string            `json:"bound_subject"`
	Callback    string            `json:"callback_mode"`
	Mappings    map[string]string `json:"claim_mappings" wire:"null"`
	ClockSkew   int64             `json:"clock_skew_leeway"`
	Expiration  int64             `json:"expiration_leeway"`
	Groups      string            `json:"groups_claim"`
	MaxAge      wire.TTL          `json:"max_age"`
	NotBefore   int64             `json:"not_before_leeway"`
	Scopes      []string          `json:"oidc_scopes" wire:"null"`
	Type        string            `json:"role_type"`
	User        string            `json:"user_claim"`
	UserPointer bool              `json:"user_claim_json_pointer"`
	Verbose     bool              `json:"verbose_oidc_logging"`
	tokenparams.Params
}

func (e *Engine) readRole(ctx context.Context, _ *route.Request, in roles.NameIn) (roleOut, error) {
	row, err := e.roles.Must(ctx, in.Name)
	if err != nil {
		return roleOut{}, err
	}
	return roleOut{
		Redirects: row.Redirects, Audiences: row.Audiences, Claims: row.Claims, ClaimsType: row.ClaimsType, Subject: row.Subject,
		Callback: modeClient, Mappings: row.Mappings, ClockSkew: row.ClockSkew, Expiration: row.Expiration, Groups: row.Groups,
		MaxAge: row.MaxAge, NotBefore: row.NotBefore, Scopes: row.Scopes, Type: row.Type, User: row.User,
		UserPointer: row.UserPointer, Verbose: row.Verbose, Params: row.Token,
	}, nil
}

func (e *Engine) writeRole(ctx context.Context, req *route.Request, in writeRoleIn) (route.None, error) {
	var row *roleRow
	id := rand.Text()
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) (err error) {
		if row, err = e.roles.At(tx, in.Name); err != nil {
			return err
		}
		if row == nil {
			row = &roleRow{Head: roles.Head{ID: id}, Type: typeOIDC, ClaimsType: boundString}
		}
		if err := in.apply(row); err != nil {
			return err
		}
		if most := req.Mount.MaxTTL; row.Token.Period.Duration() > most {
			return errs.New(errs.Invalid, "'token_period' of %q is greater than the backend's maximum lease TTL of %q", row.Token.Period, most)
		}
		return tx.Put(roles.Key(in.Name), wire.Marshal(row))
	})
	if err != nil {
		return route.None{}, err
	}
	if row.Token.MaxTTL.Duration() > req.Mount.MaxTTL {
		req.Warn("token max ttl is greater than the system or backend mount's maximum TTL value; issued tokens' max TTL value will be truncated")
	}
	if row.Verbose {
		req.Warn("verbose_oidc_logging has been enabled for this role. This is not recommended in production since sensitive information may be present in OIDC responses.")
	}
	return route.None{}, nil
}

// apply changes a role by what was written.
func (in *writeRoleIn) apply(row *roleRow) error {
	row.V = roleVersion
	if t, ok := in.Type.Get(); ok && t != "" {
		row.Type = t
	}
	if t, ok := in.ClaimsType.Get(); ok && t != "" {
		row.ClaimsType = t
	}
	for _, l := range []struct {
		in wire.Opt[wire.CSV]
		to *[]string
	}{{in.Audiences, &row.Audiences}, {in.Redirects, &row.Redirects}, {in.Scopes, &row.Scopes}} {
		if v, ok := l.in.Get(); ok {
			*l.to = v
		}
	}
	if m, ok := in.Mappings.Get(); ok {
		row.Mappings = m
	}
	in.Subject.Apply(&row.Subject)
	in.Claims.Apply(&row.Claims)
	in.User.Apply(&row.User)
	in.UserPointer.Apply(&row.UserPointer)
	in.Groups.Apply(&row.Groups)
	in.MaxAge.Apply(&row.MaxAge)
	in.Verbose.Apply(&row.Verbose)
	for _, l := range []struct {
		name string
		in   wire.Opt[wire.Value]
		to   *int64
	}{
		{"expiration_leeway", in.Expiration, &row.Expiration},
		{"not_before_leeway", in.NotBefore, &row.NotBefore},
		{"clock_skew_leeway", in.ClockSkew, &row.ClockSkew},
	} {
		if v, ok := l.in.Get(); ok {
			n, err := signedSeconds(v)
			if err != nil {
				return errs.New(errs.Invalid, "%s: %v; -1 is none", l.name, err)
			}
			*l.to = n
		}
	}
	if mode := in.Callback.Or(modeClient); mode != modeClient {
		return errs.New(errs.Invalid, "invalid 'callback_mode': %s; only %q is supported", mode, modeClient)
	}
	if err := row.Token.Apply(in.Or(in.Change)); err != nil {
		return err
	}
	return row.check()
}

// signedSeconds reads a duration that may be negative: -1 stands for none.
func signedSeconds(v wire.Value) (int64, error) {
	text, _ := v.Text()
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		return n, nil
	}
	d, err := wire.ParseTTL(text)
	return int64(d / time.Second), err
}

// reservedMetadata is what a mapped claim may not be called.
const reservedMetadata = "role"

// check refuses roles that make no sense.
func (row *roleRow) check() error {
	if row.Type != typeJWT && row.Type != typeOIDC {
		return errs.New(errs.Invalid, "invalid 'role_type': %s", row.Type)
	}
	if row.ClaimsType != boundString && row.ClaimsType != boundGlob {
		return errs.New(errs.Invalid, "invalid 'bound_claims_type': %s", row.ClaimsType)
	}
	if err := claims.CheckBound(row.Claims, row.ClaimsType == boundGlob); err != nil {
		return errs.New(errs.Invalid, "%v", err)
	}
	var targets []string
	for _, to := range row.Mappings {
		switch {
		case to == reservedMetadata:
			return errs.New(errs.Invalid, "metadata key %q is reserved and may not be a mapping destination", to)
		case slices.Contains(targets, to):
			return errs.New(errs.Invalid, "multiple keys are mapped to metadata key %q", to)
		}
		targets = append(targets, to)
	}
	switch {
	case row.User == "":
		return errs.New(errs.Invalid, "a user claim must be defined on the role")
	case row.Type == typeOIDC && len(row.Redirects) == 0:
		return errs.New(errs.Invalid, "'allowed_redirect_uris' must be set if 'role_type' is 'oidc' or unspecified.")
	case row.Type == typeJWT && len(row.Audiences)+len(row.Token.BoundCIDRs)+row.Claims.Len() == 0 && row.Subject == "":
		return errs.New(errs.Invalid, "must have at least one bound constraint when creating/updating a role")
	}
	return nil
}

// leeway is how far the times of a token may be off.
func (row *roleRow) leeway() claims.Leeway {
	return claims.Leeway{
		Expiration: time.Duration(row.Expiration) * time.Second,
		NotBefore:  time.Duration(row.NotBefore) * time.Second,
		ClockSkew:  time.Duration(row.ClockSkew) * time.Second,
	}
}
