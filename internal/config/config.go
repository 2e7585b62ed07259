// Package config reads the server's configuration files, in Vault's HCL or
// JSON, into a struct whose fields are typed and checked.
//
// The key idea is that nothing is ignored in silence. A key that nobody knows
// is refused with its place and the key that was probably meant. A key that
// Vault knows and this server has no need of gives a warning that names it. A
// kind of storage or seal that is not there, and any setting that decides who
// may reach what and would not be honoured, is refused with a sentence that
// says what to write instead.
//
// Every file is parsed into one small tree (tree.go) whose values know their
// places, whichever the syntax; tables of fields (fields.go, listener.go, ...)
// say what may stand where. HCL goes through HashiCorp's parser, after its
// size and depth were checked, as it does not survive deep nesting. JSON we
// parse ourselves, because that parser merges members of the same name.
package config

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
)

// Defaults of what a configuration leaves out. They are Vault's.
const (
	DefaultAddress         = "127.0.0.1:8200"
	DefaultLeaseTTL        = 768 * time.Hour
	DefaultReportedVersion = "1.20.0"
	DefaultMetricsKept     = 24 * time.Hour
)

// Config is the whole configuration. Where zero does not mean "none" or
// "false", Load has put what it does mean in its place.
type Config struct {
	Listeners []Listener // in the order of the files
	Storage   Storage
	Seal      Seal

	APIAddr     string // the URL clients are told; empty: that of the first listener
	ClusterName string // empty: one is made when the store is initialised

	LogLevel         string // "trace", "debug", "info", "warn" or "error"; never empty
	LogFormat        string // "standard" or "json"; never empty
	LogFile          string // a file to log to as well; empty: only the standard error
	LogRequestsLevel string // the level at which completed requests are logged; empty: they are not

	DefaultLeaseTTL    time.Duration // of a lease that asks for none; never zero
	MaxLeaseTTL        time.Duration // of any lease; never zero
	MaxRequestDuration time.Duration // of listeners that set none; zero: 90 s

	PIDFile                string // where the process id is written; empty: nowhere
	RawStorageEndpoint     bool   // offer sys/raw
	ResponseHeaderHostname bool   // answer with X-Vault-Hostname

	// ReportedVersion is the level of Vault's API that sys/health and
	// sys/seal-status report as the version, for clients that ask for one.
	// Never empty.
	ReportedVersion string

	// MaxRestartGap is how long the server may have been down, going by the
	// highest time its store has seen, before expiry waits to be confirmed:
	// a longer gap may mean a wrong clock or a restored backup. Zero: 30
	// days; negative, which 0 in the file gives: however long.
	MaxRestartGap time.Duration

	// Lockouts say when users are locked out, by the kind of their auth
	// method. A method that is not there, or a field that is zero, has the
	// server's default.
	Lockouts map[string]Lockout

	Lanes     Lanes
	Telemetry Telemetry
	Tracing   Tracing
}

// Lockout says when users of an auth method are locked out for failing to log
// in.
type Lockout struct {
	Threshold    int           // failures in a row
	Duration     time.Duration // of being locked out
	CounterReset time.Duration // after which a failure is forgotten
	Disable      bool
}

// Lanes limits the work on each foreign system, whatever its connection's own
// settings would allow. A zero field leaves the limit to those and the server.
type Lanes struct {
	Create int // credentials being made at a time
	Revoke int // batches of credentials being ended at a time
	Batch  int // credentials ended in one batch
}

// Telemetry is what sys/metrics shows.
type Telemetry struct {
	// PrometheusRetention is how long figures that stopped changing are shown,
	// at least; ours never go away. Negative: no Prometheus format.
	PrometheusRetention time.Duration
	MetricsPrefix       string // of the names; empty: "vault"
}

// Warning is something in the configuration that has no effect.
type Warning struct {
	Pos  Pos
	Text string
}

func (w Warning) String() string { return w.Pos.String() + ": " + w.Text }

// maxBytes is the size of the largest file that is read.
const maxBytes = 256 << 10

// Load reads the files at paths, and of each directory all *.hcl and *.json in
// the order of their names, and joins them: listeners add up, of anything else
// the last one counts. With no path it gives the defaults. An error lists all
// that is wrong, with places; Check says what is missing.
func Load(paths ...string) (*Config, []Warning, error) {
	d := &decoder{cfg: &Config{}}
	for _, p := range paths {
		files, err := filesAt(p)
		if err != nil {
			return nil, nil, errs.Wrap(errs.Invalid, err, "reading the configuration")
		}
		for _, f := range files {
			src, err := readFile(f)
			if err != nil {
				return nil, nil, errs.Wrap(errs.Invalid, err, "reading the configuration")
			}
			d.file(f, src)
		}
	}
	return d.finish()
}

// Parse reads one configuration from src; name is what places are told with.
func Parse(name string, src []byte) (*Config, []Warning, error) {
	d := &decoder{cfg: &Config{}}
	d.file(name, src)
	return d.finish()
}

// filesAt lists the configuration files at path.
func filesAt(path string) ([]string, error) {
	st, err := os.Stat(path)
	if err != nil || !st.IsDir() {
		return []string{path}, err
	}
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !e.IsDir() && (ext == ".hcl" || ext == ".json") {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s holds no *.hcl and no *.json file", path)
	}
	return files, nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	src, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	return src, errors.Join(err, f.Close())
}

// Check reports what a server needs and the configuration lacks.
func (c *Config) Check() error {
	var missing []string
	if c.Storage.Kind == "" {
		missing = append(missing, `no storage: write storage "embedded" { path = "/var/lib/leasehold" }`)
	}
	if len(c.Listeners) == 0 {
		missing = append(missing, `no listener: write listener "tcp" { address = "127.0.0.1:8200", tls_cert_file = "...", tls_key_file = "..." }`)
	}
	var seen []string
	for _, l := range c.Listeners {
		if slices.Contains(seen, l.Address) {
			missing = append(missing, fmt.Sprintf("%s: two listeners have the address %s", l.Pos, l.Address))
		}
		seen = append(seen, l.Address)
	}
	if len(missing) > 0 {
		return errs.New(errs.Invalid, "%s", strings.Join(missing, "\n"))
	}
	return nil
}

// fill puts what zero means in its place.
func (c *Config) fill() {
	if c.LogLevel == "" {
		c.LogLevel = "info"
	}
	if c.LogFormat == "" {
		c.LogFormat = "standard"
	}
	if c.MaxLeaseTTL == 0 {
		c.MaxLeaseTTL = max(DefaultLeaseTTL, c.DefaultLeaseTTL)
	}
	if c.DefaultLeaseTTL == 0 {
		c.DefaultLeaseTTL = min(DefaultLeaseTTL, c.MaxLeaseTTL)
	}
	if c.Seal.Kind == "" {
		c.Seal.Kind = "shamir"
	}
	if c.ReportedVersion == "" {
		c.ReportedVersion = DefaultReportedVersion
	}
	if c.Telemetry.PrometheusRetention == 0 {
		c.Telemetry.PrometheusRetention = DefaultMetricsKept
	}
	if c.APIAddr == "" {
		c.APIAddr = c.guessAPIAddr()
	}
}

// guessAPIAddr is the URL of the first TCP listener, where that has one
// address that others could use.
func (c *Config) guessAPIAddr() string {
	for _, l := range c.Listeners {
		if l.Network != "tcp" {
			continue
		}
		host, _, err := net.SplitHostPort(l.Address)
		if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
			return ""
		}
		if l.TLS == nil {
			return "http://" + l.Address
		}
		return "https://" + l.Address
	}
	return ""
}
