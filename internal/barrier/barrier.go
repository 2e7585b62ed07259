// Package barrier encrypts everything that is stored. It is a storage.Backend
// over a storage.Backend: keys stay readable, because the store has to sort
// them; each value is sealed with AES-256-GCM, with its key and the format
// version as associated data, so that no row passes for another.
//
// The keyring holds the keys, by term; rotating adds a term, and rows say
// under which term they were written. The keyring itself is a row, encrypted
// under the root key, which package seal keeps wrapped. Term keys never
// encrypt anything: from a term key and a random salt every process derives a
// subkey of its own, used for at most 2^31 values, and the salt stands in each
// row's header. So no AES key ever meets 2^32 random nonces, however many
// processes, nodes and restored backups share a keyring.
//
// Rows below SealedPrefix are not the barrier's: they are read while sealed,
// and whoever looks through a barrier does not see them.
package barrier

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
)

// SealedPrefix begins the keys of rows that must be readable while sealed:
// the keyring and what package seal keeps. They are written below the barrier.
const SealedPrefix = "seal/"

// keyringKey is where the keyring lies in the store below.
const keyringKey = SealedPrefix + "keyring"

// KeySize is the length of a root key.
const KeySize = 32

var (
	// ErrInitialized is returned by Init for a store that has a keyring.
	ErrInitialized = errs.New(errs.Invalid, "Vault is already initialized")
	// ErrUninitialized is returned by Open for a store that has none.
	ErrUninitialized = errs.New(errs.Invalid, "Vault is not initialized")
	// ErrWrongKey is returned when the root key does not open the keyring.
	ErrWrongKey = errs.New(errs.Invalid, "the root key does not open the keyring; it belongs to another store, or the keyring is damaged")
	// ErrUnsure is returned by Rekey when the store failed and cannot be asked
	// which root key it has now: the old or the new one.
	ErrUnsure = errors.New("barrier: it is not known whether the new root key was stored")
)

// Barrier is the encrypting Backend. Make one with Open.
type Barrier struct {
	under storage.Backend
	now   func() time.Time

	life context.Context // ends with Close
	end  context.CancelFunc

	write atomic.Pointer[subkey] // what values are sealed with now; nil once closed
	read  [1 << 10]atomic.Pointer[subkey]

	mu   sync.Mutex // guards the keyring's keys; taken to derive, not to encrypt
	root *secret.Bytes
	ring *keyring // nil once closed
	used map[uint32]uint64
}

var _ storage.Backend = (*Barrier)(nil)

// Initialized reports whether the store below has a keyring.
func Initialized(ctx context.Context, under storage.Backend) (is bool, err error) {
	err = under.View(ctx, func(v storage.View) error {
		row, err := v.Get(keyringKey)
		is = row != nil
		return err
	})
	return is, err
}

// Init makes a keyring under a root key of KeySize bytes. with, if not nil,
// writes in the same transaction what must not be missing beside a keyring:
// the seal's configuration.
func Init(ctx context.Context, under storage.Backend, root []byte, now time.Time, with func(storage.Tx) error) error {
	ring, err := newKeyring(now)
	if err != nil {
		return err
	}
	defer ring.wipe()
	row, err := ring.encrypt(root)
	if err != nil {
		return err
	}
	_, err = under.Update(ctx, func(tx storage.Tx) error {
		switch old, err := tx.Get(keyringKey); {
		case err != nil:
			return err
		case old != nil:
			return ErrInitialized
		}
		if err := tx.Put(keyringKey, row); err != nil || with == nil {
			return err
		}
		return with(tx)
	})
	return err
}

// Open opens the keyring with the root key, of which it keeps a copy until
// Close. now is the clock.
func Open(ctx context.Context, under storage.Backend, root []byte, now func() time.Time) (*Barrier, error) {
	ring, err := load(ctx, under, root)
	if err != nil {
		return nil, err
	}
	b := &Barrier{under: under, now: now, ring: ring, root: copyOf(root), used: map[uint32]uint64{}}
	b.life, b.end = context.WithCancel(context.Background())
	key, err := ring.newSubkey(ring.Active)
	if err != nil {
		return nil, err
	}
	b.write.Store(key)
	return b, nil
}

func copyOf(b []byte) *secret.Bytes { return secret.NewBytes(append([]byte(nil), b...)) }

func load(ctx context.Context, under storage.Backend, root []byte) (ring *keyring, err error) {
	err = under.View(ctx, func(v storage.View) error {
		row, err := v.Get(keyringKey)
		if err != nil {
			return err
		}
		ring, err = decryptKeyring(row, root)
		return err
	})
	return ring, err
}

// Close forgets the keys: the store is sealed. What has begun is not waited
// for; it ends with what it has. The store below stays open.
func (b *Barrier) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end()
	b.write.Store(nil)
	for i := range b.read {
		b.read[i].Store(nil)
	}
	if b.ring != nil {
		b.ring.wipe()
		b.ring = nil
	}
	b.root.Wipe()
	return nil
}

