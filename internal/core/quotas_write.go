package core

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
)

// This file reads, writes and deletes quotas; quotas.go keeps them in force.

// QuotaConfig holds for every quota. It is one for the whole server.
type QuotaConfig struct {
	Exempt          []string `json:"exempt,omitempty"`          // paths in any namespace, without limit
	AbsoluteExempt  []string `json:"absolute_exempt,omitempty"` // paths as the root sees them
	AuditLogging    bool     `json:"audit,omitempty"`           // requests that are refused stand in the log
	ResponseHeaders bool     `json:"headers,omitempty"`         // answers say what is left
}

// defaultQuotaConfig exempts what a sealed server needs, as Vault does.
func defaultQuotaConfig() QuotaConfig {
	return QuotaConfig{Exempt: []string{
		"sys/generate-recovery-token/attempt", "sys/generate-recovery-token/update",
		"sys/generate-root/attempt", "sys/generate-root/update",
		"sys/health", "sys/seal-status", "sys/unseal",
	}}
}

// Quota is a quota as it is shown and written.
type Quota struct {
	Name        string
	Path        string // seen from the namespace that it is written in
	Role        string
	Inheritable *bool // nil: the default

	Rate            float64 // and the next four: of a rate limit
	Interval, Block time.Duration
	GroupBy         string
	Secondary       float64

	MaxLeases int64 // and the next: of a lease count
	Counter   int64 // how many there are; only when it is read
}

// QuotaConfig reads what holds for every quota: the default settings where they
// cannot be read.
func (c *Core) QuotaConfig(ctx context.Context) (QuotaConfig, error) {
	u, err := c.open()
	if err != nil {
		return QuotaConfig{}, err
	}
	var conf QuotaConfig
	err = u.store.View(ctx, func(v storage.View) (err error) {
		if conf, err = quotaConf(v); isBadRow(err) {
			conf, err = defaultQuotaConfig(), nil // these hold; see load
		}
		return err
	})
	return conf, err
}

func quotaConf(r storage.Reader) (QuotaConfig, error) {
	b, err := r.Get(quotaConfKey)
	if err != nil || b == nil {
		return defaultQuotaConfig(), err
	}
	var conf QuotaConfig
	if err := json.Unmarshal(b, &conf); err != nil {
		return conf, &storage.CorruptError{Key: quotaConfKey, Err: err}
	}
	return conf, nil
}

// SetQuotaConfig stores it.
func (c *Core) SetQuotaConfig(ctx context.Context, conf QuotaConfig) error {
	return c.writeJSON(ctx, quotaConfKey, conf)
}

