package server

import (
	"context"
	"errors"
	"sort"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/token"
)

// Peers keep a lease for every token, below the path that made it, so that
// sys/leases also lists and ends tokens: revoking the prefix auth/userpass/ is
// how an operator logs everybody out. Our tokens have no lease rows; here
// they are shown as if they had. The last part of such an id is the hash that
// the store knows the token by.
const tokenPaths = "auth/"

func isTokenPath(path string) bool {
	return path+"/" == tokenPaths || strings.HasPrefix(path, tokenPaths)
}

// byLease finds the live token that a lease id means.
func (l leases) byLease(ctx context.Context, ns string, id lease.ID) (*token.Store, string, *token.Entry, error) {
	s, err := l.c.Tokens()
	if err != nil {
		return nil, "", nil, err
	}
	i := strings.LastIndexByte(string(id), '/')
	key := ns + "/" + string(id[i+1:])
	e, err := s.LookupKey(ctx, key)
	if errors.Is(err, token.ErrInvalid) || err == nil && e.Path != string(id[:max(i, 0)]) {
		err = errs.New(errs.Invalid, "invalid lease")
	}
	return s, key, e, err
}

func tokenLease(id lease.ID, e *token.Entry) lease.Info {
	return lease.Info{
		ID: id, Namespace: e.Namespace, Path: e.Path, Issued: e.Created, Expires: e.Expires, Renewed: e.Renewed,
		TTL: e.TTL, Renewable: e.Renewable,
	}
}

func (l leases) lookupToken(ctx context.Context, ns string, id lease.ID) (lease.Info, error) {
	_, _, e, err := l.byLease(ctx, ns, id)
	if err != nil {
		return lease.Info{}, err
	}
	return tokenLease(id, e), nil
}

func (l leases) renewToken(ctx context.Context, ns string, id lease.ID, increment time.Duration) (lease.Renewed, error) {
	s, key, e, err := l.byLease(ctx, ns, id)
	if err != nil {
		return lease.Renewed{}, err
	}
	if e.Role != "" {
		return lease.Renewed{}, errs.New(errs.Invalid, "the token was made by a role, whose limits count: renew it at auth/token/renew-accessor")
	}
	limits, err := l.c.RenewalLimits(ctx, e, &route.Request{})
	if err != nil {
		return lease.Renewed{}, err
	}
	e, capped, err := s.Renew(ctx, key, increment, limits)
	if err != nil {
		return lease.Renewed{}, err
	}
	in := tokenLease(id, e)
	in.TTL, in.MaxExpires = e.Given, e.Expires
	return lease.Renewed{Info: in, Capped: capped}, nil
}

func (l leases) revokeToken(ctx context.Context, ns string, id lease.ID) error {
	s, key, _, err := l.byLease(ctx, ns, id)
	if errs.Is(err, errs.Invalid) {
		return nil // gone already
	}
	if err != nil {
		return err
	}
	return s.Revoke(ctx, key)
}

// tokenKeys lists what stands directly below a path of tokens.
func (l leases) tokenKeys(ctx context.Context, ns, prefix string) ([]string, error) {
	s, err := l.c.Tokens()
	if err != nil {
		return nil, err
	}
	prefix = strings.Trim(prefix, "/") + "/"
	found := map[string]bool{}
	err = s.Each(ctx, ns, func(key string, e *token.Entry) bool {
		id := e.Path + "/" + key[strings.LastIndexByte(key, '/')+1:]
		rest, ok := strings.CutPrefix(id, prefix)
		if !ok || e.Expires.IsZero() { // root tokens are no leases
			return true
		}
		name, _, folder := strings.Cut(rest, "/")
		if folder {
			name += "/"
		}
		found[name] = true
		return true
	})
	out := make([]string, 0, len(found))
	for k := range found {
		out = append(out, k)
	}
	sort.Strings(out)
	return out, err
}

// revokeTokens ends every token below a path.
func (l leases) revokeTokens(ctx context.Context, ns, prefix string) error {
	s, err := l.c.Tokens()
	if err != nil {
		return err
	}
	return s.RevokePath(ctx, ns, prefix)
}
