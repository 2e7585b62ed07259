package core

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// A wrapped answer is kept in a row of its wrapping token, a token of one use:
//
//	wrap/<token's key>   wrapRow, JSON
//
// The row goes with the token, however that ends.
const wrapPrefix = "wrap/"

type wrapRow struct {
	V         int             `json:"v"`
	Data      json.RawMessage `json:"data,omitempty"`
	Auth      json.RawMessage `json:"auth,omitempty"`
	LeaseID   string          `json:"lid,omitempty"`
	LeaseTTL  time.Duration   `json:"lttl,omitempty"`
	Renewable bool            `json:"rn,omitempty"`
	Path      string          `json:"path"`
	Created   time.Time       `json:"at"`
	TTL       time.Duration   `json:"ttl"`
}

// wrap replaces the answer by a token for it, where the client asked for that.
// Errors and empty answers are not wrapped. A batch that failed in part is no
// error, whatever its status: the rest of it is to be as unseen as any answer.
func (x *exchange) wrap(ctx context.Context) error {
	if x.req.WrapTTL <= 0 || x.resp.Raw != nil || x.resp.Data == nil && x.resp.Auth == nil || x.resp.Form == route.Bare {
		return nil
	}
	row := wrapRow{
		V: 1, LeaseID: x.resp.LeaseID, LeaseTTL: x.resp.LeaseTTL, Renewable: x.resp.Renewable, Path: x.req.Path,
		TTL: x.req.WrapTTL,
	}
	if x.resp.Data != nil {
		row.Data = x.resp.Data.AppendJSON(nil)
	}
	wrapped := x.r.Reply().WrappedAccessor
	if x.resp.Auth != nil {
		row.Auth = x.resp.Auth.AppendJSON(nil)
		var a struct {
			Accessor string `json:"accessor"`
		}
		if err := json.Unmarshal(row.Auth, &a); err == nil {
			wrapped = a.Accessor
		}
	}
	info, err := x.u.wrapRow(ctx, x.ns, row)
	if err != nil {
		return err
	}
	info.WrappedAccessor = wrapped
	x.resp = Response{Wrap: info, Warnings: x.resp.Warnings, Sent: x.resp.Sent, MountType: x.resp.MountType}
	return nil
}

// wrapRow makes the wrapping token and stores the answer under it.
func (u *unsealed) wrapRow(ctx context.Context, ns string, row wrapRow) (*WrapInfo, error) {
	now := u.core.cfg.Now().Round(0)
	row.Created = now
	e := &token.Entry{
		Namespace: ns, Path: row.Path, Policies: []string{policy.ResponseWrappingName}, NumUses: 1,
		TTL: row.TTL, ExplicitMaxTTL: row.TTL, Expires: now.Add(row.TTL),
	}
	t, err := u.tokens.Create(ctx, e, noID, u.liveKeys(ctx, ns)...)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(row)
	if err != nil {
		return nil, err
	}
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		// Its token may have ended by now, and what hangs from it is gone.
		if word, err := tx.Get(token.LiveKey(t.Key)); err != nil || string(word) != lease.Alive {
			if err == nil {
				err = lease.ErrNotLive
			}
			return err
		}
		return tx.Put(wrapPrefix+t.Key, b)
	})
	if err != nil {
		if rerr := u.tokens.Revoke(context.WithoutCancel(ctx), t.Key); rerr != nil {
			u.core.log.Error("revoking an unused wrapping token; it ends at its expiry", "error", rerr)
		}
		return nil, fmt.Errorf("storing a wrapped answer: %w", err)
	}
	return &WrapInfo{
		Token: t.Text, Accessor: t.Accessor, TTL: wire.TTL(row.TTL), CreationTime: now, CreationPath: row.Path,
	}, nil
}

// errNotWrapping is one sentence for every token that wraps nothing any more,
// so that a thief's first use shows as the owner's failure.
var errNotWrapping = errs.New(errs.Invalid, "wrapping token is not valid or does not exist; if you have not used it, somebody else has")

// wrapped reads what a wrapping token holds.
func (u *unsealed) wrapped(ctx context.Context, text secret.String) (*token.Token, *wrapRow, error) {
	t, err := u.tokens.Lookup(ctx, text)
	if err != nil {
		if errs.Is(err, errs.Denied) {
			err = errNotWrapping
		}
		return nil, nil, err
	}
	var row *wrapRow
	err = u.store.View(ctx, func(v storage.View) error {
		b, err := v.Get(wrapPrefix + t.Key)
		if err != nil || b == nil {
			return err
		}
		row = new(wrapRow)
		return json.Unmarshal(b, row)
	})
	if err == nil && row == nil {
		err = errNotWrapping
	}
	return t, row, err
}

