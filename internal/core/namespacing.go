package core

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
)

// This file makes, changes and ends namespaces. namespaces.go keeps what is in
// memory in step.

const (
	// deepest bounds how far namespaces nest: each level is one more key that
	// issuing a lease looks at.
	deepest = 16
	// longestName and mostMetadata bound what one row holds.
	longestName  = 128
	mostMetadata = 64 << 10
)

// reservedNames cannot be told from the server's own paths, or from the root.
var reservedNames = []string{"root", "sys", "auth", "audit", "cubbyhole", "identity", "api-lock", ".", ".."}

// checkName judges the name of a namespace to be. Whatever it lets through
// means one thing in a path, in a header and in a policy.
func checkName(name string) error {
	for _, own := range reservedNames {
		if strings.EqualFold(name, own) {
			return errs.New(errs.Invalid, "%q is a reserved path and cannot be used as a namespace", name)
		}
	}
	odd := func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r) || strings.ContainsRune(`*+%?#\"`, r)
	}
	switch {
	case name == "" || len(name) > longestName:
		return errs.New(errs.Invalid, "the name of a namespace has 1 to %d bytes", longestName)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, odd):
		return errs.New(errs.Invalid, `the name of a namespace has no spaces and none of * + %% ? # \ "`)
	}
	return nil
}

// AddNamespace makes a namespace at a path seen from another one, with the
// mounts and policies that each has of its own. Its parent must be there.
func (c *Core) AddNamespace(ctx context.Context, ns, path string, metadata map[string]string) (Namespace, error) {
	var none Namespace
	u, err := c.open()
	if err != nil {
		return none, err
	}
	t, err := u.spaces.current(ctx)
	if err != nil {
		return none, err
	}
	path = strings.Trim(path, "/")
	above, name := "", path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		above, name = path[:i], path[i+1:]
	}
	if err := checkName(name); err != nil {
		return none, err
	}
	if strings.HasSuffix(above, "/") {
		return none, errs.New(errs.Invalid, "the path %q has an empty name in it", path)
	}
	parent := t.at(ns, above)
	switch {
	case parent == nil:
		return none, errs.New(errs.Invalid, "parent namespace %q does not exist: make it first", above+"/")
	case strings.Count(parent.Path, "/") >= deepest:
		return none, errs.New(errs.Invalid, "namespaces nest %d deep at most", deepest)
	}
	n := Namespace{
		V: namespaceVersion, ID: newNamespaceID(), UUID: newUUID(), Parent: parent.ID, Path: parent.Path + name + "/", Metadata: metadata,
	}
	if err := n.checkMetadata(); err != nil {
		return none, err
	}
	mounts, err := u.mounts.current(ctx)
	if err != nil {
		return none, err
	}
	// As with mounts, two requests at the same moment may both pass; then the
	// namespace wins in routing.
	for _, m := range mounts.ofNS[parent.ID] {
		if m.Ending.IsZero() && strings.HasPrefix(m.Path, name+"/") {
			return none, errs.New(errs.Invalid, "path is already in use: a mount is at %s", m.Path)
		}
	}
	now := c.cfg.Now().Round(0)
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		if err := allLive(tx, parent.live); err != nil {
			return err
		}
		for _, taken := range []string{n.pathKey(), n.rowKey()} {
			if v, err := tx.Get(taken); err != nil || v != nil {
				if err == nil {
					err = errs.New(errs.Invalid, "namespace %q exists already", n.Path)
				}
				return err
			}
		}
		if err := tx.Put(n.pathKey(), []byte(n.ID)); err != nil {
			return err
		}
		if err := tx.Put(NamespaceLiveKey(n.ID), []byte(lease.Alive)); err != nil {
			return err
		}
		if err := addOwn(tx, n.ID, PolicyRow{V: policyVersion, Modified: now}); err != nil {
			return err
		}
		return putJSON(tx, n.rowKey(), &n)
	})
	if err != nil {
		return none, fmt.Errorf("making a namespace: %w", err)
	}
	_, err = u.mounts.current(ctx)
	return n, err
}

