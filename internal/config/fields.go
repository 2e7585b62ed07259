package config

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Why keys that Vault knows have no effect.
const (
	oneProcess   = "a server is one process and does not forward requests"
	noMlock      = "memory is not locked; turn swap off, or encrypt it"
	noPlugins    = "engines are part of the server"
	noLicence    = "there are no licensed features"
	noDebugging  = "it serves the debugging of Vault itself"
	rotateLogs   = "let logrotate or the journal turn logs over"
	noStatsd     = "figures are offered at sys/metrics and not sent"
	alwaysLimits = "lanes and deadlines limit the load"
)

// topFields are the keys at the top of a file.
var topFields = fields[Config]{
	"listener": readListeners,
	"storage":  readStorage,
	"backend":  readStorage, // the older name
	"seal":     readSeal,

	"api_addr":     readAPIAddr,
	"cluster_name": str(func(c *Config) *string { return &c.ClusterName }),

	"log_level":          readLevel(func(c *Config) *string { return &c.LogLevel }),
	"log_requests_level": readLevel(func(c *Config) *string { return &c.LogRequestsLevel }),
	"log_format":         oneOf(func(c *Config) *string { return &c.LogFormat }, "standard", "json"),
	"log_file":           str(func(c *Config) *string { return &c.LogFile }),

	"default_lease_ttl":            duration(func(c *Config) *time.Duration { return &c.DefaultLeaseTTL }),
	"max_lease_ttl":                duration(func(c *Config) *time.Duration { return &c.MaxLeaseTTL }),
	"default_max_request_duration": limit(func(c *Config) *time.Duration { return &c.MaxRequestDuration }, "90s"),

	"pid_file":                        str(func(c *Config) *string { return &c.PIDFile }),
	"ui":                              without("there is no web interface yet"),
	"disable_cache":                   without("caches hear of every change before it is answered"),
	"raw_storage_endpoint":            flag(func(c *Config) *bool { return &c.RawStorageEndpoint }),
	"introspection_endpoint":          without("sys/internal/inspect shows Vault's own inside; sys/internal/specs/openapi lists the routes"),
	"enable_response_header_hostname": flag(func(c *Config) *bool { return &c.ResponseHeaderHostname }),

	"reported_version": readVersion,
	"max_restart_gap":  orNone(func(c *Config) *time.Duration { return &c.MaxRestartGap }),
	"lanes":            inner(laneFields, func(c *Config) *Lanes { return &c.Lanes }),

	"telemetry":    inner(telemetryFields, func(c *Config) *Telemetry { return &c.Telemetry }),
	"tracing":      inner(tracingFields, func(c *Config) *Tracing { return &c.Tracing }),
	"user_lockout": readLockouts,

	"cluster_addr":                          unused[Config](oneProcess),
	"cluster_cipher_suites":                 unused[Config](oneProcess),
	"cluster":                               unused[Config](oneProcess),
	"redirect_addr":                         unused[Config](oneProcess),
	"disable_clustering":                    unused[Config](oneProcess),
	"disable_performance_standby":           unused[Config](oneProcess),
	"disable_standby_reads":                 unused[Config](oneProcess),
	"enable_response_header_raft_node_id":   unused[Config](oneProcess),
	"replication":                           unused[Config](oneProcess),
	"service_registration":                  unused[Config]("the server does not register itself anywhere"),
	"disable_mlock":                         unused[Config](noMlock),
	"cache_size":                            unused[Config](`the store's cache is set by storage "embedded" { cache_size = ... }`),
	"disable_indexing":                      unused[Config]("there is nothing to index"),
	"disable_printable_check":               unused[Config]("control characters in paths are always refused"),
	"disable_sealwrap":                      unused[Config](noLicence),
	"disable_sentinel_trace":                unused[Config](noLicence),
	"sentinel":                              unused[Config](noLicence),
	"license_path":                          unused[Config](noLicence),
	"reporting":                             unused[Config]("nothing is reported to anybody"),
	"experiments":                           unused[Config]("there are no experiments"),
	"plugin_directory":                      unused[Config](noPlugins),
	"plugin_tmpdir":                         unused[Config](noPlugins),
	"plugin_file_uid":                       unused[Config](noPlugins),
	"plugin_file_permissions":               unused[Config](noPlugins),
	"plugin_auto_download":                  unused[Config](noPlugins),
	"plugin_auto_register":                  unused[Config](noPlugins),
	"plugin_download_behavior":              unused[Config](noPlugins),
	"log_rotate_duration":                   unused[Config](rotateLogs),
	"log_rotate_bytes":                      unused[Config](rotateLogs),
	"log_rotate_max_files":                  unused[Config](rotateLogs),
	"detect_deadlocks":                      unused[Config](noDebugging),
	"enable_post_unseal_trace":              unused[Config](noDebugging),
	"post_unseal_trace_directory":           unused[Config](noDebugging),
	"imprecise_lease_role_tracking":         unused[Config]("counts are exact"),
	"request_limiter":                       unused[Config](alwaysLimits),
	"adaptive_overload_protection":          unused[Config](alwaysLimits),
	"remove_irrevocable_lease_after":        unused[Config]("a lease that cannot be revoked stays until an operator forgets it"),
	"allow_audit_log_prefixing":             unused[Config]("audit devices may always have a prefix"),
	"unsafe_allow_api_audit_creation":       unused[Config]("audit devices are always enabled over the API"),
	"allow_unauthenticated_rekey":           unused[Config]("rekeying follows sys/rekey"),
	"enable_unauthenticated_access":         unused[Config]("the endpoints are as in Vault 1.20"),
	"ha_storage":                            refused[Config]("one store holds everything; leave it out"),
	"ha_backend":                            refused[Config]("one store holds everything; leave it out"),
	"hsm":                                   refused[Config](`write a seal block; there are seal "static", seal "transit" and Shamir shares`),
	"kms_library":                           refused[Config](`there are seal "static", seal "transit" and Shamir shares`),
	"entropy":                               refused[Config]("randomness comes from the operating system"),
	"administrative_namespace_path":         refused[Config]("there is no administrative namespace"),
	"unsafe_cross_namespace_identity":       refused[Config]("identities belong to one namespace"),
	"audit":                                 refused[Config]("enable audit devices with: leasehold audit enable file file_path=PATH"),
	"initialize":                            refused[Config]("initialise with: leasehold operator init"),
	"allow_unauthenticated_workflow_access": refused[Config]("there are no workflows"),
}

