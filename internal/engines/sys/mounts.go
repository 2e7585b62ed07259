package sys

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// Mounts tells of the mount table. Paths are whole: "kv/", "auth/userpass/".
type Mounts interface {
	// List gives the mounts of a namespace in the order of their paths.
	List(ctx context.Context, ns string) ([]Mount, error)
	// At is the mount that a path belongs to: the one with the longest path.
	At(ctx context.Context, ns, path string) (m Mount, ok bool, err error)
	// Types are the types that mounts of a class, "secret" or "auth", can have.
	Types(class string) []string
}

// MountTable changes the mount table. What it refuses is errs.Invalid.
type MountTable interface {
	Add(ctx context.Context, ns string, m Mount) error
	// Remove begins to end a mount. One that is not there is no error.
	Remove(ctx context.Context, ns, path string) error
	// Tune stores what change makes of the mount's description, options and
	// configuration. It may call change more than once.
	Tune(ctx context.Context, ns, path string, change func(*Mount) error) error
	// Move gives a mount another path and revokes its leases.
	Move(ctx context.Context, ns, from, to string) error
}

// Mount is an engine or an auth method as an operator sees it.
type Mount struct {
	Path        string
	Type        string
	ID          string
	Accessor    string
	Storage     string // what the keys of its rows begin with
	Description string
	Options     map[string]string
	Local       bool
	SealWrap    bool
	Own         bool // the server's own: not made, moved or removed
	Config      MountConfig
	// DefaultTTL and MaxTTL are what holds, the server's where the mount has
	// none of its own.
	DefaultTTL, MaxTTL time.Duration
}

// MountConfig is what an operator chose. Zero durations take the server's.
type MountConfig struct {
	DefaultTTL, MaxTTL  time.Duration
	ForceNoCache        bool
	ListingVisibility   string // "", "unauth" or "hidden"
	AuditRequestKeys    []string
	AuditResponseKeys   []string
	PassthroughHeaders  []string
	AllowedHeaders      []string
	TokenType           string // of auth methods
	PluginVersion       string
	LockoutThreshold    uint64
	LockoutDuration     time.Duration
	LockoutCounterReset time.Duration
	LockoutDisable      bool
}

func (m Mount) isAuth() bool { return strings.HasPrefix(m.Path, authPrefix) }

const authPrefix = "auth/"

// The classes of mounts.
const (
	classSecret = "secret"
	classAuth   = "auth"
)

func (e *Engine) mountRoutes(t *route.Table) {
	top := route.InForm(route.TopLevel)
	route.Read(t, "mounts", e.listMounts, top, route.Doc("List the secrets engines."))
	route.Read(t, "mounts/{path...}", e.readMount, top, route.Doc("Read one secrets engine's mount."))
	route.Write(t, "mounts/{path...}", e.enableMount, route.Doc("Enable a secrets engine at a path."))
	route.Delete(t, "mounts/{path...}", e.disableMount, route.Doc("Disable a secrets engine: its leases are revoked, its data deleted."))
	route.Read(t, "mounts/{path...}/tune", e.readTuning, top, route.Doc("Read how a mount is tuned."))
	route.Write(t, "mounts/{path...}/tune", e.tune, route.Doc("Tune a mount."))
	route.Read(t, "internal/ui/mounts", e.uiMounts, route.Unauth(), route.Doc("List the mounts that the caller may see."))
	route.Read(t, "internal/ui/mounts/{path...}", e.uiMount, route.Unauth(), route.Doc("Tell which mount a path belongs to."))
}

// mountOut is one mount in an answer.
type mountOut struct {
	Path            string            `json:"path,omitempty"` // only of internal/ui/mounts/{path}
	Type            string            `json:"type"`
	Description     string            `json:"description"`
	Accessor        string            `json:"accessor"`
	UUID            string            `json:"uuid"`
	Options         map[string]string `json:"options" wire:"null"`
	Config          mountConfigOut    `json:"config"`
	Local           bool              `json:"local"`
	SealWrap        bool              `json:"seal_wrap"`
	ExternalEntropy bool              `json:"external_entropy_access"`
	PluginVersion   string            `json:"plugin_version"`
	RunningVersion  string            `json:"running_plugin_version"`
	RunningSHA256   string            `json:"running_sha256"`
	Deprecation     string            `json:"deprecation_status,omitempty"`
}

