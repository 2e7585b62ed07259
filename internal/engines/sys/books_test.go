package sys_test

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// mountBook is a mount table.
type mountBook struct{ list []sys.Mount }

func (b *mountBook) List(context.Context, string) ([]sys.Mount, error) {
	slices.SortFunc(b.list, func(x, y sys.Mount) int { return strings.Compare(x.Path, y.Path) })
	return slices.Clone(b.list), nil
}

func (b *mountBook) At(_ context.Context, _, path string) (found sys.Mount, ok bool, err error) {
	for _, m := range b.list {
		if strings.HasPrefix(path, m.Path) && len(m.Path) > len(found.Path) {
			found, ok = m, true
		}
	}
	return found, ok, nil
}

func (b *mountBook) Types(class string) []string {
	if class == "auth" {
		return []string{"userpass"}
	}
	return []string{"database", "kv"}
}

func (b *mountBook) Add(_ context.Context, _ string, m sys.Mount) error {
	for _, have := range b.list {
		if have.Path == m.Path {
			return errs.New(errs.Invalid, "path is already in use at %s", m.Path)
		}
	}
	m.ID, m.Accessor = "id-"+m.Path, m.Type+"_x"
	m.DefaultTTL, m.MaxTTL = m.Config.DefaultTTL, m.Config.MaxTTL
	b.list = append(b.list, m)
	return nil
}

func (b *mountBook) Remove(_ context.Context, _, path string) error {
	b.list = slices.DeleteFunc(b.list, func(m sys.Mount) bool { return m.Path == path })
	return nil
}

func (b *mountBook) Tune(_ context.Context, _, path string, change func(*sys.Mount) error) error {
	for i := range b.list {
		if b.list[i].Path == path {
			m := b.list[i]
			if err := change(&m); err != nil {
				return err
			}
			m.DefaultTTL, m.MaxTTL = m.Config.DefaultTTL, m.Config.MaxTTL
			b.list[i] = m
		}
	}
	return nil
}

func (b *mountBook) Move(_ context.Context, _, from, to string) error {
	for i := range b.list {
		if b.list[i].Path == from {
			b.list[i].Path = to
		}
	}
	return nil
}

// policyBook is a store of policies. A text with "bad" in it does not parse.
type policyBook struct{ list map[string]sys.Policy }

func (b *policyBook) Read(_ context.Context, _, name string) (sys.Policy, bool, error) {
	p, ok := b.list[name]
	return p, ok, nil
}

func (b *policyBook) List(_ context.Context, _, prefix string) (list []sys.Policy, err error) {
	for _, name := range slices.Sorted(maps.Keys(b.list)) {
		if strings.HasPrefix(name, prefix) {
			list = append(list, b.list[name])
		}
	}
	return list, nil
}

func (b *policyBook) Check(_, text string) error {
	if strings.Contains(text, "bad") {
		return errs.New(errs.Invalid, "failed to parse policy")
	}
	return nil
}

func (b *policyBook) Write(_ context.Context, _, name string, change func(sys.Policy, bool) (sys.Policy, error)) error {
	old, ok := b.list[name]
	p, err := change(old, ok)
	if err != nil {
		return err
	}
	if b.list == nil {
		b.list = map[string]sys.Policy{}
	}
	p.Name, p.Version = name, old.Version+1
	b.list[name] = p
	return nil
}

func (b *policyBook) Delete(_ context.Context, _, name string) error {
	delete(b.list, name)
	return nil
}

// passwordBook is a store of password policies. A text with "bad" in it does
// not parse.
type passwordBook struct{ texts map[string]string }

func (b *passwordBook) Read(_ context.Context, _, name string) (string, bool, error) {
	text, ok := b.texts[name]
	return text, ok, nil
}

func (b *passwordBook) Names(context.Context, string) (names []string, err error) {
	for n := range b.texts {
		names = append(names, n)
	}
	slices.Sort(names)
	return names, nil
}

func (b *passwordBook) Write(_ context.Context, _, name, text string) error {
	if strings.Contains(text, "bad") {
		return errs.New(errs.Invalid, "failed to parse policy")
	}
	if b.texts == nil {
		b.texts = map[string]string{}
	}
	b.texts[name] = text
	return nil
}

func (b *passwordBook) Delete(_ context.Context, _, name string) error {
	delete(b.texts, name)
	return nil
}

// accessBook has the capabilities of tokens by path; "" stands for all paths.
type accessBook map[string]map[string][]string

func (b accessBook) Of(_ context.Context, _ string, token secret.String, _ netip.Addr) (sys.Rights, error) {
	r, ok := b[token.Reveal()]
	if !ok {
		return nil, errs.New(errs.Denied, "permission denied")
	}
	return rights(r), nil
}