// WrappingInfo tells of a wrapping token without using it up.
func (c *Core) WrappingInfo(ctx context.Context, text secret.String) (path string, created time.Time, ttl time.Duration, err error) {
	u, err := c.open()
	if err != nil {
		return "", time.Time{}, 0, err
	}
	_, row, err := u.wrapped(ctx, text)
	if err != nil {
		return "", time.Time{}, 0, err
	}
	return row.Path, row.Created, row.TTL, nil
}

// Unwrap gives back a wrapped answer, once.
func (c *Core) Unwrap(ctx context.Context, text secret.String) (*route.Whole, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	t, row, err := u.wrapped(ctx, text)
	if err != nil {
		return nil, err
	}
	// The one use is taken durably before anything is given away.
	if _, err := u.tokens.Use(ctx, t); err != nil {
		if errs.Is(err, errs.Denied) {
			err = errNotWrapping
		}
		return nil, err
	}
	if err := u.tokens.Revoke(context.WithoutCancel(ctx), t.Key); err != nil {
		return nil, err
	}
	return row.whole(), nil
}

// oldUnwrap is unwrapping as clients did it before sys/wrapping/unwrap: they
// read cubbyhole/response by the wrapping token, whose one use that is, and
// find the answer there as a text.
func (x *exchange) oldUnwrap(ctx context.Context) (route.Result, error) {
	if !x.lastUse {
		return route.Result{}, errs.Gone
	}
	_, row, err := x.u.wrapped(ctx, x.req.Token)
	if errors.Is(err, errNotWrapping) {
		err = errs.Gone
	}
	if err != nil {
		return route.Result{}, err
	}
	text, err := json.Marshal(struct {
		RequestID string          `json:"request_id"`
		LeaseID   string          `json:"lease_id"`
		Renewable bool            `json:"renewable"`
		LeaseTTL  int64           `json:"lease_duration"`
		Data      json.RawMessage `json:"data"`
		Wrap      *WrapInfo       `json:"wrap_info"`
		Warnings  []string        `json:"warnings"`
		Auth      json.RawMessage `json:"auth"`
	}{x.req.ID, row.LeaseID, row.Renewable, int64(row.LeaseTTL / time.Second), orNull(row.Data), nil, nil, orNull(row.Auth)})
	if err != nil {
		return route.Result{}, err
	}
	data := wire.Append(nil, map[string]wire.Value{"response": wire.Quote(string(text))})
	return route.Result{Data: unwrapped{wire.Value(data)}}, nil
}

func orNull(v json.RawMessage) json.RawMessage {
	if v == nil {
		return json.RawMessage("null")
	}
	return v
}

func (r *wrapRow) whole() *route.Whole {
	w := &route.Whole{LeaseID: r.LeaseID, LeaseDuration: r.LeaseTTL, Renewable: r.Renewable}
	if r.Data != nil {
		w.Data = unwrapped{wire.Value(r.Data)}
	}
	if r.Auth != nil {
		w.Auth = unwrapped{wire.Value(r.Auth)}
	}
	return w
}

// unwrapped is data whose types were lost on the way. To the audit log all of
// it is secret.
type unwrapped struct{ wire.Value }

func (u unwrapped) AppendHashed(dst []byte, hash wire.Hasher) []byte {
	return u.Value.AppendHashed(dst, func(field string, _ bool, s string) string { return hash(field, true, s) })
}

// Rewrap moves a wrapped answer to a new wrapping token of the same TTL.
func (c *Core) Rewrap(ctx context.Context, text secret.String) (*WrapInfo, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	t, row, err := u.wrapped(ctx, text)
	if err != nil {
		return nil, err
	}
	// The new place comes first: what fails from here on loses nothing.
	info, err := u.wrapRow(ctx, t.Namespace, *row)
	if err != nil {
		return nil, err
	}
	done := t.Key
	if _, err = u.tokens.Use(ctx, t); err != nil {
		done = u.tokens.Key(info.Token) // somebody has used the old one; nobody knows the new one
		if errs.Is(err, errs.Denied) {
			err = errNotWrapping
		}
	}
	if rerr := u.tokens.Revoke(context.WithoutCancel(ctx), done); err == nil {
		err = rerr
	}
	if err != nil {
		return nil, err
	}
	return info, nil
}
