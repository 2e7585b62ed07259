package cli

import (
	"context"
	"strings"

	"github.com/leasehold/leasehold/api"
	"github.com/leasehold/leasehold/internal/server"
)

func serverCommand() *command {
	var a server.Args
	var noStore, ignoredBool bool
	var ignored, clusterJSON string
	return &command{
		name: "server", max: 0, local: true, short: "Run a server",
		long: "Runs a server until it is stopped. -dev keeps everything in memory, is unsealed " +
			"at once and prints its root token: for trying things out. Any other server needs " +
			"-config with a storage and a listener.",
		example: []string{"leasehold server -dev -dev-root-token-id=root", "leasehold server -config=/etc/leasehold.hcl"},
		flags: []*flag{
			listFlag(&a.Config, "config", "FILE|DIR", "Configuration, HCL or JSON; a directory's *.hcl and *.json files. May be repeated."),
			boolFlag(&a.Dev, "dev", "In memory, unsealed, with a root token."),
			stringFlag(&a.DevRootTokenID, "dev-root-token-id", "TOKEN", "The root token of -dev (VAULT_DEV_ROOT_TOKEN_ID)."),
			stringFlag(&a.DevListenAddress, "dev-listen-address", "HOST:PORT", "Where -dev listens; 127.0.0.1:8200 by default (VAULT_DEV_LISTEN_ADDRESS)."),
			boolFlag(&noStore, "dev-no-store-token", "Do not keep the root token in ~/.vault-token."),
			boolFlag(&a.DevNoKV, "dev-no-kv", "Do not mount a key-value store at secret/."),
			boolFlag(&a.DevTLS, "dev-tls", "Listen with TLS, by a certificate made at start."),
			stringFlag(&a.DevTLSCertDir, "dev-tls-cert-dir", "DIR", "Where that certificate is written."),
			stringFlag(&a.LogLevel, "log-level", "LEVEL", "trace, debug, info, warn or error (VAULT_LOG_LEVEL)."),
			stringFlag(&a.LogFormat, "log-format", "FORMAT", "standard or json (VAULT_LOG_FORMAT)."),
			stringFlag(&a.LogFile, "log-file", "FILE", "Log to this file as well."),
			boolFlag(&ignoredBool, "exit-on-core-shutdown", "End the process when the server's core stops."),
			stringFlag(&clusterJSON, "dev-cluster-json", "FILE", "").hide(),
			stringFlag(&ignored, "log-rotate-bytes", "N", "").hide(),
			stringFlag(&ignored, "log-rotate-duration", "DURATION", "").hide(),
			stringFlag(&ignored, "log-rotate-max-files", "N", "").hide(),
			boolFlag(&ignoredBool, "disable-mlock", "").hide(),
		},
		run: func(ctx context.Context, c *call) error {
			if err := completeArgs(&a, c); err != nil {
				return err
			}
			switch {
			case clusterJSON != "":
				return localf("-dev-cluster-json is not supported: this server has one address")
			case ignored != "":
				c.note("Note: -log-rotate-… is ignored; let logrotate or the journal turn logs over.")
			}
			if !noStore {
				a.StoreToken = func(token string) error { return storeToken(c.cfg.Getenv, token) }
			}
			if code := c.cfg.Server(ctx, c.cfg.Version, a); code != exitOK {
				return exitStatus(code)
			}
			return nil
		},
	}
}

// completeArgs adds what the environment says and refuses what makes no sense.
func completeArgs(a *server.Args, c *call) error {
	// A server does not end with an error because its banner met a full disk.
	a.Stdout, a.Stderr = c.cfg.Stdout.(*output).w, c.cfg.Stderr
	for _, v := range []struct {
		to   *string
		name string
	}{
		{&a.DevRootTokenID, "DEV_ROOT_TOKEN_ID"}, {&a.DevListenAddress, "DEV_LISTEN_ADDRESS"},
		{&a.LogLevel, "LOG_LEVEL"}, {&a.LogFormat, "LOG_FORMAT"},
	} {
		if *v.to == "" {
			*v.to = api.LookupEnv(c.cfg.Getenv, v.name)
		}
	}
	if a.DevTLSCertDir != "" {
		a.DevTLS = true
	}
	if a.DevTLS {
		a.Dev = true // as Vault's -dev-tls does
	}
	switch strings.ToLower(a.LogLevel) {
	case "", "trace", "debug", "info", "warn", "warning", "error", "err":
	default:
		return localf("-log-level=%s: want trace, debug, info, warn or error", a.LogLevel)
	}
	switch strings.ToLower(a.LogFormat) {
	case "", "standard", "json":
	default:
		return localf("-log-format=%s: want standard or json", a.LogFormat)
	}
	if !a.Dev && len(a.Config) == 0 {
		return localf("What to run is missing: -config=FILE, or -dev for a server in memory to try things on.\n\n\"%s server -h\" has examples.", programName)
	}
	return nil
}