// allLive is lease.ErrNotLive unless every one of the liveness keys says so.
func allLive(tx storage.Tx, keys []string) error {
	for _, k := range keys {
		if v, err := tx.Get(k); err != nil || string(v) != lease.Alive {
			if err == nil {
				err = lease.ErrNotLive
			}
			return err
		}
	}
	return nil
}

// addOwn writes the mounts and policies that every namespace has. row is a
// policy without its name and text.
func addOwn(tx storage.Tx, ns string, row PolicyRow) error {
	for name, text := range map[string]string{
		policy.DefaultName: policy.DefaultText, policy.ResponseWrappingName: policy.ResponseWrappingText,
	} {
		row.Name, row.Text, row.Edition = name, text, 1
		if err := putJSON(tx, policyPrefix+ns+"/"+name, row); err != nil {
			return err
		}
	}
	for _, m := range []Mount{
		{Path: "sys/", Class: ClassSecret, Type: "system", Description: "system endpoints used for control, policy and debugging", SealWrap: true, Config: MountConfig{PassthroughHeaders: []string{"Accept"}}},
		{Path: "cubbyhole/", Class: ClassSecret, Type: "cubbyhole", Description: "per-token private secret storage", Local: true},
		{Path: "identity/", Class: ClassSecret, Type: "identity", Description: "identity store", Config: MountConfig{PassthroughHeaders: []string{"Authorization"}}},
		{Path: "auth/token/", Class: ClassAuth, Type: "token", Description: "token based credentials", Config: MountConfig{TokenType: "default-service"}},
	} {
		m.Namespace = ns
		m.draw()
		if err := addMount(tx, &m); err != nil {
			return err
		}
	}
	return nil
}

// idLength characters of a namespace's id are 47 bits: an id that was used
// once is not drawn again, so that no token of a namespace that is gone is one
// of another.
const (
	idLength   = 8
	idAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

func newNamespaceID() string {
	var id []byte
	var b [2 * idLength]byte
	for len(id) < idLength {
		rand.Read(b[:])
		for _, c := range b {
			if c < 248 && len(id) < idLength { // no bias
				id = append(id, idAlphabet[c%62])
			}
		}
	}
	return string(id)
}

func (n *Namespace) checkMetadata() error {
	size := 0
	for k, v := range n.Metadata {
		size += len(k) + len(v)
	}
	if size > mostMetadata {
		return errs.New(errs.TooLarge, "the custom_metadata of a namespace is %d bytes; at most %d are possible", size, mostMetadata)
	}
	return nil
}

// errNoNamespace is what those read who name a namespace that is not there.
func errNoNamespace(path string) error {
	return errs.New(errs.NotFound, "there is no namespace %q", strings.Trim(path, "/")+"/")
}

// TuneNamespace stores what change makes of a namespace's metadata or lock. It
// may call change more than once.
func (c *Core) TuneNamespace(ctx context.Context, ns, path string, change func(*Namespace) error) (n Namespace, err error) {
	u, err := c.open()
	if err != nil {
		return n, err
	}
	t, err := u.spaces.current(ctx)
	if err != nil {
		return n, err
	}
	s := t.at(ns, path)
	switch {
	case s == nil:
		return n, errNoNamespace(path)
	case s == t.root:
		return n, errs.New(errs.Invalid, "the root namespace cannot be changed or locked")
	}
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		row, err := getNamespace(tx, s.ID)
		if err != nil {
			return err
		}
		if row == nil || !row.Ending.IsZero() {
			return errNoNamespace(path)
		}
		row.Metadata = maps.Clone(row.Metadata)
		if err := change(row); err != nil {
			return err
		}
		n = *row
		if err := n.checkMetadata(); err != nil {
			return err
		}
		return putJSON(tx, row.rowKey(), row)
	})
	return n, err
}

