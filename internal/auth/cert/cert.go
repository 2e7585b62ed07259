// Package cert is the auth method of TLS client certificates: whoever holds
// the key of a certificate that a role trusts, and that is neither expired nor
// revoked, is who the certificate says.
//
// The key idea: TLS has proved the key already, so a login reads nothing but
// the connection it comes over. All that is trusted (roles, CRLs, settings) is
// kept parsed in memory as one set that never changes; every write also writes
// a mark of its own in the same transaction, and a login uses the set only if
// the mark it was loaded at is still the one in the store. A role that cannot
// be read is left out: it lets nobody in and hinders no other.
package cert

import (
	"context"
	"encoding/hex"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
)

// What is stored. Values are JSON.
//
//	mark                 text that is new after every write of what follows
//	config               config
//	cert/<name>          role
//	crl/<name>           crlHead
//	crldata/<id>/<part>  a piece of the CRL with that id (DER)
const (
	rowMark   = "mark"
	rowConfig = "config"
	rowsRoles = "cert/"
	rowsCRLs  = "crl/"
	rowsParts = "crldata/"
)

// Engine is one mount of the method.
type Engine struct {
	env  engine.Env
	ocsp *ocspClient
	http *http.Client // for CRLs

	trust   atomic.Pointer[trust]
	loading sync.Mutex // one loading of trust at a time

	ctx    context.Context // of fetching CRLs
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	closed bool // nothing may be started any more
	keeps  bool // CRLs are being kept up to date
}

var (
	_ engine.Engine  = (*Engine)(nil)
	_ engine.Starter = (*Engine)(nil)
	_ engine.Closer  = (*Engine)(nil)
	_ engine.Renewer = (*Engine)(nil)
)

// New makes the engine of a mount.
func New(ctx context.Context, env engine.Env) (engine.Engine, error) {
	e := &Engine{env: env, ocsp: newOCSPClient(env.Now), http: newHTTPClient(fetchLimit)}
	e.ctx, e.cancel = context.WithCancel(ctx)
	return e, nil
}

// newHTTPClient makes a client for addresses that certificates or operators
// name. It follows no redirect: the address that was named is the one asked.
func newHTTPClient(limit time.Duration) *http.Client {
	return &http.Client{
		Timeout: limit,
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: limit,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Start keeps CRLs that came from an address up to date, if there are any, and
// sweeps what was left of ones that a server did not finish writing.
func (e *Engine) Start(ctx context.Context) error {
	heads, err := e.heads(ctx)
	if err != nil {
		return err
	}
	for _, h := range heads {
		if h.URL != "" {
			e.keepCRLs()
			break
		}
	}
	return e.sweep(ctx, heads)
}

// Close ends what goes on in the background and waits for it.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.cancel()
	e.wg.Wait()
	e.http.CloseIdleConnections()
	e.ocsp.http.CloseIdleConnections()
	return nil
}

// Routes declares the method's endpoints.
func (e *Engine) Routes(t *route.Table) { t.With(e.routes, route.Folds(roleName)) }

func (e *Engine) routes(t *route.Table) {
	route.Login(t, "login", e.login, route.RoleOf(loginRole), route.Doc("Log in with the TLS certificate of the connection."))

	route.List(t, "certs", e.listRoles, route.Doc("List the roles: what is trusted."))
	route.Read(t, "certs/{name}", e.readRole, route.Doc("Read a role."))
	route.Write(t, "certs/{name}", e.writeRole, route.Doc("Write a role: a certificate or authority to trust, and what its holders are given."))
	route.Delete(t, "certs/{name}", e.deleteRole, route.Doc("Delete a role. Its tokens live on until they end or are to be renewed."))

	route.List(t, "crls", e.listCRLs, route.Doc("List the certificate revocation lists."))
	route.Read(t, "crls/{name}", e.readCRL, route.Doc("Read the serial numbers that a list revokes."))
	route.Write(t, "crls/{name}", e.writeCRL, route.Doc("Write a list, or the address to fetch it from now and whenever it runs out."))
	route.Delete(t, "crls/{name}", e.deleteCRL, route.Doc("Delete a list."))

	route.Read(t, "config", e.readConfig, route.Doc("Read the mount's settings."))
	route.Write(t, "config", e.writeConfig, route.Doc("Change the mount's settings."))
}

// change runs an Update that also writes a new mark, so that no login uses
// what was loaded before.
func (e *Engine) change(ctx context.Context, fn func(tx storage.Tx) error) error {
	mark, err := e.newID()
	if err != nil {
		return err
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		if err := fn(tx); err != nil {
			return err
		}
		return tx.Put(rowMark, []byte(mark))
	})
	return err
}

func (e *Engine) newID() (string, error) {
	b := make([]byte, 16)
	if _, err := io.ReadFull(e.env.Rand, b); err != nil {
		return "", err
	}
	return hex.EncodeToString(b), nil
}

// list gives the names of the rows below a prefix.
func (e *Engine) list(ctx context.Context, prefix string) (route.Keys, error) {
	var names []string
	err := e.env.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, prefix, storage.PrefixEnd(prefix), 0, func(key string, _ []byte, _ error) bool {
			names = append(names, key[len(prefix):])
			return true
		})
	})
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(names)
}

type nameIn struct {
	Name string `json:"name" doc:"Its name."`
}

// maxName leaves room in a key for what stands before a name.
const maxName = 512

func checkName(name string) error {
	if len(name) > maxName {
		return errs.New(errs.Invalid, "the name is longer than %d bytes", maxName)
	}
	return nil
}
