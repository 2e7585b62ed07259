package core

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/policy/password"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
)

// What is stored of policies, and under which keys:
//
//	policy/<ns>/<name>     PolicyRow, JSON
//	pwpolicy/<ns>/<name>   PolicyRow, JSON: a password policy
//
// and when policies end, see policies_end.go.
const (
	policyPrefix   = "policy/"
	passwordPrefix = "pwpolicy/"
	policyVersion  = 2
)

// PolicyRow is a policy as it is stored. Version 2; version 1 had the first
// four fields.
type PolicyRow struct {
	V        int       `json:"v"`
	Name     string    `json:"name"`
	Text     string    `json:"text"` // as it was written
	Modified time.Time `json:"mod"`
	// Edition counts the writes since the policy was made, from 1; 0 is one
	// of version 1.
	Edition int `json:"ed,omitempty"`
	// CASRequired wants every writer to name the edition that it has seen.
	CASRequired bool `json:"cas,omitempty"`
	// Expires is when the policy ends: from then on it is not there. Zero: never.
	Expires time.Time `json:"exp,omitzero"`
}

func (r *PolicyRow) expired(now time.Time) bool { return !r.Expires.IsZero() && !now.Before(r.Expires) }

// policies holds compiled policies and the sets that tokens share, both made
// when they are first needed and dropped when a policy changes.
type policies struct {
	u *unsealed

	mu      sync.RWMutex
	parsed  map[string]*policy.Policy // <ns>/<name>; nil: there is none
	sets    map[string]*policy.Set    // by token.Entry.PolicyKey
	bound   map[boundKey]bound        // with what an entity adds
	drops   uint64                    // counts drop
	invalid storage.Revision

	// until is the Unix time in nanoseconds at which the first policy of those
	// in memory ends, and all are dropped; 0: none of them ends.
	until atomic.Int64
}

// mostSets bounds the sets in memory; past it they are made anew.
const mostSets = 4096

// set is what a token may do, and the entity that it does it as: nil without.
// A policy or an entity that cannot be read refuses the token.
func (ps *policies) set(ctx context.Context, e *token.Entry) (*policy.Set, *engine.Identified, error) {
	if until := ps.until.Load(); until != 0 && ps.u.core.cfg.Now().UnixNano() >= until {
		ps.drop(0)
	}
	if e.EntityID == "" {
		s, err := ps.setOf(ctx, e.Namespace, e.Policies, e.PolicyKey())
		return s, nil, err
	}
	who, err := ps.u.who(ctx, e)
	if err != nil {
		return nil, nil, err
	}
	s, err := ps.setOfEntity(ctx, e, who)
	return s, who, err
}

func (ps *policies) setOf(ctx context.Context, ns string, names []string, key string) (*policy.Set, error) {
	ps.mu.RLock()
	s, drops := ps.sets[key], ps.drops
	ps.mu.RUnlock()
	if s != nil {
		return s, nil
	}
	list := make([]*policy.Policy, 0, len(names))
	var rev storage.Revision
	for i, name := range names {
		if name == policy.RootName {
			return policy.RootSet(), nil
		}
		p, r, err := ps.get(ctx, ns, name)
		if err != nil {
			return nil, errs.Wrap(errs.Denied, err, "permission denied: policy %q cannot be read; the server's log has the cause", name)
		}
		if i == 0 || r < rev {
			rev = r
		}
		list = append(list, p)
	}
	s = policy.NewSet(list...)
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if rev >= ps.invalid && ps.drops == drops {
		if ps.sets == nil || len(ps.sets) >= mostSets {
			ps.sets = map[string]*policy.Set{}
		}
		ps.sets[key] = s
	}
	return s, nil
}

// get is one policy, nil when there is none, and the revision it was read at.
func (ps *policies) get(ctx context.Context, ns, name string) (*policy.Policy, storage.Revision, error) {
	key := ns + "/" + name
	ps.mu.RLock()
	p, ok := ps.parsed[key]
	rev, drops := ps.invalid, ps.drops
	ps.mu.RUnlock()
	if ok {
		return p, rev, nil
	}
	row, rev, err := ps.read(ctx, policyPrefix, ns, name)
	if err != nil {
		return nil, 0, err
	}
	if row != nil {
		if p, err = policy.Parse(name, row.Text); err != nil {
			return nil, 0, err
		}
	}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if rev >= ps.invalid && ps.drops == drops {
		if ps.parsed == nil || len(ps.parsed) >= mostSets {
			ps.parsed = map[string]*policy.Policy{}
		}
		ps.parsed[key] = p
		if row != nil && !row.Expires.IsZero() {
			ps.endsLocked(row.Expires)
		}
	}
	return p, rev, nil
}

// endsLocked has everything made anew when a policy that was made to sets ends.
func (ps *policies) endsLocked(at time.Time) {
	if first := ps.until.Load(); first == 0 || at.UnixNano() < first {
		ps.until.Store(at.UnixNano())
	}
}

// read is a policy's row, nil when there is none or it has expired.
func (ps *policies) read(ctx context.Context, prefix, ns, name string) (row *PolicyRow, rev storage.Revision, err error) {
	err = ps.u.store.View(ctx, func(v storage.View) error {
		rev = v.Revision()
		row, err = policyAt(v, prefix+ns+"/"+name, ps.u.core.cfg.Now())
		return err
	})
	return row, rev, err
}

func policyAt(r storage.Reader, key string, now time.Time) (*PolicyRow, error) {
	b, err := r.Get(key)
	if err != nil || b == nil {
		return nil, err
	}
	row := new(PolicyRow)
	if err := json.Unmarshal(b, row); err != nil {
		return nil, err
	}
	if row.expired(now) {
		return nil, nil
	}
	return row, nil
}

