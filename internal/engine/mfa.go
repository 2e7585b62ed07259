package engine

import (
	"context"

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
