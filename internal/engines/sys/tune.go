package sys

import (
	"context"
	"slices"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// tuning is what a tune, or the config of a mount to be made, may name. What
// it does not name stays as it is.
type tuning struct {
	DefaultTTL         wire.Value          `json:"default_lease_ttl" doc:"A duration; \"system\" or 0 is the server's."`
	MaxTTL             wire.Value          `json:"max_lease_ttl" doc:"A duration; \"system\" or 0 is the server's."`
	Description        wire.Opt[string]    `json:"description"`
	ForceNoCache       wire.Opt[bool]      `json:"force_no_cache"`
	ListingVisibility  wire.Opt[string]    `json:"listing_visibility" doc:"unauth lists the mount to everybody, hidden to those with access."`
	AuditRequestKeys   wire.Opt[wire.CSV]  `json:"audit_non_hmac_request_keys" doc:"Keys of requests that stand in the audit log as they are."`
	AuditResponseKeys  wire.Opt[wire.CSV]  `json:"audit_non_hmac_response_keys" doc:"Keys of answers that stand in the audit log as they are."`
	PassthroughHeaders wire.Opt[wire.CSV]  `json:"passthrough_request_headers"`
	AllowedHeaders     wire.Opt[wire.CSV]  `json:"allowed_response_headers"`
	TokenType          wire.Opt[string]    `json:"token_type" doc:"Of auth methods: service, batch, default-service or default-batch."`
	PluginVersion      wire.Opt[string]    `json:"plugin_version"`
	Options            wire.KV             `json:"options"`
	Lockout            wire.Opt[lockoutIn] `json:"user_lockout_config"`
}

type lockoutIn struct {
	Threshold    wire.Opt[uint64]   `json:"lockout_threshold"`
	Duration     wire.Opt[wire.TTL] `json:"lockout_duration"`
	CounterReset wire.Opt[wire.TTL] `json:"lockout_counter_reset_duration"`
	Disable      wire.Opt[bool]     `json:"lockout_disable"`
}

// tuneOut is how a mount is tuned. Its TTLs are those that hold.
type tuneOut struct {
	Description        string            `json:"description"`
	DefaultTTL         wire.TTL          `json:"default_lease_ttl"`
	MaxTTL             wire.TTL          `json:"max_lease_ttl"`
	ForceNoCache       bool              `json:"force_no_cache"`
	Options            map[string]string `json:"options,omitempty"`
	ListingVisibility  string            `json:"listing_visibility,omitempty"`
	AuditRequestKeys   []string          `json:"audit_non_hmac_request_keys,omitempty"`
	AuditResponseKeys  []string          `json:"audit_non_hmac_response_keys,omitempty"`
	PassthroughHeaders []string          `json:"passthrough_request_headers,omitempty"`
	AllowedHeaders     []string          `json:"allowed_response_headers,omitempty"`
	TokenType          string            `json:"token_type,omitempty"`
	PluginVersion      string            `json:"plugin_version,omitempty"`
	// All four, or none where nothing was ever said of them.
	Threshold    wire.Opt[uint64]   `json:"user_lockout_threshold"`
	Duration     wire.Opt[wire.TTL] `json:"user_lockout_duration"`
	CounterReset wire.Opt[wire.TTL] `json:"user_lockout_counter_reset_duration"`
	Disable      wire.Opt[bool]     `json:"user_lockout_disable"`
}

func (e *Engine) readTuning(ctx context.Context, req *route.Request, in pathIn) (tuneOut, error) {
	path := withSlash(in.Path)
	m, ok, err := e.mountAt(ctx, req.Mount.Namespace, path)
	if err != nil {
		return tuneOut{}, err
	}
	if !ok {
		return tuneOut{}, errs.New(errs.Invalid, "nothing is mounted at %s", path)
	}
	c := m.Config
	out := tuneOut{
		Description: m.Description, DefaultTTL: wire.TTL(m.DefaultTTL), MaxTTL: wire.TTL(m.MaxTTL),
		ForceNoCache: c.ForceNoCache, Options: m.Options, ListingVisibility: c.ListingVisibility,
		AuditRequestKeys: c.AuditRequestKeys, AuditResponseKeys: c.AuditResponseKeys,
		PassthroughHeaders: c.PassthroughHeaders, AllowedHeaders: c.AllowedHeaders,
		TokenType: m.tokenType(), PluginVersion: c.PluginVersion,
	}
	if c.hasLockout() {
		out.Threshold, out.Disable = wire.Some(c.LockoutThreshold), wire.Some(c.LockoutDisable)
		out.Duration, out.CounterReset = wire.Some(wire.TTL(c.LockoutDuration)), wire.Some(wire.TTL(c.LockoutCounterReset))
	}
	return out, nil
}

type tuneIn struct {
	Path string `json:"path"`
	tuning
}

func (e *Engine) tune(ctx context.Context, req *route.Request, in tuneIn) (route.None, error) {
	path := withSlash(in.Path)
	m, ok, err := e.mountAt(ctx, req.Mount.Namespace, path)
	if err != nil {
		return route.None{}, err
	}
	if !ok {
		return route.None{}, errs.New(errs.Invalid, "tune of path %q failed: no mount entry found", path)
	}
	if m.Type == "kv" && in.Options["version"] == "2" && m.Options["version"] != "2" {
		req.Warn("the mount is upgraded from version 1 to version 2: its paths are others from now on")
	}
	return route.None{}, e.cfg.MountTable.Tune(ctx, req.Mount.Namespace, path, func(m *Mount) error {
		return e.applyTuning(m, in.tuning)
	})
}

// applyTuning changes a mount by what t names, and checks the outcome.
func (e *Engine) applyTuning(m *Mount, t tuning) error {
	c := &m.Config
	for _, d := range []struct {
		name string
		in   wire.Value
		to   *time.Duration
	}{
		{"default_lease_ttl", t.DefaultTTL, &c.DefaultTTL},
		{"max_lease_ttl", t.MaxTTL, &c.MaxTTL},
	} {
		if err := mountTTL(d.name, d.in, d.to); err != nil {
			return err
		}
	}
	if c.MaxTTL > 0 && c.DefaultTTL > c.MaxTTL {
		return errs.New(errs.Invalid, "backend max lease TTL of %d would be less than backend default lease TTL of %d",
			c.MaxTTL/time.Second, c.DefaultTTL/time.Second)
	}
	if v, ok := t.ListingVisibility.Get(); ok {
		if v != "" && v != "unauth" && v != "hidden" {
			return errs.New(errs.Invalid, "invalid listing_visibility %s: it is unauth or hidden", v)
		}
		c.ListingVisibility = v
	}
	if v, ok := t.TokenType.Get(); ok {
		switch {
		case !m.isAuth():
			return errs.New(errs.Invalid, "'token_type' can only be modified on auth mounts")
		case m.Type == "token":
			return errs.New(errs.Invalid, "'token_type' cannot be set for 'token' auth mounts")
		case !slices.Contains([]string{"", "service", "batch", "default-service", "default-batch"}, v):
			return errs.New(errs.Invalid, "invalid value for 'token_type': it is service, batch, default-service or default-batch")
		}
		c.TokenType = v
	}
	t.Description.Apply(&m.Description)
	t.ForceNoCache.Apply(&c.ForceNoCache)
	t.PluginVersion.Apply(&c.PluginVersion)
	applyList(t.AuditRequestKeys, &c.AuditRequestKeys)
	applyList(t.AuditResponseKeys, &c.AuditResponseKeys)
	applyList(t.PassthroughHeaders, &c.PassthroughHeaders)
	applyList(t.AllowedHeaders, &c.AllowedHeaders)
	if l, ok := t.Lockout.Get(); ok {
		if !m.isAuth() {
			return errs.New(errs.Invalid, "'user_lockout_config' can only be set for auth methods")
		}
		if !slices.Contains([]string{"approle", "ldap", "userpass"}, m.Type) {
			return errs.New(errs.Invalid, "'user_lockout_config' can be set for approle, ldap and userpass, not for %q", m.Type)
		}
		l.Threshold.Apply(&c.LockoutThreshold)
		l.Disable.Apply(&c.LockoutDisable)
		if d, ok := l.Duration.Get(); ok {
			c.LockoutDuration = d.Duration()
		}
		if d, ok := l.CounterReset.Get(); ok {
			c.LockoutCounterReset = d.Duration()
		}
	}
	return e.applyOptions(m, t.Options)
}

// checkOptions refuses options with which no engine could be made: the mount
// would answer nothing but errors until it is tuned again.
func checkOptions(typ string, options map[string]string) error {
	if v := options["version"]; typ == "kv" && v != "" && v != "1" && v != "2" {
		return errs.New(errs.Invalid, "invalid version provided: %q; kv has version 1 and 2", v)
	}
	return nil
}

// applyOptions adds options. A kv mount can go from version 1 to 2 and not
// back.
func (e *Engine) applyOptions(m *Mount, options wire.KV) error {
	if len(options) == 0 {
		return nil
	}
	if err := checkOptions(m.Type, options); err != nil {
		return err
	}
	next := make(map[string]string, len(m.Options)+len(options))
	for k, v := range m.Options {
		next[k] = v
	}
	for k, v := range options {
		next[k] = v
	}
	if m.Type == "kv" && m.Options["version"] == "2" && next["version"] != "2" {
		return errs.New(errs.Invalid, "cannot downgrade mount from version 2")
	}
	m.Options = next
	return nil
}

func applyList(in wire.Opt[wire.CSV], to *[]string) {
	v, ok := in.Get()
	if !ok {
		return
	}
	// An empty text, as the CLI sends it, clears the list.
	*to = slices.DeleteFunc(slices.Clone([]string(v)), func(s string) bool { return s == "" })
}

func mountTTL(name string, in wire.Value, to *time.Duration) error {
	if in.Kind() == wire.Null {
		return nil
	}
	s, ok := in.Text()
	if !ok {
		return errs.New(errs.Invalid, "%s: expected a duration, got %s", name, in.Kind())
	}
	if s == "system" {
		*to = 0
		return nil
	}
	d, err := wire.ParseTTL(s)
	if err != nil {
		return errs.New(errs.Invalid, "%s: %v", name, err)
	}
	*to = d
	return nil
}
