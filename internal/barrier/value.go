package barrier

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/leasehold/leasehold/internal/storage"
)

// A stored value, version 1:
//
//	1 byte    version
//	4 bytes   term, big endian
//	16 bytes  salt: subkey = HKDF-SHA256(term key, salt, infoValue)
//	12 bytes  nonce, random
//	n bytes   AES-256-GCM(subkey, nonce, value), associated data:
//	          version, term and salt as above, then the row's key
//	16 bytes  tag
const (
	version    = 1
	saltSize   = 16
	prefixSize = 1 + 4 + saltSize // of the associated data, too
	nonceSize  = 12
	tagSize    = 16
	headerSize = prefixSize + nonceSize

	// Overhead is how much longer a stored value is.
	Overhead = headerSize + tagSize

	infoValue = "leasehold/barrier/1/value"
)

// maxSeals bounds how many values one subkey seals: half of the 2^32 random
// nonces that AES-GCM allows. A variable for the test that reaches it.
var maxSeals uint64 = 1 << 31

// subkey is a key derived from a term's.
type subkey struct {
	prefix [prefixSize]byte // version, term, salt
	aead   cipher.AEAD
	seals  atomic.Uint64
}

func (k *subkey) term() uint32 { return binary.BigEndian.Uint32(k.prefix[1:]) }

// derive makes the subkey that a header's prefix names.
func derive(termKey []byte, prefix [prefixSize]byte) (*subkey, error) {
	aead, err := deriveAEAD(termKey, prefix[5:], infoValue)
	if err != nil {
		return nil, err
	}
	return &subkey{prefix: prefix, aead: aead}, nil
}

func deriveAEAD(key, salt []byte, info string) (cipher.AEAD, error) {
	sub, err := hkdf.Key(sha256.New, key, salt, info, KeySize)
	if err != nil {
		return nil, err
	}
	defer clear(sub)
	block, err := aes.NewCipher(sub)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// opener seals and opens values for one View or Update.
type opener struct {
	b   *Barrier
	aad []byte
}

func (o *opener) associated(prefix *[prefixSize]byte, key string) []byte {
	o.aad = append(append(o.aad[:0], prefix[:]...), key...)
	return o.aad
}

// seal appends the stored form of a value to dst.
func (o *opener) seal(dst []byte, key string, value []byte) ([]byte, error) {
	k, err := o.b.writeKey()
	if err != nil {
		return dst, err
	}
	start := len(dst)
	dst = append(dst, k.prefix[:]...)
	dst = append(dst, make([]byte, nonceSize)...)
	nonce := dst[start+prefixSize:]
	_, _ = rand.Read(nonce) // never fails
	return k.aead.Seal(dst, nonce, value, o.associated(&k.prefix, key)), nil
}

var errShort = errors.New("it is too short")

// open appends the value to dst. A value that cannot be opened is a
// *storage.CorruptError; one of a term that nobody knows is ErrUnknownTerm.
func (o *opener) open(dst []byte, key string, raw []byte) ([]byte, error) {
	if len(raw) < Overhead {
		return nil, &storage.CorruptError{Key: key, Err: errShort}
	}
	if raw[0] != version {
		return nil, &storage.CorruptError{Key: key, Err: fmt.Errorf("its format %d is not known", raw[0])}
	}
	k, err := o.b.readKey([prefixSize]byte(raw))
	if err != nil {
		return nil, err
	}
	if dst == nil {
		dst = make([]byte, 0, len(raw)-Overhead)
	}
	value, err := k.aead.Open(dst, raw[prefixSize:headerSize], raw[headerSize:], o.associated(&k.prefix, key))
	if err != nil {
		return nil, &storage.CorruptError{Key: key, Err: err}
	}
	return value, nil
}

// writeKey is the subkey to seal one more value with.
func (b *Barrier) writeKey() (*subkey, error) {
	for {
		k := b.write.Load()
		if k == nil {
			return nil, storage.ErrClosed
		}
		if k.seals.Add(1) <= maxSeals {
			return k, nil
		}
		if err := b.renew(k); err != nil {
			return nil, err
		}
	}
}

// renew replaces a subkey that is used up.
func (b *Barrier) renew(old *subkey) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ring == nil {
		return storage.ErrClosed
	}
	if b.write.Load() != old {
		return nil
	}
	return b.renewLocked()
}

// renewLocked begins a new subkey of the active term.
func (b *Barrier) renewLocked() error {
	k, err := b.ring.newSubkey(b.ring.Active)
	if err != nil {
		return err
	}
	if old := b.write.Swap(k); old != nil {
		b.used[old.term()] += min(old.seals.Load(), maxSeals)
	}
	return nil
}

// readKey is the subkey of a stored value. The last ones used are kept, each
// in a place that its salt names, so that finding one takes no lock.
func (b *Barrier) readKey(prefix [prefixSize]byte) (*subkey, error) {
	if k := b.write.Load(); k != nil && k.prefix == prefix {
		return k, nil
	}
	place := &b.read[binary.BigEndian.Uint16(prefix[5:])%uint16(len(b.read))]
	if k := place.Load(); k != nil && k.prefix == prefix {
		return k, nil
	}
	term := binary.BigEndian.Uint32(prefix[1:])
	k, err := b.deriveRead(term, prefix)
	if errors.Is(err, storage.ErrUnknownTerm) {
		// Another node may have rotated since we read the keyring.
		if reload := b.Reload(context.Background()); reload != nil {
			return nil, fmt.Errorf("%w: %w", err, reload)
		}
		k, err = b.deriveRead(term, prefix)
	}
	if err != nil {
		return nil, err
	}
	place.Store(k)
	if b.write.Load() == nil { // closed meanwhile: Close must not leave a key behind
		place.Store(nil)
	}
	return k, nil
}

func (b *Barrier) deriveRead(term uint32, prefix [prefixSize]byte) (*subkey, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ring == nil {
		return nil, storage.ErrClosed
	}
	key, err := b.ring.key(term)
	if err != nil {
		return nil, err
	}
	return derive(key, prefix)
}
