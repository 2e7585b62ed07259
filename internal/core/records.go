package core

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// This file says what the audit log is told of a request, and of what ends
// without one. Which devices keep the log is in auditing.go.

// auditRequest writes the request's record. Nothing has happened yet; refused
// requests are recorded too, with the reason.
func (x *exchange) auditRequest(ctx context.Context, refused error) error {
	if err := x.u.freshDevices(ctx); err != nil {
		return err
	}
	if !x.u.broker.Enabled() {
		return nil
	}
	e := &audit.Entry{Request: x.auditedRequest(), Auth: x.auditedAuth()}
	if refused != nil {
		e.Error = sentence(refused)
	}
	begun := time.Now()
	err := x.u.broker.Request(ctx, e)
	x.u.core.figures.auditRequests.add(time.Since(begun))
	if err != nil {
		return err
	}
	x.entry = e
	return nil
}

func (x *exchange) auditedRequest() audit.Request {
	r := audit.Request{
		ID: x.req.ID, Operation: x.r.Op.String(), ClientToken: x.req.Token,
		Namespace: x.namespace(), Path: x.req.Path, Remote: x.req.Remote, WrapTTL: x.req.WrapTTL,
		SecretFrom: x.secretFrom(),
	}
	if x.token != nil {
		r.ClientTokenAccessor = x.token.Accessor
	}
	if x.m != nil {
		r.Mount = audit.Mount{Point: x.m.Path, Type: x.m.Type, Accessor: x.m.Accessor, Class: x.m.Class}
		r.NonHMACKeys = x.m.Config.AuditRequestKeys
	}
	switch {
	case x.r.Octets != nil:
		r.Data = auditedOctets(x.r.Octets, x.req.Query, x.ep.Secret)
	case len(x.req.Body) > 0:
		ep, body := x.ep, x.req.Body
		r.Data = func(dst []byte, hash wire.Hasher) []byte { return ep.AppendHashedBody(dst, body, hash) }
	case len(x.req.Query) > 0:
		r.Data = audit.Query(x.req.Query, x.ep.Secret)
	}
	for _, h := range *x.u.auditing.headers.Load() {
		if vs := x.req.Header.Values(h.Name); len(vs) > 0 {
			r.Headers = append(r.Headers, audit.Header{Name: h.Name, Values: vs, HMAC: h.HMAC || bearing[h.Name]})
		}
	}
	return r
}

// auditedOctets shows a body of bytes as one field beside those of the query.
func auditedOctets(body []byte, query url.Values, secret func(string) bool) audit.Data {
	all := url.Values{}
	maps.Copy(all, query)
	all["octets"] = []string{string(body)}
	return audit.Query(all, secret)
}

// secretFrom is where the path has a secret. One that led nowhere may begin
// with a namespace yet.
func (x *exchange) secretFrom() int {
	if x.space == nil || x.m == nil {
		return secretAnywhere(x.req.Path)
	}
	return secretFrom(x.req.Path)
}

// namespace is the one that was asked.
func (x *exchange) namespace() audit.Namespace {
	if x.space == nil {
		return audit.Namespace{ID: x.ns} // the request names none that is there
	}
	return audit.Namespace{ID: x.ns, Path: x.space.Path}
}

// auditedNamespace names a namespace by its id and the path that it has.
func (u *unsealed) auditedNamespace(id string) audit.Namespace {
	if id == token.RootNamespace {
		return audit.Namespace{ID: id}
	}
	return audit.Namespace{ID: id, Path: u.pathOf(id)}
}

// bearing are headers that carry tokens or passcodes. They are hashed whatever
// the operator asked for.
var bearing = map[string]bool{"x-vault-token": true, "authorization": true, "cookie": true, "x-vault-mfa": true}

// ShownPath is a request's path as logs may show it: without the lease id or
// token that some paths carry. Of a lease id only the end is secret.
func ShownPath(path string) string {
	if n := secretAnywhere(path); n > 0 {
		return path[:max(n, strings.LastIndexByte(path, '/')+1)] + "redacted"
	}
	return path
}

// bearers are the paths that end in a lease id or a token, and prefixes those
// that end in what lease ids begin with, where people write a whole one.
var (
	bearers = []string{
		"sys/leases/renew/", "sys/leases/revoke/", "sys/renew/", "sys/revoke/",
		"auth/token/lookup/", "auth/token/renew/", "auth/token/revoke/", "auth/token/revoke-orphan/",
	}
	prefixes = []string{
		"sys/leases/lookup/", "sys/leases/revoke-prefix/", "sys/leases/revoke-force/", "sys/revoke-prefix/", "sys/revoke-force/",
	}
)

// secretFrom is where in a path a lease id or a token begins, or 0. From there
// on the record has its hash, which is the one that the data of other records
// and sys/audit-hash have.
func secretFrom(path string) int {
	for _, p := range bearers {
		if strings.HasPrefix(path, p) && len(path) > len(p) {
			return len(p)
		}
	}
	for _, p := range prefixes {
		if strings.HasPrefix(path, p) && lease.IsID(strings.TrimSuffix(path[len(p):], "/")) {
			return len(p)
		}
	}
	return 0
}

// secretAnywhere is secretFrom for a path that may begin with a namespace.
func secretAnywhere(path string) int {
	for at := 0; ; {
		if n := secretFrom(path[at:]); n > 0 {
			return at + n
		}
		i := strings.IndexByte(path[at:], '/')
		if i < 0 {
			return 0
		}
		at += i + 1
	}
}

