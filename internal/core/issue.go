package core

import (
	"context"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// drawNames is how often a handler is asked again because a name it drew is
// reserved already. With 80 random bits once is rare; a template without
// randomness fails each time, and the error says so.
const drawNames = 4

// issue is the lease-first order: plan, commit, make, read again. See the
// design, "How a credential is issued".
func (x *exchange) issue(ctx context.Context) error {
	if x.lastUse {
		return errs.New(errs.Invalid, "the token had one use left, and a lease ends with its token: use a token with more uses")
	}
	if !x.r.Caller.Root { // who can undo what filled a quota must not be stopped by it
		if err := x.u.leaseQuota(ctx, x.space, x.m.ID, x.r.Path, "", x.req.Path); err != nil {
			return err
		}
	}
	l, out, err := x.credential(ctx)
	if err != nil {
		return err
	}
	x.m.figures.leases.Add(1)
	reply := x.r.Reply()
	x.resp.Warnings, x.resp.Status = reply.Warnings, reply.Status
	x.resp.Data = wire.OfAny(out)
	x.resp.LeaseID, x.resp.LeaseTTL, x.resp.Renewable = string(l.ID), l.TTL, l.Renewable
	x.resp.Sent = func(begun bool) {
		if begun {
			return
		}
		// The client has gone, or the answer was not recorded: it must not
		// keep a credential that nobody holds.
		if err := x.u.leases.Undo(context.WithoutCancel(ctx), l, lease.MakeDone); err != nil {
			x.u.core.log.Error("undoing a lease whose client has gone; it ends at its expiry", "mount", l.MountID, "error", err)
		}
	}
	return nil
}

// credential makes what was asked for, and a lease on it. Where the role lets
// its holders share, the lease may be on one that the same holder was given a
// moment ago.
func (x *exchange) credential(ctx context.Context) (l *lease.Issued, out any, err error) {
	h := x.holder()
	for try := 1; ; try++ {
		x.r.Lease = x.u.leases.Draft(x.req.Path, x.space.suffix)
		res, err := x.ep.Call(ctx, &x.r)
		if err != nil {
			return nil, nil, err
		}
		plan := res.Plan
		ttl, most := x.terms(plan)
		if try == 1 {
			l, out, done, err := x.u.leases.Join(ctx, x.r.Lease, h, plan, ttl, most)
			if err != nil {
				return nil, nil, err
			}
			if l != nil {
				return l, out, x.u.leases.Confirm(ctx, l)
			}
			defer done()
			if err := x.u.lanes.Ready(plan.Target); err != nil {
				return nil, nil, err
			}
		}
		l, err = x.u.leases.Commit(ctx, x.r.Lease, h, plan, ttl, most)
		if err == nil {
			break
		}
		if !lease.IsNameClash(err) {
			return nil, nil, err
		}
		if try == drawNames {
			return nil, nil, errs.Wrap(errs.Invalid, err, "the user name that was drawn is in use by another lease each time; give the username_template more randomness")
		}
	}
	if out, err = x.u.leases.Make(ctx, l); err != nil {
		return nil, nil, err
	}
	if err := x.u.leases.Confirm(ctx, l); err != nil {
		return nil, nil, err
	}
	if err := x.u.leases.Offer(ctx, l, h, out); err != nil {
		x.u.core.log.Warn("a credential is not shared: offering it failed", "mount", l.MountID, "error", err)
	}
	return l, out, nil
}

// terms are the lease's time and maximum: the plan's, within the mount's.
func (x *exchange) terms(p *lease.Plan) (ttl, most time.Duration) {
	ttl, most = x.r.Mount.DefaultTTL, x.r.Mount.MaxTTL
	if p.MaxTTL > 0 {
		most = min(most, p.MaxTTL)
	}
	if p.TTL > 0 {
		ttl = p.TTL
	}
	if ttl > most {
		if p.TTL > most {
			x.r.Warn("TTL of %q exceeded the effective max_ttl of %q; TTL value is capped accordingly", ttl, most)
		}
		ttl = most
	}
	return max(ttl.Truncate(time.Second), time.Second), max(most.Truncate(time.Second), time.Second)
}

// holder is who the lease is issued to. A batch token has no row to hang it
// from: its parent owns the lease, which is cut to the token's rest.
func (x *exchange) holder() lease.Holder {
	h := lease.Holder{
		Namespace: x.ns,
		Mount:     lease.Mount{Namespace: x.ns, ID: x.m.ID, Path: x.m.Path},
		Owner:     x.token.Key,
		Live:      x.m.live,
		Who:       x.entityID(),
	}
	if h.Who == "" {
		h.Who = x.token.Key
	}
	if x.token.Type == token.Batch {
		h.Owner, h.Until = x.token.Parent, x.token.Expires
	}
	if h.Owner != "" {
		h.Live = append(h.Live[:len(h.Live):len(h.Live)], token.LiveKey(h.Owner))
	}
	return h
}
