package oidc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// People knows the entities of the namespace.
type People interface {
	// Identify gives an entity, also one that was merged into another since;
	// nil if there is none.
	Identify(ctx context.Context, id string) (*engine.Identified, error)
}

// Config is what New needs.
type Config struct {
	Env    engine.Env
	People People
	// Address is the URL that clients know the server by; issuers begin with
	// it unless configured otherwise.
	Address string
}

// Engine answers identity/oidc/.
type Engine struct {
	env     engine.Env
	people  People
	address string
}

// New makes the engine of one identity mount.
func New(cfg Config) *Engine {
	return &Engine{env: cfg.Env, people: cfg.People, address: strings.TrimSuffix(cfg.Address, "/")}
}

// Routes declares the endpoints.
func (e *Engine) Routes(t *route.Table) {
	e.tokenRoutes(t)
	e.providerRoutes(t)
}

func (e *Engine) tokenRoutes(t *route.Table) {
	route.Read(t, "oidc/config", e.readConfig, route.Doc("Read the issuer of identity tokens."))
	route.Write(t, "oidc/config", e.writeConfig, route.Doc("Set the issuer of identity tokens."))

	route.List(t, "oidc/key", listNames(e, keyPrefix, defaultName), route.Doc("List the named keys."))
	route.Read(t, "oidc/key/{name}", e.readKey, route.Doc("Read a named key's settings."))
	route.Write(t, "oidc/key/{name}", e.writeKey, route.Exists(e.keyExists), route.Doc("Make a named key or change its settings."))
	route.Delete(t, "oidc/key/{name}", e.deleteKey, route.Doc("Delete a named key that no role and no client uses."))
	route.Write(t, "oidc/key/{name}/rotate", e.rotateKey, route.Doc("Sign with another key from now on."))

	route.List(t, "oidc/role", listNames(e, rolePrefix), route.Doc("List the roles of identity tokens."))
	route.Read(t, "oidc/role/{name}", e.readRole, route.Doc("Read a role of identity tokens."))
	route.Write(t, "oidc/role/{name}", e.writeRole, route.Exists(e.roleExists), route.Doc("Make or change a role of identity tokens."))
	route.Delete(t, "oidc/role/{name}", e.deleteRole, route.Doc("Delete a role of identity tokens."))

	route.Read(t, "oidc/token/{name}", e.issueToken, route.Doc("Make a signed token that says who the caller is."))
	route.Write(t, "oidc/introspect", e.introspect, route.Doc("Check an identity token and whether its entity is active."))
	route.Read(t, "oidc/.well-known/openid-configuration", e.discover, route.Unauth(), route.Doc("Tell where the keys of identity tokens are."))
	route.Read(t, "oidc/.well-known/keys", e.publishAll, route.Unauth(), route.Doc("Publish the keys that verify identity tokens."))
}

func (e *Engine) providerRoutes(t *route.Table) {
	route.List(t, "oidc/scope", listNames(e, scopePrefix), route.Doc("List the scopes."))
	route.Read(t, "oidc/scope/{name}", e.readScope, route.Doc("Read a scope."))
	route.Write(t, "oidc/scope/{name}", e.writeScope, route.Exists(e.scopeExists), route.Doc("Make or change a scope: claims by a template."))
	route.Delete(t, "oidc/scope/{name}", e.deleteScope, route.Doc("Delete a scope that no provider names."))

	route.List(t, "oidc/assignment", listNames(e, assignmentPrefix, allowAll), route.Doc("List the assignments."))
	route.Read(t, "oidc/assignment/{name}", e.readAssignment, route.Doc("Read an assignment."))
	route.Write(t, "oidc/assignment/{name}", e.writeAssignment, route.Exists(e.assignmentExists), route.Doc("Make or change an assignment: who may log in to a client."))
	route.Delete(t, "oidc/assignment/{name}", e.deleteAssignment, route.Doc("Delete an assignment that no client names."))

	route.List(t, "oidc/client", e.listClients, route.Doc("List the clients."))
	route.Read(t, "oidc/client/{name}", e.readClient, route.Doc("Read a client."))
	route.Write(t, "oidc/client/{name}", e.writeClient, route.Exists(e.clientExists), route.Doc("Make or change a client: a program that people log in to."))
	route.Delete(t, "oidc/client/{name}", e.deleteClient, route.Doc("Delete a client."))

	route.List(t, "oidc/provider", e.listProviders, route.Doc("List the providers."))
	route.Read(t, "oidc/provider/{name}", e.readProvider, route.Doc("Read a provider."))
	route.Write(t, "oidc/provider/{name}", e.writeProvider, route.Exists(e.providerExists), route.Doc("Make or change a provider."))
	route.Delete(t, "oidc/provider/{name}", e.deleteProvider, route.Doc("Delete a provider."))

	route.Read(t, "oidc/provider/{name}/.well-known/openid-configuration", e.discoverProvider, route.Unauth(), route.Doc("Tell a provider's endpoints and what it can."))
	route.Read(t, "oidc/provider/{name}/.well-known/keys", e.publishProvider, route.Unauth(), route.Doc("Publish the keys that verify a provider's tokens."))
	route.Read(t, "oidc/provider/{name}/authorize", e.authorize, route.Doc("Give a client a code for the caller's tokens."))
	route.Write(t, "oidc/provider/{name}/authorize", e.authorize, route.Doc("Give a client a code for the caller's tokens."))
	// The client shows its own secret, the bearer an access token of ours: both
	// are checked here, neither is a token of the server's.
	route.Write(t, "oidc/provider/{name}/token", e.exchange, route.Unauth(), route.Takes("Authorization"), route.Doc("Exchange a code for tokens."))
	route.Read(t, "oidc/provider/{name}/userinfo", e.userinfo, route.Unauth(), route.Doc("Tell the claims that an access token allows."))
	route.Write(t, "oidc/provider/{name}/userinfo", e.userinfo, route.Unauth(), route.Doc("Tell the claims that an access token allows."))
}

