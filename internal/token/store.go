package token

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
)

// Config is what a Store is made of.
type Config struct {
	Store storage.Backend
	// Hash is the store's keyed one-way function for tokens and accessors.
	Hash func(string) [32]byte
	// Seal and Open encrypt batch tokens under the keyring. Open fails for
	// whatever Seal did not make.
	Seal func(plain []byte) ([]byte, error)
	Open func(sealed []byte) ([]byte, error)
	// EndLeases makes due what a token owns, after the token's mark is durable.
	// lapsed says that its time ran out, or that of one above it.
	EndLeases func(ctx context.Context, key string, lapsed bool) error
	// Dropped is told when a token's rows go (its cubbyhole goes with it).
	Dropped func(ctx context.Context, ns, key string) error
	// Living reports whether a namespace is there and not ending; nil: each is.
	// It is not asked about the root.
	Living func(ns string) bool
	// Record stores the audit records of the ends of one transaction, if a
	// device is enabled.
	Record func(tx storage.Tx, ends []End) error
	// Fenced reports that expiry waits.
	Fenced func() bool
	Part   int // this writer's part of the counts, 0 to 15
	Now    func() time.Time
	Log    *slog.Logger
}

// Store holds the tokens of one unsealed server.
type Store struct {
	cfg   Config
	cache *cache
}

// New makes a store. Run keeps its cache true; before Run has begun nothing is
// cached.
func New(cfg Config) *Store {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{cfg: cfg, cache: newCache()}
}

// Changed tells the cache what was written. The server's one Watch calls it
// before any Update returns.
func (s *Store) Changed(changes []storage.Change) {
	for _, c := range changes {
		if key, ok := strings.CutPrefix(c.Key, rowPrefix); ok {
			s.cache.invalidate(key, c.Rev)
		} else if key, ok := strings.CutPrefix(c.Key, alivePrefix); ok {
			s.cache.invalidate(key, c.Rev)
		}
	}
}

// Lost tells the cache that changes up to rev may have been missed.
func (s *Store) Lost(rev storage.Revision) { s.cache.drop(rev) }

// ErrInvalid is what a caller with an unknown, ended or expired token reads.
var ErrInvalid = errs.New(errs.Denied, "permission denied: the token is invalid, expired or revoked")

// Key is the keyed hash by which a token's text is known to the store.
func (s *Store) Key(text secret.String) string {
	t := text.Reveal()
	var room [96]byte // of every request with a token: one allocation, not five
	b := append(room[:0], NamespaceOf(t)...)
	return string(s.appendTokenKey(append(b, '/'), t))
}

func (s *Store) appendHash(dst []byte, of string) []byte {
	h := s.cfg.Hash(of)
	return hex.AppendEncode(dst, h[:20])
}

// NamespaceOf is the namespace in a token's text, or in an accessor: what
// follows its last dot, or the root namespace.
func NamespaceOf(text string) string {
	body := text
	for _, p := range []string{ServicePrefix, BatchPrefix, RecoveryPrefix} {
		if rest, ok := strings.CutPrefix(text, p); ok {
			body = rest
		}
	}
	if i := strings.LastIndexByte(body, '.'); i > 0 && i < len(body)-1 {
		if ns := body[i+1:]; !strings.ContainsRune(ns, '/') {
			return ns
		}
	}
	return RootNamespace
}

// RootNamespace is the fixed id of the root namespace.
const RootNamespace = "root"

// Lookup finds a live token by its text. ErrInvalid says that there is none.
func (s *Store) Lookup(ctx context.Context, text secret.String) (*Token, error) {
	if len(text.Reveal()) > maxText {
		return nil, ErrInvalid
	}
	if strings.HasPrefix(text.Reveal(), BatchPrefix) {
		return s.lookupBatch(ctx, text)
	}
	key := s.Key(text)
	e, err := s.LookupKey(ctx, key)
	if err != nil {
		return nil, err
	}
	return &Token{Entry: e, Key: key, Text: text}, nil
}

// maxText bounds what is hashed and looked up: a batch token with much
// metadata fits.
const maxText = 16 << 10

// LookupKey finds a live service token by its Key.
func (s *Store) LookupKey(ctx context.Context, key string) (*Entry, error) {
	c, err := s.load(ctx, key)
	if err != nil {
		return nil, err
	}
	if c == nil || c.alive != lease.Alive || s.expired(c.entry) || !s.living(c.entry.Namespace) {
		return nil, ErrInvalid
	}
	if err := s.ancestors(ctx, c.entry); err != nil {
		return nil, err
	}
	return c.entry, nil
}

