package identity

import (
	"context"
	"errors"
	"strings"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/identity/mfa"
	"github.com/leasehold/leasehold/internal/engines/identity/oidc"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
)

// Config is what the engine asks the rest of the server.
type Config struct {
	// Mount finds a mount of a namespace by its accessor; not ok: there is
	// none, or it is ending.
	Mount func(ctx context.Context, ns, accessor string) (m Mount, ok bool, err error)
	// Logins are the mounts of auth methods of a namespace, ending ones left
	// out; nil: there are none.
	Logins func(ctx context.Context, ns string) ([]mfa.Login, error)
	// Address is the URL that clients know the server by: the issuer of
	// identity tokens begins with it.
	Address string
}

// Mount is an auth method's mount as aliases tell of it.
type Mount struct {
	Path  string // "auth/userpass/"
	Type  string
	Local bool
}

// Engine is the identities of one namespace.
type Engine struct {
	cfg Config
	env engine.Env

	// entities are by their id; nil is one that is not there.
	entities *cache[*engine.Identified]
	// indexed are ids by the keys of the index rows of aliases and merged
	// entities; "" is a row that is not there.
	indexed *cache[string]

	tokens               *oidc.Engine
	factors              *mfa.Engine
	engine.SecondFactors // those of factors
}

var (
	_ engine.Engine   = (*Engine)(nil)
	_ engine.Identity = (*Engine)(nil)
	_ engine.Watcher  = (*Engine)(nil)
	_ engine.Sweeper  = (*Engine)(nil)

	_ engine.SecondFactors = (*Engine)(nil)
)

// Factory makes the engine of a mount.
func Factory(cfg Config) engine.Factory {
	return func(_ context.Context, env engine.Env) (engine.Engine, error) {
		e := &Engine{cfg: cfg, env: env, entities: newCache[*engine.Identified](), indexed: newCache[string]()}
		e.tokens = oidc.New(oidc.Config{Env: env, People: e, Address: cfg.Address})
		e.factors = mfa.New(mfa.Config{Env: env, People: e})
		e.SecondFactors = e.factors
		return e, nil
	}
}

// Changed implements engine.Watcher.
func (e *Engine) Changed(key string, rev storage.Revision) {
	e.factors.Changed(key, rev)
	prefix, rest, _ := strings.Cut(key, "/")
	switch prefix + "/" {
	case entityPrefix, memberOfPrefix:
		e.entities.invalidate(rest, rev)
	case groupPrefix:
		// Who is in it, through which groups, is not known here.
		e.entities.drop(rev)
	case aliasPrefix, groupAliasPrefix, mergedPrefix:
		e.indexed.invalidate(key, rev)
	}
}

// Lost implements engine.Watcher.
func (e *Engine) Lost(rev storage.Revision) {
	e.entities.drop(rev)
	e.indexed.drop(rev)
	e.factors.Lost(rev)
}

// Routes declares the engine's endpoints.
func (e *Engine) Routes(t *route.Table) {
	e.entityRoutes(t)
	e.aliasRoutes(t)
	e.groupRoutes(t)
	e.lookupRoutes(t)
	e.tokens.Routes(t)
	e.factors.Routes(t)
}

// Sweep implements engine.Sweeper.
func (e *Engine) Sweep(ctx context.Context) error {
	return errors.Join(e.sweepGroups(ctx), e.tokens.Sweep(ctx), e.factors.Sweep(ctx))
}

// mount finds the mount that an alias is to be of.
func (e *Engine) mount(ctx context.Context, accessor string) (Mount, error) {
	m, ok, err := e.cfg.Mount(ctx, e.env.Namespace, accessor)
	if err == nil && !ok {
		err = errs.New(errs.Invalid, "invalid mount accessor %q", accessor)
	}
	return m, err
}
