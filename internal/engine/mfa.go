package engine

import (
	"context"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
)

// SecondFactors is an identity engine that asks some logins for more than
// their method did.
type SecondFactors interface {
	// Demand is what a login must show beside its method's proof; nil is
	// nothing. It does not block once it was asked, until an enforcement
	// changes.
	Demand(ctx context.Context, l FactorLogin) (*Demand, error)
	// Prove checks what was shown against a demand: an error of kind Denied
	// says what is missing. A passcode is used up by it.
	Prove(ctx context.Context, d *Demand, shown Shown) error
	// Hold keeps a login, for some minutes, until somebody shows what its
	// demand asks for. An entity has a bounded number of them: the oldest goes.
	Hold(ctx context.Context, d *Demand, login []byte) (id string, err error)
	// Release gives a held login back, once, to whoever shows what it needs.
	Release(ctx context.Context, id string, shown Shown) (login []byte, err error)
}

// FactorLogin is a login whose method is content.
type FactorLogin struct {
	Accessor string // of the auth mount
	Type     string // of the auth mount: "userpass"
	Who      *Identified
}

// Demand is what a login must show: one factor of each constraint.
type Demand struct {
	EntityID    string
	Constraints map[string]route.MFAConstraint // by the name of the enforcement
}

// Shown are passcodes by the id, or the name, of the method that they are of.
type Shown map[string][]string

// maxShown bounds how many methods one request shows factors of.
const maxShown = 32

// ParseShown reads the values of X-Vault-MFA: method or method:passcode,
// several of them with commas between.
func ParseShown(header []string) (Shown, error) {
	shown := Shown{}
	for _, value := range header {
		for one := range strings.SplitSeq(value, ",") {
			method, passcode, has := strings.Cut(strings.TrimSpace(one), ":")
			if method == "" || len(shown) >= maxShown {
				return nil, errs.New(errs.Invalid, "X-Vault-MFA: want method:passcode, for at most %d methods", maxShown)
			}
			if _, twice := shown[method]; twice {
				return nil, errs.New(errs.Invalid, "X-Vault-MFA: a method stands there twice")
			}
			shown[method] = nil
			if has {
				shown[method] = []string{passcode}
			}
		}
	}
	return shown, nil
}
