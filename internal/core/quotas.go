package core

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/ratelimit"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
)

// What is stored of quotas, and under which keys:
//
//	quota/<ns>/<kind>/<name>              quotaRow, JSON; ns is where it was written
//	quotaat/<kind>/<ns>/<mount>/r/<role>  the row's key: one quota of a kind for one thing
//	quotaat/<kind>/<ns>/<mount>/p/<path>  path and role as the engine knows them
//	quotaconf/rate-limit                  QuotaConfig, JSON
const (
	quotaPrefix     = "quota/"
	quotaAtPrefix   = "quotaat/"
	quotaConfPrefix = "quotaconf/"
	quotaConfKey    = quotaConfPrefix + "rate-limit"
	quotaVersion    = 1
)

// QuotaKind is what a quota limits.
type QuotaKind string

// The kinds.
const (
	RateLimit  QuotaKind = "rate-limit"  // requests in a time
	LeaseCount QuotaKind = "lease-count" // leases and service tokens that live at once
)

// quotaRow is a quota as it is stored. Version 1. It names what it is for by
// ids, so that it follows a mount that is moved.
type quotaRow struct {
	V       int    `json:"v"`
	NS      string `json:"ns"`              // of what it is for
	Mount   string `json:"mount,omitempty"` // ""; all of the namespace
	Path    string `json:"path,omitempty"`  // in the mount; "" is all of it, and one that ends in * all that begins so
	Role    string `json:"role,omitempty"`  // of an auth method
	Known   string `json:"known,omitempty"` // Path, or Role, as the engine knows the name in it; "": it is what it says
	Inherit bool   `json:"inherit,omitempty"`

	Rate      float64       `json:"rate,omitempty"`
	Interval  time.Duration `json:"interval,omitempty"`
	Block     time.Duration `json:"block,omitempty"`
	GroupBy   string        `json:"group,omitempty"`
	Secondary float64       `json:"second,omitempty"`

	MaxLeases int64 `json:"max,omitempty"`
}

// place is the key that only one quota of a kind can have.
func (r *quotaRow) place(kind QuotaKind) string {
	at := quotaAtPrefix + string(kind) + "/" + r.NS + "/" + r.Mount
	if r.Role != "" {
		return at + "/r/" + r.known()
	}
	return at + "/p/" + r.known()
}

// known is the role or path that requests are held to.
func (r *quotaRow) known() string { return cmp.Or(r.Known, r.Role, r.Path) }

// quota is a quota in force.
type quota struct {
	quotaRow
	key, kind, name string
	raw             string // the row as it was read
	first, second   *ratelimit.Limiter
	violations      atomic.Uint64
	used            usage
}

// The ways of telling clients apart.
const (
	GroupByIP             = "ip"
	GroupByNone           = "none"
	GroupByEntityThenIP   = "entity_then_ip"
	GroupByEntityThenNone = "entity_then_none"
)

// quotaSet is one state of all quotas, never changed.
type quotaSet struct {
	conf             QuotaConfig
	exempt, absolute pathList
	rate, count      quotaIndex
	byKey            map[string]*quota
}

// quotaIndex finds the most specific quota of a kind without a scan.
type quotaIndex struct {
	mounts map[string]*mountQuotas // by id
	spaces map[string]*quota       // by namespace
}

type mountQuotas struct {
	whole               *quota
	roles, paths, globs map[string]*quota
	lengths             []int // of the globs, the longest first
}

// quotas keeps the set in step with the store. A server without quotas pays one
// atomic load: set is nil then, and staleQuotas after a change.
type quotas struct {
	u     *unsealed
	set   atomic.Pointer[quotaSet]
	last  atomic.Pointer[quotaSet]
	fresh fresh
}

var staleQuotas = new(quotaSet)

// changed is called by the Watch.
func (qs *quotas) changed() {
	qs.fresh.changed()
	qs.set.Store(staleQuotas)
}