// living reports whether a token's namespace lives. Its ancestors' need not be
// asked about: they are that one or above it.
func (s *Store) living(ns string) bool {
	return ns == RootNamespace || s.cfg.Living == nil || s.cfg.Living(ns)
}

// maxDepth bounds a chain of parents. Create refuses deeper ones.
const maxDepth = 64

func (s *Store) ancestors(ctx context.Context, e *Entry) error {
	for depth := 0; e.Parent != ""; depth++ {
		c, err := s.load(ctx, e.Parent)
		if err != nil {
			return err
		}
		if c != nil && c.alive == orphaning {
			return nil // its children live on
		}
		if c == nil || c.alive != lease.Alive || s.expired(c.entry) || depth > maxDepth {
			return ErrInvalid
		}
		e = c.entry
	}
	return nil
}

func (s *Store) expired(e *Entry) bool {
	return !e.Expires.IsZero() && !e.Expires.After(s.cfg.Now())
}

// Alive reports whether a token, by its Key, and all its ancestors live. It is
// what leases ask about their owner.
func (s *Store) Alive(ctx context.Context, _, key string) (bool, error) {
	_, err := s.LookupKey(ctx, key)
	if errors.Is(err, ErrInvalid) {
		return false, nil
	}
	return err == nil, err
}

// load reads a token through the cache: nil when there is no row. A row that
// cannot be read refuses its token and nothing else.
func (s *Store) load(ctx context.Context, key string) (*cached, error) {
	if c := s.cache.get(key); c != nil {
		return c, nil
	}
	var c *cached
	size := 0
	err := s.cfg.Store.View(ctx, func(v storage.View) error {
		b, err := v.Get(rowPrefix + key)
		if err != nil || b == nil {
			return err
		}
		e, err := decode(key, b)
		if err != nil {
			return err
		}
		alive, err := v.Get(alivePrefix + key)
		if err != nil {
			return err
		}
		c, size = &cached{entry: e, alive: string(alive), rev: v.Revision()}, len(b)
		return nil
	})
	if errors.Is(err, storage.ErrStopped) || errors.Is(err, storage.ErrClosed) || err != nil && ctx.Err() != nil {
		return nil, err // nothing is known of the token
	}
	if err != nil {
		s.cfg.Log.Error("a token's row cannot be read; the token is refused", "error", err)
		return nil, errs.Wrap(errs.Denied, err, "permission denied: the token cannot be read; the server's log has the cause")
	}
	if c != nil && size <= mostCached {
		s.cache.put(key, c)
	}
	return c, nil
}

// Use takes one of a token's limited uses, durably and before the request
// acts. last says that it was the last one: the token is to be revoked after
// the request.
func (s *Store) Use(ctx context.Context, t *Token) (last bool, err error) {
	if t.NumUses == 0 || t.Type == Batch {
		return false, nil
	}
	_, err = s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
		last = false
		b, err := tx.Get(usesPrefix + t.Key)
		if err != nil {
			return err
		}
		n, _ := strconv.Atoi(string(b))
		if n <= 0 {
			return ErrInvalid
		}
		last = n == 1
		return tx.Put(usesPrefix+t.Key, strconv.AppendInt(nil, int64(n-1), 10))
	})
	return last, err
}

// UsesLeft is how many uses are left of a token whose uses are limited.
func (s *Store) UsesLeft(ctx context.Context, key string) (n int, err error) {
	err = s.cfg.Store.View(ctx, func(v storage.View) error {
		b, err := v.Get(usesPrefix + key)
		n, _ = strconv.Atoi(string(b))
		return err
	})
	return n, err
}

// ByAccessor finds a live token's Key by its accessor. ErrNoAccessor says that
// there is none.
func (s *Store) ByAccessor(ctx context.Context, ns, accessor string) (string, *Entry, error) {
	var key string
	err := s.cfg.Store.View(ctx, func(v storage.View) error {
		b, err := v.Get(s.accessorKey(ns, accessor))
		_, key, _ = strings.Cut(string(b), " ")
		return err
	})
	if err != nil {
		return "", nil, err
	}
	if key == "" {
		return "", nil, ErrNoAccessor
	}
	e, err := s.LookupKey(ctx, key)
	if errors.Is(err, ErrInvalid) {
		return "", nil, ErrNoAccessor
	}
	return key, e, err
}

