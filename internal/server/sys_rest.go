package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/leasehold/leasehold/internal/barrier"
	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// addServerEngines adds the engines that answer for the server itself.
func (s *Server) addServerEngines(boot *route.Table, engines map[string]engine.Factory) {
	version := sys.Version{API: s.conf.ReportedVersion, Own: s.cfg.Version}
	sys.BootRoutes(boot, sys.BootConfig{Version: version, State: state{s}})
	var raw func() (storage.Backend, error)
	if s.conf.RawStorageEndpoint {
		raw = s.core.Store
	}
	s.metrics = newFigures(s)
	c := s.core
	engines["auth/token"] = tokenMethod(c)
	ls := leases{c}
	engines["secret/system"] = sys.Factory(sys.Config{
		Version: version, Mounts: mountTable{c}, MountTable: mountTable{c}, MaxTTL: s.conf.MaxLeaseTTL,
		Namespaces: namespaces{c}, NamespaceTable: namespaces{c}, NamespaceLocks: namespaces{c},
		Policies: policies{c}, Passwords: passwordPolicies{c}, Password: drawPassword,
		Access: access{c}, Leases: ls, LeaseActions: ls, LeaseCounts: ls.counts, LeaseHolder: ls.holder, TidyLeases: ls.tidy,
		Fence: fences{s}, Seal: func(context.Context) error { return c.SealSoon() }, Keys: keyring{c}, Shares: shares{c},
		Status: state{s}.Status, Address: s.conf.APIAddr, Wrapping: wrapping{c}, LockedUsers: lockedUsers{c}, Factors: factors{c},
		Audit: auditDevices{c}, AuditHeaders: auditDevices{c}, CORS: cors{c}, Quotas: quotas{c},
		Sanitized: func() wire.Data { return wire.Of(s.conf.Sanitized()) }, Reload: s.reload,
		Metrics: s.metrics,
		Tables:  func(ctx context.Context, ns string) (map[string]*route.Table, error) { return c.Tables(ctx, ns) }, Boot: boot,
		InFlight: s.inFlight, Tokens: s.countTokens, Entities: s.core.EntityCount, Levels: &levels{level: s.cfg.Level, conf: s.conf.LogLevel}, Monitor: &s.monitors, Raw: raw,
		Databases: []string{"postgresql-database-plugin"},
	})
}

func (s *Server) inFlight() []sys.InFlight {
	list := s.core.InFlight()
	out := make([]sys.InFlight, len(list))
	for i, r := range list {
		out[i] = sys.InFlight{ID: r.ID, Start: r.Start, Path: r.Path, Method: r.Method, Remote: r.Remote.String()}
	}
	return out
}

func (s *Server) countTokens(ctx context.Context, ns string) (int64, error) {
	tokens, err := s.core.Tokens()
	if err != nil {
		return 0, err
	}
	return tokens.Count(ctx, ns)
}

// reload reads a part of the configuration again.
func (s *Server) reload(subsystem string) error {
	if subsystem != "listener" {
		return errs.New(errs.Invalid, "there is no subsystem %q to reload: only listener", subsystem)
	}
	s.reloadCertificates()
	return nil
}

// wrapping is core's store of wrapped answers.
type wrapping struct{ c *core.Core }

var _ sys.Wrapping = wrapping{}

// reach refuses a wrapping token of a namespace that is not the one that asks
// or below it.
func (w wrapping) reach(ctx context.Context, ns string, text secret.String) error {
	in, err := namedIn(ctx, w.c, ns, token.NamespaceOf(text.Reveal()))
	if err == nil && in != token.NamespaceOf(text.Reveal()) {
		err = errs.New(errs.Invalid, "wrapping token is not valid here: it is of another namespace; ask in that one")
	}
	return err
}

func (w wrapping) Unwrap(ctx context.Context, ns string, text secret.String) (*route.Whole, error) {
	if err := w.reach(ctx, ns, text); err != nil {
		return nil, err
	}
	return w.c.Unwrap(ctx, text)
}

func (w wrapping) Rewrap(ctx context.Context, ns string, text secret.String) (*route.WrapInfo, error) {
	if err := w.reach(ctx, ns, text); err != nil {
		return nil, err
	}
	return w.c.Rewrap(ctx, text)
}

func (w wrapping) Lookup(ctx context.Context, ns string, text secret.String) (sys.Wrapped, error) {
	if err := w.reach(ctx, ns, text); err != nil {
		return sys.Wrapped{}, err
	}
	path, created, ttl, err := w.c.WrappingInfo(ctx, text)
	return sys.Wrapped{Path: path, Created: created, TTL: ttl}, err
}

// lockedUsers are core's lockouts.
type lockedUsers struct{ c *core.Core }

var _ sys.LockedUsers = lockedUsers{}

func (l lockedUsers) Locked(ctx context.Context, ns string) ([]sys.LockedUser, error) {
	list, err := l.c.LockedUsers(ctx, ns)
	out := make([]sys.LockedUser, len(list))
	for i, u := range list {
		out[i] = sys.LockedUser(u)
	}
	return out, err
}

func (l lockedUsers) Unlock(ctx context.Context, ns, accessor, alias string) error {
	return l.c.UnlockUser(ctx, ns, accessor, alias)
}

// cors is the stored setting.
type cors struct{ c *core.Core }

var _ sys.CORS = cors{}

func (s cors) CORS(context.Context) (sys.CORSConfig, error) { return sys.CORSConfig(s.c.CORS()), nil }

func (s cors) SetCORS(ctx context.Context, conf sys.CORSConfig) error {
	return s.c.SetCORS(ctx, core.CORS(conf))
}

// shares lets holders of shares do what only they may.
type shares struct{ c *core.Core }

var _ sys.Shares = shares{}

func (s shares) Required(ctx context.Context) (int, error) {
	st, err := s.c.SealStatus(ctx)
	return st.Threshold, err
}

func plain(in []*secret.Bytes) [][]byte {
	out := make([][]byte, len(in))
	for i, b := range in {
		out[i] = b.Reveal()
	}
	return out
}

func (s shares) Split(ctx context.Context, old []*secret.Bytes, n, threshold int) ([]*secret.Bytes, func(context.Context) error, error) {
	made, commit, err := s.c.Reshare(ctx, plain(old), n, threshold)
	if err != nil {
		return nil, nil, err
	}
	out := make([]*secret.Bytes, len(made))
	for i, b := range made {
		out[i] = secret.NewBytes(b)
	}
	return out, func(ctx context.Context) error {
		err := commit(ctx)
		if errors.Is(err, barrier.ErrUnsure) {
			return fmt.Errorf("%w: %w", sys.ErrUnsure, err)
		}
		return err
	}, nil
}

func (s shares) RootToken(ctx context.Context, given []*secret.Bytes) (secret.String, error) {
	return s.c.RootToken(ctx, plain(given))
}

// levels is the one logger's level.
type levels struct {
	level *slog.LevelVar
	conf  string
}

var _ sys.LogLevels = (*levels)(nil)

const rootLogger = "leasehold"

func (l *levels) Levels() map[string]string {
	return map[string]string{rootLogger: strings.ToLower(l.level.Level().String())}
}

func (l *levels) SetLevel(name, level string) error {
	if name != "" && name != rootLogger {
		return errs.New(errs.Invalid, "there is no logger %q: only %s", name, rootLogger)
	}
	if knownLevel(level) {
		setLevel(l.level, level)
		return nil
	}
	return errs.New(errs.Invalid, "unknown log level %q: trace, debug, info, warn or error", level)
}

func (l *levels) ResetLevel(name string) error { return l.SetLevel(name, l.conf) }
