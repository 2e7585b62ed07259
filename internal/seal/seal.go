// Package seal keeps the root key, the one that opens the keyring, wrapped
// while the server is sealed.
//
// The root key lies in slots, each a way of its own to the same key: one for
// Shamir shares, which people hold, and one for each key that opens without
// people (a static key, or one of another server's Transit engine). Any slot opens the store, so a lost KMS
// does not lose the data as long as the shares are there. With a slot that
// opens by itself the shares are what Vault calls recovery keys; here they
// really do recover.
//
// Unseal collects shares while the server is sealed, one per request, in memory
// only. What else holders of shares do together (new shares, a root token)
// package sys collects, and Combine proves.
package seal

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/seal/shamir"
	"github.com/leasehold/leasehold/internal/storage"
)

// Key is where the configuration lies in the store, below the barrier and
// readable while sealed.
const Key = "seal/config"

// Shamir is the kind of the slot for shares, and a Config's type when no other
// slot opens the store.
const Shamir = "shamir"

// KeySize is the length of the root key.
const KeySize = 32

// version of the stored Config.
const version = 1

// Config is how the root key is wrapped. It is stored as JSON, version 1, and
// holds no secret in the clear.
type Config struct {
	Version   int    `json:"version"`
	Shares    int    `json:"shares"`
	Threshold int    `json:"threshold"`
	Slots     []Slot `json:"slots"`

	read []byte // the row that Load read
}

// Slot is the root key wrapped in one way.
type Slot struct {
	Kind    string `json:"kind"`
	KeyID   string `json:"key_id,omitempty"` // which of a kind's keys
	Wrapped []byte `json:"wrapped"`
}

// Wrapper is a key that opens the store without people.
type Wrapper interface {
	// Kind names the slot: "static", "transit". It never changes.
	Kind() string
	// Wrap and Unwrap may ask another server, and take as long as that does.
	//
	// Wrap encrypts key; keyID is what Unwrap will be given to find the key
	// that did it.
	Wrap(ctx context.Context, key []byte) (wrapped []byte, keyID string, err error)
	// Unwrap decrypts what Wrap made. What does not decrypt is an error that
	// tells the operator what to look at.
	Unwrap(ctx context.Context, wrapped []byte, keyID string) ([]byte, error)
}

// Params say how a key is shared.
type Params struct {
	Shares    int
	Threshold int
}

// Validate refuses what cannot be shared, in Vault's words.
func (p Params) Validate() error {
	var why string
	switch {
	case p.Shares < 1:
		why = "shares must be at least one"
	case p.Threshold < 1:
		why = "threshold must be at least one"
	case p.Shares > 255:
		why = "shares must be less than 256"
	case p.Threshold > p.Shares:
		why = "threshold cannot be larger than shares"
	case p.Shares > 1 && p.Threshold == 1:
		why = "threshold must be greater than one for multiple shares"
	default:
		return nil
	}
	return errs.New(errs.Invalid, "invalid seal configuration: %s", why)
}

// NewRootKey draws a root key.
func NewRootKey() []byte { return random(KeySize) }

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

