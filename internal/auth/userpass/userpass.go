// Package userpass lets people log in with a name and a password.
//
// The key idea: nobody can tell from outside which names there are. A password
// is kept as its bcrypt hash; a login with a name that there is not is compared
// with a hash that nothing matches, and whoever fails has cost the server the
// same work, whatever the cost of the hash that was found (see check).
package userpass

import (
	"context"
	"encoding/hex"
	"runtime"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
)

// Engine is one mount of the method.
type Engine struct {
	env     engine.Env
	compare func(hash, password []byte) error // bcrypt's
	// slots bounds how many comparisons run at once: guesses must not take
	// the whole machine from the other requests.
	slots chan struct{}
}

var (
	_ engine.Engine  = (*Engine)(nil)
	_ engine.Renewer = (*Engine)(nil)
)

// New makes the engine of a mount.
func New(_ context.Context, env engine.Env) (engine.Engine, error) {
	return &Engine{
		env: env, compare: bcrypt.CompareHashAndPassword,
		slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
	}, nil
}

// Routes declares the method's endpoints.
func (e *Engine) Routes(t *route.Table) { t.With(e.routes, route.Folds(known)) }

func (e *Engine) routes(t *route.Table) {
	route.Login(t, "login/{username}", e.login, route.LockedBy(loginIn.name), route.Doc("Log in with a password."))

	route.List(t, "users", e.listUsers, route.Doc("List the users."))
	route.Read(t, "users/{username}", e.readUser, route.Doc("Read a user, without the password."))
	route.Write(t, "users/{username}", e.writeUser, route.Exists(e.userExists), route.Doc("Write a user."))
	route.Delete(t, "users/{username}", e.deleteUser, route.Doc("Delete a user. Tokens live on, and cannot be renewed."))
	route.Write(t, "users/{username}/password", e.writePassword, route.Doc("Change a user's password."))
	route.Write(t, "users/{username}/policies", e.writePolicies, route.Doc("Change the policies of a user's tokens."))
}

type userIn struct {
	Username string `json:"username" doc:"Name of the user; upper and lower case are the same."`
}

func (in userIn) name() string { return known(in.Username) }

// known is a name as rows have it.
func known(name string) string { return strings.ToLower(name) }

// mostName bounds a name: a key has room for it, and lockouts count it.
const mostName = 256

func (e *Engine) listUsers(ctx context.Context, _ *route.Request, _ route.None) (route.Keys, error) {
	names, err := storage.Folder(ctx, e.env.Store, userPrefix)
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(names)
}

func (e *Engine) userExists(ctx context.Context, _ *route.Request, in userIn) (bool, error) {
	u, err := e.user(ctx, in.name())
	return u != nil, err
}

func (e *Engine) readUser(ctx context.Context, _ *route.Request, in userIn) (userOut, error) {
	u, err := e.user(ctx, in.name())
	if err == nil && u == nil {
		err = errs.Gone
	}
	if err != nil {
		return userOut{}, err
	}
	return u.out(), nil
}

func (e *Engine) writeUser(ctx context.Context, req *route.Request, in writeIn) (route.None, error) {
	hash, err := in.hash()
	if err != nil {
		return route.None{}, err
	}
	var key [16]byte
	if _, err := e.env.Rand.Read(key[:]); err != nil {
		return route.None{}, err
	}
	most := req.Mount.MaxTTL
	err = e.change(ctx, in.name(), func(u *userRow) (*userRow, error) {
		if u == nil {
			if hash.IsZero() {
				return nil, errs.New(errs.Invalid, "missing password")
			}
			u = &userRow{V: rowVersion, Key: hex.EncodeToString(key[:])}
		}
		if !hash.IsZero() {
			u.Hash = hash
		}
		err := in.apply(u)
		most = u.Token.MaxTTL.Duration()
		return u, err
	})
	if err == nil && most > req.Mount.MaxTTL {
		req.Warn("token_max_ttl is greater than the mount's maximum TTL, which cuts it")
	}
	return route.None{}, err
}

func (e *Engine) writePassword(ctx context.Context, _ *route.Request, in passwordIn) (route.None, error) {
	hash, err := in.hash()
	if err == nil && hash.IsZero() {
		err = errs.New(errs.Invalid, "must provide either password or password_hash")
	}
	if err != nil {
		return route.None{}, err
	}
	return route.None{}, e.changeOne(ctx, in.name(), func(u *userRow) error { u.Hash = hash; return nil })
}

func (e *Engine) writePolicies(ctx context.Context, _ *route.Request, in policiesIn) (route.None, error) {
	return route.None{}, e.changeOne(ctx, in.name(), in.apply)
}

func (e *Engine) deleteUser(ctx context.Context, _ *route.Request, in userIn) (route.None, error) {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(userPrefix + in.name()) })
	return route.None{}, err
}