var laneFields = fields[Lanes]{
	"create_workers": integer(func(l *Lanes) *int { return &l.Create }, 1, 1000),
	"revoke_workers": integer(func(l *Lanes) *int { return &l.Revoke }, 1, 1000),
	"batch":          integer(func(l *Lanes) *int { return &l.Batch }, 1, 1000),
}

var telemetryFields = telemetry()

// telemetry makes the table, most of which is systems that figures would be
// sent to.
func telemetry() fields[Telemetry] {
	f := fields[Telemetry]{
		"prometheus_retention_time": orNone(func(t *Telemetry) *time.Duration { return &t.PrometheusRetention }),
		"disable_hostname":          readDisableHostname,
		"usage_gauge_period":        unused[Telemetry]("what exists is counted as it changes, and shown when sys/metrics is read"),
		"metrics_prefix":            str(func(t *Telemetry) *string { return &t.MetricsPrefix }),
	}
	for _, name := range strings.Fields(`
		enable_hostname_label maximum_gauge_cardinality filter_default prefix_filter lease_metrics_epsilon
		num_lease_metrics_buckets add_lease_metrics_namespace_labels add_mount_point_rollback_metrics rollback_metrics_include_mount_point`) {
		f[name] = unused[Telemetry]("sys/metrics shows a fixed set of figures")
	}
	for _, name := range strings.Fields(`
		statsite_address statsd_address dogstatsd_addr dogstatsd_tags circonus_api_token circonus_api_app circonus_api_url
		circonus_submission_interval circonus_submission_url circonus_check_id circonus_check_force_metric_activation
		circonus_check_instance_id circonus_check_search_tag circonus_check_display_name circonus_check_tags
		circonus_broker_id circonus_broker_select_tag stackdriver_project_id stackdriver_location stackdriver_namespace
		stackdriver_debug_logs`) {
		f[name] = unused[Telemetry](noStatsd)
	}
	return f
}

