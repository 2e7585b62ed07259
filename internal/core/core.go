// Package core is the path of one request, and what exists only while the
// server is unsealed.
//
// Handle reads as the sentence in the design: it finds the mount, asks who is
// calling, asks the policies, writes the audit record, lets the endpoint
// answer (for a credential: commits the lease, makes it, reads the lease
// again), wraps, writes the second audit record and returns. Permission and
// audit stand in that one function; nothing reaches an engine around it.
//
// Whatever unsealing creates, keys included, lives in one struct, unsealed,
// behind an atomic pointer. Nil means sealed.
package core

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/audit/outbox"
	"github.com/leasehold/leasehold/internal/barrier"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
)

// Config is what a Core is made of.
type Config struct {
	// Store is the physical store; the barrier is laid over it.
	Store storage.Backend
	// Engines make mounts' engines, by "secret/kv" or "auth/token".
	Engines map[string]engine.Factory
	// Boot holds the endpoints that work while sealed (below "sys/"). It is
	// filled after New, before the first request.
	Boot *route.Table
	// Opened holds endpoints (below "sys/") that answer while sealed too, but
	// only where the listener needs no token for them. It is filled as Boot is.
	Opened *route.Table
	// Seal says how the root key is kept. Zero: Shamir shares only.
	Seal SealConfig
	// Devices makes an audit device of a type and its options.
	Devices func(typ string, options map[string]string, salt secret.String) (MadeDevice, error)
	// DefaultTTL and MaxTTL of leases and tokens; zero takes 768h.
	DefaultTTL, MaxTTL time.Duration
	// Lockouts say when users are locked out, by the type of the mount.
	Lockouts map[string]Lockout
	// Lanes bound the work on each target; see lane.Config.
	Lanes lane.Limits
	// MaxGap is how long the server may have been stopped before expiry is
	// fenced at start; zero takes 30 days, negative never fences.
	MaxGap time.Duration
	// Now is the world's clock, and Steady the machine's own, which nobody
	// sets: where the two part, expiry is fenced. Nil means time.Now.
	Now, Steady func() time.Time
	Log         *slog.Logger
}

// Core is one server, sealed or not.
type Core struct {
	cfg Config
	log *slog.Logger

	open_    atomic.Pointer[unsealed]
	wasOpen  atomic.Bool // is open, or was
	stopping atomic.Bool // for good

	// stateMu serialises init, unsealing and sealing.
	stateMu sync.Mutex
	minders sync.WaitGroup // of mind, one for each unsealing
	seal    sealState
	started time.Time

	inflight inflight
	figures  figures
}

// New makes a sealed core. Nothing is read before it is used.
func New(cfg Config) *Core {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Steady == nil {
		cfg.Steady = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.DefaultTTL <= 0 {
		cfg.DefaultTTL = 768 * time.Hour
	}
	if cfg.MaxTTL <= 0 {
		cfg.MaxTTL = 768 * time.Hour
	}
	if cfg.MaxGap == 0 {
		cfg.MaxGap = 30 * 24 * time.Hour
	}
	cfg.DefaultTTL = min(cfg.DefaultTTL, cfg.MaxTTL)
	return &Core{cfg: cfg, log: cfg.Log, started: cfg.Now()}
}

// unsealed is all that exists between an unsealing and the next sealing.
type unsealed struct {
	core   *Core
	ctx    context.Context // ends when sealing begins
	cancel context.CancelFunc
	store  *barrier.Barrier
	origin lease.Origin
	// clusterID names the store; it is kept with the clock.
	clusterID string

	spaces   spaces
	mounts   mounts
	policies policies
	tokens   *token.Store
	leases   *lease.Store
	lanes    *lane.Set
	broker   *audit.Broker
	outbox   *outbox.Outbox
	auditing auditing
	settings settings
	quotas   quotas
	lockouts lockouts
	fence    fence

	// active counts requests inside; closed, once set, refuses further ones.
	active  atomic.Int64
	closed  atomic.Bool
	drained chan struct{}

	kicked chan struct{}  // the sweep has work
	wg     sync.WaitGroup // background work
}

// noID lets a token's text be drawn.
var noID secret.String

// ErrSealed is the answer of everything that needs the keys while sealed.
var ErrSealed = errs.New(errs.Unavailable, "Vault is sealed: unseal this Leasehold server first, with `leasehold operator unseal`")

// ErrUninitialized is the answer before the first `operator init`.
var ErrUninitialized = errs.New(errs.Unavailable, "Vault is not initialized: run `leasehold operator init` on this Leasehold server first")

// errStopping is the answer while the process ends.
var errStopping = errs.New(errs.Unavailable, "the server is stopping; ask again when it has been started")

// open is what exists while unsealed, or ErrSealed.
func (c *Core) open() (*unsealed, error) {
	if u := c.open_.Load(); u != nil {
		return u, nil
	}
	return nil, ErrSealed
}

// Tokens, Leases and Lanes are the parts that package sys answers from.
func (c *Core) Tokens() (*token.Store, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	return u.tokens, nil
}

// Leases is the lease store of the unsealed server.
func (c *Core) Leases() (*lease.Store, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	return u.leases, nil
}

// Lanes are the lanes of the unsealed server.
func (c *Core) Lanes() (*lane.Set, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	return u.lanes, nil
}

// Store is the barrier of the unsealed server, for the few rows that sys keeps.
func (c *Core) Store() (storage.Backend, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	return u.store, nil
}

// enter lets a request in, and leave lets it out. Sealing waits for those
// inside and refuses new ones.
func (u *unsealed) enter() bool {
	u.active.Add(1)
	if u.closed.Load() {
		u.leave()
		return false
	}
	return true
}

func (u *unsealed) leave() {
	if u.active.Add(-1) == 0 && u.closed.Load() {
		select {
		case u.drained <- struct{}{}:
		default:
		}
	}
}

// background runs work that ends with the unsealed state.
func (u *unsealed) background(fn func()) { u.wg.Go(fn) }
