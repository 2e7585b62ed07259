package cert

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/storage"
)

// trust is all that logins are judged by, as it stood at one mark. It is never
// changed.
type trust struct {
	mark   string
	config config
	roles  map[string]*trusted
	roots  *x509.CertPool                 // the authorities of all roles
	byCert map[fingerprint][]*trusted     // roles by the authorities that they trust
	byLeaf map[fingerprint][]*trusted     // roles by the clients' own certificates
	ca     map[string][]*x509.Certificate // the authorities by identity
	gone   revocations
	broken error // why nobody can be judged: a CRL that cannot be read
}

type fingerprint [sha256.Size]byte

func fingerprintOf(c *x509.Certificate) fingerprint { return sha256.Sum256(c.Raw) }

// trusting gives what is trusted now.
func (e *Engine) trusting(ctx context.Context) (*trust, error) {
	if t := e.trust.Load(); t != nil {
		mark, err := e.mark(ctx)
		if err != nil {
			return nil, err
		}
		if t.mark == mark {
			return t, nil
		}
	}
	e.loading.Lock()
	defer e.loading.Unlock()
	mark, err := e.mark(ctx)
	if err != nil {
		return nil, err
	}
	if t := e.trust.Load(); t != nil && t.mark == mark {
		return t, nil // loaded while we waited
	}
	t, err := e.load(ctx)
	if err != nil {
		return nil, err
	}
	e.trust.Store(t)
	e.ocsp.cache.resize(t.config.OCSPCacheSize)
	return t, nil
}

func (e *Engine) mark(ctx context.Context) (mark string, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		mark, err = readMark(v)
		return err
	})
	return mark, err
}

func readMark(r storage.Reader) (string, error) {
	b, err := r.Get(rowMark)
	return string(b), err
}

// load reads everything on one snapshot.
func (e *Engine) load(ctx context.Context) (*trust, error) {
	t := &trust{
		roles: map[string]*trusted{}, roots: x509.NewCertPool(), byCert: map[fingerprint][]*trusted{},
		byLeaf: map[fingerprint][]*trusted{}, ca: map[string][]*x509.Certificate{}, gone: revocations{},
	}
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		if t.mark, err = readMark(v); err != nil {
			return err
		}
		if t.config, err = getConfig(v); err != nil {
			return err
		}
		err = storage.ScanEach(v, rowsRoles, storage.PrefixEnd(rowsRoles), 0, func(key string, b []byte, bad error) bool {
			name := key[len(rowsRoles):]
			if bad == nil {
				bad = t.addRole(name, b)
			}
			if bad != nil {
				e.env.Log.Error("a role cannot be read; it lets nobody in", "role", name, "error", bad)
			}
			return true
		})
		if err != nil {
			return err
		}
		return storage.ScanEach(v, rowsCRLs, storage.PrefixEnd(rowsCRLs), 0, func(key string, _ []byte, bad error) bool {
			name := key[len(rowsCRLs):]
			if bad == nil {
				bad = t.addCRL(v, name)
			}
			if bad != nil {
				t.broken = errors.Join(t.broken, fmt.Errorf("CRL %q: %w", name, bad))
			}
			return true
		})
	})
	if err == nil && t.broken != nil {
		e.env.Log.Error("a CRL cannot be read; nobody is let in until it is written anew or deleted", "error", t.broken)
	}
	return t, err
}

func (t *trust) addRole(name string, b []byte) error {
	row, err := parseRole(name, b)
	if err != nil {
		return err
	}
	r, err := row.parse(name)
	if err != nil {
		return err
	}
	t.roles[name] = r
	if r.leaf {
		fp := fingerprintOf(r.certs[0])
		t.byLeaf[fp] = append(t.byLeaf[fp], r)
		return nil
	}
	for _, c := range r.certs {
		t.roots.AddCert(c)
		fp := fingerprintOf(c)
		t.byCert[fp] = append(t.byCert[fp], r)
		id := identity(c.RawSubject)
		t.ca[id] = append(t.ca[id], c)
	}
	return nil
}

func (t *trust) addCRL(r storage.Reader, name string) error {
	head, err := getHead(r, name)
	if err != nil || head == nil {
		return err
	}
	list, err := getCRL(r, head)
	if err != nil {
		return err
	}
	return t.gone.add(list)
}

// signs reports whether a list can be by the issuer that it names: true if an
// authority of that name signed it, or if none of that name is known.
func (t *trust) signs(list *x509.RevocationList) bool {
	known := t.ca[identity(list.RawIssuer)]
	for _, c := range known {
		if c.CheckSignature(list.SignatureAlgorithm, list.RawTBSRevocationList, list.Signature) == nil {
			return true
		}
	}
	return len(known) == 0
}

// candidates are the roles that may judge a login: all, or the one it names.
func (t *trust) candidates(name string, all []*trusted) []*trusted {
	if name == "" {
		return all
	}
	for _, r := range all {
		if r.name == name {
			return []*trusted{r}
		}
	}
	return nil
}

// errBroken refuses logins while a list cannot be read.
func (t *trust) errBroken() error {
	return errs.Wrap(errs.Unavailable, t.broken, "a certificate revocation list cannot be read, so nobody can be let in; the server's log has the cause")
}