// changed drops what a written policy may be part of.
func (ps *policies) changed(key string, rev storage.Revision) {
	if strings.HasPrefix(key, policyPrefix) {
		ps.drop(rev)
	}
}

func (ps *policies) drop(rev storage.Revision) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.parsed, ps.sets, ps.bound, ps.invalid = nil, nil, nil, max(ps.invalid, rev)
	ps.until.Store(0)
	ps.drops++
}

// PolicyKind tells ACL policies from password policies.
type PolicyKind string

// The kinds.
const (
	ACLPolicy      PolicyKind = policyPrefix
	PasswordPolicy PolicyKind = passwordPrefix
)

// clean is a name as it is stored: those of password policies are told apart
// by case.
func (k PolicyKind) clean(name string) string {
	if k == ACLPolicy {
		return policy.CleanName(name)
	}
	return name
}

// Policy reads a stored policy: nil when there is none.
func (c *Core) Policy(ctx context.Context, kind PolicyKind, ns, name string) (*PolicyRow, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	row, _, err := u.policies.read(ctx, string(kind), ns, kind.clean(name))
	return row, err
}

// HasPolicy reports whether an ACL policy exists, from memory where it can.
func (c *Core) HasPolicy(ctx context.Context, ns, name string) (bool, error) {
	u, err := c.open()
	if err != nil {
		return false, err
	}
	p, _, err := u.policies.get(ctx, ns, policy.CleanName(name))
	return p != nil, err
}

// Policies gives the policies of a kind whose names begin with a prefix, in
// the order of their names. Of one that cannot be read only the name is there.
func (c *Core) Policies(ctx context.Context, kind PolicyKind, ns, prefix string) (rows []PolicyRow, err error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	all, now := string(kind)+ns+"/", c.cfg.Now()
	from := all + prefix
	err = u.store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, from, storage.PrefixEnd(from), 0, func(key string, b []byte, bad error) bool {
			row := PolicyRow{Name: key[len(all):]}
			if bad != nil || json.Unmarshal(b, &row) != nil {
				row = PolicyRow{Name: key[len(all):]}
			}
			if !row.expired(now) {
				rows = append(rows, row)
			}
			return true
		})
	})
	return rows, err
}

// PolicyNames lists the policies of a kind, in order.
func (c *Core) PolicyNames(ctx context.Context, kind PolicyKind, ns string) ([]string, error) {
	rows, err := c.Policies(ctx, kind, ns, "")
	names := make([]string, len(rows))
	for i, r := range rows {
		names[i] = r.Name
	}
	return names, err
}

// WritePolicy stores a policy that was parsed before. The name is a clean one.
func (c *Core) WritePolicy(ctx context.Context, kind PolicyKind, ns, name, text string) error {
	return c.ChangePolicy(ctx, kind, ns, name, func(*PolicyRow) (PolicyRow, error) { return PolicyRow{Text: text}, nil })
}

// ChangePolicy stores what change makes of a policy, nil when there is none.
// Its text must have been parsed before. change may be called more than once;
// what it says of name, edition and time is not looked at.
func (c *Core) ChangePolicy(ctx context.Context, kind PolicyKind, ns, name string, change func(old *PolicyRow) (PolicyRow, error)) error {
	u, err := c.open()
	if err != nil {
		return err
	}
	if len(name) == 0 || len(name) > 512 || slices.Contains(strings.Split(name, "/"), "") {
		return errs.New(errs.Invalid, "a policy name has 1 to 512 characters, and none of its parts between slashes is empty")
	}
	key := string(kind) + ns + "/" + name
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		now := c.cfg.Now().Round(0)
		old, err := policyAt(tx, key, now)
		if err != nil && !isBadRow(err) { // a bad one is written anew
			return err
		}
		row, err := change(old)
		if err != nil {
			return err
		}
		row.V, row.Name, row.Modified, row.Edition = policyVersion, name, now, 1
		if old != nil {
			row.Edition = old.Edition + 1
		}
		if kind == ACLPolicy && !row.Expires.IsZero() {
			if err := tx.Put(policyEnd(row.Expires, ns+"/"+name), nil); err != nil {
				return err
			}
		}
		return putJSON(tx, key, row)
	})
	return err
}

// DeletePolicy removes a policy; what is not there is no error.
func (c *Core) DeletePolicy(ctx context.Context, kind PolicyKind, ns, name string) error {
	u, err := c.open()
	if err != nil {
		return err
	}
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		return tx.Delete(string(kind) + ns + "/" + kind.clean(name))
	})
	return err
}

// SetOf is what a token with these policies may do, for the endpoints that
// tell capabilities.
func (c *Core) SetOf(ctx context.Context, e *token.Entry) (*policy.Set, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	s, _, err := u.policies.set(ctx, e)
	return s, err
}

// password draws a password by a stored policy of a namespace, or by the
// default one where name is empty.
func (u *unsealed) password(ctx context.Context, ns, name string) (secret.String, error) {
	p := password.Default()
	if name != "" {
		row, _, err := u.policies.read(ctx, passwordPrefix, ns, name)
		if err != nil {
			return secret.String{}, err
		}
		if row == nil {
			return secret.String{}, errs.New(errs.Invalid, "there is no password policy %q; write it at sys/policies/password/%s", name, name)
		}
		if p, err = password.Parse(row.Text); err != nil {
			return secret.String{}, err
		}
	}
	return p.Generate(nil)
}
