package cli

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/leasehold/leasehold/api"
)

// mountKind says how the commands for secrets engines and those for auth
// methods differ: in a prefix and in words.
type mountKind struct {
	api     string // "sys/mounts/"
	remount string // what sys/remount calls the path: "auth/" before it
	thing   string // "secrets engine"
	the     string // "the kv secrets engine", "userpass auth method"
	isAuth  bool
}

var (
	secretsKind = mountKind{api: "sys/mounts/", thing: "secrets engine", the: "the %s secrets engine"}
	authKind    = mountKind{api: "sys/auth/", remount: "auth/", thing: "auth method", the: "%s auth method", isAuth: true}
)

// mountTune is what tuning sends; what was not given is left out.
type mountTune struct {
	Description       *string           `json:"description,omitempty"`
	DefaultLeaseTTL   string            `json:"default_lease_ttl,omitempty"`
	MaxLeaseTTL       string            `json:"max_lease_ttl,omitempty"`
	AuditRequestKeys  []string          `json:"audit_non_hmac_request_keys,omitempty"`
	AuditResponseKeys []string          `json:"audit_non_hmac_response_keys,omitempty"`
	ListingVisibility string            `json:"listing_visibility,omitempty"`
	RequestHeaders    []string          `json:"passthrough_request_headers,omitempty"`
	ResponseHeaders   []string          `json:"allowed_response_headers,omitempty"`
	PluginVersion     string            `json:"plugin_version,omitempty"`
	TokenType         string            `json:"token_type,omitempty"`
	Options           map[string]string `json:"options,omitempty"`
	UserLockoutConfig *userLockout      `json:"user_lockout_config,omitempty"`
	ForceNoCache      bool              `json:"force_no_cache,omitempty"`

	version       *int
	lockThreshold string
	lockDuration  string
	lockReset     string
	lockDisable   *bool
}

type userLockout struct {
	Threshold    string `json:"lockout_threshold,omitempty"`
	Duration     string `json:"lockout_duration,omitempty"`
	CounterReset string `json:"lockout_counter_reset_duration,omitempty"`
	Disable      *bool  `json:"lockout_disable,omitempty"`
}

// flags are those that enable and tune share.
func (m *mountTune) flags(k mountKind, tuning bool) []*flag {
	out := []*flag{
		optStringFlag(&m.Description, "description", "TEXT", "What the mount is for."),
		ttlFlag(&m.DefaultLeaseTTL, "default-lease-ttl", "Lifetime of leases and tokens by default; system takes the server's."),
		ttlFlag(&m.MaxLeaseTTL, "max-lease-ttl", "Longest lifetime; system takes the server's."),
		stringFlag(&m.ListingVisibility, "listing-visibility", "WHO", "unauth shows the mount to those without a token, hidden does not."),
		listFlag(&m.RequestHeaders, "passthrough-request-headers", "NAME", "Header of requests that the mount may see; may be repeated."),
		listFlag(&m.ResponseHeaders, "allowed-response-headers", "NAME", "Header that the mount may answer with; may be repeated."),
		listFlag(&m.AuditRequestKeys, "audit-non-hmac-request-keys", "KEY", "Field of requests that audit shows in the clear; may be repeated."),
		listFlag(&m.AuditResponseKeys, "audit-non-hmac-response-keys", "KEY", "Field of replies that audit shows in the clear; may be repeated."),
		pairsFlag(&m.Options, "options", "Option of the mount; may be repeated."),
		optIntFlag(&m.version, "version", "Version of the engine: -version=2 for kv with versions."),
		stringFlag(&m.PluginVersion, "plugin-version", "V", "").hide(),
	}
	if k.isAuth {
		out = append(out, stringFlag(&m.TokenType, "token-type", "TYPE", "Tokens that logins make: default-service, default-batch, service or batch."))
	}
	if k.isAuth && tuning {
		out = append(out,
			stringFlag(&m.lockThreshold, "user-lockout-threshold", "N", "Failed logins that lock a user out."),
			durationFlag(&m.lockDuration, "user-lockout-duration", "How long the user stays locked out."),
			durationFlag(&m.lockReset, "user-lockout-counter-reset-duration", "After how long failed logins are forgotten."),
			optBoolFlag(&m.lockDisable, "user-lockout-disable", "Lock nobody out."),
		)
	}
	return out
}

func (m *mountTune) fill() {
	if m.version != nil {
		if m.Options == nil {
			m.Options = map[string]string{}
		}
		m.Options["version"] = fmt.Sprint(*m.version)
	}
	if m.lockThreshold != "" || m.lockDuration != "" || m.lockReset != "" || m.lockDisable != nil {
		m.UserLockoutConfig = &userLockout{m.lockThreshold, m.lockDuration, m.lockReset, m.lockDisable}
	}
}