// QuotaNames lists the quotas of a kind that were written in a namespace.
func (c *Core) QuotaNames(ctx context.Context, ns string, kind QuotaKind) (names []string, err error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	s, err := u.quotas.current(ctx)
	if s == nil || err != nil {
		return nil, err
	}
	prefix := quotaPrefix + ns + "/" + string(kind) + "/"
	for key, q := range s.byKey {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		there, err := u.holds(ctx, q)
		if err != nil {
			return nil, err
		}
		if there {
			names = append(names, q.name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// Quota reads one; there is false for one that is not there, or whose mount is
// gone.
func (c *Core) Quota(ctx context.Context, ns string, kind QuotaKind, name string) (q Quota, there bool, err error) {
	u, err := c.open()
	if err != nil {
		return q, false, err
	}
	s, err := u.quotas.current(ctx)
	if s == nil || err != nil {
		return q, false, err
	}
	have := s.byKey[quotaKey(ns, kind, name)]
	if have == nil {
		return q, false, nil
	}
	if there, err = u.holds(ctx, have); err != nil || !there {
		return q, false, err
	}
	q = Quota{
		Name: name, Role: have.Role, Inheritable: &have.Inherit, Rate: have.Rate, Interval: have.Interval, Block: have.Block,
		GroupBy: have.GroupBy, Secondary: have.Secondary, MaxLeases: have.MaxLeases,
	}
	if q.Path, err = u.quotaPath(ctx, ns, &have.quotaRow); err == nil && kind == LeaseCount {
		q.Counter, err = u.countFor(ctx, &have.quotaRow)
	}
	return q, true, err
}

func quotaKey(ns string, kind QuotaKind, name string) string {
	return quotaPrefix + ns + "/" + string(kind) + "/" + name
}

// quotaPath is where a quota holds, seen from a namespace.
func (u *unsealed) quotaPath(ctx context.Context, from string, q *quotaRow) (string, error) {
	path := ""
	if s, err := u.space(ctx, q.NS); err != nil {
		return "", err
	} else if s != nil {
		path, _ = s.below(from)
	}
	if q.Mount == "" {
		return path, nil
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return "", err
	}
	if m := t.byID[q.Mount]; m != nil {
		path += m.Path + q.Path
	}
	return path, nil
}

// WriteQuota makes a quota, or replaces the one of its name.
func (c *Core) WriteQuota(ctx context.Context, ns string, kind QuotaKind, in Quota) error {
	u, err := c.open()
	if err != nil {
		return err
	}
	row, err := u.newQuota(ctx, ns, kind, in)
	if err != nil {
		return err
	}
	key, at := quotaKey(ns, kind, in.Name), row.place(kind)
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		if b, err := tx.Get(at); err != nil || b != nil && string(b) != key {
			if err == nil {
				taken := string(b)
				err = errs.New(errs.Invalid, "quota rule with similar properties exists under the name %q", taken[strings.LastIndexByte(taken, '/')+1:])
			}
			return err
		}
		if err := removeQuota(tx, key, kind); err != nil {
			return err
		}
		return errors.Join(tx.Put(at, []byte(key)), putJSON(tx, key, row))
	})
	return err
}

// newQuota checks a quota and finds what it is for.
func (u *unsealed) newQuota(ctx context.Context, ns string, kind QuotaKind, in Quota) (*quotaRow, error) {
	bad := func(format string, args ...any) (*quotaRow, error) {
		return nil, errs.New(errs.Invalid, format, args...)
	}
	row := &quotaRow{V: quotaVersion, Role: in.Role}
	m, err := u.quotaPlace(ctx, ns, in.Path, row)
	if err != nil {
		return nil, err
	}
	switch {
	case in.Role != "" && row.Path != "":
		return bad("a quota has a role or a path below its mount, not both: with a role the path is that of an auth method's mount")
	case in.Role != "" && (m == nil || m.Class != ClassAuth):
		return bad("mount path %q is not a valid auth method and therefore unsuitable for use with role-based quotas", in.Path)
	}
	if in.Role != "" {
		login := loginOfRoles(m.table)
		if login == nil {
			return bad("mount path %q does not support use with role-based quotas", in.Path)
		}
		row.Known = login.KnownRole(in.Role)
	}
	global := row.NS == token.RootNamespace && m == nil
	switch {
	case in.Inheritable == nil:
		row.Inherit = global
	case *in.Inheritable && m != nil:
		return bad("only a quota of a whole namespace can be inheritable: leave out the mount of the path")
	case !*in.Inheritable && global:
		return bad("the quota of the root namespace holds for all that have none of their own: it is inheritable")
	default:
		row.Inherit = *in.Inheritable
	}
	if kind == LeaseCount {
		if in.MaxLeases <= 0 {
			return bad("'max_leases' is invalid: give a number above 0")
		}
		if m != nil && m.Class == ClassAuth && row.Path != "" {
			return bad("a lease-count quota of an auth method is on its mount or on a role: leave out the rest of the path")
		}
		row.MaxLeases = in.MaxLeases
		return row, nil
	}
	row.Rate, row.Interval, row.Block, row.GroupBy, row.Secondary = in.Rate, in.Interval, in.Block, in.GroupBy, in.Secondary
	if row.Interval <= 0 {
		row.Interval = time.Second
	}
	if row.GroupBy == "" {
		row.GroupBy = GroupByIP
	}
	byEntity := row.GroupBy == GroupByEntityThenIP || row.GroupBy == GroupByEntityThenNone
	switch {
	case !(row.Rate > 0) || math.IsInf(row.Rate, 0):
		return bad("'rate' is invalid: give the number of requests in an interval, above 0")
	case row.Secondary < 0 || math.IsNaN(row.Secondary) || math.IsInf(row.Secondary, 0):
		return bad("'secondary_rate' is invalid")
	case !byEntity && row.GroupBy != GroupByIP && row.GroupBy != GroupByNone:
		return bad("'group_by' is ip, none, entity_then_ip or entity_then_none, not %q", row.GroupBy)
	case row.Secondary > 0 && !byEntity:
		return bad("'secondary_rate' is for requests without an entity: set 'group_by' to entity_then_ip or entity_then_none")
	}
	return row, nil
}

// quotaPlace finds the namespace and the mount that a path names, and what is
// left of it. The mount is nil for a whole namespace.
func (u *unsealed) quotaPlace(ctx context.Context, ns, path string, row *quotaRow) (*mounted, error) {
	spaces, err := u.spaces.current(ctx)
	if err != nil {
		return nil, err
	}
	s := spaces.byID[ns]
	if s == nil || s.ended {
		return nil, errNoNamespace(path)
	}
	rest := strings.TrimLeft(path, "/")
	for rest != "" {
		name, after, _ := strings.Cut(rest, "/")
		kid := s.kids[name]
		if kid == nil {
			break
		}
		s, rest = kid, after
	}
	row.NS = s.ID
	if rest == "" {
		return nil, nil
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return nil, err
	}
	m := t.byPath[s.ID+"/"+strings.TrimSuffix(rest, "/")+"/"]
	if m == nil {
		var rel string
		if m, rel = t.find(s.ID, rest); m == nil {
			return nil, errs.New(errs.Invalid, "invalid mount path %q", path)
		}
		row.Path = strings.TrimSuffix(rel, "/")
		row.Known = knownPath(m.table, row.Path)
	}
	row.Mount = m.ID
	return m, nil
}

// knownPath is a quota's path in its mount as the engine knows the name in it.
func knownPath(t *route.Table, path string) string {
	head, glob := strings.CutSuffix(path, "*")
	known, _, ok := t.Known(head)
	if !glob {
		return known
	}
	if i := strings.LastIndexByte(head, '/'); !ok && i >= 0 { // the name may be before its last slash
		if known, _, ok = t.Known(head[:i]); ok {
			known += head[i:]
		}
	}
	if !ok {
		return ""
	}
	return known + "*"
}

// loginOfRoles is an endpoint that logs in to a role; nil without one.
func loginOfRoles(t *route.Table) (login *route.Endpoint) {
	t.Walk(func(e *route.Endpoint) {
		if e.HasRole() {
			login = e
		}
	})
	return login
}

// DeleteQuota removes a quota; one that is not there is no error.
func (c *Core) DeleteQuota(ctx context.Context, ns string, kind QuotaKind, name string) error {
	u, err := c.open()
	if err != nil {
		return err
	}
	return u.deleteQuota(ctx, quotaKey(ns, kind, name), kind, "")
}

// deleteQuota removes a quota, with raw set only as long as its row is that.
func (u *unsealed) deleteQuota(ctx context.Context, key string, kind QuotaKind, raw string) error {
	_, err := u.store.Update(ctx, func(tx storage.Tx) error {
		if raw != "" {
			if b, err := tx.Get(key); err != nil || string(b) != raw {
				return err
			}
		}
		return removeQuota(tx, key, kind)
	})
	return err
}

// removeQuota deletes a quota's row and frees its place.
func removeQuota(tx storage.Tx, key string, kind QuotaKind) error {
	b, err := tx.Get(key)
	if err != nil || b == nil {
		return err
	}
	var row quotaRow
	if err := json.Unmarshal(b, &row); err == nil {
		at := row.place(kind)
		if holder, err := tx.Get(at); err != nil {
			return err
		} else if string(holder) == key {
			if err := tx.Delete(at); err != nil {
				return err
			}
		}
	}
	return tx.Delete(key)
}

// QuotaStats are what quotas have refused since the server was unsealed, and
// how near those on leases are.
func (c *Core) QuotaStats(ctx context.Context) ([]QuotaStat, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	s, err := u.quotas.current(ctx)
	if s == nil || err != nil {
		return nil, err
	}
	var out []QuotaStat
	for key, q := range s.byKey {
		if there, err := u.holds(ctx, q); err != nil || !there {
			continue
		}
		st := QuotaStat{Kind: QuotaKind(q.kind), Name: q.name, Violations: q.violations.Load(), Max: q.MaxLeases}
		st.Namespace, _, _ = strings.Cut(key[len(quotaPrefix):], "/")
		if st.Kind == LeaseCount {
			if st.Count, err = u.countFor(ctx, &q.quotaRow); err != nil {
				return nil, err
			}
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b QuotaStat) int {
		return strings.Compare(string(a.Kind)+a.Namespace+"/"+a.Name, string(b.Kind)+b.Namespace+"/"+b.Name)
	})
	return out, nil
}

// QuotaStat is one quota's figures. Max and Count are a lease count's.
type QuotaStat struct {
	Kind            QuotaKind
	Namespace, Name string
	Violations      uint64
	Max, Count      int64
}
