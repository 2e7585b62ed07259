// Package database makes database users that expire.
//
// The key idea: everything that ending a user will need is decided before the
// database is asked for anything, and stored with the lease (ref): the user's
// name, which server it is on by that server's own identity, and how the role
// wants it ended. A connection's name, address or password may change
// afterwards and a role may be deleted; the lease still ends.
//
// A connection is rows under a random id. Each change of where it leads makes
// a new generation with a lane of its own; older generations, and connections
// that were deleted, are kept until no lease needs them. Nothing is cached but
// open connection pools, which are compared with their row at every use.
package database

import (
	"context"
	"sync"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// Engine is one mount of the database engine.
type Engine struct {
	env       engine.Env
	user      *lease.Kind[ref]
	templates sync.Map // of user names, compiled, by their text

	mu     sync.Mutex
	open   map[string]*target // by generation, as lanes name it
	closed bool
	busy   map[string]bool // connections whose root password is being rotated
	wg     sync.WaitGroup  // targets being closed
}

var (
	_ engine.Engine  = (*Engine)(nil)
	_ engine.Leaser  = (*Engine)(nil)
	_ engine.Starter = (*Engine)(nil)
	_ engine.Closer  = (*Engine)(nil)
)

// New makes the engine of a mount.
func New(_ context.Context, env engine.Env) (engine.Engine, error) {
	e := &Engine{env: env, open: map[string]*target{}, busy: map[string]bool{}}
	e.user = &lease.Kind[ref]{Name: "user", Version: refVersion, Meet: e.meetFor, End: e.end, Renew: e.renew}
	return e, nil
}

// Kinds implements engine.Leaser.
func (e *Engine) Kinds() []lease.AnyKind { return []lease.AnyKind{e.user} }

// Routes implements engine.Engine.
func (e *Engine) Routes(t *route.Table) {
	route.List(t, "config", e.listConnections, route.Doc("List the connections."))
	route.Read(t, "config/{name}", e.readConnection, route.Doc("Read a connection; passwords are left out."))
	route.Write(t, "config/{name}", e.writeConnection, route.Exists(e.connectionExists), route.Doc("Write a connection to a database, and try it."))
	route.Delete(t, "config/{name}", e.deleteConnection, route.Doc("Delete a connection. Its leases are still revoked in time."))
	route.Write(t, "reset/{name}", e.resetConnection, route.Doc("Close a connection's sessions and open new ones."))
	route.Write(t, "reload/{plugin_name}", e.reloadPlugin, route.Doc("Reset every connection of a plugin."))
	route.Write(t, "rotate-root/{name}", e.rotateRoot, route.Doc("Give the managing user a new password that nobody else knows."))
	route.Write(t, "doctor/{name}", e.doctor, route.Doc("Make, use, revoke and drop a user, and name the GRANT that is missing."))
	route.Read(t, "identity/{name}", e.readIdentity, route.Doc("Read which server a connection leads to, by that server's own identity."))
	route.Write(t, "identity/{name}", e.writeIdentity, route.Sudo(), route.Doc("Confirm that the connection's server succeeds another one, whose leases then end here."))

	route.List(t, "roles", e.listRoles, route.Doc("List the roles."))
	route.Read(t, "roles/{name}", e.readRole, route.Doc("Read a role."))
	route.Write(t, "roles/{name}", e.writeRole, route.Exists(e.roleExists), route.Doc("Write a role: what its users may do, and for how long."))
	route.Delete(t, "roles/{name}", e.deleteRole, route.Doc("Delete a role. Its leases live on."))
	route.Issue(t, wire.OpRead, "creds/{name}", e.user, e.issue, route.Doc("Create a database user and lease it."))

	e.staticRoutes(t)
}

// sweepEvery is how often rows are looked for that no lease needs any more.
const sweepEvery = 10 * time.Minute

// Start implements engine.Starter. It gets to know every server that a
// connection leads to, a few at a time, and looks after old rows from then on.
func (e *Engine) Start(ctx context.Context) error {
	names, err := e.connectionNames(ctx)
	if err != nil {
		return err
	}
	room := make(chan struct{}, 4)
	for _, name := range names {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		if !e.background(func() {
			defer func() { <-room }()
			e.greet(ctx, name)
		}) {
			return nil
		}
	}
	e.background(func() {
		tick := time.NewTicker(sweepEvery)
		defer tick.Stop()
		for {
			if err := e.sweep(ctx); err != nil && ctx.Err() == nil {
				e.env.Log.Warn("sweeping connections that nobody needs", "error", err)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return nil
}

// background runs fn, which Close waits for; false says that the engine is
// closed.
func (e *Engine) background(fn func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.wg.Go(fn)
	return true
}

// Close implements engine.Closer. It waits for the work on the targets.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.closed = true
	for key := range e.open {
		e.retireLocked(key)
	}
	e.mu.Unlock()
	e.wg.Wait()
	return nil
}

type nameIn struct {
	Name string `json:"name" doc:"Its name."`
}
