package api

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"
)

// ErrReplace is how [Renewer.Run] says that its lease or token nears its end
// and cannot be extended further: fetch a new one now, while the old one still
// works.
var ErrReplace = errors.New("the lease nears its end and cannot be extended")

// RenewerConfig says what a Renewer keeps alive.
type RenewerConfig struct {
	// Secret is the reply that brought the lease, or the login that brought
	// the token. A login's token is renewed by itself, a lease by the client's
	// token.
	Secret *Secret
	// Increment is how much longer to ask for each time; 0 leaves it to the server.
	Increment time.Duration
	// Renewed is called after each renewal; nil calls nothing.
	Renewed func(*Secret)
	// Failed is called after each failed try that will be repeated; nil calls nothing.
	Failed func(error)
}

// Renewer keeps a lease or a token alive.
type Renewer struct {
	client *Client
	cfg    RenewerConfig
}

// NewRenewer makes a Renewer; Run starts it.
func NewRenewer(c *Client, cfg RenewerConfig) (*Renewer, error) {
	switch s := cfg.Secret; {
	case s == nil, s.Auth == nil && s.LeaseID == "":
		return nil, errors.New("there is nothing to renew: the reply holds neither a lease nor a login")
	case s.Auth != nil:
		c = c.WithToken(s.Auth.ClientToken)
	}
	return &Renewer{client: c.WithWrapTTL(""), cfg: cfg}, nil
}

// term is what is known of a lease at one moment.
type term struct {
	length    time.Duration
	ends      time.Time
	renewable bool
}

func termOf(s *Secret, now time.Time) term {
	t := term{length: s.Duration(), renewable: s.Renewable}
	if s.Auth != nil {
		t.renewable = s.Auth.Renewable
	}
	t.ends = now.Add(t.length)
	return t
}

// Run renews when two thirds of the time are over and blocks until it is of no
// more use. It answers ErrReplace while some of the time is left, ctx's error
// when that ends, and what the server said when it refuses (the lease was
// revoked, the token may not renew). A server that is away is asked again.
func (r *Renewer) Run(ctx context.Context) error {
	t := termOf(r.cfg.Secret, time.Now())
	if t.length == 0 { // a root token: never ends
		<-ctx.Done()
		return ctx.Err()
	}
	for {
		// The grace is what the caller has left to fetch a new one in.
		grace := min(t.length/10, time.Minute)
		if !t.renewable {
			if err := sleep(ctx, time.Until(t.ends)-grace); err != nil {
				return err
			}
			return ErrReplace
		}
		// Spread over some percent, so that a fleet started together does not
		// come back together.
		if err := sleep(ctx, t.length*60/100+rand.N(t.length/10+1)); err != nil {
			return err
		}
		next, err := r.renew(ctx, t.ends.Add(-grace))
		if err != nil {
			return err
		}
		// At its maximum a lease still answers to renewals but grows no more.
		if next.ends.Sub(t.ends) < t.length/20 {
			next.renewable = false
			next.length = t.length
		}
		t = next
	}
}

// renew asks until the server answers or the deadline is reached.
func (r *Renewer) renew(ctx context.Context, deadline time.Time) (term, error) {
	for try := 0; ; try++ {
		s, err := r.once(ctx)
		if err == nil {
			if r.cfg.Renewed != nil {
				r.cfg.Renewed(s)
			}
			return termOf(s, time.Now()), nil
		}
		if ctx.Err() != nil {
			return term{}, ctx.Err()
		}
		if status := StatusOf(err); status >= 400 && status < 500 && status != http.StatusTooManyRequests {
			return term{}, fmt.Errorf("renewing: %w", err)
		}
		if r.cfg.Failed != nil {
			r.cfg.Failed(err)
		}
		wait := min(time.Second<<min(try, 5), time.Until(deadline)/4)
		if wait < 10*time.Millisecond {
			return term{}, fmt.Errorf("%w: %w", ErrReplace, err)
		}
		if err := sleep(ctx, wait/2+rand.N(wait/2+1)); err != nil {
			return term{}, err
		}
	}
}

func (r *Renewer) once(ctx context.Context) (*Secret, error) {
	var s *Secret
	var err error
	if r.cfg.Secret.Auth != nil {
		s, err = r.client.RenewSelf(ctx, r.cfg.Increment)
	} else {
		s, err = r.client.RenewLease(ctx, r.cfg.Secret.LeaseID, r.cfg.Increment)
	}
	if err == nil && s == nil {
		err = errors.New("the server answered a renewal with nothing")
	}
	return s, err
}
