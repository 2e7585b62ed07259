package barrier

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/leasehold/leasehold/internal/storage"
)

// keyring is the stored keyring, version 1, in JSON:
//
//	1 byte    version
//	16 bytes  salt: key = HKDF-SHA256(root key, salt, infoKeyring)
//	12 bytes  nonce, random
//	n bytes   AES-256-GCM(key, nonce, JSON), associated data: the version, then the row's key
//	16 bytes  tag
//
// Each writing draws a new salt, and so has a key of its own.
type keyring struct {
	Version int    `json:"version"`
	Active  uint32 `json:"active"`
	Terms   []term `json:"terms"`
	Hash    []byte `json:"hash"` // for KeyedHash; made once, kept over every rotation
}

type term struct {
	Term      uint32    `json:"term"`
	Key       []byte    `json:"key"`
	Installed time.Time `json:"installed"`
}

const infoKeyring = "leasehold/barrier/1/keyring"

func newKeyring(now time.Time) (*keyring, error) {
	r := &keyring{Version: version, Hash: random(KeySize)}
	r.rotate(now)
	return r, nil
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// rotate adds a term and makes it the active one.
func (r *keyring) rotate(now time.Time) {
	r.Active++
	r.Terms = append(r.Terms, term{r.Active, random(KeySize), now.UTC()})
}

// key is a term's key, or ErrUnknownTerm.
func (r *keyring) key(t uint32) ([]byte, error) {
	for i := len(r.Terms) - 1; i >= 0; i-- {
		if r.Terms[i].Term == t {
			return r.Terms[i].Key, nil
		}
	}
	return nil, storage.ErrUnknownTerm
}

// newSubkey derives a subkey with a salt that nobody has used.
func (r *keyring) newSubkey(t uint32) (*subkey, error) {
	key, err := r.key(t)
	if err != nil {
		return nil, err
	}
	var prefix [prefixSize]byte
	prefix[0] = version
	binary.BigEndian.PutUint32(prefix[1:], t)
	_, _ = rand.Read(prefix[5:])
	return derive(key, prefix)
}

func (r *keyring) wipe() {
	if r == nil {
		return
	}
	for i := range r.Terms {
		clear(r.Terms[i].Key)
	}
	clear(r.Hash)
}

func (r *keyring) encrypt(root []byte) ([]byte, error) {
	if len(root) != KeySize {
		return nil, fmt.Errorf("barrier: a root key of %d bytes, want %d", len(root), KeySize)
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	row := append([]byte{version}, random(saltSize+nonceSize)...)
	aead, err := deriveAEAD(root, row[1:1+saltSize], infoKeyring)
	if err != nil {
		return nil, err
	}
	return aead.Seal(row, row[1+saltSize:], text, keyringAAD()), nil
}

func keyringAAD() []byte { return append([]byte{version}, keyringKey...) }

func decryptKeyring(row, root []byte) (*keyring, error) {
	const header = 1 + saltSize + nonceSize
	switch {
	case row == nil:
		return nil, ErrUninitialized
	case len(row) < header+tagSize:
		return nil, ErrWrongKey
	case row[0] != version:
		return nil, fmt.Errorf("barrier: the keyring has format %d, which this Leasehold does not know; run a newer one", row[0])
	}
	aead, err := deriveAEAD(root, row[1:1+saltSize], infoKeyring)
	if err != nil {
		return nil, err
	}
	text, err := aead.Open(nil, row[1+saltSize:header], row[header:], keyringAAD())
	if err != nil {
		return nil, ErrWrongKey
	}
	defer clear(text)
	var r keyring
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("barrier: reading the keyring: %w", err)
	}
	if _, err := r.key(r.Active); err != nil {
		return nil, fmt.Errorf("barrier: reading the keyring: %w", err)
	}
	return &r, nil
}

// KeyStatus tells about the active term.
type KeyStatus struct {
	Term        uint32
	InstallTime time.Time
	Encryptions uint64 // values sealed under the term since this Barrier was opened
}

// KeyStatus is the state of the active term.
func (b *Barrier) KeyStatus() (KeyStatus, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ring == nil {
		return KeyStatus{}, storage.ErrClosed
	}
	return b.statusLocked(), nil
}

func (b *Barrier) statusLocked() KeyStatus {
	t := b.ring.Terms[len(b.ring.Terms)-1]
	n := b.used[t.Term]
	if k := b.write.Load(); k != nil && k.term() == t.Term {
		n += min(k.seals.Load(), maxSeals)
	}
	return KeyStatus{t.Term, t.Installed, n}
}

// Rotate adds a term, durably, and seals with it from then on. Rows of older
// terms stay as they are and readable.
func (b *Barrier) Rotate(ctx context.Context) (KeyStatus, error) {
	now := b.now()
	err := b.change(ctx, func(r *keyring) { r.rotate(now) }, nil, nil)
	if err != nil {
		return KeyStatus{}, err
	}
	return b.KeyStatus()
}

// Rekey encrypts the keyring under another root key. with, if not nil, writes
// in the same transaction how the new root key is wrapped. ErrUnsure says that
// either key may be the one that opens the store from now on.
func (b *Barrier) Rekey(ctx context.Context, root []byte, with func(storage.Tx) error) error {
	return b.change(ctx, func(*keyring) {}, root, with)
}

// change changes the stored keyring, under a new root key if there is one, and
// takes over what it stored. Nothing is read for that: whoever is told that a
// change failed must be able to rely on it.
func (b *Barrier) change(ctx context.Context, edit func(*keyring), root []byte, with func(storage.Tx) error) error {
	old, err := b.rootKey()
	if err != nil {
		return err
	}
	defer clear(old)
	if root == nil {
		root = old
	}
	var stored *keyring
	_, err = b.under.Update(ctx, func(tx storage.Tx) error {
		row, err := tx.Get(keyringKey)
		if err != nil {
			return err
		}
		stored.wipe() // of a run before
		if stored, err = decryptKeyring(row, old); err != nil {
			return err
		}
		edit(stored)
		if row, err = stored.encrypt(root); err != nil {
			return err
		}
		if err := tx.Put(keyringKey, row); err != nil || with == nil {
			return err
		}
		return with(tx)
	})
	if err != nil {
		stored.wipe()
		if bytes.Equal(old, root) {
			return err
		}
		if stored, err = b.settle(ctx, root, err); err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ring != nil && !bytes.Equal(old, root) {
		b.root.Wipe()
		b.root = copyOf(root)
	}
	return b.takeLocked(stored)
}

// settle finds out whether a rekey counts whose Update has failed: the writes
// of such a one may be durable all the same. It gives the keyring if they are.
func (b *Barrier) settle(ctx context.Context, root []byte, failed error) (*keyring, error) {
	ring, err := load(ctx, b.under, root)
	switch {
	case err == nil:
		return ring, nil
	case errors.Is(err, ErrWrongKey):
		return nil, failed
	}
	return nil, fmt.Errorf("%w: %w", ErrUnsure, failed)
}

func (b *Barrier) rootKey() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ring == nil {
		return nil, storage.ErrClosed
	}
	return bytes.Clone(b.root.Reveal()), nil
}

// VerifyRoot reports whether root opens the keyring that is stored now.
func (b *Barrier) VerifyRoot(ctx context.Context, root []byte) (bool, error) {
	ring, err := load(ctx, b.under, root)
	if err == ErrWrongKey {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	ring.wipe()
	return true, nil
}

// Reload reads the keyring again, for what another node has changed.
func (b *Barrier) Reload(ctx context.Context) error {
	root, err := b.rootKey()
	if err != nil {
		return err
	}
	defer clear(root)
	ring, err := load(ctx, b.under, root)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.takeLocked(ring)
}

// takeLocked puts a keyring that is stored in place of the one in use.
func (b *Barrier) takeLocked(ring *keyring) error {
	if b.ring == nil || ring.Active < b.ring.Active { // sealed, or overtaken by another change
		ring.wipe()
		return nil
	}
	b.ring.wipe()
	b.ring = ring
	if k := b.write.Load(); k != nil && k.term() != ring.Active {
		return b.renewLocked()
	}
	return nil
}
