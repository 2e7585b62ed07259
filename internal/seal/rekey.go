package seal

import (
	"context"
	"sync"

	"github.com/leasehold/leasehold/internal/errs"
)

// Rekey makes new shares and a new root key, on the word of enough holders of
// the old shares. Its zero value is ready.
//
// An attempt is begun with the numbers of new shares, fed with old shares, and
// then gives the new ones. With verification asked for they count only when
// enough of them were given back, which shows that they have reached their
// holders; until then the old ones stay valid.
type Rekey struct {
	mu     sync.Mutex
	params Params
	verify bool
	old    shares   // its nonce is set while an attempt runs
	made   *Rekeyed // waits to be verified
	back   shares   // new shares given back
}

// RekeyStatus is what an attempt looks like from outside. Without an attempt
// only Required is set.
type RekeyStatus struct {
	Started              bool
	Nonce                string
	Params                   // of the new shares
	Progress, Required   int // old shares
	VerificationRequired bool
	VerificationNonce    string // set once the new shares wait to be given back
}

// Rekeyed is the result of an attempt. The caller makes it count: it rekeys
// the barrier to Root and stores Config, both in one transaction.
type Rekeyed struct {
	Nonce  string
	Config *Config
	Root   []byte
	Shares [][]byte // only here; nil from Verify
	// VerificationNonce, when set, says that the result must not count yet.
	VerificationNonce string
}

func (r *Rekeyed) wipe() {
	if r != nil {
		clear(r.Root)
	}
}

var (
	errRekeying   = errs.New(errs.Invalid, "rekey already in progress; finish it, or cancel it with DELETE sys/rekey/init")
	errNotRekey   = errs.New(errs.Invalid, "no rekey in progress")
	errNotVerify  = errs.New(errs.Invalid, "no rekey verification in progress")
	errWrongNonce = errs.New(errs.Invalid, "the nonce is not that of the attempt in progress; ask for its status")
)

// Begin starts an attempt.
func (r *Rekey) Begin(c *Config, p Params, verify bool) (RekeyStatus, error) {
	if err := p.validate("invalid rekey seal configuration"); err != nil {
		return RekeyStatus{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.old.nonce != "" {
		return RekeyStatus{}, errRekeying
	}
	r.params, r.verify, r.old.nonce = p, verify, newNonce()
	return r.statusLocked(c), nil
}

// Status is the state of the attempt.
func (r *Rekey) Status(c *Config) RekeyStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.statusLocked(c)
}

func (r *Rekey) statusLocked(c *Config) RekeyStatus {
	s := RekeyStatus{Required: c.Threshold}
	if r.old.nonce != "" {
		s.Started, s.Nonce, s.Params, s.Progress = true, r.old.nonce, r.params, len(r.old.parts)
		s.VerificationRequired, s.VerificationNonce = r.verify, r.back.nonce
	}
	return s
}

// Update takes an old share. With the last of enough it gives the result;
// before that it gives nil. wrappers are those of the seals that the server
// has now: they keep a slot, others lose it.
func (r *Rekey) Update(ctx context.Context, c *Config, share []byte, nonce string, wrappers ...Wrapper) (*Rekeyed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.old.nonce == "":
		return nil, errNotRekey
	case r.old.nonce != nonce:
		return nil, errWrongNonce
	case r.made != nil:
		return nil, errs.New(errs.Invalid, "the new shares are waiting to be verified")
	}
	if !r.old.add(share, c.Threshold) {
		return nil, nil
	}
	defer r.old.forget()
	root, err := c.combine(r.old.parts)
	if err != nil {
		return nil, err
	}
	clear(root) // it was only proof; the new shares get a new one
	made := &Rekeyed{Nonce: nonce, Root: NewRootKey()}
	if made.Config, made.Shares, err = New(ctx, made.Root, r.params, wrappers...); err != nil {
		return nil, err
	}
	if !r.verify {
		r.cancelLocked()
		return made, nil
	}
	r.back.nonce = newNonce()
	made.VerificationNonce = r.back.nonce
	r.made = &Rekeyed{Nonce: nonce, Config: made.Config, Root: append([]byte(nil), made.Root...)}
	return made, nil
}

// Cancel ends the attempt; the old shares stay valid.
func (r *Rekey) Cancel() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancelLocked()
}

func (r *Rekey) cancelLocked() {
	r.old.forget()
	r.back.forget()
	r.made.wipe()
	r.old.nonce, r.back.nonce, r.made = "", "", nil
	r.params, r.verify = Params{}, false
}

// VerifyStatus is the state of the verification; Progress and Required count
// new shares.
func (r *Rekey) VerifyStatus() RekeyStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.made == nil {
		return RekeyStatus{}
	}
	return RekeyStatus{
		Started: true, Nonce: r.back.nonce, Params: r.params,
		Progress: len(r.back.parts), Required: r.params.Threshold,
	}
}

// Verify takes back a new share. With the last of enough it gives the result,
// which counts now; before that it gives nil.
func (r *Rekey) Verify(share []byte, nonce string) (*Rekeyed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.made == nil:
		return nil, errNotVerify
	case r.back.nonce != nonce:
		return nil, errWrongNonce
	}
	if !r.back.add(share, r.params.Threshold) {
		return nil, nil
	}
	root, err := r.made.Config.combine(r.back.parts)
	if err != nil {
		r.back.forget()
		return nil, err
	}
	made := &Rekeyed{Nonce: r.made.Nonce, Config: r.made.Config, Root: root}
	r.cancelLocked()
	return made, nil
}

// RestartVerify forgets the new shares given back so far.
func (r *Rekey) RestartVerify() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.made == nil {
		return errNotVerify
	}
	r.back.forget()
	r.back.nonce = newNonce()
	return nil
}
