package mfa

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// People knows the entities and groups of the namespace, and where they log in.
type People interface {
	// Identify gives an entity, also one that was merged into another since;
	// nil if there is none.
	Identify(ctx context.Context, id string) (*engine.Identified, error)
	// HasGroup reports whether there is a group with an id.
	HasGroup(ctx context.Context, id string) (bool, error)
	// Logins are the mounts of auth methods.
	Logins(ctx context.Context) ([]Login, error)
}

// Login is an auth method's mount.
type Login struct{ Accessor, Type string }

// Config is what New needs.
type Config struct {
	Env    engine.Env
	People People
}

// Engine answers identity/mfa/ and judges logins.
type Engine struct {
	env    engine.Env
	people People

	rules   atomic.Pointer[rules] // nil: to be read
	mu      sync.Mutex
	invalid storage.Revision // rules read before it are not kept
}

var _ engine.SecondFactors = (*Engine)(nil)

// New makes the engine of one identity mount.
func New(cfg Config) *Engine { return &Engine{env: cfg.Env, people: cfg.People} }

// Changed tells of a change in the mount's slice: see engine.Watcher.
func (e *Engine) Changed(key string, rev storage.Revision) {
	if strings.HasPrefix(key, enforcementPrefix) || strings.HasPrefix(key, methodPrefix) {
		e.Lost(rev)
	}
}

// Lost forgets the rules that were read up to rev.
func (e *Engine) Lost(rev storage.Revision) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rules.Store(nil)
	e.invalid = max(e.invalid, rev)
}

// Sweep deletes logins that nobody has completed in their time.
func (e *Engine) Sweep(ctx context.Context) error { return e.sweepPending(ctx) }

// Routes declares the endpoints.
func (e *Engine) Routes(t *route.Table) {
	route.List(t, "mfa/method", e.listMethods(""), route.Doc("List the methods of every kind."))
	route.Read(t, "mfa/method/{method_id}", e.readMethod(""), route.Doc("Read a method of whatever kind."))

	route.List(t, "mfa/method/totp", e.listMethods(kindTOTP), route.Doc("List the TOTP methods."))
	route.Write(t, "mfa/method/totp", e.writeMethod, route.Doc("Make a TOTP method."))
	route.Read(t, "mfa/method/totp/{method_id}", e.readMethod(kindTOTP), route.Doc("Read a TOTP method."))
	route.Write(t, "mfa/method/totp/{method_id}", e.writeMethod, route.Doc("Change a TOTP method."))
	route.Delete(t, "mfa/method/totp/{method_id}", e.deleteMethod, route.Doc("Delete a TOTP method that no enforcement names."))
	route.Write(t, "mfa/method/totp/generate", e.generate, route.Doc("Make the caller's own secret of a TOTP method."))
	route.Write(t, "mfa/method/totp/admin-generate", e.adminGenerate, route.Doc("Make an entity's secret of a TOTP method."))
	route.Write(t, "mfa/method/totp/admin-destroy", e.adminDestroy, route.Doc("Delete an entity's secret of a TOTP method."))

	for _, kind := range []string{"duo", "okta", "pingid"} {
		refuse := notOffered(kind)
		route.List(t, "mfa/method/"+kind, e.listMethods(kind), route.Doc("List nothing: the kind is not offered."))
		route.Write(t, "mfa/method/"+kind, refuse, route.Doc("Not offered; only totp is."))
		route.Read(t, "mfa/method/"+kind+"/{method_id}", e.readMethod(kind), route.Doc("Read nothing: the kind is not offered."))
		route.Write(t, "mfa/method/"+kind+"/{method_id}", refuse, route.Doc("Not offered; only totp is."))
		route.Delete(t, "mfa/method/"+kind+"/{method_id}", nothing, route.Doc("Delete nothing: the kind is not offered."))
	}

	route.List(t, "mfa/login-enforcement", e.listEnforcements, route.Doc("List the enforcements."))
	route.Read(t, "mfa/login-enforcement/{name}", e.readEnforcement, route.Doc("Read an enforcement."))
	route.Write(t, "mfa/login-enforcement/{name}", e.writeEnforcement, route.Doc("Make or change an enforcement: which logins need which methods."))
	route.Delete(t, "mfa/login-enforcement/{name}", e.deleteEnforcement, route.Doc("Delete an enforcement."))
}

// notOffered refuses a kind that rests on somebody else's service.
func notOffered(kind string) route.Handler[route.None, route.None] {
	return func(context.Context, *route.Request, route.None) (route.None, error) {
		return route.None{}, errs.New(errs.Invalid, "MFA by %s is not offered here; make a method of kind totp instead: identity/mfa/method/totp", kind)
	}
}

func nothing(context.Context, *route.Request, route.None) (route.None, error) {
	return route.None{}, nil
}

// row is what every stored struct begins with.
type row struct {
	V int `json:"v"`
}

func (r row) version() int { return r.V }

const rowVersion = 1

var v1 = row{rowVersion}

type versioned interface{ version() int }

// read understands a row.
func read[T versioned](key string, b []byte) (*T, error) {
	v := new(T)
	if err := wire.Unmarshal(b, v); err != nil {
		return nil, &storage.CorruptError{Key: key, Err: err}
	}
	if n := (*v).version(); n > rowVersion {
		return nil, errs.New(errs.Internal, "the row %s has version %d, written by a newer server", key, n)
	}
	return v, nil
}

// isBadRow reports whether an error is of one row and not of the store.
func isBadRow(err error) bool {
	var bad *storage.CorruptError
	return errors.As(err, &bad)
}

// get reads a row: nil when there is none.
func get[T versioned](r storage.Reader, key string) (*T, error) {
	b, err := r.Get(key)
	if err != nil || b == nil {
		return nil, err
	}
	return read[T](key, b)
}

// load is get in a snapshot of its own.
func load[T versioned](ctx context.Context, e *Engine, key string) (v *T, err error) {
	err = e.env.Store.View(ctx, func(view storage.View) error {
		v, err = get[T](view, key)
		return err
	})
	return v, err
}

// each gives the rows of a range with their names.
func each[T versioned](v storage.View, prefix string, fn func(name string, r *T)) error {
	var failed error
	err := v.Scan(prefix, storage.PrefixEnd(prefix), 0, func(key string, b []byte) bool {
		var r *T
		if r, failed = read[T](key, b); failed == nil {
			fn(key[len(prefix):], r)
		}
		return failed == nil
	})
	return errors.Join(err, failed)
}

// refsKey is a number that every enforcement raises as it is written. Whoever
// deletes a method looks for enforcements in a snapshot, and deletes only if
// the number is still the same: an Update cannot scan.
const refsKey = "mfa/refs"

func generation(r storage.Reader) (string, error) {
	b, err := r.Get(refsKey)
	return string(b), err
}

func touch(tx storage.Tx) error {
	s, err := generation(tx)
	if err != nil {
		return err
	}
	n, _ := strconv.ParseUint(s, 10, 64)
	return tx.Put(refsKey, strconv.AppendUint(nil, n+1, 10))
}

// uuid draws a random (version 4) UUID.
func (e *Engine) uuid() (string, error) {
	var b [16]byte
	if _, err := io.ReadFull(e.env.Rand, b[:]); err != nil {
		return "", fmt.Errorf("drawing randomness: %w", err)
	}
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return uuidText(b), nil
}

func uuidText(b [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
