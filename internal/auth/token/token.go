package token

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
)

// Tokens makes and finds tokens.
type Tokens interface {
	// Create makes a token that is final in all but its text, which it draws
	// where id is empty. What it refuses is errs.Invalid.
	Create(ctx context.Context, ns string, t Token, id secret.String) (Token, error)
	// Lookup finds a live token by its text; without one it is errs.Denied.
	Lookup(ctx context.Context, text secret.String) (Token, error)
	// ByAccessor finds a live token of a namespace or of one below it by its
	// accessor, without its text; without one it is errs.Invalid.
	ByAccessor(ctx context.Context, ns, accessor string) (Token, error)
}

// Lifecycle renews, ends and lists tokens, by their keys.
type Lifecycle interface {
	// Renew extends a token from now by increment, or by what it was given
	// last where that is zero, within what its role or auth method says now.
	// by is the request that asks. capped says that its maximum cut that.
	Renew(ctx context.Context, t Token, increment time.Duration, role RoleLimits, by *route.Request) (renewed Token, capped bool, err error)
	// Revoke ends a token with all below it. One that is gone is no error.
	Revoke(ctx context.Context, key string) error
	// RevokeOrphan ends a token and leaves its children without a parent.
	RevokeOrphan(ctx context.Context, key string) error
	// Accessors lists those of a namespace's tokens.
	Accessors(ctx context.Context, ns string) ([]string, error)
	// Tidy deletes what is left of a namespace's tokens that are gone.
	Tidy(ctx context.Context, ns string) error
}

// RoleLimits are what the role of a token says when it is renewed. The zero
// value: nothing.
type RoleLimits struct {
	Period         time.Duration
	ExplicitMaxTTL time.Duration
}

// Token is a token as this method knows it.
type Token struct {
	Text           secret.String // empty where it is not to be told
	Key            string        // by which the store knows it
	Accessor       string
	Batch          bool
	Policies       []string
	Path           string // where it was made
	DisplayName    string
	Meta           map[string]string // nil: none
	Parent         string            // its key; "" is an orphan
	Role           string
	EntityID       string
	BoundCIDRs     []netip.Prefix
	NumUses        int // left; -1 in the last use, 0 without a limit
	Created        time.Time
	TTL            time.Duration // as made; zero never ends
	ExplicitMaxTTL time.Duration
	Period         time.Duration
	MountMaxTTL    time.Duration // the mount's when it was made
	Expires        time.Time     // zero: never
	Renewed        time.Time
	Renewable      bool
	Namespace      string // its id
	NamespacePath  string // "" for the root
}

// Identities are the entities that tokens belong to.
type Identities interface {
	// Policies are those that a token has through its entity, sorted; none
	// without one.
	Policies(ctx context.Context, t Token) ([]string, error)
	// OfAlias finds or makes the entity that a mount knows by a name. One that
	// is disabled is errs.Denied.
	OfAlias(ctx context.Context, mount route.MountInfo, name string) (entityID string, err error)
}

// Config is what the method asks the rest of the server.
type Config struct {
	Tokens    Tokens
	Lifecycle Lifecycle
	// Sudo reports whether a caller has sudo on a path.
	Sudo       func(ctx context.Context, caller route.Caller, path string) (bool, error)
	Identities Identities
	// HasPolicy reports whether a policy exists.
	HasPolicy func(ctx context.Context, ns, name string) (bool, error)
	// Assignable reports whether a policy may be given to tokens: those for
	// the server's own use may not.
	Assignable func(name string) bool
	Now        func() time.Time // nil: the environment's
}

// Engine is one mount of the method: there is one in each namespace.
type Engine struct {
	cfg   Config
	store storage.Backend // roles
	log   *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	tidies bool
}

var (
	_ engine.Engine = (*Engine)(nil)
	_ engine.Closer = (*Engine)(nil)
)

// Factory makes the engine of a mount.
func Factory(cfg Config) engine.Factory {
	return func(ctx context.Context, env engine.Env) (engine.Engine, error) {
		if cfg.Now == nil {
			cfg.Now = env.Now
		}
		e := &Engine{cfg: cfg, store: env.Store, log: env.Log}
		e.ctx, e.cancel = context.WithCancel(ctx)
		return e, nil
	}
}

// Close ends tidying and waits for it.
func (e *Engine) Close() error {
	e.cancel()
	e.wg.Wait()
	return nil
}

// Routes declares the method's endpoints.
func (e *Engine) Routes(t *route.Table) {
	route.Write(t, "create", e.create, route.Doc("Make a token, a child of the caller's."))
	route.Write(t, "create-orphan", e.createOrphan, route.Doc("Make a token without a parent."))
	route.Write(t, "create/{role_name}", e.createByRole, route.Doc("Make a token as a role says."))

	route.Read(t, "lookup-self", e.lookupSelf, route.Doc("Read about the caller's token."))
	route.Write(t, "lookup-self", e.lookupSelf, route.Doc("Read about the caller's token."))
	route.Read(t, "lookup", e.lookup, route.Doc("Read about a token."))
	route.Write(t, "lookup", e.lookup, route.Doc("Read about a token."))
	route.Write(t, "lookup-accessor", e.lookupAccessor, route.Doc("Read about the token with an accessor."))

	route.Write(t, "renew-self", e.renewSelf, route.Doc("Renew the caller's token."))
	route.Write(t, "renew", e.renew, route.Doc("Renew a token."))
	route.Write(t, "renew-accessor", e.renewAccessor, route.Doc("Renew the token with an accessor."))

	route.Write(t, "revoke-self", e.revokeSelf, route.Doc("Revoke the caller's token and all below it."))
	route.Write(t, "revoke", e.revoke, route.Doc("Revoke a token and all below it."))
	route.Write(t, "revoke-accessor", e.revokeAccessor, route.Doc("Revoke the token with an accessor and all below it."))
	route.Write(t, "revoke-orphan", e.revokeOrphan, route.Sudo(), route.Doc("Revoke a token and leave its children without a parent."))

	route.List(t, "accessors", e.listAccessors, route.Sudo(), route.Doc("List the accessors of all tokens."))
	route.Write(t, "tidy", e.tidy, route.Status(202), route.Doc("Delete what is left of tokens that are gone."))

	route.List(t, "roles", e.listRoles, route.Doc("List the roles."))
	route.Read(t, "roles/{role_name}", e.readRole, route.Doc("Read a role."))
	route.Write(t, "roles/{role_name}", e.writeRole, route.Exists(e.roleExists), route.Doc("Write a role."))
	route.Delete(t, "roles/{role_name}", e.deleteRole, route.Doc("Delete a role. Its tokens live on."))
}
