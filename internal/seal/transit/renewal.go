package transit

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/leasehold/leasehold/api"
	"github.com/leasehold/leasehold/internal/secret"
)

const (
	// Whether somebody has put another token in place is looked at this often,
	// also after a failure.
	lookAgain = time.Minute
	// A token that needs no renewal is looked at this often.
	lookNow = 15 * time.Minute
)

// Run keeps the token alive until ctx ends. What fails is logged and tried
// again; the seal needs the token only when the server opens.
func (s *Seal) Run(ctx context.Context) {
	said := ""
	warn := func(err error) {
		if err.Error() != said {
			s.cfg.Log.Warn("the token of the transit seal is not renewed; without it this server will not open by itself the next time", "server", s.client.Address(), "error", err)
			said = err.Error()
		}
	}
	for {
		err := s.keepAlive(ctx, api.RenewerConfig{Failed: warn, Renewed: func(*api.Secret) { said = "" }})
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errReplaced) {
			continue
		}
		wait := lookNow
		if err != nil {
			wait = lookAgain
			warn(err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// errEnds is a token whose end cannot be moved.
var errEnds = errors.New("it is not renewable: give the seal a periodic token (leasehold token create -orphan -period=24h)")

// errReplaced is a token that is kept alive no more, since there is another.
var errReplaced = errors.New("another token has been put in place")

// keepAlive renews the token, and tells so, until that fails or another is in
// its place. It returns nil for one that needs no renewal.
func (s *Seal) keepAlive(ctx context.Context, tell api.RenewerConfig) error {
	token, err := s.cfg.Token()
	if err != nil {
		return err
	}
	c := s.client.WithToken(token.Reveal())
	reply, err := c.Read(ctx, "auth/token/lookup-self", nil)
	if err != nil {
		return err
	}
	var is struct {
		TTL       int  `json:"ttl"`
		Renewable bool `json:"renewable"`
	}
	switch err := reply.Decode(&is); {
	case err != nil:
		return err
	case is.TTL == 0:
		return nil // it has no end
	case !is.Renewable:
		return errEnds
	}
	if tell.Secret, err = c.RenewSelf(ctx, 0); err != nil {
		return err
	}
	r, err := api.NewRenewer(c, tell)
	if err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end(nil)
	wg.Go(func() { s.awaitAnother(ctx, token, end) })
	if err := r.Run(ctx); ctx.Err() == nil {
		return err
	}
	return context.Cause(ctx)
}

// awaitAnother ends the renewing of a token once there is another: a file's new
// one lives by being renewed, too. A file that is being written is left alone.
func (s *Seal) awaitAnother(ctx context.Context, token secret.String, end context.CancelCauseFunc) {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if now, err := s.cfg.Token(); err == nil && !now.IsZero() && !now.Equal(token) {
			end(errReplaced)
			return
		}
	}
}
