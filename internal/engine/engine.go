// Package engine says what an engine is and what it is given.
//
// An engine is typed routes over its own slice of the store, plus kinds of
// lease. It knows nothing of HTTP, tokens or other engines. Adding one touches
// its own folder and one line in package server.
package engine

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
)

// Env is what one mount of an engine is given. It lives from the mount's
// loading until it is gone or the server is sealed.
type Env struct {
	MountID   string
	Namespace string            // its id
	Type      string            // the mount's type, such as "kv"
	Options   map[string]string // the mount's options when it was loaded
	// Store is the engine's own slice: keys begin where the mount's end.
	Store storage.Backend
	// Key gives the full key of one of the slice, for Grant.Live.
	Key func(rel string) string
	// Hash is this mount's keyed one-way function: by it a secret is found
	// that is not stored.
	Hash func(string) [32]byte
	// Due plans timed work of the mount's own (Worker).
	Due Due
	// Lanes runs creations under their target's limits.
	Lanes *lane.Set
	// Origin is what the marks of this store begin with.
	Origin lease.Origin
	Now    func() time.Time
	Rand   io.Reader
	Log    *slog.Logger
	// Password draws one by a stored password policy.
	Password func(ctx context.Context, policy string) (secret.String, error)
	// Fence holds back expiry everywhere, for a reason an operator can act
	// on: a target shows marks of an epoch that this store never had. The
	// newest is given, by which lifting the fence is remembered.
	Fence func(epoch uint64, reason string)
	// Leases counts and finds the leases of this mount.
	Leases Leases
}

// Leases is what an engine may ask about the leases of its own mount.
type Leases interface {
	// OnTarget reports whether any lease is left on a target.
	OnTarget(ctx context.Context, target string) (bool, error)
}

// Engine is one mount's engine. Routes is called once, after New.
type Engine interface {
	Routes(t *route.Table)
}

// Starter is an engine that has work to do once its mount is loaded. Start
// returns soon; what it starts ends with ctx.
type Starter interface {
	Start(ctx context.Context) error
}

// Leaser is an engine that issues leases.
type Leaser interface {
	Kinds() []lease.AnyKind
}

// Closer is an engine that holds connections. Close may be called twice.
type Closer interface {
	Close() error
}

// Sweeper is an engine that has to clear up now and then: rows whose time is
// over, what a crash has left.
type Sweeper interface {
	// Sweep does some of what is due, in time order: one seek finds that there
	// is nothing. It is called about twice a minute, possibly by several
	// servers at once, so each step claims its work in its transaction.
	Sweep(ctx context.Context) error
}

// Factory makes the engine of one mount. It does no network I/O.
type Factory func(ctx context.Context, env Env) (Engine, error)