// defaultName is the key and the provider that are there before anybody makes
// them.
const defaultName = "default"

type nameIn struct {
	Name string `json:"name" doc:"Its name."`
}

// row is what every stored struct begins with.
type row struct {
	V int `json:"v"`
}

func (r row) version() int { return r.V }

const rowVersion = 1

var v1 = row{rowVersion}

// get reads a row: nil when there is none.
func get[T interface{ version() int }](r storage.Reader, key string) (*T, error) {
	b, err := r.Get(key)
	if err != nil || b == nil {
		return nil, err
	}
	v := new(T)
	if err := wire.Unmarshal(b, v); err != nil {
		return nil, &storage.CorruptError{Key: key, Err: err}
	}
	if n := (*v).version(); n > rowVersion {
		return nil, errs.New(errs.Internal, "the row %s has version %d, written by a newer server", key, n)
	}
	return v, nil
}

// load is get in a snapshot of its own.
func load[T interface{ version() int }](ctx context.Context, e *Engine, key string) (v *T, err error) {
	err = e.env.Store.View(ctx, func(view storage.View) error {
		v, err = get[T](view, key)
		return err
	})
	return v, err
}

// each gives the rows of a range with their names.
func each[T interface{ version() int }](v storage.View, prefix string, fn func(name string, r *T) error) error {
	var failed error
	err := v.Scan(prefix, storage.PrefixEnd(prefix), 0, func(key string, b []byte) bool {
		r := new(T)
		if failed = wire.Unmarshal(b, r); failed != nil {
			failed = fmt.Errorf("reading the row %s: %w", key, failed)
		} else {
			failed = fn(key[len(prefix):], r)
		}
		return failed == nil
	})
	return errors.Join(err, failed)
}

// names are those of a range, with others that are always there, sorted.
func (e *Engine) names(ctx context.Context, prefix string, always ...string) ([]string, error) {
	names := slices.Clone(always)
	err := e.env.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, prefix, storage.PrefixEnd(prefix), 0, func(key string, _ []byte, _ error) bool {
			if name := key[len(prefix):]; len(always) == 0 || name != always[0] {
				names = append(names, name)
			}
			return true
		})
	})
	slices.Sort(names)
	return names, err
}

func listNames(e *Engine, prefix string, always ...string) route.Handler[route.None, route.Keys] {
	return func(ctx context.Context, _ *route.Request, _ route.None) (route.Keys, error) {
		names, err := e.names(ctx, prefix, always...)
		if err != nil {
			return route.Keys{}, err
		}
		return route.ListOf(names)
	}
}

// refsKey is a number that every transaction raises which makes one row refer
// to another. Whoever deletes a row looks for references in a snapshot, and
// deletes only if the number is still the same: an Update cannot scan.
const refsKey = "oidc/refs"

// generation reads the number, as text.
func generation(r storage.Reader) (string, error) {
	b, err := r.Get(refsKey)
	return string(b), err
}

func touch(tx storage.Tx) error {
	b, err := generation(tx)
	if err != nil {
		return err
	}
	n, _ := strconv.ParseUint(b, 10, 64)
	return tx.Put(refsKey, strconv.AppendUint(nil, n+1, 10))
}

// deleteFree deletes a row that nothing refers to. refs gives who does, drop
// deletes what hangs from it.
func (e *Engine) deleteFree(ctx context.Context, key, what string, refs func(storage.View) (kind string, by []string, err error), drop func(storage.Tx) error) error {
	for {
		var seen string
		err := e.env.Store.View(ctx, func(v storage.View) (err error) {
			if seen, err = generation(v); err != nil {
				return err
			}
			kind, by, err := refs(v)
			if err == nil && len(by) > 0 {
				err = errs.New(errs.Invalid, "unable to delete %s because it is currently referenced by these %s: %s", what, kind, strings.Join(by, ", "))
			}
			return err
		})
		if err != nil {
			return err
		}
		same := false
		_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
			now, err := generation(tx)
			if same = now == seen; err != nil || !same {
				return err
			}
			if drop != nil {
				if err := drop(tx); err != nil {
					return err
				}
			}
			return tx.Delete(key)
		})
		if err != nil || same {
			return err
		}
	}
}

// randomText draws n characters of letters and digits.
func randomText(r io.Reader, n int) (string, error) {
	const chars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	out := make([]byte, 0, n)
	buf := make([]byte, n+n/4)
	for len(out) < n {
		if _, err := io.ReadFull(r, buf); err != nil {
			return "", fmt.Errorf("drawing randomness: %w", err)
		}
		for _, b := range buf {
			// 248 is the largest multiple of 62 that a byte can hold:
			// what is above would make some characters likelier.
			if b < 248 && len(out) < n {
				out = append(out, chars[b%62])
			}
		}
	}
	return string(out), nil
}

// uuid draws a random (version 4) UUID.
func uuid(r io.Reader) (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return "", fmt.Errorf("drawing randomness: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), nil
}

// stamp is a time as it stands in keys: their order is that of time.
func stamp(t time.Time) string { return fmt.Sprintf("%016x", max(t.UnixNano(), 0)) }
