package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// capturedRequest is how a request ends that was printed and not sent.
type capturedRequest struct{ text string }

func (e *capturedRequest) Error() string { return "the request was printed, not sent" }

// capture stands in for the network under -output-curl-string and
// -output-policy: the first request that a command makes is what is shown.
type capture struct{ call *call }

func (t *capture) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.call.common.outputPol {
		return nil, &capturedRequest{policyFor(r)}
	}
	text, err := t.call.curlFor(r)
	if err != nil {
		return nil, err
	}
	return nil, &capturedRequest{text}
}

func (c *call) curlFor(r *http.Request) (string, error) {
	cfg, err := c.common.config(c)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("curl")
	add := func(format string, args ...any) { fmt.Fprintf(&b, " "+format, args...) }
	if cfg.TLS.SkipVerify {
		add("--insecure")
	}
	if r.Method != http.MethodGet {
		add("-X %s", r.Method)
	}
	for _, o := range []struct{ flag, file string }{
		{"--cacert", cfg.TLS.CACert}, {"--capath", cfg.TLS.CAPath}, {"--cert", cfg.TLS.ClientCert}, {"--key", cfg.TLS.ClientKey},
	} {
		if o.file != "" {
			add("%s %s", o.flag, shellQuote(o.file))
		}
	}
	if sock, ok := strings.CutPrefix(cfg.Address, "unix://"); ok {
		add("--unix-socket %s", shellQuote(sock))
	}
	for _, k := range sortedKeys(r.Header) {
		v := strings.Join(r.Header[k], ",")
		switch {
		case k == "Content-Type" && r.Method != http.MethodPatch:
			continue // the server takes JSON whatever the type says, but for PATCH
		case k == "X-Vault-Token":
			v = "$(" + programName + " print token)"
		case k == "X-Vault-Namespace", k == "X-Vault-Request":
		default:
			v = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", "$", `\$`).Replace(v)
		}
		add(`-H "%s: %s"`, k, v)
	}
	if r.Body != nil && r.Body != http.NoBody {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return "", fmt.Errorf("reading the body: %w", err)
		}
		if len(body) > 0 {
			add("-d %s", shellQuote(string(body)))
		}
	}
	add(`"%s"`, r.URL)
	return b.String(), nil
}

// shellQuote writes s for a POSIX shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'"'"'`) + "'" }

// sudoPaths are those whose policy must grant sudo as well. One that ends in a
// slash stands for all below it.
var sudoPaths = []string{
	"auth/token/accessors", "auth/token/revoke-orphan", "sys/audit", "sys/audit/", "sys/auth/",
	"sys/config/auditing/request-headers", "sys/config/auditing/request-headers/", "sys/config/cors",
	"sys/config/ui/headers", "sys/config/ui/headers/", "sys/internal/inspect/router/", "sys/leases", "sys/leases/fence",
	"sys/leases/lookup/", "sys/leases/revoke-force/", "sys/leases/revoke-prefix/", "sys/plugins/catalog/", "sys/pprof",
	"sys/pprof/", "sys/raw", "sys/raw/", "sys/remount", "sys/revoke-force/", "sys/revoke-prefix/", "sys/rotate",
	"sys/rotate/keyring", "sys/seal", "sys/step-down",
}

func policyFor(r *http.Request) string {
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	var caps []string
	switch {
	case r.Method == "LIST":
		caps = []string{"list"}
		if !strings.HasSuffix(path, "/") {
			path += "/"
		}
	case r.Method == http.MethodGet:
		caps = []string{"read"}
	case r.Method == http.MethodDelete:
		caps = []string{"delete"}
	case r.Method == http.MethodPatch:
		caps = []string{"patch"}
	default:
		caps = []string{"create", "update"}
	}
	if slices.ContainsFunc(sudoPaths, func(p string) bool {
		return strings.TrimSuffix(path, "/") == p || strings.HasSuffix(p, "/") && strings.HasPrefix(path, p)
	}) {
		caps = append(caps, "sudo")
	}
	for i, s := range caps {
		caps[i] = fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("path %q {\n  capabilities = [%s]\n}", path, strings.Join(caps, ", "))
}

// captured reports whether err ended a request that was only to be shown.
func captured(err error) bool {
	var c *capturedRequest
	return errors.As(err, &c)
}
