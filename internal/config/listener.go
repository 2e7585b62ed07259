package config

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Listener is one address that the server answers on.
type Listener struct {
	Pos     Pos
	Network string // "tcp" or "unix"
	Address string // host:port, or the path of a socket; never empty
	TLS     *TLS   // nil: plain text

	// Of a Unix socket; empty keeps what the process gives it.
	Mode        string // octal
	User, Group string // names or numbers

	ReadHeaderTimeout  time.Duration // to send the head of a request; zero: 10 s
	ReadTimeout        time.Duration // to send all of a request; zero: 30 s
	WriteTimeout       time.Duration // to take the answer; zero: none
	IdleTimeout        time.Duration // between requests; zero: 5 min
	MaxRequestDuration time.Duration // until a request is given up; zero: Config's
	MaxRequestSize     int64         // bytes of a body; zero: 32 MiB
	MaxJSONDepth       int           // nesting of a body; zero: 300

	XForwardedFor   XForwardedFor
	ResponseHeaders []ResponseHeaders // added to answers, in the order of the file

	RequireRequestHeader    bool // refuse requests without X-Vault-Request: true
	UnauthenticatedMetrics  bool // sys/metrics needs no token
	UnauthenticatedPprof    bool // sys/pprof needs no token
	UnauthenticatedInFlight bool // sys/in-flight-req needs no token
	RedactAddresses         bool // leave addresses out of what needs no token
	RedactClusterName       bool // ... the cluster's name
	RedactVersion           bool // ... the version
	DisableUnauthedRekey    bool // rekeying and generate-root need a token
}

// TLS is how a listener encrypts.
type TLS struct {
	CertFile, KeyFile string
	MinVersion        uint16   // never below 1.2; zero: 1.2
	MaxVersion        uint16   // zero: the newest
	CipherSuites      []uint16 // of TLS 1.2; empty: Go's
	ClientCAFile      string   // who may have issued clients' certificates; empty: nobody is asked
	RequireClientCert bool
	DisableClientCert bool // do not even ask clients for certificates
}

// XForwardedFor is for a listener behind a proxy that says in a header who the
// client is.
type XForwardedFor struct {
	Authorized   []netip.Prefix // the proxies that are believed; empty: nobody
	HopSkips     int            // entries to skip, from the end of the header
	KeepOthers   bool           // answer proxies that are not in the list, as clients of their own; zero: refuse them
	KeepHeadless bool           // answer proxies that send no header; zero: refuse them
}

// ResponseHeaders are headers for answers of some statuses.
type ResponseHeaders struct {
	Status string // "default", "2xx" or "404"
	Header http.Header
}

// listenerDraft is a listener whose settings have not been judged together.
type listenerDraft struct {
	Listener
	tls   TLS
	noTLS bool
}

