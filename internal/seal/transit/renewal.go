package transit

import (
	"context"
	"errors"
	"time"

	"github.com/leasehold/leasehold/api"
)

const (
	// After a failure the token is looked at again this soon: somebody may have
	// put another one in place.
	lookAgain = time.Minute
	// A token that needs no renewal is looked at this often.
	lookNow = 15 * time.Minute
)

// Run keeps the token alive until ctx ends. What fails is logged and tried
// again; the seal needs the token only when the server opens.
func (s *Seal) Run(ctx context.Context) {
	said := ""
	for {
		err := s.keepAlive(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := lookNow
		if err != nil {
			wait = lookAgain
			if err.Error() != said {
				s.cfg.Log.Warn("the token of the transit seal is not renewed; without it this server will not open by itself the next time", "server", s.client.Address(), "error", err)
				said = err.Error()
			}
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

// keepAlive renews the token until that fails. It returns nil for one that
// needs no renewal.
func (s *Seal) keepAlive(ctx context.Context) error {
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
	first, err := c.RenewSelf(ctx, 0)
	if err != nil {
		return err
	}
	r, err := api.NewRenewer(c, api.RenewerConfig{Secret: first})
	if err != nil {
		return err
	}
	return r.Run(ctx)
}
