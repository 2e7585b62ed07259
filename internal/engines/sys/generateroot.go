package sys

import (
	"context"
	"encoding/base64"
	"io"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
)

// Generating a root token is for the holders of the shares, who need no token.
// Whoever begins gives or gets a one-time password; the new token is answered
// to the last holder, encoded with it, so that only who began can read it.
func (e *Engine) generateRootRoutes(t *route.Table) {
	bare := route.InForm(route.Bare)
	route.Read(t, "generate-root/attempt", e.rootAttempt, bare, route.Unauth(), route.Doc("Tell how far making a root token is."))
	route.Write(t, "generate-root/attempt", e.beginRoot, bare, route.Unauth(), route.Doc("Begin to make a root token."))
	route.Delete(t, "generate-root/attempt", e.cancelRoot, bare, route.Unauth(), route.Doc("Call off making a root token."))
	route.Write(t, "generate-root/update", e.updateRoot, bare, route.Unauth(), route.Doc("Give one share for making a root token."))

	// OpenBao's newer paths want a token too.
	top := route.InForm(route.TopLevel)
	route.Read(t, "generate-root-token/attempt", e.rootAttempt, top, route.Doc("Tell how far making a root token is."))
	route.Write(t, "generate-root-token/attempt", e.beginRoot, top, route.Doc("Begin to make a root token."))
	route.Delete(t, "generate-root-token/attempt", e.cancelRoot, top, route.Doc("Call off making a root token."))
	route.Write(t, "generate-root-token/update", e.updateRoot, top, route.Doc("Give one share for making a root token."))

	route.Read(t, "generate-root", e.rootAttempt, bare, route.Doc("Tell how far making a root token is."))
	route.Write(t, "generate-root", e.beginRoot, bare, route.Doc("Begin to make a root token."))
	route.Delete(t, "generate-root", e.cancelRoot, bare, route.Doc("Call off making a root token."))
}

// otpLength is the length of a root token: a one-time password must cover all
// of it.
const otpLength = len("hvs.") + 24

type rootOut struct {
	Nonce          string        `json:"nonce"`
	Started        bool          `json:"started"`
	Progress       int           `json:"progress"`
	Required       int           `json:"required"`
	Complete       bool          `json:"complete"`
	EncodedToken   string        `json:"encoded_token"`
	EncodedRoot    string        `json:"encoded_root_token"`
	PGPFingerprint string        `json:"pgp_fingerprint"`
	OTP            secret.String `json:"otp"`
	OTPLength      int           `json:"otp_length"`
}

func (e *Engine) rootStateLocked(ctx context.Context) (rootOut, error) {
	n, err := e.cfg.Shares.Required(ctx)
	a := &e.generation
	return rootOut{Nonce: a.nonce, Started: a.nonce != "", Progress: len(a.shares), Required: n}, err
}

func (e *Engine) rootAttempt(ctx context.Context, _ *route.Request, _ route.None) (rootOut, error) {
	e.generation.mu.Lock()
	defer e.letGo(&e.generation.mu)
	out, err := e.rootStateLocked(ctx)
	out.OTPLength = otpLength
	return out, err
}

type beginRootIn struct {
	OTP    secret.String `json:"otp" doc:"A one-time password; one is drawn without."`
	PGPKey string        `json:"pgp_key"`
}

func (e *Engine) beginRoot(ctx context.Context, _ *route.Request, in beginRootIn) (rootOut, error) {
	if in.PGPKey != "" {
		return rootOut{}, errPGP
	}
	otp := in.OTP.Reveal()
	if otp != "" && len(otp) != otpLength {
		return rootOut{}, errs.New(errs.Invalid, "the one-time password must have %d characters", otpLength)
	}
	a := &e.generation
	a.mu.Lock()
	defer e.letGo(&a.mu)
	if a.nonce != "" {
		return rootOut{}, errs.New(errs.Invalid, "root generation already in progress")
	}
	if otp == "" {
		var err error
		if otp, err = drawText(e.cfg.Rand, otpLength); err != nil {
			return rootOut{}, err
		}
	}
	a.nonce, a.otp = newUUID(e.cfg.Rand), []byte(otp)
	out, err := e.rootStateLocked(ctx)
	out.OTPLength = otpLength
	if in.OTP.IsZero() {
		out.OTP = secret.New(otp)
	}
	return out, err
}

func (e *Engine) cancelRoot(context.Context, *route.Request, route.None) (route.None, error) {
	e.generation.mu.Lock()
	defer e.letGo(&e.generation.mu)
	e.generation.stopLocked()
	return route.None{}, nil
}

func (e *Engine) updateRoot(ctx context.Context, _ *route.Request, in shareIn) (rootOut, error) {
	a := &e.generation
	a.mu.Lock()
	defer e.letGo(&a.mu)
	share, err := in.share(a.nonce, "root generation")
	if err != nil {
		return rootOut{}, err
	}
	required, err := e.cfg.Shares.Required(ctx)
	if err != nil {
		return rootOut{}, err
	}
	if !a.addLocked(share, required) {
		return e.rootStateLocked(ctx)
	}
	shares, wipe := a.takeLocked()
	defer wipe()
	token, err := e.cfg.Shares.RootToken(ctx, shares)
	if err != nil {
		return rootOut{}, err
	}
	// The password covers the token's first characters; a longer token would
	// be readable in part.
	if len(token.Reveal()) != len(a.otp) {
		return rootOut{}, errs.New(errs.Internal, "the root token has %d characters, its one-time password %d", len(token.Reveal()), len(a.otp))
	}
	encoded := base64.RawStdEncoding.EncodeToString(xor([]byte(token.Reveal()), a.otp))
	out := rootOut{
		Nonce: a.nonce, Started: true, Progress: required, Required: required, Complete: true,
		EncodedToken: encoded, EncodedRoot: encoded,
	}
	a.stopLocked()
	return out, nil
}

const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// drawText draws n of 62 characters without bias.
func drawText(r io.Reader, n int) (string, error) {
	out := make([]byte, 0, n)
	var b [1]byte
	for len(out) < n {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return "", err
		}
		if int(b[0]) < 256/len(letters)*len(letters) {
			out = append(out, letters[int(b[0])%len(letters)])
		}
	}
	return string(out), nil
}
