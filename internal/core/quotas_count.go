package core

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/token"
)

// This file judges the quotas on the number of leases and service tokens.

// leaseQuota refuses another lease or token where a quota on their number is
// reached. The number is that of a moment ago: what is being made at the same
// time is not in it, so a quota can be overshot by the requests in flight.
// path is the request's, for the message; role the login's.
func (u *unsealed) leaseQuota(ctx context.Context, space *space, mount, rel, role, path string) error {
	s, err := u.quotas.current(ctx)
	if s == nil || err != nil {
		return err
	}
	q, err := s.count.find(space, mount, rel, rel, func() (string, error) { return role, nil })
	if q == nil || err != nil {
		return err
	}
	n, err := q.used.count(ctx, u.core.cfg.Steady(), func(ctx context.Context) (int64, error) { return u.countFor(ctx, &q.quotaRow) })
	if err != nil || n < q.MaxLeases {
		return err
	}
	q.violations.Add(1)
	return errs.New(errs.TooMany, "request path %q: lease count quota exceeded: quota %q allows %d leases at a time and %d live; revoke some, or wait until they expire",
		path, q.name, q.MaxLeases, n)
}

// countToken says by which mount a token comes in, and judges the quotas on it.
// A root token is let through: with one an operator makes room.
func (u *unsealed) countToken(ctx context.Context, e *token.Entry, m *mounted) error {
	e.MountID = m.ID
	if u.quotas.set.Load() == nil || e.Root() {
		return nil
	}
	space, err := u.space(ctx, e.Namespace)
	if err != nil || space == nil {
		return err
	}
	return u.leaseQuota(ctx, space, m.ID, strings.TrimPrefix(e.Path, m.Path), e.LoginRole, e.Path)
}

// countFor is how many leases and service tokens a quota covers.
func (u *unsealed) countFor(ctx context.Context, q *quotaRow) (int64, error) {
	switch {
	case q.Role != "":
		return u.tokens.CountRole(ctx, q.NS, q.Mount, q.known())
	case q.Path != "":
		path, glob := strings.CutSuffix(q.Path, "*")
		return u.leases.CountPath(ctx, q.Mount, path, glob)
	case q.Mount != "":
		leases, err := u.leases.CountMount(ctx, q.Mount)
		if err != nil {
			return 0, err
		}
		tokens, err := u.tokens.CountMount(ctx, q.NS, q.Mount)
		return leases + tokens, err
	}
	spaces := []string{q.NS}
	if q.Inherit {
		below, err := u.core.Namespaces(ctx, q.NS, true)
		if err != nil {
			return 0, err
		}
		for _, n := range below {
			spaces = append(spaces, n.ID)
		}
	}
	var sum int64
	for _, ns := range spaces {
		leases, err := u.leases.CountNamespace(ctx, ns)
		if err != nil {
			return 0, err
		}
		tokens, err := u.tokens.Count(ctx, ns)
		if err != nil {
			return 0, err
		}
		sum += leases + tokens
	}
	return sum, nil
}

// usage remembers a sum that took long, for a second: a namespace may have
// thousands of counters. What this process adds meanwhile is added.
type usage struct {
	mu    sync.Mutex
	until time.Time
	sum   int64
}

// slowSum is how long adding up may take without being remembered.
const slowSum = time.Millisecond

func (c *usage) count(ctx context.Context, now time.Time, sum func(context.Context) (int64, error)) (int64, error) {
	c.mu.Lock()
	if now.Before(c.until) {
		defer c.mu.Unlock()
		c.sum++ // whoever asks is about to make one
		return c.sum - 1, nil
	}
	c.mu.Unlock()
	begun := time.Now()
	n, err := sum(ctx)
	if err == nil && time.Since(begun) > slowSum {
		c.mu.Lock()
		c.sum, c.until = n+1, now.Add(time.Second)
		c.mu.Unlock()
	}
	return n, err
}
