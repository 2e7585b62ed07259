package server

import (
	"context"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/lease"
)

// leases are those of whichever store is open at the moment.
type leases struct{ c *core.Core }

var (
	_ sys.Leases       = leases{}
	_ sys.LeaseActions = leases{}
)

// of gives the leases, and the namespace of the one with an id: who may ask in
// a namespace may name the leases of those below it.
func (l leases) of(ctx context.Context, ns string, id lease.ID) (*lease.Store, string, error) {
	s, err := l.c.Leases()
	if err != nil {
		return nil, "", err
	}
	ns, err = namedIn(ctx, l.c, ns, lease.NamespaceOf(id))
	return s, ns, err
}

func (l leases) Lookup(ctx context.Context, ns string, id lease.ID) (lease.Info, error) {
	if isTokenPath(string(id)) {
		return l.lookupToken(ctx, ns, id)
	}
	s, ns, err := l.of(ctx, ns, id)
	if err != nil {
		return lease.Info{}, err
	}
	return s.Lookup(ctx, ns, id)
}

func (l leases) Keys(ctx context.Context, ns, prefix string) ([]string, error) {
	if isTokenPath(strings.Trim(prefix, "/")) {
		return l.tokenKeys(ctx, ns, prefix)
	}
	s, err := l.c.Leases()
	if err != nil {
		return nil, err
	}
	keys, err := s.Keys(ctx, ns, prefix)
	if err == nil && strings.Trim(prefix, "/") == "" {
		keys = append([]string{tokenPaths}, keys...) // the caller's is one
	}
	return keys, err
}

func (l leases) List(ctx context.Context, ns string, q lease.Query) ([]lease.Info, bool, error) {
	s, err := l.c.Leases()
	if err != nil {
		return nil, false, err
	}
	return s.List(ctx, ns, q)
}

func (l leases) Renew(ctx context.Context, ns string, id lease.ID, increment time.Duration) (lease.Renewed, error) {
	if isTokenPath(string(id)) {
		return l.renewToken(ctx, ns, id, increment)
	}
	s, ns, err := l.of(ctx, ns, id)
	if err != nil {
		return lease.Renewed{}, err
	}
	return s.Renew(ctx, ns, id, increment)
}

func (l leases) Revoke(ctx context.Context, ns string, id lease.ID, cause lease.Cause, sync bool) (lease.Pending, error) {
	if isTokenPath(string(id)) {
		return lease.Pending{}, l.revokeToken(ctx, ns, id)
	}
	s, ns, err := l.of(ctx, ns, id)
	if err != nil {
		return lease.Pending{}, err
	}
	return s.Revoke(ctx, ns, id, cause, sync)
}

func (l leases) RevokePrefix(ctx context.Context, ns, prefix string, cause lease.Cause, sync bool) (lease.Pending, error) {
	if isTokenPath(strings.Trim(prefix, "/")) {
		return lease.Pending{}, l.revokeTokens(ctx, ns, prefix)
	}
	s, err := l.c.Leases()
	if err != nil {
		return lease.Pending{}, err
	}
	return s.RevokePrefix(ctx, ns, prefix, cause, sync)
}

// counts are the leases of a namespace by their mount's id.
func (l leases) counts(ctx context.Context, ns string) (map[string]int64, error) {
	s, err := l.c.Leases()
	if err != nil {
		return nil, err
	}
	mounts, err := l.c.MountIDs(ctx, ns)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	for _, id := range mounts {
		n, err := s.CountMount(ctx, id)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			out[id] = n
		}
	}
	return out, nil
}

// holder names the token that owns a lease.
func (l leases) holder(ctx context.Context, owner string) string {
	tokens, err := l.c.Tokens()
	if err != nil || owner == "" {
		return ""
	}
	e, err := tokens.LookupKey(ctx, owner)
	if err != nil {
		return ""
	}
	return e.DisplayName
}

func (l leases) tidy(ctx context.Context) error {
	s, err := l.c.Leases()
	if err != nil {
		return err
	}
	tokens, err := l.c.Tokens()
	if err != nil {
		return err
	}
	if _, err := s.Tidy(ctx); err != nil {
		return err
	}
	_, err = tokens.Tidy(ctx, "")
	return err
}