// mountEnable is what enabling sends.
type mountEnable struct {
	Type        string            `json:"type"`
	Description string            `json:"description"`
	Config      mountTune         `json:"config"`
	Options     map[string]string `json:"options,omitempty"`
	Local       bool              `json:"local,omitempty"`
	SealWrap    bool              `json:"seal_wrap,omitempty"`
	Entropy     bool              `json:"external_entropy_access,omitempty"`
}

func enableCommand(k mountKind, example string) *command {
	var (
		req          mountEnable
		tune         mountTune
		path, plugin string
		noCache      bool
	)
	flags := append([]*flag{stringFlag(&path, "path", "PATH", "Where to mount it; by default at its type.")}, tune.flags(k, false)...)
	flags = append(flags,
		boolFlag(&req.Local, "local", "").hide(),
		boolFlag(&req.SealWrap, "seal-wrap", "").hide(),
		boolFlag(&req.Entropy, "external-entropy-access", "").hide(),
		boolFlag(&noCache, "force-no-cache", "").hide(),
		stringFlag(&plugin, "plugin-name", "NAME", "").hide(),
	)
	return &command{
		name: "enable", args: "TYPE", min: 1, max: 1,
		short: "Enable " + article(k.thing), example: []string{example}, flags: flags,
		run: func(ctx context.Context, c *call) error {
			tune.fill()
			tune.ForceNoCache = noCache
			typ := c.arg(0)
			if path == "" {
				path = typ
			}
			path = cleanPath(path)
			req.Type = typ
			req.Options, tune.Options = tune.Options, nil
			if tune.Description != nil {
				req.Description, tune.Description = *tune.Description, nil
			}
			req.setAlias()
			req.Config = tune
			if _, err := c.write(ctx, k.api+path, &req); err != nil {
				return step(err, "enabling "+k.the, typ)
			}
			c.say("Success! Enabled "+k.the+" at: %s/", typ, path)
			return nil
		},
	}
}

// setAlias writes kv-v1 and kv-v2 as every server understands them.
func (r *mountEnable) setAlias() {
	v := map[string]string{"kv-v1": "1", "kv-v2": "2"}[r.Type]
	if v == "" {
		return
	}
	r.Type = "kv"
	if r.Options == nil {
		r.Options = map[string]string{}
	}
	r.Options["version"] = v
}

func article(thing string) string {
	if thing == authKind.thing {
		return "an " + thing
	}
	return "a " + thing
}

func disableCommand(k mountKind, example string) *command {
	return &command{
		name: "disable", args: "PATH", min: 1, max: 1,
		short: "Disable " + article(k.thing) + " and revoke what it issued",
		long: "Takes the mount away with all of its data. Leases and tokens that it issued are " +
			"revoked first.",
		example: []string{example},
		run: func(ctx context.Context, c *call) error {
			path := cleanPath(c.arg(0))
			if _, err := c.remove(ctx, k.api+path); err != nil {
				return step(err, "disabling %s at %s/", k.thing, path)
			}
			c.say("Success! Disabled the %s (if it existed) at: %s/", k.thing, path)
			return nil
		},
	}
}

func tuneCommand(k mountKind, example string) *command {
	var tune mountTune
	return &command{
		name: "tune", args: "PATH", min: 1, max: 1,
		short:   "Change a mount's settings",
		long:    "Changes the settings given and leaves the others. Settings as they are:\n\"" + programName + " read " + k.api + "PATH/tune\".",
		example: []string{example}, flags: tune.flags(k, true),
		run: func(ctx context.Context, c *call) error {
			tune.fill()
			path := cleanPath(c.arg(0))
			if _, err := c.write(ctx, k.api+path+"/tune", &tune); err != nil {
				return step(err, "tuning %s %s/", k.thing, path)
			}
			c.say("Success! Tuned the %s at: %s/", k.thing, path)
			return nil
		},
	}
}

func moveCommand(k mountKind, example string) *command {
	return &command{
		name: "move", args: "FROM TO", min: 2, max: 2,
		short: "Move a mount to another path", long: "Moves a mount with its data, and waits until that is done.",
		example: []string{example},
		run: func(ctx context.Context, c *call) error {
			from, to := cleanPath(c.arg(0))+"/", cleanPath(c.arg(1))+"/"
			s, err := c.write(ctx, "sys/remount", struct {
				From string `json:"from"`
				To   string `json:"to"`
			}{k.remountPath(from), k.remountPath(to)})
			if err != nil {
				return step(err, "moving %s %s to %s", k.thing, from, to)
			}
			var out struct {
				ID string `json:"migration_id"`
			}
			if hasContent(s) {
				if err := decode(s, &out); err != nil {
					return err
				}
			}
			if err := c.awaitMove(ctx, out.ID); err != nil {
				return err
			}
			c.say("Success! Finished moving %s %s to %s, with migration ID %s", k.thing, from, to, orNA(out.ID))
			return nil
		},
	}
}

