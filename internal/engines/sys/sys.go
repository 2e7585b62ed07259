package sys

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// Config is what the engine asks the rest of the server. A field that is not
// said to be optional must be set.
type Config struct {
	Version Version

	Mounts     Mounts
	MountTable MountTable
	MaxTTL     time.Duration // the server's, which no mount's default may pass

	Namespaces     Namespaces
	NamespaceTable NamespaceTable
	NamespaceLocks NamespaceLocks

	Policies  Policies
	Passwords PasswordPolicies
	// Password draws one by the text of a password policy.
	Password func(text string) (secret.String, error)

	Access Access

	Leases       Leases
	LeaseActions LeaseActions
	// LeaseCounts are the leases of a namespace by their mount's id.
	LeaseCounts func(ctx context.Context, ns string) (map[string]int64, error)
	// LeaseHolder names the token that owns a lease, by the owner's key: its
	// display name, or "" if it is gone.
	LeaseHolder func(ctx context.Context, owner string) string
	TidyLeases  func(ctx context.Context) error
	Fence       Fences

	Seal   func(ctx context.Context) error
	Keys   Keyring
	Shares Shares
	// Status is what seal-status tells; ha-status and host-info use it too.
	Status func(ctx context.Context) (Status, error)
	// Address is the address clients reach the server at, or "".
	Address string

	Wrapping Wrapping

	LockedUsers LockedUsers
	Factors     Factors

	Audit        AuditDevices
	AuditHeaders AuditHeaders

	CORS   CORS
	Quotas Quotas
	// Sanitized is the configuration without its secrets.
	Sanitized func() wire.Data
	// Reload reads a part of the configuration again: "listener".
	Reload func(subsystem string) error

	Metrics Metrics

	// Tables are the routes of all mounts, by their paths.
	Tables func(ctx context.Context, ns string) (map[string]*route.Table, error)
	// Boot are the routes below sys/ that work while sealed; nil: not described.
	Boot     *route.Table
	InFlight func() []InFlight
	Tokens   func(ctx context.Context, ns string) (int64, error) // how many there are
	Entities func(ctx context.Context, ns string) (int64, error) // how many there are
	Levels   LogLevels
	Monitor  Monitor
	// Raw is the store as the barrier decrypts it; nil: sys/raw is off.
	Raw func() (storage.Backend, error)
	// Databases are the kinds of connection of the database engine.
	Databases []string

	Now  func() time.Time // nil: time.Now
	Rand io.Reader
}

// Version is what the server calls itself.
type Version struct {
	API   string // the level of Vault's API that clients' version gates see
	Own   string
	Built time.Time // zero: unknown
}

// Engine is sys/ of one unsealed server.
type Engine struct {
	cfg   Config
	store storage.Backend // its own slice: versions, moves, headers of the UI
	root  bool            // of the root namespace, where the server itself answers
	log   *slog.Logger

	generation attempt // of generate-root
	rekeying   rekey

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // background work
	tidyMu sync.Mutex
	tidies bool
}

var (
	_ engine.Engine  = (*Engine)(nil)
	_ engine.Starter = (*Engine)(nil)
	_ engine.Closer  = (*Engine)(nil)
)

// Factory makes the engine of a namespace's sys/.
func Factory(cfg Config) engine.Factory {
	return func(ctx context.Context, env engine.Env) (engine.Engine, error) {
		if cfg.Now == nil {
			cfg.Now = env.Now
		}
		if cfg.Rand == nil {
			cfg.Rand = env.Rand
		}
		e := &Engine{cfg: cfg, store: env.Store, root: env.Namespace == rootNamespace, log: env.Log}
		e.ctx, e.cancel = context.WithCancel(ctx)
		return e, nil
	}
}

// Start notes the version that runs.
func (e *Engine) Start(ctx context.Context) error {
	if !e.root {
		return nil
	}
	return e.noteVersion(ctx)
}

// Close ends background work and waits for it, and forgets the shares that
// were given for what is not done.
func (e *Engine) Close() error {
	e.cancel()
	e.forgetShares()
	e.wg.Wait()
	return nil
}

// rootNamespace is the id of the root namespace.
const rootNamespace = "root"

// Routes declares everything that needs an unsealed server.
func (e *Engine) Routes(t *route.Table) {
	e.mountRoutes(t)
	e.namespaceRoutes(t)
	e.authRoutes(t)
	e.remountRoutes(t)
	t.With(e.policyRoutes, route.Folds(kept))
	e.passwordRoutes(t)
	e.capabilityRoutes(t)
	e.leaseRoutes(t)
	e.wrappingRoutes(t)
	e.lockedUserRoutes(t)
	e.mfaRoutes(t)
	e.toolRoutes(t)
	e.internalRoutes(t)
	e.pluginRoutes(t)

	// What is the server's and not a namespace's.
	t.With(func(t *route.Table) {
		e.communityRoutes(t)
		e.sealRoutes(t)
		e.rekeyRoutes(t)
		e.generateRootRoutes(t)
		e.auditRoutes(t)
		e.configRoutes(t)
		e.metricRoutes(t)
		e.debugRoutes(t)
		e.pprofRoutes(t)
		e.rawRoutes(t)
		e.quotaRoutes(t)
	}, route.RootOnly())
}

// once runs work in the background unless it runs already.
func (e *Engine) once(what string, fn func(ctx context.Context) error) {
	e.tidyMu.Lock()
	defer e.tidyMu.Unlock()
	if e.tidies || e.ctx.Err() != nil {
		return
	}
	e.tidies = true
	e.wg.Go(func() {
		if err := fn(e.ctx); err != nil && e.ctx.Err() == nil {
			e.log.Error(what, "error", err)
		}
		e.tidyMu.Lock()
		e.tidies = false
		e.tidyMu.Unlock()
	})
}