var listenerFields = fields[listenerDraft]{
	"address": str(func(l *listenerDraft) *string { return &l.Address }),

	"tls_disable":                        flag(func(l *listenerDraft) *bool { return &l.noTLS }),
	"tls_cert_file":                      str(func(l *listenerDraft) *string { return &l.tls.CertFile }),
	"tls_key_file":                       str(func(l *listenerDraft) *string { return &l.tls.KeyFile }),
	"tls_min_version":                    readTLSVersion(func(l *listenerDraft) *uint16 { return &l.tls.MinVersion }),
	"tls_max_version":                    readTLSVersion(func(l *listenerDraft) *uint16 { return &l.tls.MaxVersion }),
	"tls_cipher_suites":                  readCipherSuites,
	"tls_client_ca_file":                 str(func(l *listenerDraft) *string { return &l.tls.ClientCAFile }),
	"tls_require_and_verify_client_cert": flag(func(l *listenerDraft) *bool { return &l.tls.RequireClientCert }),
	"tls_disable_client_certs":           flag(func(l *listenerDraft) *bool { return &l.tls.DisableClientCert }),
	"tls_prefer_server_cipher_suites":    unused[listenerDraft]("the order of cipher suites is Go's"),

	"socket_mode":  readSocketMode,
	"socket_user":  str(func(l *listenerDraft) *string { return &l.User }),
	"socket_group": str(func(l *listenerDraft) *string { return &l.Group }),

	"http_read_header_timeout": duration(func(l *listenerDraft) *time.Duration { return &l.ReadHeaderTimeout }),
	"http_read_timeout":        duration(func(l *listenerDraft) *time.Duration { return &l.ReadTimeout }),
	"http_write_timeout":       duration(func(l *listenerDraft) *time.Duration { return &l.WriteTimeout }),
	"http_idle_timeout":        duration(func(l *listenerDraft) *time.Duration { return &l.IdleTimeout }),
	"max_request_duration":     limit(func(l *listenerDraft) *time.Duration { return &l.MaxRequestDuration }, "90s"),
	"max_request_size":         readMaxSize,
	"max_json_depth":           readMaxDepth,

	"x_forwarded_for_authorized_addrs":      readProxies,
	"x_forwarded_for_hop_skips":             integer(func(l *listenerDraft) *int { return &l.XForwardedFor.HopSkips }, 0, 100),
	"x_forwarded_for_reject_not_authorized": not(func(l *listenerDraft) *bool { return &l.XForwardedFor.KeepOthers }),
	"x_forwarded_for_reject_not_present":    not(func(l *listenerDraft) *bool { return &l.XForwardedFor.KeepHeadless }),

	"custom_response_headers": readResponseHeaders,
	"require_request_header":  flag(func(l *listenerDraft) *bool { return &l.RequireRequestHeader }),
	"telemetry": inner(fields[listenerDraft]{
		"unauthenticated_metrics_access": flag(func(l *listenerDraft) *bool { return &l.UnauthenticatedMetrics }),
		"disallow_metrics":               refused[listenerDraft]("policies say who may read sys/metrics"),
		"metrics_only":                   refused[listenerDraft]("policies say who may read sys/metrics"),
	}, self),
	"profiling": inner(fields[listenerDraft]{
		"unauthenticated_pprof_access":              flag(func(l *listenerDraft) *bool { return &l.UnauthenticatedPprof }),
		"unauthenticated_in_flight_request_access":  flag(func(l *listenerDraft) *bool { return &l.UnauthenticatedInFlight }),
		"unauthenticated_in_flight_requests_access": flag(func(l *listenerDraft) *bool { return &l.UnauthenticatedInFlight }),
	}, self),
	"inflight_requests_logging": inner(fields[listenerDraft]{
		"unauthenticated_in_flight_requests_access": flag(func(l *listenerDraft) *bool { return &l.UnauthenticatedInFlight }),
	}, self),
	"redact_addresses":                 flag(func(l *listenerDraft) *bool { return &l.RedactAddresses }),
	"redact_cluster_name":              flag(func(l *listenerDraft) *bool { return &l.RedactClusterName }),
	"redact_version":                   flag(func(l *listenerDraft) *bool { return &l.RedactVersion }),
	"disable_unauthed_rekey_endpoints": flag(func(l *listenerDraft) *bool { return &l.DisableUnauthedRekey }),

	"cluster_address":                             unused[listenerDraft](oneProcess),
	"cluster_addr":                                unused[listenerDraft](oneProcess),
	"disable_request_limiter":                     unused[listenerDraft](alwaysLimits),
	"disable_replication_status_endpoints":        unused[listenerDraft](oneProcess),
	"max_json_string_value_length":                unused[listenerDraft]("max_request_size limits the whole body"),
	"max_json_object_entry_count":                 unused[listenerDraft]("max_request_size limits the whole body"),
	"max_json_array_element_count":                unused[listenerDraft]("max_request_size limits the whole body"),
	"max_json_token":                              unused[listenerDraft]("max_request_size limits the whole body"),
	"max_request_json_memory":                     unused[listenerDraft]("max_request_size limits the whole body"),
	"max_request_json_strings":                    unused[listenerDraft]("max_request_size limits the whole body"),
	"x_forwarded_for_client_cert_header":          refused[listenerDraft]("clients' certificates must reach the listener itself"),
	"x_forwarded_for_client_cert_header_decoders": refused[listenerDraft]("clients' certificates must reach the listener itself"),
	"proxy_protocol_behavior":                     refused[listenerDraft]("have the proxy send X-Forwarded-For, and list it in x_forwarded_for_authorized_addrs"),
	"proxy_protocol_authorized_addrs":             refused[listenerDraft]("have the proxy send X-Forwarded-For, and list it in x_forwarded_for_authorized_addrs"),
	"chroot_namespace":                            refused[listenerDraft]("give clients tokens of that namespace"),
	"role":                                        refused[listenerDraft]("it is for agents; a listener serves the whole API"),
	"agent_api":                                   refused[listenerDraft]("it is for agents; a listener serves the whole API"),
	"proxy_api":                                   refused[listenerDraft]("it is for agents; a listener serves the whole API"),
	"cors_enabled":                                refused[listenerDraft]("set it for all listeners: leasehold write sys/config/cors enabled=true allowed_origins=..."),
	"cors_allowed_origins":                        refused[listenerDraft]("set it for all listeners: leasehold write sys/config/cors enabled=true allowed_origins=..."),
	"cors_allowed_headers":                        refused[listenerDraft]("set it for all listeners: leasehold write sys/config/cors enabled=true allowed_origins=..."),
	"tls_acme_ca_directory":                       refused[listenerDraft](noACME),
	"tls_acme_ca_root":                            refused[listenerDraft](noACME),
	"tls_acme_cache_path":                         refused[listenerDraft](noACME),
	"tls_acme_domains":                            refused[listenerDraft](noACME),
	"tls_acme_eab_key_id":                         refused[listenerDraft](noACME),
	"tls_acme_eab_mac_key":                        refused[listenerDraft](noACME),
	"tls_acme_email":                              refused[listenerDraft](noACME),
	"tls_acme_disable_alpn_challenge":             refused[listenerDraft](noACME),
	"tls_acme_disable_http_challenge":             refused[listenerDraft](noACME),
}