// remountPath accepts auth paths with and without their "auth/".
func (k mountKind) remountPath(p string) string {
	if k.remount != "" && len(p) > len(k.remount) && p[:len(k.remount)] == k.remount {
		return p
	}
	return k.remount + p
}

// awaitMove asks how a move is doing until it is over.
func (c *call) awaitMove(ctx context.Context, id string) error {
	if id == "" {
		return nil
	}
	for {
		var out struct {
			Info struct {
				Status string `json:"status"`
				Source string `json:"source_mount"`
			} `json:"migration_info"`
		}
		if err := c.readPlain(ctx, "sys/remount/status/"+id, &out); err != nil {
			return step(err, "asking how the move is doing")
		}
		switch out.Info.Status {
		case "success":
			return nil
		case "failure":
			return step(&notFound{"it failed; the server's log tells why"}, "moving %s", out.Info.Source)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// mountInfo is one mount in a list.
type mountInfo struct {
	Type        string            `json:"type"`
	Description string            `json:"description"`
	Accessor    string            `json:"accessor"`
	UUID        string            `json:"uuid"`
	Local       bool              `json:"local"`
	SealWrap    bool              `json:"seal_wrap"`
	Entropy     bool              `json:"external_entropy_access"`
	Options     map[string]string `json:"options"`
	Version     string            `json:"plugin_version"`
	Running     string            `json:"running_plugin_version"`
	RunningSHA  string            `json:"running_sha256"`
	Deprecation string            `json:"deprecation_status"`
	Config      struct {
		DefaultLeaseTTL int    `json:"default_lease_ttl"`
		MaxLeaseTTL     int    `json:"max_lease_ttl"`
		ForceNoCache    bool   `json:"force_no_cache"`
		TokenType       string `json:"token_type"`
	} `json:"config"`
}

func mountsListCommand(k mountKind, example string) *command {
	var detailed bool
	return &command{
		name: "list", max: 0, short: "List the " + k.thing + "s", example: []string{example},
		flags: []*flag{boolFlag(&detailed, "detailed", "Show all settings.")},
		run: func(ctx context.Context, c *call) error {
			s, err := c.do(ctx, &api.Request{Method: http.MethodGet, Path: cleanPath(k.api)})
			if err != nil {
				return step(err, "listing %ss", k.thing)
			}
			var mounts map[string]mountInfo
			if err := decode(s, &mounts); err != nil {
				return err
			}
			data, err := parseValue(s.Data)
			if err != nil {
				return err
			}
			if detailed {
				return c.printTable(detailedMounts(k, mounts), data)
			}
			return c.printTable(simpleMounts(k, mounts), data)
		},
	}
}

func simpleMounts(k mountKind, mounts map[string]mountInfo) *table {
	t := newTable("Path", "Type", "Accessor", "Description")
	if k.isAuth {
		t = newTable("Path", "Type", "Accessor", "Description", "Version")
	}
	for _, path := range sortedKeys(mounts) {
		m := mounts[path]
		cells := []string{path, m.Type, m.Accessor, m.Description}
		if k.isAuth {
			cells = append(cells, m.Version)
		}
		t.add(cells...)
	}
	return t
}

func detailedMounts(k mountKind, mounts map[string]mountInfo) *table {
	heads := []string{"Path", "Plugin", "Accessor", "Default TTL", "Max TTL"}
	if k.isAuth {
		heads = append(heads, "Token Type")
	} else {
		heads = append(heads, "Force No Cache")
	}
	t := newTable(append(heads, "Replication", "Seal Wrap", "External Entropy Access", "Options", "Description", "UUID",
		"Version", "Running Version", "Running SHA256", "Deprecation Status")...)
	for _, path := range sortedKeys(mounts) {
		m := mounts[path]
		own := fmt.Sprint(m.Config.ForceNoCache)
		if k.isAuth {
			own = m.Config.TokenType
		}
		replication := "replicated"
		if m.Local {
			replication = "local"
		}
		t.add(path, m.Type, m.Accessor, mountTTL(m.Config.DefaultLeaseTTL), mountTTL(m.Config.MaxLeaseTTL), own, replication,
			fmt.Sprint(m.SealWrap), fmt.Sprint(m.Entropy), fmt.Sprint(m.Options), m.Description, m.UUID,
			m.Version, m.Running, m.RunningSHA, m.Deprecation)
	}
	return t
}

// mountTTL writes 0 as what it means.
func mountTTL(seconds int) string {
	if seconds == 0 {
		return "system"
	}
	return fmt.Sprint(seconds)
}