// View implements storage.Backend. What Get returns is the caller's to keep.
func (b *Barrier) View(ctx context.Context, fn func(storage.View) error) error {
	if b.write.Load() == nil {
		return storage.ErrClosed
	}
	return b.under.View(ctx, func(v storage.View) error {
		r := views.Get().(*view)
		r.opener.b, r.v = b, v
		err := fn(r)
		r.opener.b, r.v = nil, nil
		views.Put(r) // not deferred: after a panic it is left to the collector
		return err
	})
}

// Update implements storage.Backend.
func (b *Barrier) Update(ctx context.Context, fn func(storage.Tx) error) (storage.Revision, error) {
	if b.write.Load() == nil {
		return 0, storage.ErrClosed
	}
	return b.under.Update(ctx, func(t storage.Tx) error {
		r := txs.Get().(*tx)
		r.opener.b, r.t, r.err = b, t, nil
		err := fn(r)
		if err == nil {
			err = r.err
		}
		r.opener.b, r.t = nil, nil
		txs.Put(r)
		return err
	})
}

// Watch implements storage.Backend.
func (b *Barrier) Watch(ctx context.Context, from storage.Revision, fn func([]storage.Change) error) error {
	if b.write.Load() == nil {
		return storage.ErrClosed
	}
	merged, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.life, cancel)()
	var ours []storage.Change
	err := b.under.Watch(merged, from, func(cs []storage.Change) error {
		if len(cs) == 0 {
			return fn(nil)
		}
		ours = ours[:0]
		for _, c := range cs {
			if !reserved(c.Key) {
				ours = append(ours, c)
			}
		}
		if len(ours) == 0 {
			return nil
		}
		return fn(ours)
	})
	if ctx.Err() == nil && b.life.Err() != nil && errors.Is(err, context.Canceled) {
		return storage.ErrClosed
	}
	return err
}

// reserved reports whether a key is not the barrier's.
func reserved(key string) bool { return strings.HasPrefix(key, SealedPrefix) }

// view decrypts what the View below gives.
type view struct {
	opener
	v storage.View
}

var views = sync.Pool{New: func() any { return new(view) }}

func (r *view) Revision() storage.Revision { return r.v.Revision() }

func (r *view) Get(key string) ([]byte, error) {
	if reserved(key) {
		return nil, nil
	}
	raw, err := r.v.Get(key)
	if err != nil || raw == nil {
		return nil, err
	}
	return r.open(nil, key, raw)
}

func (r *view) Scan(from, to string, limit int, fn func(string, []byte) bool) error {
	return r.scan(r.v.Scan, from, to, limit, fn)
}

func (r *view) ScanDesc(from, to string, limit int, fn func(string, []byte) bool) error {
	return r.scan(r.v.ScanDesc, from, to, limit, fn)
}

type scanner func(from, to string, limit int, fn func(string, []byte) bool) error

func (r *view) scan(below scanner, from, to string, limit int, fn func(string, []byte) bool) error {
	pass := limit
	if from < storage.PrefixEnd(SealedPrefix) && (to == "" || to > SealedPrefix) {
		pass = 0 // rows that are not ours would count
	}
	var buf []byte
	var bad error
	given := 0
	err := below(from, to, pass, func(key string, raw []byte) bool {
		if reserved(key) {
			return true
		}
		value, err := r.open(buf[:0], key, raw)
		if err != nil {
			bad = err
			return false
		}
		buf = value
		given++
		return fn(key, value) && given != limit
	})
	if err == nil {
		err = bad
	}
	return err
}

// tx decrypts and encrypts for the transaction below.
type tx struct {
	opener
	t   storage.Tx
	buf []byte // a sealed value on its way down; Put below copies it
	err error  // of the barrier itself; fails the Update, as the contract has it
}

var txs = sync.Pool{New: func() any { return new(tx) }}

func (r *tx) Get(key string) ([]byte, error) {
	if reserved(key) {
		return nil, nil
	}
	raw, err := r.t.Get(key)
	if err != nil || raw == nil {
		return nil, err
	}
	value, err := r.open(nil, key, raw)
	var bad *storage.CorruptError
	if err != nil && !errors.As(err, &bad) {
		r.err = err
	}
	return value, err
}

func (r *tx) Put(key string, value []byte) error {
	if reserved(key) {
		return r.t.Put("", nil) // fails the transaction with ErrBadKey
	}
	sealed, err := r.seal(r.buf[:0], key, value)
	if err != nil {
		r.err = err
		return err
	}
	err = r.t.Put(key, sealed)
	if r.buf = sealed; cap(sealed) > 64<<10 {
		r.buf = nil
	}
	return err
}

func (r *tx) Delete(key string) error {
	if reserved(key) {
		return nil
	}
	return r.t.Delete(key)
}