const noACME = "get a certificate with an ACME client, and name it in tls_cert_file and tls_key_file; SIGHUP reads it again"

func self(l *listenerDraft) *listenerDraft { return l }

func readListeners(d *decoder, m member, to *Config) {
	for _, b := range d.blocks(m) {
		if b.label != "tcp" && b.label != "unix" {
			d.fail(b.pos, `there is no listener %q: write listener "tcp" or listener "unix"`, b.label)
			continue
		}
		l := &listenerDraft{Listener: Listener{Pos: b.pos, Network: b.label}}
		readMembers(d, "listener "+b.label, listenerFields, b.body, l)
		if b.label == "tcp" {
			d.judgeTCP(l)
		} else {
			d.judgeUnix(l, b.body)
		}
		to.Listeners = append(to.Listeners, l.Listener)
	}
}

// judgeTCP checks what settings of a listener mean together.
func (d *decoder) judgeTCP(l *listenerDraft) {
	if l.Address == "" {
		l.Address = DefaultAddress
	}
	if _, port, err := net.SplitHostPort(l.Address); err != nil {
		d.fail(l.Pos, "address must be host:port, not %q", l.Address)
	} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		d.fail(l.Pos, "the port of %q must be a number up to 65535", l.Address)
	}
	if l.Mode != "" || l.User != "" || l.Group != "" {
		d.fail(l.Pos, `socket_mode, socket_user and socket_group are for listener "unix"`)
	}
	if x := l.XForwardedFor; len(x.Authorized) == 0 && (x.HopSkips > 0 || x.KeepOthers || x.KeepHeadless) {
		d.warn(l.Pos, "x_forwarded_for settings have no effect without x_forwarded_for_authorized_addrs")
	}
	if l.noTLS {
		if l.tls.CertFile != "" || l.tls.ClientCAFile != "" {
			d.warn(l.Pos, "tls_disable = true: the listener is in plain text, and its certificates are not used")
		}
		if l.tls.RequireClientCert {
			d.fail(l.Pos, "tls_require_and_verify_client_cert cannot hold with tls_disable")
		}
		return
	}
	t := l.tls
	switch {
	case t.CertFile == "" || t.KeyFile == "":
		d.fail(l.Pos, "listener %q needs tls_cert_file and tls_key_file, or tls_disable = true for plain text", l.Network)
	case t.MaxVersion != 0 && t.MaxVersion < t.MinVersion:
		d.fail(l.Pos, "tls_max_version is below tls_min_version")
	case t.RequireClientCert && t.DisableClientCert:
		d.fail(l.Pos, "tls_require_and_verify_client_cert and tls_disable_client_certs exclude each other")
	case t.RequireClientCert && t.ClientCAFile == "":
		d.warn(l.Pos, "tls_require_and_verify_client_cert without tls_client_ca_file takes the certificates of any public authority")
	}
	l.TLS = &t
}