type mountConfigOut struct {
	DefaultTTL         wire.TTL `json:"default_lease_ttl"`
	MaxTTL             wire.TTL `json:"max_lease_ttl"`
	ForceNoCache       bool     `json:"force_no_cache"`
	ListingVisibility  string   `json:"listing_visibility,omitempty"`
	AuditRequestKeys   []string `json:"audit_non_hmac_request_keys,omitempty"`
	AuditResponseKeys  []string `json:"audit_non_hmac_response_keys,omitempty"`
	PassthroughHeaders []string `json:"passthrough_request_headers,omitempty"`
	AllowedHeaders     []string `json:"allowed_response_headers,omitempty"`
	TokenType          string   `json:"token_type,omitempty"`
	Lockout            *lockout `json:"user_lockout_config,omitempty"`
}

// lockout is how often a password may be wrong; times are seconds.
type lockout struct {
	Threshold    uint64   `json:"lockout_threshold"`
	Duration     wire.TTL `json:"lockout_duration"`
	CounterReset wire.TTL `json:"lockout_counter_reset_duration"`
	Disable      bool     `json:"lockout_disable"`
}

func (c MountConfig) hasLockout() bool {
	return c.LockoutThreshold != 0 || c.LockoutDuration != 0 || c.LockoutCounterReset != 0 || c.LockoutDisable
}

func (e *Engine) mountOut(m Mount) mountOut {
	c := m.Config
	out := mountOut{
		Type: m.Type, Description: m.Description, Accessor: m.Accessor, UUID: m.ID, Options: m.Options,
		Local: m.Local, SealWrap: m.SealWrap, PluginVersion: c.PluginVersion,
		RunningVersion: e.pluginVersion(),
		Config: mountConfigOut{
			DefaultTTL: wire.TTL(c.DefaultTTL), MaxTTL: wire.TTL(c.MaxTTL), ForceNoCache: c.ForceNoCache,
			ListingVisibility: c.ListingVisibility, AuditRequestKeys: c.AuditRequestKeys,
			AuditResponseKeys: c.AuditResponseKeys, PassthroughHeaders: c.PassthroughHeaders,
			AllowedHeaders: c.AllowedHeaders, TokenType: m.tokenType(),
		},
	}
	if c.hasLockout() {
		out.Config.Lockout = &lockout{
			c.LockoutThreshold, wire.TTL(c.LockoutDuration), wire.TTL(c.LockoutCounterReset), c.LockoutDisable,
		}
	}
	if !m.Own {
		out.Deprecation = "supported"
		if out.Options == nil {
			out.Options = map[string]string{}
		}
	}
	return out
}

func (m Mount) tokenType() string {
	if m.isAuth() && m.Config.TokenType == "" {
		return "default-service"
	}
	return m.Config.TokenType
}

// mountsOf gives the mounts of a class, by the paths that the class shows.
func (e *Engine) mountsOf(ctx context.Context, ns, class string) (map[string]mountOut, error) {
	all, err := e.cfg.Mounts.List(ctx, ns)
	if err != nil {
		return nil, err
	}
	out := make(map[string]mountOut, len(all))
	for _, m := range all {
		if m.isAuth() == (class == classAuth) {
			out[strings.TrimPrefix(m.Path, authPrefix)] = e.mountOut(m)
		}
	}
	return out, nil
}

func (e *Engine) listMounts(ctx context.Context, req *route.Request, _ route.None) (map[string]mountOut, error) {
	return e.mountsOf(ctx, req.Mount.Namespace, classSecret)
}

type pathIn struct {
	Path string `json:"path" doc:"Path of the mount, such as database/."`
}

func withSlash(path string) string { return strings.Trim(path, "/") + "/" }

