// Package approle lets machines log in with two halves of a credential: a role
// id, which may stand in a configuration, and a secret id, which is handed out
// at deployment, lives for a while and can be limited in uses.
//
// The key idea: a login is two reads by key. A role lies under the keyed hash
// of its role id and a secret id under its own, so neither can be read out of
// the store, and what is found needs no comparing. A secret id with unlimited
// uses is only read; a limited one is decremented, durably and on condition,
// before anything else of the login is looked at.
package approle

import (
	"context"
	"encoding/hex"
	"sync"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/route"
)

// Engine is one mount of the method.
type Engine struct {
	env     engine.Env
	roles   memo[role]
	secrets memo[secretRow]

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup // tidying
	mu     sync.Mutex
	tidies bool
}

var (
	_ engine.Engine  = (*Engine)(nil)
	_ engine.Closer  = (*Engine)(nil)
	_ engine.Sweeper = (*Engine)(nil)
	_ engine.Renewer = (*Engine)(nil)
)

// New makes the engine of a mount.
func New(ctx context.Context, env engine.Env) (engine.Engine, error) {
	e := &Engine{env: env}
	e.ctx, e.cancel = context.WithCancel(ctx)
	return e, nil
}

// Close ends tidying and waits for it.
func (e *Engine) Close() error {
	e.cancel()
	e.wg.Wait()
	return nil
}

// Routes declares the method's endpoints.
func (e *Engine) Routes(t *route.Table) { t.With(e.routes, route.Folds(known)) }

func (e *Engine) routes(t *route.Table) {
	route.Login(t, "login", e.login, route.LockedBy(loginIn.alias), route.RoleOf(e.loginRole), route.Doc("Log in with a role id and a secret id."))
	route.Write(t, "tidy/secret-id", e.tidy, route.Status(202), route.Doc("Delete secret ids that have expired, now."))

	route.List(t, "role", e.listRoles, route.Doc("List the roles."))
	route.Read(t, "role/{role_name}", e.readRole, route.Doc("Read a role."))
	route.Write(t, "role/{role_name}", e.writeRole, route.Exists(e.roleExists), route.Doc("Write a role."))
	route.Delete(t, "role/{role_name}", e.deleteRole, route.Doc("Delete a role and its secret ids. Its tokens live on, and cannot be renewed."))
	e.fieldRoutes(t)

	const one, destroy = "role/{role_name}/secret-id", "Destroy a secret id."
	route.List(t, one, e.listSecretIDs, route.Doc("List the accessors of a role's secret ids."))
	route.Write(t, one, e.makeSecretID, route.Doc("Draw a secret id for a role."))
	route.Write(t, "role/{role_name}/custom-secret-id", e.takeSecretID, route.Doc("Make a secret id of one's own choice."))
	route.Write(t, one+"/lookup", e.lookupSecretID, route.Doc("Read about a secret id."))
	route.Write(t, one+"/destroy", e.destroySecretID, route.Doc(destroy))
	route.Delete(t, one+"/destroy", e.destroySecretID, route.Doc(destroy))
	route.Write(t, one+"-accessor/lookup", e.lookupAccessor, route.Doc("Read about the secret id with an accessor."))
	route.Write(t, one+"-accessor/destroy", e.destroyAccessor, route.Doc(destroy))
	route.Delete(t, one+"-accessor/destroy", e.destroyAccessor, route.Doc(destroy))
}

// hash is what of a secret stands in a key.
func (e *Engine) hash(secret string) string {
	h := e.env.Hash(secret)
	return hex.EncodeToString(h[:20])
}

// uuid draws one.
func (e *Engine) uuid() (string, error) {
	var b [16]byte
	if _, err := e.env.Rand.Read(b[:]); err != nil {
		return "", err
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], nil
}