func (d *decoder) judgeUnix(l *listenerDraft, body value) {
	if l.Address == "" {
		d.fail(l.Pos, `listener "unix" needs an address: the path of the socket`)
	}
	if len(l.XForwardedFor.Authorized) > 0 {
		d.fail(l.Pos, `x_forwarded_for_authorized_addrs is for listener "tcp": what comes through a Unix socket has no address to judge by`)
	}
	for _, m := range body.members {
		if strings.HasPrefix(m.name, "tls_") && m.name != "tls_disable" {
			d.warn(m.pos, "%s has no effect: a Unix socket is not encrypted", m.name)
		}
	}
}

// readTLSVersion reads tls12 or tls13. Older versions are broken, so that
// asking for them is refused rather than followed.
func readTLSVersion(at func(*listenerDraft) *uint16) field[listenerDraft] {
	return func(d *decoder, m member, to *listenerDraft) {
		s, ok := scalar(d, m)
		if !ok {
			return
		}
		switch s {
		case "":
		case "tls12":
			*at(to) = tls.VersionTLS12
		case "tls13":
			*at(to) = tls.VersionTLS13
		case "tls10", "tls11":
			d.fail(m.value.pos, "%s = %s is not safe: write tls12 or tls13", m.name, s)
		default:
			d.fail(m.value.pos, "%s must be tls12 or tls13, not %q", m.name, s)
		}
	}
}

func readCipherSuites(d *decoder, m member, to *listenerDraft) {
	names, _ := d.words(m)
next:
	for _, name := range names {
		for _, s := range tls.CipherSuites() {
			if s.Name != name {
				continue
			}
			if len(s.SupportedVersions) == 1 && s.SupportedVersions[0] == tls.VersionTLS13 {
				d.warn(m.value.pos, "%s has no effect: the suites of TLS 1.3 are always on", name)
			} else {
				to.tls.CipherSuites = append(to.tls.CipherSuites, s.ID)
			}
			continue next
		}
		d.fail(m.value.pos, "cipher suite %q is unknown or not safe", name)
	}
}

func readSocketMode(d *decoder, m member, to *listenerDraft) {
	s, ok := scalar(d, m)
	if !ok || s == "" {
		return
	}
	if n, err := strconv.ParseUint(s, 8, 32); err != nil || n > 0o777 {
		d.fail(m.value.pos, "socket_mode must be an octal mode such as 0660, not %q", s)
		return
	}
	to.Mode = s
}

