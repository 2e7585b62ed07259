package sys

import (
	"context"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// Factors completes logins that wait for second factors.
type Factors interface {
	// Release gives a waiting login, once, to whoever shows what it needs:
	// passcodes by the id, or the name, of their method.
	Release(ctx context.Context, ns, id string, shown map[string][]string) (login []byte, err error)
}

func (e *Engine) mfaRoutes(t *route.Table) {
	route.Login(t, "mfa/validate", e.validateMFA, route.Doc("Complete a login with the second factors that it needs."))
}

type validateMFAIn struct {
	ID      string              `json:"mfa_request_id" doc:"The id that the login was answered with."`
	Payload map[string]wire.CSV `json:"mfa_payload" doc:"By the id of each method a list of one passcode."`
}

// maxFactors bounds how many methods one request shows factors of.
const maxFactors = 32

func (in *validateMFAIn) Validate() error {
	switch {
	case in.ID == "":
		return errs.New(errs.Invalid, "missing mfa_request_id")
	case len(in.Payload) == 0:
		return errs.New(errs.Invalid, "missing mfa_payload: passcodes by the id of their method")
	case len(in.Payload) > maxFactors:
		return errs.New(errs.Invalid, "mfa_payload has more than %d methods", maxFactors)
	}
	return nil
}

func (e *Engine) validateMFA(ctx context.Context, req *route.Request, in validateMFAIn) (*route.Auth, error) {
	shown := make(map[string][]string, len(in.Payload))
	for method, codes := range in.Payload {
		shown[method] = codes
	}
	login, err := e.cfg.Factors.Release(ctx, req.Mount.Namespace, in.ID, shown)
	if err != nil {
		return nil, err
	}
	return &route.Auth{Held: login}, nil
}
