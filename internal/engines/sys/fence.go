package sys

import (
	"context"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
)

// Fences tells and lifts the fence: while it stands, because the clock or the
// store may have jumped, nothing expires. Issuing and revoking go on.
type Fences interface {
	Read(ctx context.Context) (Fence, error)
	// Lift confirms that the clock is right. Without a fence it does nothing.
	Lift(ctx context.Context) error
}

// Fence is why leases do not expire, or that they do.
type Fence struct {
	Fenced bool
	Reason string
	Since  time.Time
}

type fenceOut struct {
	Fenced bool      `json:"fenced"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since,omitzero"`
	Next   string    `json:"next,omitempty"`
}

// NextStep is what an operator does about a fence.
const NextStep = "check the clock and the store's age, then confirm: leasehold operator fence lift"

func (e *Engine) readFence(ctx context.Context, _ *route.Request, _ route.None) (fenceOut, error) {
	f, err := e.cfg.Fence.Read(ctx)
	out := fenceOut{Fenced: f.Fenced, Reason: f.Reason, Since: f.Since}
	if f.Fenced {
		out.Next = NextStep
	}
	return out, err
}

type liftIn struct {
	Confirm bool `json:"confirm" doc:"true: the time is right, what is over may expire."`
}

func (e *Engine) liftFence(ctx context.Context, _ *route.Request, in liftIn) (route.None, error) {
	if !in.Confirm {
		return route.None{}, errs.New(errs.Invalid, "say confirm=true: everything whose time is over then expires at once")
	}
	return route.None{}, e.cfg.Fence.Lift(ctx)
}
