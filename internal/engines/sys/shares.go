package sys

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/hex"
	"io"
	"sync"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
)

// Shares are the parts of the key that people hold: those that open the
// server, or the recovery keys of one that opens itself.
type Shares interface {
	// Required is how many shares there must be.
	Required(ctx context.Context) (int, error)
	// Split makes n new shares, threshold of which will do, of the key that
	// the given shares hold. The old ones stay good until commit is called.
	// Shares that do not fit together are errs.Invalid. After another error of
	// commit than ErrUnsure nothing has changed.
	Split(ctx context.Context, shares []*secret.Bytes, n, threshold int) (next []*secret.Bytes, commit func(context.Context) error, err error)
	// RootToken makes a root token for those who hold enough shares.
	RootToken(ctx context.Context, shares []*secret.Bytes) (secret.String, error)
}

// ErrUnsure is what commit fails with when the store has failed and does not
// say which shares it goes by now.
var ErrUnsure = errs.New(errs.Unavailable, "the store failed and does not say whether the new shares count: keep the old ones and the new ones, "+
	"see to the store (the server's log has the cause), restart the server and unseal it with the new shares; if they do not open it, the old ones do")

// attempt gathers shares for something that several people do together. It
// lives in memory alone: a restart calls it off.
type attempt struct {
	mu     sync.Mutex
	nonce  string // "" while there is none
	shares []*secret.Bytes
	otp    []byte // of generate-root
}

// stopLocked forgets everything.
func (a *attempt) stopLocked() {
	for _, s := range a.shares {
		s.Wipe()
	}
	clear(a.otp)
	a.nonce, a.shares, a.otp = "", nil, nil
}

// letGo unlocks an attempt for the next request. After sealing there is none:
// what was collected is wiped.
func (e *Engine) letGo(mu *sync.Mutex) {
	mu.Unlock()
	if e.ctx.Err() != nil {
		e.forgetShares()
	}
}

// forgetShares wipes what holders of shares have given for what is not done.
// An attempt that a request is busy with is left to that one's letGo: it may
// wait for another server's key, or for the sealing that this is part of.
func (e *Engine) forgetShares() {
	if e.generation.mu.TryLock() {
		e.generation.stopLocked()
		e.generation.mu.Unlock()
	}
	if e.rekeying.mu.TryLock() {
		e.rekeying.stopAllLocked()
		e.rekeying.mu.Unlock()
	}
}

// addLocked takes a share, one that was given before only once, and reports
// whether that makes enough.
func (a *attempt) addLocked(share *secret.Bytes, required int) bool {
	for _, s := range a.shares {
		if subtle.ConstantTimeCompare(s.Reveal(), share.Reveal()) == 1 {
			return len(a.shares) >= required
		}
	}
	a.shares = append(a.shares, secret.NewBytes(bytes.Clone(share.Reveal())))
	return len(a.shares) >= required
}

// takeLocked hands the shares over for one try: right or wrong, they are to
// be given again.
func (a *attempt) takeLocked() (shares []*secret.Bytes, wipe func()) {
	shares, a.shares = a.shares, nil
	return shares, func() {
		for _, s := range shares {
			s.Wipe()
		}
	}
}

type shareIn struct {
	Key   secret.String `json:"key" doc:"One share, in hex or base64."`
	Nonce string        `json:"nonce" doc:"The nonce that the operation began with."`
}

// share checks that a share belongs to this attempt and reads it.
func (in shareIn) share(nonce, what string) (*secret.Bytes, error) {
	switch {
	case in.Key.IsZero():
		return nil, errs.New(errs.Invalid, "'key' must be specified in request body as JSON")
	case nonce == "":
		return nil, errs.New(errs.Invalid, "no %s in progress", what)
	case in.Nonce != nonce:
		return nil, errs.New(errs.Invalid, "incorrect nonce supplied; nonce for this %s operation is %q", what, nonce)
	}
	return parseShare(in.Key)
}

func xor(a, b []byte) []byte {
	out := make([]byte, len(a))
	subtle.XORBytes(out, a, b)
	return out
}

// newUUID draws a version 4 UUID.
func newUUID(r io.Reader) string {
	var b [16]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		panic("sys: no randomness: " + err.Error()) // crypto/rand never fails
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
