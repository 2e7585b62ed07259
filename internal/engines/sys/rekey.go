package sys

import (
	"context"
	"errors"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// Rekeying makes new shares in place of the old ones, for those who hold
// enough of the old. With verification the new ones count only once enough of
// them were given back: nobody is locked out by a share that was lost on its
// way.
type rekey struct {
	attempt
	n, threshold int // shares to be, and how many of them will do
	verify       bool

	// While the new shares are verified:
	verifying attempt
	next      []*secret.Bytes
	commit    func(context.Context) error
}

func (e *Engine) rekeyRoutes(t *route.Table) {
	// Of a server that opens itself the shares are recovery keys, and have
	// paths of their own. OpenBao's newer paths want a token too.
	for _, f := range []struct {
		base     string
		recovery bool
		opts     []route.Option
	}{
		{"rekey/", false, []route.Option{route.InForm(route.Bare), route.Unauth()}},
		{"rekey-recovery-key/", true, []route.Option{route.InForm(route.Bare), route.Unauth()}},
		{"rotate/root/", false, []route.Option{route.InForm(route.TopLevel)}},
		{"rotate/recovery/", true, []route.Option{route.InForm(route.TopLevel)}},
	} {
		k := rekeyer{e, f.recovery}
		t.With(func(t *route.Table) {
			route.Read(t, f.base+"init", k.status, route.Doc("Tell how far rekeying is."))
			route.Write(t, f.base+"init", k.begin, route.Doc("Begin to make new shares."))
			route.Delete(t, f.base+"init", k.cancel, route.Doc("Call off rekeying."))
			route.Write(t, f.base+"update", k.update, route.Doc("Give one of the old shares."))
			route.Read(t, f.base+"verify", k.verification, route.Doc("Tell how far verifying the new shares is."))
			route.Write(t, f.base+"verify", k.verifyShare, route.Doc("Give one of the new shares back."))
			route.Delete(t, f.base+"verify", k.restart, route.Doc("Begin verifying anew."))
		}, f.opts...)
	}
	for _, path := range []string{"rekey/backup", "rekey/recovery-key-backup", "rotate/root/backup", "rotate/recovery/backup"} {
		route.Read(t, path, noBackup, route.Doc("Read the backup of new shares."))
		route.Delete(t, path, deleteBackup, route.Doc("Delete the backup of new shares."))
	}
}

// noBackup answers for the backup of shares encrypted with PGP, of which
// there is none.
func noBackup(context.Context, *route.Request, route.None) (route.None, error) {
	return route.None{}, errs.New(errs.NotFound, "no backed-up keys found")
}

func deleteBackup(context.Context, *route.Request, route.None) (route.None, error) {
	return route.None{}, nil
}

// rekeyer answers one of the two families of paths.
type rekeyer struct {
	e        *Engine
	recovery bool
}

// check refuses the family that this server's shares are not.
func (k rekeyer) check(ctx context.Context) (required int, err error) {
	s, err := k.e.cfg.Status(ctx)
	if err != nil {
		return 0, err
	}
	switch {
	case k.recovery && !s.RecoverySeal:
		return 0, errs.New(errs.Invalid, "recovery rekeying not supported: the shares of this server open it; use rekey")
	case !k.recovery && s.RecoverySeal:
		return 0, errs.New(errs.Invalid, "rekeying of unseal keys not supported: this server opens itself; use rekey-recovery-key, or -target=recovery")
	}
	return k.e.cfg.Shares.Required(ctx)
}

type rekeyOut struct {
	Nonce              string   `json:"nonce"`
	Started            bool     `json:"started"`
	Threshold          int      `json:"t"`
	Shares             int      `json:"n"`
	Progress           int      `json:"progress"`
	Required           int      `json:"required"`
	PGPFingerprints    []string `json:"pgp_fingerprints" wire:"null"`
	Backup             bool     `json:"backup"`
	VerificationNeeded bool     `json:"verification_required"`
	VerificationNonce  string   `json:"verification_nonce,omitempty"`
}

func (r *rekey) stateLocked(required int) rekeyOut {
	out := rekeyOut{
		Nonce: r.nonce, Started: r.nonce != "", Progress: len(r.attempt.shares), Required: required,
		Threshold: r.threshold, Shares: r.n, VerificationNeeded: r.verify, VerificationNonce: r.verifying.nonce,
	}
	return out
}

func (r *rekey) stopAllLocked() {
	r.stopLocked()
	r.verifying.stopLocked()
	for _, s := range r.next {
		s.Wipe()
	}
	r.n, r.threshold, r.verify, r.next, r.commit = 0, 0, false, nil, nil
}

func (k rekeyer) status(ctx context.Context, _ *route.Request, _ route.None) (rekeyOut, error) {
	required, err := k.check(ctx)
	if err != nil {
		return rekeyOut{}, err
	}
	r := &k.e.rekeying
	r.mu.Lock()
	defer k.e.letGo(&r.mu)
	return r.stateLocked(required), nil
}

type rekeyIn struct {
	Shares    int      `json:"secret_shares" doc:"How many new shares to make."`
	Threshold int      `json:"secret_threshold" doc:"How many of them will do."`
	Stored    int      `json:"stored_shares"`
	PGPKeys   wire.CSV `json:"pgp_keys"`
	Backup    bool     `json:"backup"`
	Verify    bool     `json:"require_verification" doc:"The new shares count once enough of them were given back."`
}

func (k rekeyer) begin(ctx context.Context, _ *route.Request, in rekeyIn) (rekeyOut, error) {
	required, err := k.check(ctx)
	if err != nil {
		return rekeyOut{}, err
	}
	if len(in.PGPKeys) > 0 || in.Backup {
		return rekeyOut{}, errPGP
	}
	if err := checkShares(in.Shares, in.Threshold, false); err != nil {
		return rekeyOut{}, errs.New(errs.Invalid, "invalid rekey seal configuration: %v", err)
	}
	r := &k.e.rekeying
	r.mu.Lock()
	defer k.e.letGo(&r.mu)
	if r.nonce != "" {
		return rekeyOut{}, errs.New(errs.Invalid, "rekey already in progress")
	}
	r.nonce = newUUID(k.e.cfg.Rand)
	r.n, r.threshold, r.verify = in.Shares, in.Threshold, in.Verify
	return r.stateLocked(required), nil
}

type cancelIn struct {
	Nonce string `json:"nonce" doc:"Of the attempt to call off; any without."`
}

func (k rekeyer) cancel(_ context.Context, _ *route.Request, in cancelIn) (route.None, error) {
	r := &k.e.rekeying
	r.mu.Lock()
	defer k.e.letGo(&r.mu)
	if in.Nonce != "" && r.nonce != "" && in.Nonce != r.nonce {
		return route.None{}, errs.New(errs.Invalid, "incorrect nonce supplied; nonce for this rekey operation is %q", r.nonce)
	}
	r.stopAllLocked()
	return route.None{}, nil
}

// rekeyedOut is how the state looks on the wire, or the new shares.
type rekeyedOut struct {
	Nonce              string          `json:"nonce"`
	Complete           bool            `json:"complete"`
	Keys               []secret.String `json:"keys"`
	KeysBase64         []secret.String `json:"keys_base64"`
	PGPFingerprints    []string        `json:"pgp_fingerprints" wire:"null"`
	Backup             bool            `json:"backup"`
	VerificationNeeded bool            `json:"verification_required"`
	VerificationNonce  string          `json:"verification_nonce,omitempty"`
	Warnings           []string        `json:"warnings,omitempty"` // here, too: Vault's paths have no envelope
}

func (k rekeyer) update(ctx context.Context, req *route.Request, in shareIn) (wire.Data, error) {
	required, err := k.check(ctx)
	if err != nil {
		return nil, err
	}
	r := &k.e.rekeying
	r.mu.Lock()
	defer k.e.letGo(&r.mu)
	share, err := in.share(r.nonce, "rekey")
	if err != nil {
		return nil, err
	}
	if r.commit != nil {
		return nil, errs.New(errs.Invalid, "rekey operation already finished; verification must be performed; nonce for the verification operation is %q", r.verifying.nonce)
	}
	if !r.addLocked(share, required) {
		return wire.Of(r.stateLocked(required)), nil
	}
	old, wipe := r.takeLocked()
	defer wipe()
	next, commit, err := k.e.cfg.Shares.Split(ctx, old, r.n, r.threshold)
	if err != nil {
		return nil, err
	}
	out := rekeyedOut{Nonce: r.nonce, Complete: true, VerificationNeeded: r.verify}
	if r.verify {
		r.next, r.commit = cloneShares(next), commit
		r.verifying.nonce = newUUID(k.e.cfg.Rand)
		out.VerificationNonce = r.verifying.nonce
	} else {
		err := commit(ctx)
		if err != nil && !errors.Is(err, ErrUnsure) {
			return nil, err
		}
		if err != nil { // who has no share that opens the store has lost it
			k.e.log.Error("the new shares were shown, and may not count", "error", err)
			out.Warnings = []string{errs.Message(ErrUnsure)}
			req.Warn("%s", out.Warnings[0])
		}
		r.stopAllLocked()
	}
	out.Keys, out.KeysBase64 = texts(next)
	return wire.Of(out), nil
}

func cloneShares(in []*secret.Bytes) []*secret.Bytes {
	out := make([]*secret.Bytes, len(in))
	for i, s := range in {
		out[i] = secret.NewBytes(append([]byte(nil), s.Reveal()...))
	}
	return out
}

type verifyOut struct {
	Nonce     string `json:"nonce"`
	Started   bool   `json:"started"`
	Threshold int    `json:"t"`
	Shares    int    `json:"n"`
	Progress  int    `json:"progress"`
	Complete  bool   `json:"complete,omitempty"`
}

func (r *rekey) verificationLocked() (verifyOut, error) {
	if r.commit == nil {
		return verifyOut{}, errs.New(errs.Invalid, "no rekey verification in progress")
	}
	return verifyOut{
		Nonce: r.verifying.nonce, Started: true, Threshold: r.threshold, Shares: r.n,
		Progress: len(r.verifying.shares),
	}, nil
}

func (k rekeyer) verification(ctx context.Context, _ *route.Request, _ route.None) (verifyOut, error) {
	r := &k.e.rekeying
	r.mu.Lock()
	defer k.e.letGo(&r.mu)
	return r.verificationLocked()
}

func (k rekeyer) restart(context.Context, *route.Request, route.None) (verifyOut, error) {
	r := &k.e.rekeying
	r.mu.Lock()
	defer k.e.letGo(&r.mu)
	if r.commit != nil {
		r.verifying.stopLocked()
		r.verifying.nonce = newUUID(k.e.cfg.Rand)
	}
	return r.verificationLocked()
}

// verifyShare takes a new share back. What counts is that it is one of those
// that were handed out; once enough were, they replace the old ones.
func (k rekeyer) verifyShare(ctx context.Context, _ *route.Request, in shareIn) (verifyOut, error) {
	r := &k.e.rekeying
	r.mu.Lock()
	defer k.e.letGo(&r.mu)
	if _, err := r.verificationLocked(); err != nil {
		return verifyOut{}, err
	}
	share, err := in.share(r.verifying.nonce, "rekey verification")
	if err != nil {
		return verifyOut{}, err
	}
	if !r.handedOutLocked(share) {
		return verifyOut{}, errs.New(errs.Invalid, "this is none of the new shares; the old ones stay good")
	}
	if !r.verifying.addLocked(share, r.threshold) {
		return r.verificationLocked()
	}
	if err := r.commit(ctx); err != nil {
		return verifyOut{}, err
	}
	out := verifyOut{Nonce: r.verifying.nonce, Complete: true, Threshold: r.threshold, Shares: r.n, Progress: r.threshold}
	r.stopAllLocked()
	return out, nil
}

func (r *rekey) handedOutLocked(share *secret.Bytes) bool {
	found := false
	for _, s := range r.next {
		found = found || secret.New(string(s.Reveal())).Equal(secret.New(string(share.Reveal())))
	}
	return found
}
