package seal

import (
	"crypto/subtle"
	"sync"
)

// shares are those that have come in for one attempt.
type shares struct {
	nonce string
	parts [][]byte
}

// add takes a share, once, and reports whether there are enough.
func (s *shares) add(share []byte, threshold int) (enough bool) {
	for _, p := range s.parts {
		if subtle.ConstantTimeCompare(p, share) == 1 {
			return len(s.parts) >= threshold
		}
	}
	s.parts = append(s.parts, append([]byte(nil), share...))
	return len(s.parts) >= threshold
}

// forget wipes the shares and keeps the nonce.
func (s *shares) forget() {
	for _, p := range s.parts {
		clear(p)
	}
	s.parts = nil
}

// Unseal collects the shares that open a sealed server. Its zero value is
// ready.
type Unseal struct {
	mu     sync.Mutex
	shares shares
}

// Submit takes a share. With the last of enough it gives the root key and
// forgets the shares, also when they turn out not to open c; before that it
// gives nil.
func (u *Unseal) Submit(c *Config, share []byte) (root []byte, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.shares.nonce == "" {
		u.shares.nonce = newNonce()
	}
	if !u.shares.add(share, c.Threshold) {
		return nil, nil
	}
	defer u.resetLocked()
	return c.Combine(u.shares.parts)
}

// Reset forgets the shares given so far.
func (u *Unseal) Reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.resetLocked()
}

func (u *Unseal) resetLocked() {
	u.shares.forget()
	u.shares.nonce = ""
}

// Progress is how many shares are there, and the attempt's nonce, empty when
// there is no attempt.
func (u *Unseal) Progress() (n int, nonce string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.shares.parts), u.shares.nonce
}