func getNamespace(r storage.Reader, id string) (*Namespace, error) {
	b, err := r.Get(namespacePrefix + id)
	if err != nil || b == nil {
		return nil, err
	}
	n := new(Namespace)
	if err := json.Unmarshal(b, n); err != nil {
		return nil, fmt.Errorf("namespace %s: %w", id, err)
	}
	return n, nil
}

// LockNamespace closes the API of a namespace and of those below it to all but
// who has the key that it gives. Leases go on ending.
func (c *Core) LockNamespace(ctx context.Context, ns, path string) (secret.String, error) {
	key := rand.Text()
	_, err := c.TuneNamespace(ctx, ns, path, func(n *Namespace) error {
		if n.Lock != "" {
			return errs.New(errs.Invalid, "namespace %q is locked already", n.Path)
		}
		n.Lock = lockOf(key)
		return nil
	})
	if err != nil {
		return secret.String{}, err
	}
	return secret.New(key), nil
}

// UnlockNamespace opens it again. whatever says that the caller needs no key.
func (c *Core) UnlockNamespace(ctx context.Context, ns, path string, key secret.String, whatever bool) error {
	_, err := c.TuneNamespace(ctx, ns, path, func(n *Namespace) error {
		switch {
		case n.Lock == "":
			return errs.New(errs.Invalid, "namespace %q is not locked", n.Path)
		case whatever && key.IsZero():
		case subtle.ConstantTimeCompare([]byte(lockOf(key.Reveal())), []byte(n.Lock)) != 1:
			return errs.New(errs.Invalid, "incorrect unlock key: it is the one that locking answered")
		}
		n.Lock = ""
		return nil
	})
	return err
}

// lockOf is what is stored of a key of 128 random bits.
func lockOf(key string) string {
	sum := sha256.Sum256([]byte("namespace-lock:" + key))
	return hex.EncodeToString(sum[:])
}

// RemoveNamespace begins to end a namespace: once its mark is durable it is
// gone from routing and no token or lease can be committed in it. What is in it
// is ended by sweepSpaces. there is false where it was gone already.
func (c *Core) RemoveNamespace(ctx context.Context, ns, path string) (there bool, err error) {
	u, err := c.open()
	if err != nil {
		return false, err
	}
	t, err := u.spaces.current(ctx)
	if err != nil {
		return false, err
	}
	s := t.at(ns, path)
	switch {
	case s == nil:
		return false, nil
	case s == t.root:
		return true, errs.New(errs.Invalid, "the root namespace cannot be deleted")
	case s.ID == ns:
		return true, errs.New(errs.Invalid, "a namespace is deleted from the one above it")
	case len(s.kids) > 0:
		return true, errs.New(errs.Invalid, "cannot delete namespace %q containing child namespaces: delete those first", s.Path)
	}
	if err := u.markSpace(ctx, s.ID); err != nil {
		return true, fmt.Errorf("deleting a namespace: %w", err)
	}
	u.kick()
	_, err = u.spaces.current(ctx)
	return true, err
}

// markSpace writes the mark by which a namespace ends. From here on it is
// finished after a crash too.
func (u *unsealed) markSpace(ctx context.Context, id string) error {
	_, err := u.store.Update(ctx, func(tx storage.Tx) error {
		row, err := getNamespace(tx, id)
		if err != nil || row == nil || !row.Ending.IsZero() {
			return err
		}
		row.Ending = u.core.cfg.Now().Round(0)
		if err := tx.Put(NamespaceLiveKey(id), []byte(lease.Ended)); err != nil {
			return err
		}
		if err := tx.Delete(row.pathKey()); err != nil {
			return err
		}
		return putJSON(tx, row.rowKey(), row)
	})
	return err
}

