// Package lease keeps the promise that no credential exists without a lease.
//
// A lease is committed before the credential is made, with everything that
// revoking will need: the reference an engine wrote, the names it reserved,
// the time by which making must be over. Whatever dies afterwards, the row is
// there and its time will come: the row's due key lies in the range of its
// target's lane, in order of time, and the lane ends it. Nothing is held in
// memory per lease.
//
// This file is the contract with engines. issue.go commits and makes,
// ending.go takes leases away, store.go is what is written down.
package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

// ID names a lease to its holder, for example "database/creds/app/<random>".
// It is a bearer secret: who knows it may look the lease up and renew it. It
// stands in no target, log or metric.
type ID string

// Cause says why a lease ends.
type Cause string

// The causes.
const (
	Expired   Cause = "expired"   // its time ran out
	Revoked   Cause = "revoked"   // somebody asked for it by id, prefix or token
	Forced    Cause = "forced"    // an operator asked to forget it whatever the target says
	Undone    Cause = "undone"    // making failed or its end is unknown, or the client went away
	Unmounted Cause = "unmounted" // its mount was disabled
	TokenEnd  Cause = "token"     // the token it was issued to ended
)

// Explicit reports whether a person or program asked for this end, as opposed
// to a clock or a failure.
func (c Cause) Explicit() bool { return c == Revoked || c == Forced || c == Unmounted }

// ErrAbsent is what End gives Done when the right server was asked and has no
// such login. The lease ends once a late create can no longer land.
var ErrAbsent = errors.New("lease: the target has no such login")

// ErrUnknown is what Make returns (wrapped) when it cannot tell whether the
// target carried out the creation, such as a connection cut at COMMIT.
var ErrUnknown = errors.New("lease: the end of the creation is unknown")

// ErrNameTaken is what Make returns (wrapped) when the target already has a
// login of that name which does not carry this lease's mark. The lease ends
// and nothing is touched.
var ErrNameTaken = errors.New("lease: the target has that name already, and it is not ours")

// WaitError makes a lease wait as irrevocable at once: the answer came from a
// server that is not the one the login was made on, or that cannot write.
type WaitError struct {
	Reason string
	Err    error
}

func (e *WaitError) Error() string {
	if e.Err == nil {
		return e.Reason
	}
	return e.Reason + ": " + e.Err.Error()
}

func (e *WaitError) Unwrap() error { return e.Err }

// Made is what Make may know of the lease that has just been committed.
type Made struct {
	Mark    string    // goes on the login, in the same transaction or call
	MakeBy  time.Time // the target itself must refuse to create after this
	Expires time.Time // of the lease; the target's own expiry is never earlier
}

// Grant is an engine's plan for one credential. Nothing outside has happened
// yet when it is returned.
type Grant[R, Out any] struct {
	// Target is the lane that makes and ends this credential: the
	// connection's id and generation. It names no host and no user.
	Target string
	// Ref is everything that ending needs, stored with the kind's version.
	Ref R
	// TTL of zero takes the mount's default; MaxTTL of zero the mount's.
	TTL, MaxTTL  time.Duration
	NotRenewable bool
	// Names are reserved in the commit, as <target identity>/<user>. A clash
	// calls the handler again with a fresh Draft.
	Names []string
	// Live are further liveness keys (full keys: Env.Key) which must be
	// present and without an ending mark in the commit.
	Live []string
	// Limit is how long making may take; make_by is the commit's time plus it.
	// Zero means DefaultLimit.
	Limit time.Duration
	// Group counts leases together (a role's name); "" counts none.
	Group string
	// Caps bound how many leases of the group live at once.
	Caps Caps
	// Share lets requests of one holder have one credential between them. Nil:
	// each has its own.
	Share *Share
	// Make asks the target. Its context ends at make_by and does not end when
	// the client goes away. An error is a known failure, unless it wraps
	// ErrUnknown.
	Make func(ctx context.Context, m Made) (Out, error)
}

// DefaultLimit is how long making may take when a grant does not say.
const DefaultLimit = 30 * time.Second

// Kind is how the leases whose reference is an R end and are renewed. An
// engine makes one for each of its mounts.
type Kind[R any] struct {
	Name    string // "user"; stored in the row
	Version int    // of R's stored form
	// Settle is how long after make_by a creation may still become visible
	// at the target (IAM's propagation). Added to the fixed second.
	Settle time.Duration
	// Meet gets to know the target of a lease whose time is over, or its
	// token's, before it is ended: what the target shows may raise the fence.
	// It is asked each time and must cost nothing once the target is known. Nil
	// where targets do not tell.
	Meet func(ctx context.Context, target string, ref R) error
	// End takes a batch of leases of one target through the stages. It calls
	// Disabled of each whose logins are off for good, and Done exactly once
	// for each. It touches nothing that does not carry the item's mark.
	End func(ctx context.Context, target string, items []*Ending[R])
	// Renew extends the credential at the target, before the lease. Nil when
	// the target knows no expiry.
	Renew func(ctx context.Context, target string, ref R, mark string, until time.Time) error
}