func (b accessBook) Spend(ctx context.Context, ns string, token secret.String, from netip.Addr) (sys.Rights, error) {
	return b.Of(ctx, ns, token, from)
}

func (b accessBook) OfAccessor(ctx context.Context, _, accessor string) (sys.Rights, error) {
	r, err := b.Of(ctx, "root", secret.New(strings.TrimPrefix(accessor, "acc-")), netip.Addr{})
	if err != nil {
		return nil, errs.New(errs.Invalid, "invalid accessor")
	}
	return r, nil
}

func (b accessBook) Resultant(context.Context, secret.String) (wire.Data, error) {
	return wire.Object(`{"root":true}`), nil
}

type rights map[string][]string

func (r rights) Capabilities(path string) []string {
	if all, ok := r[""]; ok {
		return all
	}
	if caps, ok := r[path]; ok {
		return caps
	}
	return []string{"deny"}
}

func (r rights) Reaches(mount string) bool {
	for path := range r {
		if path == "" || strings.HasPrefix(path, mount) {
			return true
		}
	}
	return false
}

// leaseBook is a list of leases.
type leaseBook struct {
	list   []lease.Info
	tidied int
}

func (b *leaseBook) Lookup(_ context.Context, _ string, id lease.ID) (lease.Info, error) {
	for _, l := range b.list {
		if l.ID == id {
			return l, nil
		}
	}
	return lease.Info{}, errs.New(errs.Invalid, "invalid lease")
}

func (b *leaseBook) Keys(_ context.Context, _, prefix string) (keys []string, err error) {
	for _, l := range b.list {
		if rest, ok := strings.CutPrefix(string(l.ID), prefix+"/"); ok {
			keys = append(keys, rest)
		}
	}
	return keys, nil
}

func (b *leaseBook) List(_ context.Context, _ string, q lease.Query) (out []lease.Info, more bool, err error) {
	for _, l := range b.list {
		if !strings.HasPrefix(string(l.ID), q.Prefix) || q.Irrevocable && !l.Irrevocable || l.ID <= q.After {
			continue
		}
		if len(out) == q.Limit {
			return out, true, nil
		}
		out = append(out, l)
	}
	return out, false, nil
}

func (b *leaseBook) Renew(ctx context.Context, ns string, id lease.ID, increment time.Duration) (lease.Renewed, error) {
	l, err := b.Lookup(ctx, ns, id)
	if most := l.MaxExpires.Sub(l.Issued); increment > most {
		l.TTL = most
		return lease.Renewed{Info: l, Capped: true}, err
	}
	l.TTL = increment
	return lease.Renewed{Info: l}, err
}

func (b *leaseBook) Revoke(_ context.Context, _ string, id lease.ID, _ lease.Cause, sync bool) (lease.Pending, error) {
	b.list = slices.DeleteFunc(b.list, func(l lease.Info) bool { return l.ID == id })
	return lease.Pending{Cleaning: sync}, nil
}

func (b *leaseBook) RevokePrefix(_ context.Context, _, prefix string, _ lease.Cause, _ bool) (lease.Pending, error) {
	b.list = slices.DeleteFunc(b.list, func(l lease.Info) bool { return strings.HasPrefix(string(l.ID), prefix) })
	return lease.Pending{}, nil
}

// stateBook is the seal: its shares are good when they begin with "good".
type stateBook struct {
	initialized, sealed, recovery bool
	threshold                     int
	given                         int
	fence                         sys.Fence
	committed                     int
	commit                        func() error // called before the new shares count
}

func (s *stateBook) Health(context.Context) (sys.Health, error) {
	return sys.Health{Initialized: s.initialized, Sealed: s.sealed || !s.initialized, Fence: s.fence}, nil
}

func (s *stateBook) Status(ctx context.Context) (sys.Status, error) {
	h, err := s.Health(ctx)
	return sys.Status{Health: h, SealType: "shamir", Threshold: s.threshold, Progress: s.given, RecoverySeal: s.recovery}, err
}

func (s *stateBook) Init(_ context.Context, p sys.InitParams) (sys.InitResult, error) {
	s.initialized, s.sealed, s.threshold = true, true, p.Threshold
	var made []*secret.Bytes
	for range p.Shares {
		made = append(made, secret.NewBytes([]byte("good share of a root key, 33 bytes")))
	}
	return sys.InitResult{Shares: made, Root: secret.New("hvs.first")}, nil
}

