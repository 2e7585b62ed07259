package engine

import (
	"context"
	"crypto/tls"
	"net/netip"

	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// Renewer is an auth method that has a say when a token that it granted is
// renewed.
type Renewer interface {
	// RenewLogin gives what the login would be granted now; the server renews
	// within that, and not at all if its policies differ from the token's.
	// An error refuses the renewal. With an Alias the method has looked the
	// caller up anew, so that its Groups replace those of the last login; the
	// token keeps its entity, whichever name that is.
	RenewLogin(ctx context.Context, r Renewal) (*route.Auth, error)
}

// Renewal is what is known of a token that is to be renewed, and of the
// request that asks for it.
type Renewal struct {
	Internal    wire.Object // Auth.Internal of the login
	Policies    []string    // of the token, for a method that lets it keep them
	Metadata    map[string]string
	DisplayName string
	Remote      netip.Addr
	TLS         *tls.ConnectionState
}
