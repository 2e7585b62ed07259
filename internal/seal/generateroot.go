package seal

import (
	"context"
	"encoding/base64"
	"fmt"
	"sync"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
)

// GenerateRoot makes a root token on the word of enough holders of shares.
// Its zero value is ready.
//
// Whoever begins the attempt gets a one-time pad, OTP; whoever gives the last
// share gets the token XOR that pad. So neither of the two, nor a log between
// them, has the token alone.
type GenerateRoot struct {
	mu     sync.Mutex
	otp    []byte
	shares shares // its nonce is set while an attempt runs
}

// RootStatus is what an attempt looks like from outside. Without an attempt
// only Required is set.
type RootStatus struct {
	Started            bool
	Nonce              string
	Progress, Required int
	Complete           bool
	OTP                secret.String // only from Begin, when it was drawn there
	EncodedToken       string        // base64 without padding; only when Complete
}

// Begin starts an attempt for a token of so many bytes. otp may be the
// caller's own; empty means to draw one.
func (g *GenerateRoot) Begin(c *Config, otp string, tokenLength int) (RootStatus, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shares.nonce != "" {
		return RootStatus{}, errs.New(errs.Invalid, "root generation already in progress")
	}
	if otp != "" && len(otp) != tokenLength {
		return RootStatus{}, errs.New(errs.Invalid, "the OTP must have %d characters, this one has %d", tokenLength, len(otp))
	}
	drawn := otp == ""
	if drawn {
		otp = randomText(tokenLength)
	}
	g.otp, g.shares.nonce = []byte(otp), newNonce()
	s := g.statusLocked(c)
	if drawn {
		s.OTP = secret.New(otp)
	}
	return s, nil
}

// randomText draws letters and digits, all equally likely.
func randomText(n int) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	out := make([]byte, 0, n)
	for len(out) < n {
		for _, b := range random(n) {
			if b &= 63; int(b) < len(alphabet) && len(out) < n {
				out = append(out, alphabet[b])
			}
		}
	}
	return string(out)
}

// Status is the state of the attempt.
func (g *GenerateRoot) Status(c *Config) RootStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.statusLocked(c)
}

func (g *GenerateRoot) statusLocked(c *Config) RootStatus {
	return RootStatus{Started: g.shares.nonce != "", Nonce: g.shares.nonce, Progress: len(g.shares.parts), Required: c.Threshold}
}

// Update takes a share. With the last of enough, which open c, it calls mint
// for the token and the status is Complete. The attempt then ends, also when
// mint fails; wrong shares only forget the shares.
func (g *GenerateRoot) Update(ctx context.Context, c *Config, share []byte, nonce string,
	mint func(context.Context) (secret.String, error),
) (RootStatus, error) {
	otp, status, err := g.add(c, share, nonce)
	if err != nil || otp == nil {
		return status, err
	}
	defer clear(otp)
	token, err := mint(ctx) // writes to the store: not under the lock
	if err != nil {
		return RootStatus{}, err
	}
	text := []byte(token.Reveal())
	if len(text) != len(otp) {
		return RootStatus{}, fmt.Errorf("the new root token has %d bytes and the OTP %d; the token is lost, revoke it by its accessor", len(text), len(otp))
	}
	for i := range text {
		text[i] ^= otp[i]
	}
	status.Complete, status.EncodedToken = true, base64.RawStdEncoding.EncodeToString(text)
	return status, nil
}

// add takes a share; when there are enough it ends the attempt and gives its
// pad.
func (g *GenerateRoot) add(c *Config, share []byte, nonce string) (otp []byte, status RootStatus, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.shares.nonce == "":
		return nil, status, errs.New(errs.Invalid, "no root generation in progress")
	case g.shares.nonce != nonce:
		return nil, status, errWrongNonce
	}
	enough := g.shares.add(share, c.Threshold)
	status = g.statusLocked(c)
	if !enough {
		return nil, status, nil
	}
	root, err := c.combine(g.shares.parts)
	g.shares.forget()
	if err != nil {
		return nil, status, err
	}
	clear(root) // it was only proof
	otp, g.otp, g.shares.nonce = g.otp, nil, ""
	return otp, status, nil
}

// Cancel ends the attempt.
func (g *GenerateRoot) Cancel() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shares.forget()
	clear(g.otp)
	g.otp, g.shares.nonce = nil, ""
}
