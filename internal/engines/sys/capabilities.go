package sys

import (
	"context"
	"net/netip"
	"slices"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// Access tells what the holder of a token may do.
type Access interface {
	// Of finds the rights of a token in a namespace, whose paths Rights take.
	// One that is unknown, of another namespace that is not above that, or
	// bound to other addresses than from, is errs.Denied; a zero from is not
	// judged.
	Of(ctx context.Context, ns string, token secret.String, from netip.Addr) (Rights, error)
	// Spend is Of for the request that the token came with: where its uses are
	// limited, one is taken before anything is decided.
	Spend(ctx context.Context, ns string, token secret.String, from netip.Addr) (Rights, error)
	// OfAccessor finds the rights of the token with an accessor, or
	// errs.Invalid.
	OfAccessor(ctx context.Context, ns, accessor string) (Rights, error)
	// Resultant is all that a token's policies grant, for user interfaces.
	Resultant(ctx context.Context, token secret.String) (wire.Data, error)
}

// Rights are what a set of policies grants.
type Rights interface {
	// Capabilities on a path: sorted names, or "root" or "deny" alone.
	Capabilities(path string) []string
	// Reaches reports whether anything is granted at or below a mount's path.
	Reaches(mount string) bool
}

func (e *Engine) capabilityRoutes(t *route.Table) {
	top := route.InForm(route.TopLevel)
	route.Write(t, "capabilities", e.capabilities, top, route.Doc("Tell what a token may do on paths."))
	route.Write(t, "capabilities-self", e.capabilitiesSelf, top, route.Doc("Tell what the caller may do on paths."))
	route.Write(t, "capabilities-accessor", e.capabilitiesAccessor, top, route.Doc("Tell what the token with an accessor may do on paths."))
	route.Read(t, "internal/ui/resultant-acl", e.resultantACL, route.Doc("All that the caller's policies grant."))
}

type pathsIn struct {
	Path  wire.CSV `json:"path" doc:"Older name of paths."`
	Paths wire.CSV `json:"paths" doc:"Paths to tell about."`
}

func (in pathsIn) list() []string { return slices.Concat([]string(in.Paths), []string(in.Path)) }

// Validate wants at least one path.
func (in pathsIn) Validate() error {
	if len(in.list()) == 0 {
		return errs.New(errs.Invalid, "paths must be supplied")
	}
	return nil
}

// capabilitiesOf answers each path with its capabilities. A single path's
// stand under "capabilities" too, as in the days before there were lists.
func capabilitiesOf(rights Rights, paths []string) map[string][]string {
	out := make(map[string][]string, len(paths)+1)
	for _, p := range paths {
		out[p] = rights.Capabilities(p)
	}
	if len(paths) == 1 {
		out["capabilities"] = out[paths[0]]
	}
	return out
}

type capabilitiesIn struct {
	Token secret.String `json:"token" doc:"The token to tell about."`
	pathsIn
}

func (e *Engine) capabilities(ctx context.Context, req *route.Request, in capabilitiesIn) (map[string][]string, error) {
	if in.Token.IsZero() {
		return nil, errs.New(errs.Invalid, "missing token: capabilities-self tells about your own")
	}
	rights, err := e.cfg.Access.Of(ctx, req.Mount.Namespace, in.Token, netip.Addr{})
	if err != nil {
		return nil, invalidToken(err)
	}
	return capabilitiesOf(rights, in.list()), nil
}

// invalidToken makes a token that was asked about, and does not exist, the
// fault of the question: the asker's own permission is not in doubt.
func invalidToken(err error) error {
	if errs.Is(err, errs.Denied) {
		return errs.Wrap(errs.Invalid, err, "invalid token")
	}
	return err
}

func (e *Engine) capabilitiesSelf(ctx context.Context, req *route.Request, in capabilitiesIn) (map[string][]string, error) {
	rights, err := e.cfg.Access.Of(ctx, req.Mount.Namespace, req.Caller.Token, netip.Addr{})
	if err != nil {
		return nil, err
	}
	return capabilitiesOf(rights, in.list()), nil
}

type capabilitiesAccessorIn struct {
	Accessor string `json:"accessor" doc:"Accessor of the token to tell about."`
	pathsIn
}

func (e *Engine) capabilitiesAccessor(ctx context.Context, req *route.Request, in capabilitiesAccessorIn) (map[string][]string, error) {
	if in.Accessor == "" {
		return nil, errs.New(errs.Invalid, "missing accessor")
	}
	rights, err := e.cfg.Access.OfAccessor(ctx, req.Mount.Namespace, in.Accessor)
	if err != nil {
		return nil, err
	}
	return capabilitiesOf(rights, in.list()), nil
}

func (e *Engine) resultantACL(ctx context.Context, req *route.Request, _ route.None) (wire.Data, error) {
	return e.cfg.Access.Resultant(ctx, req.Caller.Token)
}
