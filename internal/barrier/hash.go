package barrier

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"sync"

	"github.com/leasehold/leasehold/internal/storage"
)

const infoHash = "leasehold/barrier/1/hash/"

// hashing is one HMAC at work.
type hashing struct {
	mac hash.Hash
	in  []byte
	out [sha256.Size]byte
}

// KeyedHash is the store's keyed one-way function for a purpose: HMAC-SHA256
// under a key that is made with the store and does not change when the keyring
// is rotated. It is by what tokens and lease ids are found without being
// stored. The function may be used by many at once, and after Close.
func (b *Barrier) KeyedHash(purpose string) (func(string) [32]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ring == nil {
		return nil, storage.ErrClosed
	}
	key, err := hkdf.Key(sha256.New, b.ring.Hash, nil, infoHash+purpose, KeySize)
	if err != nil {
		return nil, err
	}
	pool := sync.Pool{New: func() any { return &hashing{mac: hmac.New(sha256.New, key)} }}
	return func(data string) [32]byte {
		h := pool.Get().(*hashing)
		h.in = append(h.in[:0], data...)
		h.mac.Reset()
		_, _ = h.mac.Write(h.in)
		h.mac.Sum(h.out[:0])
		sum := h.out
		clear(h.in)
		pool.Put(h)
		return sum
	}, nil
}