// readDisableHostname takes what is so anyway.
func readDisableHostname(d *decoder, m member, _ *Telemetry) {
	if v, ok := d.boolean(m); ok && !v {
		d.warn(m.pos, "disable_hostname = false has no effect: the names of figures never have the host's in them")
	}
}

// without reads a switch for something that is not there: off is the truth,
// and on has no effect.
func without(why string) field[Config] {
	return func(d *decoder, m member, _ *Config) {
		if v, ok := d.boolean(m); ok && v {
			d.warn(m.pos, "%s = true has no effect: %s", m.name, why)
		}
	}
}

// readLevel reads the name of a log level, in any of the ways people write it.
func readLevel(at func(*Config) *string) field[Config] {
	return func(d *decoder, m member, to *Config) {
		s, ok := scalar(d, m)
		if !ok {
			return
		}
		switch s = strings.ToLower(strings.TrimSpace(s)); s {
		case "", "trace", "debug", "info", "warn", "error":
		case "notice":
			s = "info"
		case "warning":
			s = "warn"
		case "err":
			s = "error"
		default:
			d.fail(m.value.pos, "%s must be one of trace, debug, info, warn, error, not %q", m.name, s)
			return
		}
		*at(to) = s
	}
}

func readAPIAddr(d *decoder, m member, to *Config) {
	s, ok := scalar(d, m)
	if !ok || s == "" {
		return
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		d.fail(m.value.pos, "api_addr must be a URL such as https://vault.example.org:8200, not %q", s)
		return
	}
	to.APIAddr = strings.TrimSuffix(s, "/")
}

// readVersion reads three numbers with dots between, and perhaps a suffix.
func readVersion(d *decoder, m member, to *Config) {
	s, ok := scalar(d, m)
	if !ok {
		return
	}
	numbers, _, _ := strings.Cut(s, "-")
	numbers, _, _ = strings.Cut(numbers, "+")
	parts := strings.Split(numbers, ".")
	good := len(parts) == 3
	for _, p := range parts {
		good = good && p != "" && strings.Trim(p, "0123456789") == ""
	}
	if !good {
		d.fail(m.value.pos, "reported_version must be a version such as %s, not %q", DefaultReportedVersion, s)
		return
	}
	to.ReportedVersion = s
}

var lockoutFields = fields[lockout]{
	"lockout_threshold":     integer(func(l *lockout) *int { return &l.Threshold }, 0, 1_000_000),
	"lockout_duration":      duration(func(l *lockout) *time.Duration { return &l.Duration }),
	"lockout_counter_reset": duration(func(l *lockout) *time.Duration { return &l.CounterReset }),
	"disable_lockout":       flag(func(l *lockout) *bool { return &l.Disable }),
}

// lockout is one block, which may leave anything to that for "all".
type lockout struct {
	Lockout
	says bool // whether it is disabled
}

// lockoutKinds are the auth methods whose users can be locked out.
var lockoutKinds = []string{"approle", "ldap", "userpass"}

func readLockouts(d *decoder, m member, _ *Config) {
	for _, b := range d.blocks(m) {
		if b.label != "all" && !slices.Contains(lockoutKinds, b.label) {
			d.fail(b.pos, "user_lockout is for all, approle, ldap or userpass, not for %q", b.label)
			continue
		}
		var l lockout
		readMembers(d, "user_lockout "+b.label, lockoutFields, b.body, &l)
		l.says = slices.ContainsFunc(b.body.members, func(m member) bool { return m.name == "disable_lockout" })
		if d.lockouts == nil {
			d.lockouts = map[string]lockout{}
		}
		d.lockouts[b.label] = l
	}
}

// joinLockouts gives each kind what its own block says, and what that leaves
// out from the one for all.
func joinLockouts(blocks map[string]lockout) map[string]Lockout {
	if len(blocks) == 0 {
		return nil
	}
	all := blocks["all"]
	joined := make(map[string]Lockout, len(lockoutKinds))
	for _, kind := range lockoutKinds {
		l := blocks[kind]
		l.Threshold = cmp.Or(l.Threshold, all.Threshold)
		l.Duration = cmp.Or(l.Duration, all.Duration)
		l.CounterReset = cmp.Or(l.CounterReset, all.CounterReset)
		if !l.says {
			l.Disable = all.Disable
		}
		joined[kind] = l.Lockout
	}
	return joined
}