// current is the set in force, nil when there is no quota.
func (qs *quotas) current(ctx context.Context) (*quotaSet, error) {
	if s := qs.set.Load(); s != staleQuotas {
		return s, nil
	}
	err := qs.fresh.ensure(func() error {
		s, err := qs.load(ctx)
		if err == nil {
			qs.last.Store(s)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("loading the quotas: %w", err)
	}
	s := qs.last.Load()
	qs.set.CompareAndSwap(staleQuotas, s)
	if qs.fresh.stale() { // a change that came in between must not be overwritten
		qs.set.Store(staleQuotas)
	}
	return s, nil
}

// load reads every quota. Those whose rows have not changed keep their counts.
func (qs *quotas) load(ctx context.Context) (*quotaSet, error) {
	u, old := qs.u, qs.last.Load() // nil: there was no quota
	s := &quotaSet{byKey: map[string]*quota{}, conf: defaultQuotaConfig()}
	err := u.store.View(ctx, func(v storage.View) error {
		conf, err := quotaConf(v)
		switch {
		case isBadRow(err):
			u.core.log.Error("the settings of quotas cannot be read; the default ones hold until they are written anew at sys/quotas/config", "error", err)
		case err != nil:
			return err
		default:
			s.conf = conf
		}
		return storage.ScanEach(v, quotaPrefix, storage.PrefixEnd(quotaPrefix), 0, func(key string, b []byte, bad error) bool {
			q, err := decodeQuota(key, b, bad)
			if err != nil {
				u.core.log.Error("a quota cannot be read; it is not in force, the others are", "key", key, "error", err)
				return true
			}
			if old != nil && old.byKey[key] != nil && old.byKey[key].raw == q.raw {
				q = old.byKey[key]
			}
			s.byKey[key] = q
			return true
		})
	})
	if err != nil {
		return nil, err
	}
	for _, q := range s.byKey {
		if q.first == nil && q.kind == string(RateLimit) {
			q.begin(u.core.cfg.Steady())
		}
		s.index(QuotaKind(q.kind)).add(q)
	}
	s.exempt, s.absolute = newPathList(s.conf.Exempt), newPathList(s.conf.AbsoluteExempt)
	if len(s.byKey) == 0 {
		return nil, nil
	}
	return s, nil
}

func decodeQuota(key string, b []byte, bad error) (*quota, error) {
	q := &quota{key: key, raw: string(b)}
	if bad != nil {
		return nil, bad
	}
	if err := json.Unmarshal(b, &q.quotaRow); err != nil {
		return nil, err
	}
	parts := strings.SplitN(key, "/", 4)
	if q.V > quotaVersion || len(parts) != 4 {
		return nil, fmt.Errorf("it has version %d, written by a newer server", q.V)
	}
	q.kind, q.name = parts[2], parts[3]
	return q, nil
}

func (q *quota) begin(now time.Time) {
	rule := ratelimit.Rule{Rate: q.Rate, Interval: q.Interval, Block: q.Block}
	q.first = ratelimit.New(rule, now)
	q.second = q.first
	if q.Secondary > 0 {
		rule.Rate = q.Secondary
		q.second = ratelimit.New(rule, now)
	}
}

func (s *quotaSet) index(kind QuotaKind) *quotaIndex {
	if kind == LeaseCount {
		return &s.count
	}
	return &s.rate
}

func (ix *quotaIndex) add(q *quota) {
	if q.Mount == "" {
		if ix.spaces == nil {
			ix.spaces = map[string]*quota{}
		}
		ix.spaces[q.NS] = q
		return
	}
	m := ix.mounts[q.Mount]
	if m == nil {
		if ix.mounts == nil {
			ix.mounts = map[string]*mountQuotas{}
		}
		m = &mountQuotas{roles: map[string]*quota{}, paths: map[string]*quota{}, globs: map[string]*quota{}}
		ix.mounts[q.Mount] = m
	}
	known := q.known()
	head, glob := strings.CutSuffix(known, "*")
	switch {
	case q.Role != "":
		m.roles[known] = q
	case known == "":
		m.whole = q
	case glob:
		m.globs[head] = q
		if !slices.Contains(m.lengths, len(head)) {
			m.lengths = append(m.lengths, len(head))
			slices.SortFunc(m.lengths, func(a, b int) int { return b - a })
		}
	default:
		m.paths[known] = q
	}
}

// find is the quota that holds for a request: the one for a login's role, for
// the very path, for the longest beginning of it, for the mount, for the
// namespace, for the nearest one above that passes its quota on, or nil. A path
// counts as the endpoint knows it, so that no other spelling of a name gets
// around a quota, and as it was asked for.
func (ix *quotaIndex) find(space *space, mount, rel, known string, role func() (string, error)) (*quota, error) {
	if m := ix.mounts[mount]; m != nil {
		if len(m.roles) > 0 {
			name, err := role()
			if err != nil {
				return nil, err
			}
			if q := m.roles[name]; q != nil {
				return q, nil
			}
		}
		spellings := [...]string{known, rel}
		for _, path := range spellings {
			if q := m.paths[strings.TrimSuffix(path, "/")]; q != nil {
				return q, nil
			}
		}
		for _, n := range m.lengths {
			for _, path := range spellings {
				if len(path) >= n {
					if q := m.globs[path[:n]]; q != nil {
						return q, nil
					}
				}
			}
		}
		if m.whole != nil {
			return m.whole, nil
		}
	}
	if q := ix.spaces[space.ID]; q != nil || len(ix.spaces) == 0 {
		return q, nil
	}
	for s := space.parent; s != nil; s = s.parent {
		if q := ix.spaces[s.ID]; q != nil && q.Inherit {
			return q, nil
		}
	}
	return nil, nil
}

// limit refuses a request whose client has used up its rate. It comes before
// anybody is asked who is calling, so that it holds for logins too.
func (x *exchange) limit(ctx context.Context) error {
	s, err := x.u.quotas.current(ctx)
	if s == nil || err != nil {
		return err
	}
	space, mount := x.space, ""
	if x.m != nil {
		mount = x.m.ID
	}
	if space == nil { // it names none that answers, or was broken before anybody looked
		if space, err = x.u.space(ctx, token.RootNamespace); space == nil || err != nil {
			return err
		}
	}
	known, _, ok := x.ep.Known(&x.r)
	if !ok {
		known = x.r.Path
	}
	q, err := s.rate.find(space, mount, x.r.Path, known, func() (string, error) {
		if x.ep == nil {
			return "", nil
		}
		return x.ep.Role(ctx, &x.r)
	})
	if q == nil || err != nil || s.exempts(space, x.req.Path) {
		return err
	}
	limiter, client := q.clientOf(ctx, x)
	v := limiter.Take(client, x.u.core.cfg.Steady())
	after := time.Duration(0)
	if s.conf.ResponseHeaders {
		after = v.Reset
		x.limits = http.Header{
			"X-Ratelimit-Limit":     {strconv.FormatUint(v.Limit, 10)},
			"X-Ratelimit-Remaining": {strconv.FormatUint(v.Remaining, 10)},
			"X-Ratelimit-Reset":     {strconv.FormatInt(int64((v.Reset+time.Second-1)/time.Second), 10)},
		}
	}
	if v.Allowed {
		return nil
	}
	q.violations.Add(1)
	x.unlogged = !s.conf.AuditLogging
	return errs.Later(after, "request path %q: rate limit quota exceeded", ShownPath(x.req.Path))
}

func (s *quotaSet) exempts(space *space, path string) bool {
	return s.exempt.has(path) || s.absolute.has(space.Path+path)
}

// clientOf is whom a request counts for.
func (q *quota) clientOf(ctx context.Context, x *exchange) (*ratelimit.Limiter, ratelimit.Client) {
	switch q.GroupBy {
	case GroupByNone:
		return q.first, ratelimit.Client{}
	case GroupByEntityThenIP, GroupByEntityThenNone:
		if !x.req.Token.IsZero() {
			if t, err := x.u.tokens.Lookup(ctx, x.req.Token); err == nil && t.EntityID != "" {
				return q.first, ratelimit.Named(t.EntityID)
			}
		}
		if q.GroupBy == GroupByEntityThenNone {
			return q.second, ratelimit.Client{}
		}
		return q.second, ratelimit.At(x.req.Remote.Addr())
	}
	return q.first, ratelimit.At(x.req.Remote.Addr())
}

// pathList are paths of which some stand for all that begin so.
type pathList struct {
	exact  map[string]bool
	starts []string
}

func newPathList(paths []string) (l pathList) {
	for _, p := range paths {
		if head, glob := strings.CutSuffix(p, "*"); glob {
			l.starts = append(l.starts, head)
			continue
		}
		if l.exact == nil {
			l.exact = map[string]bool{}
		}
		l.exact[strings.Trim(p, "/")] = true
	}
	return l
}

func (l *pathList) has(path string) bool {
	if l.exact[strings.TrimSuffix(path, "/")] {
		return true
	}
	return slices.ContainsFunc(l.starts, func(s string) bool { return strings.HasPrefix(path, s) })
}

// holds reports whether what a quota is for is there. One of a mount that is
// gone matches no request, and is not shown.
func (u *unsealed) holds(ctx context.Context, q *quota) (bool, error) {
	space, err := u.space(ctx, q.NS)
	if err != nil || space == nil || space.ended || q.Mount == "" {
		return space != nil && !space.ended, err
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return false, err
	}
	m := t.byID[q.Mount]
	return m != nil && m.Ending.IsZero(), nil
}

// sweepQuotas deletes the quotas of mounts and namespaces that are gone.
func (u *unsealed) sweepQuotas(ctx context.Context) {
	s, err := u.quotas.current(ctx)
	if s == nil || err != nil {
		return
	}
	for _, q := range s.byKey {
		if there, err := u.holds(ctx, q); there || err != nil {
			continue
		}
		if gone, err := u.gone(ctx, q); !gone || err != nil {
			continue
		}
		if err := u.deleteQuota(ctx, q.key, QuotaKind(q.kind), q.raw); err != nil {
			u.core.log.Error("deleting a quota whose mount or namespace is gone; it is tried again", "error", err)
		}
	}
}

// gone reports whether what a quota is for has been removed. What merely cannot
// be read at the moment has not.
func (u *unsealed) gone(ctx context.Context, q *quota) (bool, error) {
	space, err := u.space(ctx, q.NS)
	if err != nil {
		return false, err
	}
	if space == nil {
		return u.absent(ctx, namespacePrefix+q.NS)
	}
	for up := space; up != nil; up = up.parent {
		if !up.Ending.IsZero() {
			return true, nil
		}
	}
	if q.Mount == "" {
		return false, nil
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return false, err
	}
	if m := t.byID[q.Mount]; m != nil {
		return !m.Ending.IsZero(), nil
	}
	return u.absent(ctx, mountPrefix+q.NS+"/"+q.Mount)
}

// absent reports whether there is no row at a key, not even a damaged one.
func (u *unsealed) absent(ctx context.Context, key string) (absent bool, err error) {
	err = u.store.View(ctx, func(v storage.View) error {
		b, err := v.Get(key)
		absent = err == nil && b == nil
		if isBadRow(err) {
			err = nil
		}
		return err
	})
	return absent, err
}