func (x *exchange) auditedAuth() *audit.Auth {
	if x.token == nil {
		return nil
	}
	a := authOf(x.token)
	a.ClientToken = x.req.Token
	if x.who != nil {
		a.EntityID, a.IdentityPolicies = x.who.ID, identityPolicies(x.who, x.token.Namespace)
		a.Policies = withIdentity(a.Policies, a.IdentityPolicies)
	}
	if x.set != nil {
		a.Results = &audit.PolicyResults{Allowed: x.decision.Allowed}
		if x.decision.Allowed {
			for _, p := range a.Policies {
				a.Results.Granting = append(a.Results.Granting, audit.GrantingPolicy{
					Name: p, Namespace: x.u.auditedNamespace(x.token.Namespace), Type: "acl",
				})
			}
		}
	}
	return a
}

func authOf(t *token.Token) *audit.Auth {
	return &audit.Auth{
		Accessor: t.Accessor, DisplayName: t.DisplayName, Policies: t.Policies, TokenPolicies: t.Policies,
		NoDefaultPolicy: !slices.Contains(t.Policies, policy.DefaultName), Metadata: t.Meta, EntityID: t.EntityID,
		TokenType: t.Type.String(), NumUses: t.NumUses, TTL: leaseOf(t), IssueTime: t.Created,
	}
}

// auditResponse writes the answer's record. Without it there is no answer.
func (x *exchange) auditResponse(ctx context.Context, failed error) error {
	if x.entry == nil {
		return nil
	}
	if failed != nil {
		x.entry.Error = sentence(failed)
		x.entry.Response = &audit.Response{}
		if e := (*errs.Error)(nil); errors.As(failed, &e) && e.Data != nil {
			x.resp.Data = wire.OfAny(e.Data)
			x.entry.Response = x.auditedResponse()
		}
	} else {
		x.entry.Response = x.auditedResponse()
	}
	begun := time.Now()
	err := x.u.broker.Response(ctx, x.entry)
	x.u.core.figures.auditResponses.add(time.Since(begun))
	return err
}

// sentence is what a record says of a failure. "Not there" needs none, as in
// Vault; any other must not look like success.
func sentence(err error) string {
	msg := errs.Message(named(err))
	if msg == "" && !errs.Is(err, errs.NotFound) {
		return "refused"
	}
	return msg
}

func (x *exchange) auditedResponse() *audit.Response {
	p := &audit.Response{Warnings: x.resp.Warnings, LeaseID: secret.New(x.resp.LeaseID)}
	if x.m != nil {
		p.NonHMACKeys = x.m.Config.AuditResponseKeys
	}
	if d := x.resp.Data; d != nil {
		p.Data = func(dst []byte, hash wire.Hasher) []byte { return d.AppendHashed(dst, hash) }
	}
	if a := x.resp.Auth; a != nil {
		// The token's own record says whose it is; here stands what the
		// client reads, hashed.
		p.Auth = auditAuth(a)
	}
	if w := x.resp.Wrap; w != nil {
		p.WrapInfo = &audit.WrapInfo{
			TTL: w.TTL.Duration(), Token: w.Token, Accessor: w.Accessor, CreationTime: w.CreationTime,
			CreationPath: w.CreationPath, WrappedAccessor: w.WrappedAccessor,
		}
	}
	return p
}

// auditAuth reads the auth part of an answer back: it may come from a wrapped
// answer as well as from a login.
func auditAuth(a wire.Data) *audit.Auth {
	var r struct {
		ClientToken   string            `json:"client_token"`
		Accessor      string            `json:"accessor"`
		Policies      []string          `json:"policies"`
		TokenPolicies []string          `json:"token_policies"`
		Identity      []string          `json:"identity_policies"`
		Metadata      map[string]string `json:"metadata"`
		EntityID      string            `json:"entity_id"`
		TokenType     string            `json:"token_type"`
		NumUses       int               `json:"num_uses"`
	}
	if err := json.Unmarshal(a.AppendJSON(nil), &r); err != nil {
		return &audit.Auth{}
	}
	return &audit.Auth{
		ClientToken: secret.New(r.ClientToken), Accessor: r.Accessor, Policies: r.Policies,
		TokenPolicies: r.TokenPolicies, IdentityPolicies: r.Identity, Metadata: r.Metadata, EntityID: r.EntityID,
		TokenType: r.TokenType, NumUses: r.NumUses,
	}
}

// recordLeases stores the audit records of leases that have ended.
func (u *unsealed) recordLeases(tx storage.Tx, target string, recs []lease.Record) error {
	out := make([]audit.Stored, 0, len(recs))
	for _, r := range recs {
		outcome := "gone"
		if r.Cause == lease.Forced && r.Error != "" {
			outcome = "forgotten"
		}
		out = append(out, audit.Stored{
			Time: r.Time, Kind: "lease", Operation: "revoke", Cause: string(r.Cause), Outcome: outcome,
			Namespace: u.auditedNamespace(r.Namespace), Path: r.Path, LeaseID: secret.New(string(r.ID)),
			Target: r.Target, Error: r.Error,
		})
	}
	return u.outbox.Append(tx, target, out...)
}

// recordTokens stores the audit records of tokens that have ended.
func (u *unsealed) recordTokens(tx storage.Tx, ends []token.End) error {
	out := make([]audit.Stored, 0, len(ends))
	for _, e := range ends {
		out = append(out, audit.Stored{
			Time: u.core.cfg.Now(), Kind: "token", Operation: "revoke", Cause: string(e.Cause), Outcome: "gone",
			Namespace: u.auditedNamespace(e.Namespace), Path: e.Path, TokenAccessor: e.Accessor, Target: token.Target,
		})
	}
	return u.outbox.Append(tx, token.Target, out...)
}