// mountAt is the mount at exactly a path.
func (e *Engine) mountAt(ctx context.Context, ns, path string) (Mount, bool, error) {
	m, ok, err := e.cfg.Mounts.At(ctx, ns, path)
	return m, ok && m.Path == path, err
}

func (e *Engine) readMount(ctx context.Context, req *route.Request, in pathIn) (mountOut, error) {
	path := withSlash(in.Path)
	m, ok, err := e.mountAt(ctx, req.Mount.Namespace, path)
	if err != nil {
		return mountOut{}, err
	}
	if !ok || m.isAuth() {
		return mountOut{}, errs.New(errs.Invalid, "no secrets engine is mounted at %s", path)
	}
	return e.mountOut(m), nil
}

type enableIn struct {
	Path          string       `json:"path" doc:"Where to mount it."`
	Type          string       `json:"type" doc:"Type of the engine, such as kv or database."`
	Description   string       `json:"description" doc:"For people."`
	Options       wire.KV      `json:"options" doc:"Options of the engine, such as version=2 of kv."`
	Config        enableConfig `json:"config" doc:"What tune changes later."`
	Local         bool         `json:"local"`
	SealWrap      bool         `json:"seal_wrap"`
	Entropy       bool         `json:"external_entropy_access"`
	PluginName    string       `json:"plugin_name" doc:"In place of type, from old clients."`
	PluginVersion string       `json:"plugin_version"`
}

// enableConfig is the config object of a mount to be made.
type enableConfig struct {
	tuning
	PluginName string `json:"plugin_name"`
}

func (e *Engine) enableMount(ctx context.Context, req *route.Request, in enableIn) (route.None, error) {
	return e.enable(ctx, req, in, classSecret)
}

// reserved are the beginnings of paths that belong to the server.
var reserved = []string{"sys/", authPrefix, "cubbyhole/", "identity/", "audit/"}

func (e *Engine) enable(ctx context.Context, req *route.Request, in enableIn, class string) (route.None, error) {
	none := route.None{}
	m := Mount{
		Path: withSlash(in.Path), Type: in.Type, Description: in.Description, Options: in.Options,
		Local: in.Local, SealWrap: in.SealWrap,
	}
	if class == classAuth {
		if m.Path == "token/" {
			return none, errs.New(errs.Invalid, "path is already in use at token/")
		}
		m.Path = authPrefix + m.Path
	} else if i := slices.IndexFunc(reserved, func(own string) bool { return strings.HasPrefix(m.Path, own) }); i >= 0 {
		return none, errs.New(errs.Invalid, "cannot mount %q: paths below %s belong to the server", m.Path, reserved[i])
	}
	if m.Options == nil {
		m.Options = map[string]string{}
	}
	if m.Type == "" || m.Type == "plugin" {
		m.Type = cmp.Or(in.PluginName, in.Config.PluginName)
	}
	switch m.Type {
	case "":
		return none, errs.New(errs.Invalid, "backend type must be specified as a string")
	case "kv-v1", "kv-v2", "generic":
		if m.Type != "generic" {
			m.Options["version"] = m.Type[len(m.Type)-1:]
		}
		m.Type = "kv"
	}
	if types := e.cfg.Mounts.Types(class); !slices.Contains(types, m.Type) {
		has := strings.Join(types, ", ")
		if has == "" {
			has = "none of that class yet, beside its own"
		}
		return none, errs.New(errs.Invalid, "plugin not found in the catalog: %s: this server has %s", m.Type, has)
	}
	if err := checkOptions(m.Type, m.Options); err != nil {
		return none, err
	}
	t := in.Config.tuning
	t.Description, t.Options = wire.Opt[string]{}, nil
	if err := e.applyTuning(&m, t); err != nil {
		return none, err
	}
	if in.PluginVersion != "" {
		m.Config.PluginVersion = in.PluginVersion
	}
	if m.Config.DefaultTTL > 0 && m.Config.MaxTTL == 0 && m.Config.DefaultTTL > e.cfg.MaxTTL {
		return none, errs.New(errs.Invalid, "given default lease TTL greater than system max lease TTL of %d", e.cfg.MaxTTL/time.Second)
	}
	if in.Entropy {
		req.Warn("external_entropy_access has no effect: there is one source of randomness")
	}
	return none, e.cfg.MountTable.Add(ctx, req.Mount.Namespace, m)
}