// namespaceRanges are the beginnings of the keys that are a namespace's beside
// its mounts. They are deleted when its tokens and leases are gone.
func namespaceRanges(id string) []string {
	return append(append(token.Ranges(id), lease.Ranges(id)...),
		policyPrefix+id+"/", passwordPrefix+id+"/", wrapPrefix+id+"/", lockPrefix+id+"/", quotaPrefix+id+"/",
		quotaAtPrefix+string(RateLimit)+"/"+id+"/", quotaAtPrefix+string(LeaseCount)+"/"+id+"/")
}

// sweepSpaces finishes the namespaces that are ending.
func (u *unsealed) sweepSpaces(ctx context.Context) {
	t, err := u.spaces.current(ctx)
	if err != nil {
		return
	}
	for _, s := range t.byID {
		if s.Ending.IsZero() {
			continue
		}
		if err := u.endSpace(ctx, s); err != nil && ctx.Err() == nil {
			u.core.log.Error("ending a namespace; it is tried again", "namespace", s.Path, "error", err)
		}
	}
}

// endSpace ends what is in a namespace: what is below it, its mounts, whose
// leases go through their lanes, and its tokens. Once none of these is left it
// deletes the rest and the tombstone. It is a sequence of idempotent steps.
func (u *unsealed) endSpace(ctx context.Context, s *space) error {
	t, err := u.spaces.current(ctx)
	if err != nil {
		return err
	}
	for _, kid := range t.byID {
		if kid.Parent == s.ID && kid.Ending.IsZero() {
			if err := u.markSpace(ctx, kid.ID); err != nil {
				return err
			}
			u.kick()
		}
	}
	mounts, err := u.mounts.current(ctx)
	if err != nil {
		return err
	}
	for _, m := range mounts.ofNS[s.ID] {
		if m.Ending.IsZero() {
			if _, err := u.markMount(ctx, &m.Mount); err != nil {
				return err
			}
		}
	}
	// Nothing is made in it any more, so that one walk over the tokens does.
	if !s.Marked {
		if err := u.tokens.RevokeNamespace(ctx, s.ID); err != nil {
			return err
		}
		_, err := u.store.Update(ctx, func(tx storage.Tx) error {
			row, err := getNamespace(tx, s.ID)
			if err != nil || row == nil {
				return err
			}
			row.Marked = true
			return putJSON(tx, row.rowKey(), row)
		})
		if err != nil {
			return err
		}
	}
	left, err := u.inSpace(ctx, t, s)
	if err != nil || left {
		return err
	}
	for _, prefix := range namespaceRanges(s.ID) {
		if err := u.deletePrefix(ctx, prefix); err != nil {
			return err
		}
	}
	// A request that was let in before may be writing yet; see endMount.
	if u.core.cfg.Now().Before(s.Ending.Add(endGrace)) {
		return nil
	}
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		if err := tx.Delete(NamespaceLiveKey(s.ID)); err != nil {
			return err
		}
		return tx.Delete(s.rowKey())
	})
	return err
}

// inSpace reports whether a namespace has something yet that must end before
// its rows go. A mount or lease that cannot be read is something; a token is
// not, since nobody can use it.
func (u *unsealed) inSpace(ctx context.Context, t *spaceTable, s *space) (left bool, err error) {
	for _, kid := range t.byID {
		if kid.Parent == s.ID {
			return true, nil
		}
	}
	if left, err = u.tokens.Any(ctx, s.ID); err != nil || left {
		return left, err
	}
	if left, err = u.leases.InNamespace(ctx, s.ID); err != nil || left {
		return left, err
	}
	err = u.store.View(ctx, func(v storage.View) error {
		for _, prefix := range []string{mountPrefix + s.ID + "/", namespacePathPrefix + s.ID + "/"} {
			err := storage.ScanEach(v, prefix, storage.PrefixEnd(prefix), 1, func(string, []byte, error) bool {
				left = true
				return false
			})
			if err != nil || left {
				return err
			}
		}
		return nil
	})
	return left, err
}

// kick makes the sweep begin at once.
func (u *unsealed) kick() {
	select {
	case u.kicked <- struct{}{}:
	default:
	}
}
