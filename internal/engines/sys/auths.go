package sys

import (
	"context"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
)

// Auth methods are mounts below auth/, and the API shows them apart. All but
// the list of them is protected.
func (e *Engine) authRoutes(t *route.Table) {
	top := route.InForm(route.TopLevel)
	route.Read(t, "auth", e.listAuth, top, route.Doc("List the auth methods."))
	route.Read(t, "auth/{path...}", e.readAuth, top, route.Sudo(), route.Doc("Read one auth method's mount."))
	route.Write(t, "auth/{path...}", e.enableAuth, route.Sudo(), route.Doc("Enable an auth method at a path."))
	route.Delete(t, "auth/{path...}", e.disableAuth, route.Sudo(), route.Doc("Disable an auth method: its tokens are revoked."))
	route.Read(t, "auth/{path...}/tune", e.readAuthTuning, top, route.Sudo(), route.Doc("Read how an auth method is tuned."))
	route.Write(t, "auth/{path...}/tune", e.tuneAuth, route.Sudo(), route.Doc("Tune an auth method."))
}

func (e *Engine) listAuth(ctx context.Context, req *route.Request, _ route.None) (map[string]mountOut, error) {
	return e.mountsOf(ctx, req.Mount.Namespace, classAuth)
}

func (e *Engine) readAuth(ctx context.Context, req *route.Request, in pathIn) (mountOut, error) {
	path := withSlash(in.Path)
	m, ok, err := e.mountAt(ctx, req.Mount.Namespace, authPrefix+path)
	if err != nil {
		return mountOut{}, err
	}
	if !ok {
		return mountOut{}, errs.New(errs.Invalid, "no auth method is mounted at %s", path)
	}
	return e.mountOut(m), nil
}

func (e *Engine) enableAuth(ctx context.Context, req *route.Request, in enableIn) (route.None, error) {
	return e.enable(ctx, req, in, classAuth)
}

func (e *Engine) disableAuth(ctx context.Context, req *route.Request, in pathIn) (route.None, error) {
	return route.None{}, e.disable(ctx, req.Mount.Namespace, authPrefix+withSlash(in.Path))
}

func (e *Engine) readAuthTuning(ctx context.Context, req *route.Request, in pathIn) (tuneOut, error) {
	in.Path = authPrefix + in.Path
	return e.readTuning(ctx, req, in)
}

func (e *Engine) tuneAuth(ctx context.Context, req *route.Request, in tuneIn) (route.None, error) {
	in.Path = authPrefix + in.Path
	return e.tune(ctx, req, in)
}