// Ending is one lease on its way out.
type Ending[R any] struct {
	Ref    R
	Mark   string // only a login that carries it may be altered or dropped
	Cause  Cause
	Issued time.Time
	// Late says that no creation may land any more: when the target was not
	// yet asked, make_by had passed. A login that is absent then stays so.
	Late bool

	disabled func()
	done     func(error)
}

// Disabled says that the first stage is committed: no new login is possible.
func (e *Ending[R]) Disabled() { e.disabled() }

// Done says how it ended: nil, ErrAbsent, a *WaitError, or another error,
// after which it is tried again with back-off.
func (e *Ending[R]) Done(err error) { e.done(err) }

// AnyKind is a Kind without its type, as the lease machinery holds it.
type AnyKind interface {
	name() string
	settle() time.Duration
	meet(ctx context.Context, target string, version int, ref []byte) error
	end(ctx context.Context, target string, items []*ending)
	renew(ctx context.Context, target string, version int, ref []byte, mark string, until time.Time) error
}

func (k *Kind[R]) name() string          { return k.Name }
func (k *Kind[R]) settle() time.Duration { return k.Settle }

func (k *Kind[R]) end(ctx context.Context, target string, items []*ending) {
	typed := make([]*Ending[R], 0, len(items))
	for _, it := range items {
		e := &Ending[R]{
			Mark: it.mark, Cause: it.row.Ending.Cause, Issued: it.row.Issued, Late: it.late,
			disabled: it.disabled, done: it.done,
		}
		if err := decodeRef(k.Version, it.row.KindVersion, it.row.Ref, &e.Ref); err != nil {
			it.done(err)
			continue
		}
		typed = append(typed, e)
	}
	if len(typed) > 0 {
		k.End(ctx, target, typed)
	}
}

func (k *Kind[R]) meet(ctx context.Context, target string, version int, ref []byte) error {
	if k.Meet == nil {
		return nil
	}
	var r R
	if err := decodeRef(k.Version, version, ref, &r); err != nil {
		return err
	}
	return k.Meet(ctx, target, r)
}

func (k *Kind[R]) renew(ctx context.Context, target string, version int, ref []byte, mark string, until time.Time) error {
	if k.Renew == nil {
		return nil
	}
	var r R
	if err := decodeRef(k.Version, version, ref, &r); err != nil {
		return err
	}
	return k.Renew(ctx, target, r, mark, until)
}

func decodeRef(want, have int, raw []byte, into any) error {
	if have > want {
		return fmt.Errorf("a lease reference of version %d was written by a newer server (this one knows %d)", have, want)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("decoding a lease reference: %w", err)
	}
	return nil
}

// Plan is a Grant without its types: what core commits and then makes.
type Plan struct {
	Kind         string
	KindVersion  int
	Target       string
	Ref          []byte
	TTL, MaxTTL  time.Duration
	NotRenewable bool
	Names, Live  []string
	Limit        time.Duration
	Group        string
	Caps         Caps
	Share        *Share
	Make         func(ctx context.Context, m Made) (any, error)
	// keep encodes what Make gave, secrets included, and read decodes it, for
	// who shares it.
	keep func(any) []byte
	read func([]byte) (any, error)
}

// Erase turns an engine's grant into a Plan.
func Erase[R, Out any](k *Kind[R], g Grant[R, Out]) (*Plan, error) {
	ref, err := json.Marshal(g.Ref)
	if err != nil {
		return nil, errs.Wrap(errs.Internal, err, "encoding a lease reference")
	}
	return &Plan{
		Kind: k.Name, KindVersion: k.Version, Target: g.Target, Ref: ref,
		TTL: g.TTL, MaxTTL: g.MaxTTL, NotRenewable: g.NotRenewable,
		Names: g.Names, Live: g.Live, Limit: g.Limit, Group: g.Group, Caps: g.Caps, Share: g.Share,
		Make: func(ctx context.Context, m Made) (any, error) { return g.Make(ctx, m) },
		keep: func(out any) []byte {
			o, _ := out.(Out)
			return wire.Marshal(&o)
		},
		read: func(b []byte) (any, error) {
			var out Out
			err := wire.Unmarshal(b, &out)
			return out, err
		},
	}, nil
}

// KindName is the name that a kind's leases are stored under.
func KindName(k AnyKind) string { return k.name() }
