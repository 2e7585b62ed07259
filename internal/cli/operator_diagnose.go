package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/leasehold/leasehold/api"
	"github.com/leasehold/leasehold/internal/server"
)

// finding is the result of one check.
type finding struct {
	Check  string `json:"check"`
	Result string `json:"result"` // ok, warning, FAILED or skipped
	Detail string `json:"detail,omitempty"`
}

const (
	findOK      = "ok"
	findWarning = "warning"
	findFailed  = "FAILED"
	findSkipped = "skipped"
)

func operatorDiagnoseCommand() *command {
	var configs, skip []string
	var debug bool
	return &command{
		name: "diagnose", max: 0, short: "Look for what is wrong with a server or its configuration",
		long: "Checks configuration files, if any are named, and the server that answers: its " +
			"certificate, clock, seal, expiry, failed revocations and audit. Exit code 1 if a check fails, 2 if one warns.",
		example: []string{"leasehold operator diagnose -config=/etc/leasehold.hcl"},
		flags: []*flag{
			listFlag(&configs, "config", "FILE|DIR", "Configuration to check; may be repeated."),
			listFlag(&skip, "skip", "CHECK", "Check to leave out; may be repeated."),
			boolFlag(&debug, "debug", "").hide(),
		},
		run: func(ctx context.Context, c *call) error {
			d := diagnosis{call: c, skip: skip}
			d.config(configs)
			if err := d.server(ctx); err != nil {
				return err
			}
			t := newTable("Check", "Result", "Detail")
			for _, f := range d.found {
				t.add(f.Check, f.Result, f.Detail)
			}
			if err := c.printTable(t, d.found); err != nil {
				return err
			}
			if code := d.code(); code != exitOK {
				return exitStatus(code)
			}
			return nil
		},
	}
}

type diagnosis struct {
	call  *call
	skip  []string
	found []finding
}

func (d *diagnosis) add(check, result, format string, args ...any) {
	for _, s := range d.skip {
		if strings.EqualFold(s, check) {
			result, format, args = findSkipped, "", nil
		}
	}
	d.found = append(d.found, finding{check, result, strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")})
}

func (d *diagnosis) code() int {
	code := exitOK
	for _, f := range d.found {
		switch {
		case f.Result == findFailed:
			return exitLocal
		case f.Result == findWarning:
			code = exitServer
		}
	}
	return code
}

func (d *diagnosis) config(paths []string) {
	if len(paths) == 0 {
		return
	}
	warnings, err := server.CheckConfig(paths)
	switch {
	case err != nil:
		d.add("Configuration", findFailed, "%v", err)
	case len(warnings) > 0:
		d.add("Configuration", findWarning, "%s", strings.Join(warnings, "; "))
	default:
		d.add("Configuration", findOK, "%s", strings.Join(paths, ", "))
	}
}

// health is what is used of sys/health.
type health struct {
	Initialized bool   `json:"initialized"`
	Sealed      bool   `json:"sealed"`
	ServerTime  int64  `json:"server_time_utc"`
	Version     string `json:"version"`
	Own         string `json:"leasehold_version"` // "" of servers that are not ours
	Fenced      string `json:"expiry_fenced"`     // why expiry waits
}

func (d *diagnosis) server(ctx context.Context) error {
	cl, err := d.call.client()
	if err != nil {
		return err
	}
	cl = cl.WithWrapTTL("") // what it finds is its answer, not what it asks for that
	h, err := d.reach(ctx, cl)
	if err != nil || h == nil {
		return err
	}
	if skew := time.Since(time.Unix(h.ServerTime, 0)).Abs().Truncate(time.Second); skew > 30*time.Second {
		d.add("Clock", findWarning, "the server's differs from this machine's by %s", shortDuration(skew))
	} else {
		d.add("Clock", findOK, "")
	}
	switch {
	case !h.Initialized:
		d.add("Seal", findFailed, "not initialized: leasehold operator init")
		return nil
	case h.Sealed:
		d.add("Seal", findFailed, "sealed: leasehold operator unseal")
		return nil
	}
	d.add("Seal", findOK, "unsealed")
	switch {
	case h.Fenced != "":
		d.add("Expiry", findWarning, "waits: %s. \"leasehold operator fence lift\" lets it go on", h.Fenced)
	case h.Own != "":
		d.add("Expiry", findOK, "")
	}
	d.leases(ctx, cl)
	return nil
}

// reach asks for the server's health over a connection of its own, to see the
// certificate too. A nil health says that nothing more can be asked.
func (d *diagnosis) reach(ctx context.Context, cl *api.Client) (*health, error) {
	accept := []int{429, 472, 473, 501, 503}
	resp, err := cl.Do(ctx, &api.Request{Method: http.MethodGet, Path: "sys/health", NoRetry: true, Accept: accept})
	if err != nil {
		if captured(err) {
			return nil, err
		}
		d.add("Connection", findFailed, "%v. %s", err, strings.ReplaceAll(d.call.hint(err), "\n", " "))
		return nil, nil
	}
	var h health
	if err := json.Unmarshal(resp.Body, &h); err != nil {
		d.add("Connection", findFailed, "%s answers, but not as a server of this API", cl.Address())
		return nil, nil
	}
	d.add("Connection", findOK, "%s, API version %s", cl.Address(), h.Version)
	switch {
	case strings.HasPrefix(cl.Address(), "http://"):
		d.add("TLS", findWarning, "the connection is not encrypted")
	case resp.CertificateEnds.IsZero():
	case time.Until(resp.CertificateEnds) < 14*24*time.Hour:
		d.add("TLS", findWarning, "the certificate ends on %s", resp.CertificateEnds.Format(time.DateOnly))
	default:
		d.add("TLS", findOK, "the certificate ends on %s", resp.CertificateEnds.Format(time.DateOnly))
	}
	return &h, nil
}

// leases asks what needs a token; without one the checks are skipped.
func (d *diagnosis) leases(ctx context.Context, cl *api.Client) {
	var count struct {
		N int `json:"lease_count"`
	}
	switch err := d.ask(ctx, cl, "sys/leases/count", map[string][]string{"type": {"irrevocable"}}, &count); {
	case err != nil:
		d.add("Revocation", findSkipped, "%v", err)
	case count.N > 0:
		d.add("Revocation", findWarning, "%d leases cannot be revoked: leasehold lease list -irrevocable", count.N)
	default:
		d.add("Revocation", findOK, "")
	}
	devices := map[string]auditDevice{}
	switch err := d.ask(ctx, cl, "sys/audit", nil, &devices); {
	case err != nil:
		d.add("Audit", findSkipped, "%v", err)
	case len(devices) == 0:
		d.add("Audit", findWarning, "no device is enabled: leasehold audit enable file file_path=…")
	default:
		d.add("Audit", findOK, "%s", strings.Join(sortedKeys(devices), " "))
	}
}

// ask reads a path; a refusal is shortened to its status.
func (d *diagnosis) ask(ctx context.Context, cl *api.Client, path string, query map[string][]string, v any) error {
	s, err := cl.Read(ctx, path, query)
	if status := api.StatusOf(err); status != 0 {
		return fmt.Errorf("the server answers %d to %s", status, path)
	}
	if err != nil {
		return err
	}
	if !s.HasData() {
		return nil
	}
	return s.Decode(v)
}
