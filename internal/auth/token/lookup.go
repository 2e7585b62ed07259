package token

import (
	"context"
	"net/netip"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// lookupOut is all there is to tell about a token.
type lookupOut struct {
	ID             secret.String     `json:"id"`
	Accessor       string            `json:"accessor"`
	Policies       []string          `json:"policies"`
	Path           string            `json:"path"`
	Meta           map[string]string `json:"meta" wire:"null"`
	DisplayName    string            `json:"display_name"`
	NumUses        int               `json:"num_uses"`
	Orphan         bool              `json:"orphan"`
	CreationTime   int64             `json:"creation_time"`
	CreationTTL    wire.TTL          `json:"creation_ttl"`
	ExpireTime     time.Time         `json:"expire_time"` // zero is null
	IssueTime      time.Time         `json:"issue_time"`
	TTL            wire.TTL          `json:"ttl"`
	ExplicitMaxTTL wire.TTL          `json:"explicit_max_ttl"`
	EntityID       string            `json:"entity_id"`
	Type           string            `json:"type"`
	Renewable      bool              `json:"renewable"`
	Role           string            `json:"role,omitempty"`
	Period         wire.TTL          `json:"period,omitempty"`
	BoundCIDRs     []netip.Prefix    `json:"bound_cidrs,omitempty"`
	LastRenewal    *time.Time        `json:"last_renewal,omitempty"`
	LastRenewalAt  int64             `json:"last_renewal_time,omitempty"`
	NamespacePath  string            `json:"namespace_path,omitempty"`
	// Those of its entity, and those that its entity has in namespaces below.
	IdentityPolicies []string                      `json:"identity_policies,omitempty"`
	ExternalPolicies wire.Opt[map[string][]string] `json:"external_namespace_policies"`
}

func (e *Engine) tell(ctx context.Context, t Token) (lookupOut, error) {
	identity, err := e.cfg.Identities.Policies(ctx, t)
	if err != nil {
		return lookupOut{}, err
	}
	out := lookupOut{
		ID: t.Text, Accessor: t.Accessor, Policies: t.Policies, Path: t.Path, Meta: t.Meta,
		DisplayName: t.DisplayName, NumUses: t.NumUses, Orphan: t.Parent == "",
		CreationTime: t.Created.Unix(), CreationTTL: wire.TTL(t.TTL), ExpireTime: t.Expires, IssueTime: t.Created,
		TTL: wire.TTL(e.left(t)), ExplicitMaxTTL: wire.TTL(t.ExplicitMaxTTL), EntityID: t.EntityID,
		Type: typeService, Renewable: t.Renewable, Role: t.Role, Period: wire.TTL(t.Period), BoundCIDRs: t.BoundCIDRs,
		NamespacePath: t.NamespacePath, IdentityPolicies: identity,
	}
	if t.Batch {
		out.Type = typeBatch
	}
	if !t.Renewed.IsZero() {
		out.LastRenewal, out.LastRenewalAt = &t.Renewed, t.Renewed.Unix()
	}
	if len(identity) > 0 {
		out.ExternalPolicies = wire.Some(map[string][]string{})
	}
	return out, nil
}

// left is the rest of a token's life in whole seconds. Of one that never ends
// it is zero.
func (e *Engine) left(t Token) time.Duration {
	if t.Expires.IsZero() {
		return 0
	}
	return max(t.Expires.Sub(e.cfg.Now()).Truncate(time.Second), 0)
}

type tokenIn struct {
	Token secret.String `json:"token" doc:"The token."`
}

type accessorIn struct {
	Accessor string `json:"accessor" doc:"Accessor of the token."`
}

func (e *Engine) lookupSelf(ctx context.Context, req *route.Request, _ tokenIn) (lookupOut, error) {
	t, err := e.cfg.Tokens.Lookup(ctx, req.Caller.Token)
	if err != nil {
		return lookupOut{}, err
	}
	return e.tell(ctx, t)
}

// named finds the token that a request names. One of a namespace that is not
// the request's or below it is as unknown as any, unless it is the caller's.
func (e *Engine) named(ctx context.Context, req *route.Request, text secret.String) (Token, error) {
	t, err := e.cfg.Tokens.Lookup(ctx, text)
	if err == nil && !strings.HasPrefix(t.NamespacePath, req.Mount.NamespacePath) && !text.Equal(req.Caller.Token) {
		return Token{}, errs.New(errs.Denied, "permission denied: the token is of another namespace")
	}
	return t, err
}

func (e *Engine) lookup(ctx context.Context, req *route.Request, in tokenIn) (lookupOut, error) {
	if in.Token.IsZero() {
		return e.lookupSelf(ctx, req, in)
	}
	t, err := e.named(ctx, req, in.Token)
	if errs.Is(err, errs.Denied) {
		err = errs.Wrap(errs.Denied, err, "bad token")
	}
	if err != nil {
		return lookupOut{}, err
	}
	return e.tell(ctx, t)
}

// byAccessor finds a token without telling its text.
func (e *Engine) byAccessor(ctx context.Context, req *route.Request, accessor string) (Token, error) {
	if accessor == "" {
		return Token{}, errs.New(errs.Invalid, "missing accessor_id")
	}
	t, err := e.cfg.Tokens.ByAccessor(ctx, req.Mount.Namespace, accessor)
	t.Text = secret.String{}
	return t, err
}

func (e *Engine) lookupAccessor(ctx context.Context, req *route.Request, in accessorIn) (lookupOut, error) {
	t, err := e.byAccessor(ctx, req, in.Accessor)
	if err != nil {
		return lookupOut{}, err
	}
	return e.tell(ctx, t)
}

func (e *Engine) listAccessors(ctx context.Context, req *route.Request, _ route.None) (route.Keys, error) {
	all, err := e.cfg.Lifecycle.Accessors(ctx, req.Mount.Namespace)
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(all)
}