// newNonce names an attempt, so that two attempts' shares are not mixed up.
func newNonce() string {
	b := random(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// New wraps a root key for shares, which it returns, and for every wrapper.
// The shares are nowhere else.
func New(ctx context.Context, root []byte, p Params, wrappers ...Wrapper) (*Config, [][]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, nil, err
	}
	kek := random(KeySize)
	defer clear(kek)
	wrapped, err := wrap(kek, root, Shamir)
	if err != nil {
		return nil, nil, err
	}
	c := &Config{Version: version, Shares: p.Shares, Threshold: p.Threshold, Slots: []Slot{{Kind: Shamir, Wrapped: wrapped}}}
	for _, w := range wrappers {
		if _, err := c.Refresh(ctx, root, w); err != nil {
			return nil, nil, err
		}
	}
	shares := [][]byte{slices.Clone(kek)} // as in Vault, a single share is the key itself
	if p.Shares > 1 {
		shares, err = shamir.Split(kek, p.Shares, p.Threshold)
	}
	return c, shares, err
}

// Load reads the configuration; there is none, and nil is returned, before
// init.
func Load(ctx context.Context, b storage.Backend) (c *Config, err error) {
	err = b.View(ctx, func(v storage.View) error {
		row, err := v.Get(Key)
		if err != nil || row == nil {
			return err
		}
		c = &Config{read: bytes.Clone(row)}
		if err := json.Unmarshal(row, c); err != nil {
			return fmt.Errorf("reading the seal's configuration: %w", err)
		}
		if c.Version != version {
			return fmt.Errorf("the seal's configuration has version %d, this Leasehold knows %d; run a newer one", c.Version, version)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Put writes the configuration, below the barrier.
func (c *Config) Put(tx storage.Tx) error {
	row, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return tx.Put(Key, row)
}

// Replace is Put if the row that Load read is still there, and reports whether
// it was: after a rekey the slots hold another root key.
func (c *Config) Replace(tx storage.Tx) (replaced bool, err error) {
	now, err := tx.Get(Key)
	if err != nil || !bytes.Equal(now, c.read) {
		return false, err
	}
	return true, c.Put(tx)
}

// Type is the kind of the first of these wrappers that has a slot, and so opens
// the store; Shamir if none has. A slot of a key that the server is not given
// any more, because its configuration names another seal now, opens nothing.
func (c *Config) Type(wrappers ...Wrapper) string {
	for _, w := range wrappers {
		if c.slot(w.Kind()) != nil {
			return w.Kind()
		}
	}
	return Shamir
}

// Params are those of the shares.
func (c *Config) Params() Params { return Params{c.Shares, c.Threshold} }

func (c *Config) slot(kind string) *Slot {
	for i := range c.Slots {
		if c.Slots[i].Kind == kind {
			return &c.Slots[i]
		}
	}
	return nil
}

// Refresh makes the wrapper's slot, or makes it anew if another of its keys
// wrapped it or it does not open: a key's id may be another key's now. It
// reports whether c has changed and so must be stored.
func (c *Config) Refresh(ctx context.Context, root []byte, w Wrapper) (changed bool, err error) {
	wrapped, keyID, err := w.Wrap(ctx, root)
	if err != nil {
		return false, fmt.Errorf("wrapping the root key with the %s seal: %w", w.Kind(), err)
	}
	old := c.slot(w.Kind())
	switch {
	case old == nil:
		c.Slots = append(c.Slots, Slot{w.Kind(), keyID, wrapped})
	case old.KeyID == keyID && opens(ctx, old, root, w):
		return false, nil
	default:
		*old = Slot{w.Kind(), keyID, wrapped}
	}
	return true, nil
}

func opens(ctx context.Context, s *Slot, root []byte, w Wrapper) bool {
	got, err := w.Unwrap(ctx, s.Wrapped, s.KeyID)
	defer clear(got)
	return err == nil && subtle.ConstantTimeCompare(got, root) == 1
}

// Open gives the root key by the wrapper's slot. Without such a slot it gives
// nil: the store was not sealed with it.
func (c *Config) Open(ctx context.Context, w Wrapper) ([]byte, error) {
	s := c.slot(w.Kind())
	if s == nil {
		return nil, nil
	}
	root, err := w.Unwrap(ctx, s.Wrapped, s.KeyID)
	if err != nil {
		return nil, fmt.Errorf("opening the %s seal: %w", w.Kind(), err)
	}
	return root, nil
}

// errWrongShares is said to whoever gave the last share; which one is wrong
// nobody can know.
var errWrongShares = errs.New(errs.Invalid,
	"these shares do not open the seal: at least one of them is wrong or belongs to another server. They are forgotten; start again")

// Combine gives the root key by enough different shares, in any order.
func (c *Config) Combine(shares [][]byte) ([]byte, error) {
	if len(shares) < max(c.Threshold, 1) {
		return nil, errs.New(errs.Invalid, "%d shares were given of %d", len(shares), c.Threshold)
	}
	kek := shares[0]
	if c.Threshold > 1 {
		var err error
		if kek, err = shamir.Combine(shares); err != nil {
			return nil, errs.Wrap(errs.Invalid, err, "%s", errs.Message(errWrongShares))
		}
		defer clear(kek)
	}
	s := c.slot(Shamir)
	if s == nil {
		return nil, errs.New(errs.Invalid, "this server has no shares")
	}
	root, err := unwrap(kek, s.Wrapped, Shamir)
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "%s", errs.Message(errWrongShares))
	}
	return root, nil
}

// ParseShare reads a share as people type it: hex or base64.
func ParseShare(text string) ([]byte, error) {
	b, err := hex.DecodeString(text)
	if err != nil {
		b, err = base64.StdEncoding.DecodeString(text)
	}
	switch {
	case err != nil:
		return nil, errs.New(errs.Invalid, "'key' must be a valid hex or base64 string")
	case len(b) < 16 || len(b) > KeySize+1:
		return nil, errs.New(errs.Invalid, "a share has %d bytes, this one %d", KeySize+1, len(b))
	}
	return b, nil
}