func readMaxSize(d *decoder, m member, to *listenerDraft) {
	if s := strings.TrimSpace(m.value.text); s == "0" || strings.HasPrefix(s, "-") {
		d.warn(m.pos, "max_request_size = %s does not turn the limit off: it stays at 32 MiB", s)
		return
	}
	size(func(l *listenerDraft) *int64 { return &l.MaxRequestSize })(d, m, to)
}

// maxJSONDepth is the nesting that no listener can go above: what is stored must
// be readable whichever listener it came through.
const maxJSONDepth = 300

func readMaxDepth(d *decoder, m member, to *listenerDraft) {
	integer(func(l *listenerDraft) *int { return &l.MaxJSONDepth }, 1, 1_000_000)(d, m, to)
	if to.MaxJSONDepth > maxJSONDepth {
		d.warn(m.pos, "max_json_depth = %d: the limit stays at %d", to.MaxJSONDepth, maxJSONDepth)
		to.MaxJSONDepth = maxJSONDepth
	}
}

// readProxies reads addresses and networks.
func readProxies(d *decoder, m member, to *listenerDraft) {
	all, _ := d.words(m)
	for _, s := range all {
		if p, err := netip.ParsePrefix(s); err == nil {
			to.XForwardedFor.Authorized = append(to.XForwardedFor.Authorized, p.Masked())
		} else if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
			to.XForwardedFor.Authorized = append(to.XForwardedFor.Authorized, netip.PrefixFrom(a, a.BitLen()))
		} else {
			d.fail(m.value.pos, "%s must list addresses or networks such as 10.0.0.0/8, not %q", m.name, s)
		}
	}
}

// readResponseHeaders reads headers by status:
//
//	custom_response_headers { "default" = { "X-A" = ["1"] }  "4xx" = { ... } }
func readResponseHeaders(d *decoder, m member, to *listenerDraft) {
	v := m.value
	if v.kind == list && len(v.list) == 1 {
		v = v.list[0]
	}
	if v.kind != object {
		d.fail(v.pos, "%s is a block of statuses, not %s", m.name, v.kind)
		return
	}
	for _, byStatus := range v.members {
		if !isStatus(byStatus.name) {
			d.fail(byStatus.pos, "%q is no status: write \"default\", \"4xx\" or \"404\"", byStatus.name)
			continue
		}
		headers := byStatus.value
		if headers.kind == list && len(headers.list) == 1 {
			headers = headers.list[0]
		}
		if headers.kind != object {
			d.fail(headers.pos, "the headers for %q are a block, not %s", byStatus.name, headers.kind)
			continue
		}
		rh := ResponseHeaders{Status: byStatus.name, Header: http.Header{}}
		for _, h := range headers.members {
			if strings.HasPrefix(strings.ToLower(h.name), "x-vault-") {
				d.warn(h.pos, "the header %s is not sent: names that begin with X-Vault- are the server's own", h.name)
				continue
			}
			values, ok := d.headerValues(h)
			if ok {
				rh.Header[http.CanonicalHeaderKey(h.name)] = values
			}
		}
		to.ResponseHeaders = append(to.ResponseHeaders, rh)
	}
}

// headerValues reads the values of one header. A string is one value: commas
// mean something in headers.
func (d *decoder) headerValues(h member) ([]string, bool) {
	values := []string{h.value.text}
	if h.value.kind != text {
		var ok bool
		if values, ok = d.words(h); !ok {
			return nil, false
		}
	}
	for _, s := range append(values, h.name) {
		if s == "" && len(values) == 0 || strings.ContainsAny(s, "\r\n\x00") {
			d.fail(h.pos, "the header %q cannot be sent", h.name)
			return nil, false
		}
	}
	return values, true
}

func isStatus(s string) bool {
	if s == "default" {
		return true
	}
	return len(s) == 3 && '1' <= s[0] && s[0] <= '5' && (s[1:] == "xx" || strings.Trim(s[1:], "0123456789") == "")
}
