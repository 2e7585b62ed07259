package jwt

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/leasehold/leasehold/internal/auth/roles"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/route"
)

// Engine is one mount of the method, of type "jwt" or "oidc".
type Engine struct {
	env    engine.Env
	roles  roles.Store[roleRow, *roleRow]
	issuer atomic.Pointer[issuer] // made of the configuration that was used last

	ctx    context.Context // of requests to other servers; ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // those requests, and sweeping
	swept  atomic.Int64   // when sweeping of flows began last
}

var (
	_ engine.Engine  = (*Engine)(nil)
	_ engine.Closer  = (*Engine)(nil)
	_ engine.Renewer = (*Engine)(nil)
)

// New makes the engine of a mount.
func New(ctx context.Context, env engine.Env) (engine.Engine, error) {
	e := &Engine{env: env, roles: roles.Store[roleRow, *roleRow]{Slice: env.Store, Version: roleVersion}}
	e.ctx, e.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return e, nil
}

// Close ends what is being asked of other servers.
func (e *Engine) Close() error {
	e.cancel()
	e.wg.Wait()
	if is := e.issuer.Load(); is != nil {
		is.close()
	}
	return nil
}

// Routes declares the method's endpoints.
func (e *Engine) Routes(t *route.Table) { t.With(e.routes, route.Folds(roles.Known)) }

func (e *Engine) routes(t *route.Table) {
	route.Read(t, "config", e.readConfig, route.Doc("Read where the keys come from."))
	route.Write(t, "config", e.writeConfig, route.Doc("Say where the keys come from that tokens are signed with."))

	route.List(t, "role", e.roles.List, route.Doc("List the roles."))
	route.Read(t, "role/{name}", e.readRole, route.Doc("Read a role."))
	route.Write(t, "role/{name}", e.writeRole, route.Exists(e.roles.Exists), route.Doc("Write a role: what a token must claim, and what its holder gets."))
	route.Delete(t, "role/{name}", e.roles.Delete, route.Doc("Delete a role. Tokens that it granted live on and cannot be renewed."))

	route.Login(t, "login", e.login, route.RoleOf(e.loginRole), route.Doc("Log in with a JWT."))
	route.Write(t, "oidc/auth_url", e.authURL, route.Unauth(), route.Doc("Begin a login by browser: the address to send it to."))
	route.LoginByRead(t, "oidc/callback", e.callback, route.Doc("End a login by browser, with the code that it came back with."))
	route.Write(t, "oidc/callback", e.callbackPost, route.Unauth(), route.Doc("Take the form that a provider lets the browser post (oidc_response_mode form_post)."))
}
