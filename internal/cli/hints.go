package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"

	"github.com/leasehold/leasehold/api"
)

// hint says what to do about an error, or "".
func (c *call) hint(err error) string {
	if refused := (*api.Error)(nil); errors.As(err, &refused) {
		return c.refusalHint(refused)
	}
	addr := api.DefaultAddress
	if c.target != nil {
		addr = c.target.Address()
	}
	plain := strings.Replace(addr, "https://", "http://", 1)
	var (
		unknownCA x509.UnknownAuthorityError
		wrongName x509.HostnameError
		noHost    *net.DNSError
	)
	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Sprintf("The server at %s speaks plain HTTP. Tell the client so:\n\n    export VAULT_ADDR=%s", addr, plain)
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ENOENT) && strings.HasPrefix(addr, "unix:"):
		h := fmt.Sprintf("Nothing answers at %s. Is the server running, and is that its address?\n\n", addr)
		if addr == api.DefaultAddress {
			return h + "    leasehold server -dev                     starts one to try things on\n" +
				"    export VAULT_ADDR=http://127.0.0.1:8200   says where it is"
		}
		return h + "    export VAULT_ADDR=…     or -address=…     says where it is"
	case errors.As(err, &unknownCA):
		return "The client does not know who signed the server's certificate. Name the authority's file:\n\n    export VAULT_CACERT=/path/to/ca.pem     or -ca-cert=…"
	case errors.As(err, &wrongName):
		return "The server's certificate is for another name. If it is the right server, name it:\n\n    -tls-server-name=…     or VAULT_TLS_SERVER_NAME"
	case errors.As(err, &noHost):
		return fmt.Sprintf("There is no host %q. Check VAULT_ADDR or -address.", noHost.Name)
	case errors.Is(err, context.DeadlineExceeded):
		return "The server did not answer in time. VAULT_CLIENT_TIMEOUT=120 waits longer; \"leasehold status\" tells how it is."
	}
	return ""
}

func (c *call) refusalHint(e *api.Error) string {
	_, path, _ := strings.Cut(e.URL, "/v1/")
	for _, sentence := range e.Errors {
		if strings.Contains(sentence, "`leasehold ") {
			return "" // the server has said it
		}
	}
	switch {
	case e.Status == http.StatusForbidden:
		return c.deniedHint(path, e)
	case e.Status == http.StatusServiceUnavailable:
		return "\"leasehold status\" tells whether it is sealed; if so:\n\n    leasehold operator unseal"
	case e.Status == http.StatusNotFound && len(e.Errors) > 0 && c.namespace() != "":
		return fmt.Sprintf("It was asked in the namespace %q (VAULT_NAMESPACE or -namespace). Without that, \"leasehold namespace list\"\n"+
			"shows which there are; with it, \"leasehold secrets list\" and \"leasehold auth list\" show what is mounted where.", c.namespace())
	case e.Status == http.StatusNotFound && len(e.Errors) > 0:
		return "\"leasehold secrets list\" and \"leasehold auth list\" show what is mounted where."
	case e.Status == http.StatusMethodNotAllowed:
		return fmt.Sprintf("The path does not know this operation. What it knows:\n\n    leasehold path-help %s", path)
	case e.Status == http.StatusBadRequest && e.Secret != nil:
		return batchHint(e.Secret)
	case e.Status == http.StatusBadRequest && strings.HasPrefix(e.URL, "http://") && len(e.Errors) == 0:
		// A TLS listener answers plain requests with a line of text.
		return fmt.Sprintf("If the server speaks HTTPS:\n\n    export VAULT_ADDR=%s", strings.Replace(c.target.Address(), "http://", "https://", 1))
	}
	return ""
}

// batchHint says what is wrong with which items of a batch. A refusal without a
// sentence has a result for each in its place.
func batchHint(s *api.Secret) string {
	var out struct {
		Results []struct{ Error string } `json:"batch_results"`
	}
	if err := s.Decode(&out); err != nil {
		return ""
	}
	var b strings.Builder
	for i, r := range out.Results {
		if r.Error != "" {
			fmt.Fprintf(&b, "\n    batch_input[%d]: %s", i, r.Error)
		}
	}
	if b.Len() == 0 {
		return ""
	}
	return "These items of the batch failed:\n" + b.String()
}

// namespace is the one that the command works in, or "".
func (c *call) namespace() string {
	cfg, err := c.common.config(c)
	if err != nil {
		return ""
	}
	return cfg.Namespace
}

// deniedHint tells a missing token from one that has ended and one that may
// not: to all of them the status is the same, and some servers say no more.
func (c *call) deniedHint(path string, e *api.Error) string {
	ended := slices.ContainsFunc(e.Errors, func(s string) bool {
		return strings.Contains(s, "token is invalid") || strings.Contains(s, "invalid token")
	})
	switch {
	case isLogin(path):
		return "The login was refused, or no method is mounted there. \"leasehold auth list\", with a token, shows what is."
	case c.target == nil || c.target.Token() == "":
		return "No token was sent. \"leasehold login\" stores one, VAULT_TOKEN names one."
	case path == "auth/token/lookup" && slices.Contains(e.Errors, "bad token"):
		return "Your own token was accepted: it is the one looked up that has ended, or is another server's."
	case path == "auth/token/lookup-self", path == "sys/capabilities-self", ended:
		h := "The token is not valid here: it has ended, or is another server's."
		switch {
		case c.cmd.name == "login":
		case api.LookupEnv(c.cfg.Getenv, "TOKEN") != "":
			h += " It came from VAULT_TOKEN."
		default:
			h += " It came from ~/.vault-token; \"leasehold login\" stores another."
		}
		return h
	case strings.HasPrefix(path, "sys/internal/ui/mounts/"):
		return "Either nothing is mounted there (\"leasehold secrets list\"), or the token has no policy for anything in that\n" +
			"mount, or has ended. Its policies and time:\n\n    leasehold token lookup"
	}
	return fmt.Sprintf("The token lacks a policy for this, or has ended. What it may do there:\n\n    leasehold token capabilities %s", path)
}

// isLogin reports whether a path is that of a login: auth/…/login[/USER], or
// one by browser.
func isLogin(path string) bool {
	mount, _, ok := strings.Cut(path+"/", "/login/")
	if !ok {
		mount, _, ok = strings.Cut(path, "/oidc/")
	}
	return ok && strings.HasPrefix(mount, "auth/")
}
