package server

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/metrics"
	"github.com/leasehold/leasehold/internal/token"
)

// label is one of a figure's.
func label(name, value string) metrics.Label { return metrics.Label{Name: name, Value: value} }

// inNamespace is the label that a namespace's figures have: its path.
func inNamespace(path string) metrics.Label {
	if path == "" {
		path = token.RootNamespace
	}
	return label("namespace", path)
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// addCore adds what core has counted as requests came: checks, logins, audit,
// and the work of each mount.
func (f *figures) addCore(ctx context.Context, p *metrics.Page) {
	c := f.s.core.Figures(ctx)
	for _, one := range []struct {
		name, help string
		core.Figure
	}{
		{"core_check_token", "Checks of tokens and of what their policies allow, in milliseconds.", c.TokenChecks},
		{"core_handle_login_request", "Logins, in milliseconds.", c.Logins},
		{"audit_log_request", "Records of requests, until a device had taken them, in milliseconds.", c.AuditRequests},
		{"audit_log_response", "Records of answers, until a device had taken them, in milliseconds.", c.AuditResponses},
	} {
		p.Summary(f.prefix+one.name, one.help, one.Count, millis(one.Took))
	}
	f.addMounts(c, p)
	f.addRoutes(c, p)
}

// addMounts tells what the mounts have made, and how many there are.
func (f *figures) addMounts(c core.Figures, p *metrics.Page) {
	created := f.prefix + "token_creation"
	tokens := func(n map[string]uint64, namespace, method, mount string) {
		for _, typ := range slices.Sorted(maps.Keys(n)) {
			if n[typ] > 0 {
				p.Counter(created, "Tokens that were made, those of logins by their mount.", float64(n[typ]), inNamespace(namespace),
					label("auth_method", method), label("mount_point", mount), label("token_type", typ))
			}
		}
	}
	tokens(c.Tokens, "", "token", "auth/token/")
	kinds := map[string]int{}
	for _, m := range c.Mounts {
		kind := "logical"
		if m.Mount.Class == core.ClassAuth {
			kind = "auth"
		}
		kinds[kind]++
		tokens(m.Tokens, m.Namespace, m.Mount.Type, m.Mount.Path)
	}
	leases := f.prefix + "secret_lease_creation"
	p.Dotted(leases, f.dotted("secret.lease.creation"))
	for _, m := range c.Mounts {
		if m.Leases > 0 {
			p.Counter(leases, "Leased credentials that were made, by mount.", float64(m.Leases), inNamespace(m.Namespace),
				label("secret_engine", m.Mount.Type), label("mount_point", m.Mount.Path))
		}
	}
	entries := f.prefix + "core_mount_table_num_entries"
	p.Dotted(entries, f.dotted("core.mount_table.num_entries"))
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		p.Gauge(entries, "Mounts of secrets engines (logical) and auth methods.", float64(kinds[kind]), label("type", kind), label("local", "false"))
	}
}

// addRoutes tells how long each mount worked on its requests. Vault puts the
// mount's path into the name; two whose paths differ in their punctuation only
// are one figure in Prometheus's format, whose names have none.
func (f *figures) addRoutes(c core.Figures, p *metrics.Page) {
	sums := map[string]core.Figure{}
	dotted := map[string]string{}
	for _, m := range c.Mounts {
		for op, took := range m.Answers {
			words := []string{"route", op.String(), strings.ReplaceAll(m.Namespace+m.Mount.Path, "/", "-")}
			name := f.prefix + plainName(strings.Join(words, "_"))
			sum := sums[name]
			sum.Count += took.Count
			sum.Took += took.Took
			sums[name], dotted[name] = sum, f.dotted(strings.Join(words, "."))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sums)) {
		p.Summary(name, "Requests that a mount worked on, in milliseconds.", sums[name].Count, millis(sums[name].Took))
		p.Dotted(name, dotted[name])
	}
}

// dotted is a name as Vault's own format has it.
func (f *figures) dotted(rest string) string { return strings.TrimSuffix(f.prefix, "_") + "." + rest }

// plainName keeps of a text what a name in Prometheus's format may have.
func plainName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, s)
}

// namespaces are the root and all below it, by id.
func (f *figures) namespaces(ctx context.Context) (paths map[string]string, ids []string) {
	paths, ids = map[string]string{token.RootNamespace: ""}, []string{token.RootNamespace}
	list, err := f.s.core.Namespaces(ctx, token.RootNamespace, true)
	if err != nil {
		return paths, ids
	}
	for _, ns := range list {
		paths[ns.ID], ids = ns.Path, append(ids, ns.ID)
	}
	return paths, ids
}