func (s *stateBook) Unseal(_ context.Context, share *secret.Bytes) error {
	if !strings.HasPrefix(string(share.Reveal()), "good") {
		s.given = 0
		return errs.New(errs.Invalid, "the shares do not fit together")
	}
	if s.given++; s.given == s.threshold {
		s.sealed, s.given = false, 0
	}
	return nil
}

func (s *stateBook) ResetUnseal(context.Context) error { s.given = 0; return nil }

func (s *stateBook) Read(context.Context) (sys.Fence, error) { return s.fence, nil }

func (s *stateBook) Lift(context.Context) error { s.fence = sys.Fence{}; return nil }

func (s *stateBook) Required(context.Context) (int, error) { return s.threshold, nil }

func (s *stateBook) Split(_ context.Context, shares []*secret.Bytes, n, threshold int) ([]*secret.Bytes, func(context.Context) error, error) {
	if err := good(shares); err != nil {
		return nil, nil, err
	}
	var next []*secret.Bytes
	for i := range n {
		next = append(next, secret.NewBytes([]byte("good new share "+string(rune('A'+i))+" of a root key")))
	}
	return next, func(context.Context) error {
		if s.commit != nil {
			if err := s.commit(); err != nil {
				return err
			}
		}
		s.threshold = threshold
		s.committed++
		return nil
	}, nil
}

func (s *stateBook) RootToken(_ context.Context, shares []*secret.Bytes) (secret.String, error) {
	return secret.New("hvs.abcdefghijklmnopqrstuvwx"), good(shares)
}

// wrapBook wraps under the token "wrapping" alone.
type wrapBook struct{}

func (wrapBook) Unwrap(_ context.Context, _ string, token secret.String) (*route.Whole, error) {
	if token.Reveal() != "wrapping" {
		return nil, errNothingWrapped
	}
	return &route.Whole{Data: wire.Object(`{"a":1}`)}, nil
}

func (wrapBook) Rewrap(_ context.Context, _ string, token secret.String) (*route.WrapInfo, error) {
	if token.Reveal() != "wrapping" {
		return nil, errNothingWrapped
	}
	return &route.WrapInfo{CreationPath: "kv/a"}, nil
}

func (wrapBook) Lookup(_ context.Context, _ string, token secret.String) (sys.Wrapped, error) {
	if token.Reveal() != "wrapping" {
		return sys.Wrapped{}, errNothingWrapped
	}
	return sys.Wrapped{Path: "kv/a", Created: start, TTL: time.Minute}, nil
}

// spaceBook is a list of namespaces below the root.
type spaceBook struct{ list []sys.Namespace }

func (b *spaceBook) Below(_ context.Context, _ string, deep bool) (out []sys.Namespace, err error) {
	for _, n := range b.list {
		if deep || strings.Count(n.Path, "/") == 1 {
			out = append(out, n)
		}
	}
	return out, nil
}

func (b *spaceBook) find(path string) *sys.Namespace {
	for i := range b.list {
		if b.list[i].Path == strings.Trim(path, "/")+"/" {
			return &b.list[i]
		}
	}
	return nil
}

func (b *spaceBook) At(_ context.Context, _, path string) (sys.Namespace, bool, error) {
	if n := b.find(path); n != nil {
		return *n, true, nil
	}
	return sys.Namespace{}, false, nil
}

func (b *spaceBook) Add(_ context.Context, _, path string, metadata map[string]string) (sys.Namespace, error) {
	n := sys.Namespace{ID: "id-" + path, UUID: "uuid", Path: strings.Trim(path, "/") + "/", Metadata: metadata}
	b.list = append(b.list, n)
	return n, nil
}

func (b *spaceBook) Tune(_ context.Context, _, path string, change func(map[string]string) map[string]string) (sys.Namespace, error) {
	n := b.find(path)
	if n == nil {
		return sys.Namespace{}, errs.New(errs.NotFound, "no namespace")
	}
	n.Metadata = change(n.Metadata)
	return *n, nil
}

func (b *spaceBook) Remove(_ context.Context, _, path string) (bool, error) {
	n := b.find(path)
	b.list = slices.DeleteFunc(b.list, func(one sys.Namespace) bool { return n != nil && one.Path == n.Path })
	return n != nil, nil
}

func (b *spaceBook) Lock(_ context.Context, _, path string) (secret.String, error) {
	b.find(path).Locked = true
	return secret.New("key"), nil
}

func (b *spaceBook) Unlock(_ context.Context, _, path string, key secret.String, whatever bool) error {
	if !whatever && key.Reveal() != "key" {
		return errs.New(errs.Invalid, "wrong key")
	}
	b.find(path).Locked = false
	return nil
}