// ErrNoAccessor is what a caller with an unknown accessor reads.
var ErrNoAccessor = errs.New(errs.Invalid, "invalid accessor")

// Accessors calls fn with the accessor of each token of a namespace, ended
// ones included until they are cleaned up.
func (s *Store) Accessors(ctx context.Context, ns string, fn func(accessor string) bool) error {
	prefix := accPrefix + ns + "/"
	return s.cfg.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, prefix, storage.PrefixEnd(prefix), 0, func(_ string, b []byte, bad error) bool {
			if bad != nil {
				s.cfg.Log.Error("listing accessors", "error", bad)
				return true
			}
			accessor, _, _ := strings.Cut(string(b), " ")
			return fn(accessor)
		})
	})
}

// Each calls fn with every service token of a namespace, for lists by
// operators. Rows that cannot be read are passed over.
func (s *Store) Each(ctx context.Context, ns string, fn func(key string, e *Entry) bool) error {
	prefix := rowPrefix + ns + "/"
	return s.cfg.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, prefix, storage.PrefixEnd(prefix), 0, func(key string, b []byte, err error) bool {
			var e *Entry
			if err == nil {
				e, err = decode(key, b)
			}
			if err != nil {
				s.cfg.Log.Error("listing tokens", "error", err)
				return true
			}
			return fn(key[len(rowPrefix):], e)
		})
	})
}

// Count is how many service tokens a namespace has.
func (s *Store) Count(ctx context.Context, ns string) (n int64, err error) {
	return s.sum(ctx, countPrefix+ns+"/")
}

// CountMount is how many of them came in by one auth mount, and CountRole how
// many for one of its roles.
func (s *Store) CountMount(ctx context.Context, ns, mount string) (int64, error) {
	return s.sum(ctx, countPrefix+ns+"/"+mount+"/")
}

// CountRole: see CountMount.
func (s *Store) CountRole(ctx context.Context, ns, mount, role string) (int64, error) {
	return s.sum(ctx, countPrefix+ns+"/"+mount+"/"+role+"/")
}

func (s *Store) sum(ctx context.Context, prefix string) (n int64, err error) {
	err = s.cfg.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, prefix, storage.PrefixEnd(prefix), 0, func(_ string, b []byte, _ error) bool {
			part, _ := strconv.ParseInt(string(b), 10, 64)
			n += part
			return true
		})
	})
	return max(n, 0), err // below zero where a row was lost
}

// counter is where a token is counted.
func (e *Entry) counter() string {
	return countPrefix + e.Namespace + "/" + e.MountID + "/" + e.LoginRole + "/"
}

func (s *Store) addCount(tx storage.Tx, counter string, n int64) error {
	key := counter + strconv.Itoa(s.cfg.Part)
	b, err := tx.Get(key)
	if isBadRow(err) {
		b, err = nil, nil // a figure that is lost must stop no token
	}
	if err != nil {
		return err
	}
	have, _ := strconv.ParseInt(string(b), 10, 64)
	if have+n == 0 {
		return tx.Delete(key)
	}
	return tx.Put(key, strconv.AppendInt(nil, have+n, 10))
}

// putDue writes the due key of a token that expires, moving an earlier one.
func (e *Entry) putDue(tx storage.Tx, key string, at, now time.Time) error {
	if !e.Due.IsZero() {
		if err := tx.Delete(e.dueKey(key)); err != nil {
			return err
		}
	}
	if at.IsZero() {
		e.Due = at
		return nil
	}
	at, err := lane.Later(tx, Target, at, now)
	if err != nil {
		return err
	}
	e.Due = at.Round(0)
	return tx.Put(e.dueKey(key), nil)
}

// readRow reads a token's row: nil when there is none. Of a row that cannot be
// read the error is a *storage.CorruptError; see isBadRow.
func readRow(r storage.Reader, key string) (*Entry, error) {
	b, err := r.Get(rowPrefix + key)
	if err != nil || b == nil {
		return nil, err
	}
	e, err := decode(key, b)
	if err != nil {
		return nil, &storage.CorruptError{Key: rowPrefix + key, Err: err}
	}
	return e, nil
}

// isBadRow reports whether an error is of one row that cannot be read. It
// refuses its token, and nothing else stops for it.
func isBadRow(err error) bool {
	var bad *storage.CorruptError
	return errors.As(err, &bad)
}

func putRow(tx storage.Tx, key string, e *Entry) error {
	return tx.Put(rowPrefix+key, encode(e))
}