func (e *Engine) disableMount(ctx context.Context, req *route.Request, in pathIn) (route.None, error) {
	path := withSlash(in.Path)
	if strings.HasPrefix(path, authPrefix) {
		return route.None{}, errs.New(errs.Invalid, "cannot unmount %q: auth methods are disabled at sys/auth", path)
	}
	return route.None{}, e.disable(ctx, req.Mount.Namespace, path)
}

func (e *Engine) disable(ctx context.Context, ns, path string) error {
	m, ok, err := e.mountAt(ctx, ns, path)
	switch {
	case err != nil || !ok:
		return err
	case m.Type == "token" && m.Own:
		return errs.New(errs.Invalid, "token credential backend cannot be disabled")
	case m.Own:
		return errs.New(errs.Invalid, "cannot unmount %q", path)
	}
	return e.cfg.MountTable.Remove(ctx, ns, path)
}

// uiMountsOut is what internal/ui/mounts tells of a mount to somebody who has
// not said who they are.
type uiMountsOut struct {
	Secret map[string]wire.Data `json:"secret"`
	Auth   map[string]wire.Data `json:"auth"`
}

type strangerOut struct {
	Type        string            `json:"type"`
	Description string            `json:"description"`
	Options     map[string]string `json:"options" wire:"null"`
}

// uiMounts lists the mounts of which the caller may use something, and to
// anybody those that are listed openly: a login form needs them.
func (e *Engine) uiMounts(ctx context.Context, req *route.Request, _ route.None) (uiMountsOut, error) {
	out := uiMountsOut{Secret: map[string]wire.Data{}, Auth: map[string]wire.Data{}}
	all, err := e.cfg.Mounts.List(ctx, req.Mount.Namespace)
	if err != nil {
		return out, err
	}
	var rights Rights
	if !req.Caller.Token.IsZero() {
		if rights, err = e.cfg.Access.Of(ctx, req.Mount.Namespace, req.Caller.Token, req.Remote); err != nil && !errs.Is(err, errs.Denied) {
			return out, err
		}
	}
	for _, m := range all {
		if m.Config.ListingVisibility != "unauth" && (rights == nil || !rights.Reaches(m.Path)) {
			continue
		}
		shown := e.mountOut(m)
		data := wire.Of(shown)
		if rights == nil {
			data = wire.Of(strangerOut{Type: m.Type, Description: m.Description, Options: shown.Options})
		}
		if m.isAuth() {
			out.Auth[strings.TrimPrefix(m.Path, authPrefix)] = data
		} else {
			out.Secret[m.Path] = data
		}
	}
	return out, nil
}

// uiMount is the question that kv clients ask before anything else, to learn
// the mount's path and version. Whoever may use anything of the mount may ask.
func (e *Engine) uiMount(ctx context.Context, req *route.Request, in pathIn) (mountOut, error) {
	denied := errs.New(errs.Denied, "preflight capability check returned 403, please ensure client's policies grant access to path %q", withSlash(in.Path))
	if req.Caller.Token.IsZero() {
		return mountOut{}, errs.New(errs.Denied, "permission denied")
	}
	rights, err := e.cfg.Access.Of(ctx, req.Mount.Namespace, req.Caller.Token, req.Remote)
	if err != nil {
		return mountOut{}, err
	}
	m, ok, err := e.cfg.Mounts.At(ctx, req.Mount.Namespace, withSlash(in.Path))
	if err != nil {
		return mountOut{}, err
	}
	if !ok || !rights.Reaches(m.Path) {
		return mountOut{}, denied
	}
	out := e.mountOut(m)
	out.Path = m.Path
	return out, nil
}
