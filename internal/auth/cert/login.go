package cert

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// maxChain is how many certificates a client may send: its own and those up to
// an authority.
const maxChain = 10

type loginIn struct {
	Name string `json:"name" doc:"The role to log in with; without it any that trusts the certificate."`
}

// loginRole is the role that a login names. Which one takes a certificate that
// comes without a name is only known once it is judged.
func loginRole(_ context.Context, _ *route.Request, in loginIn) (string, error) {
	return roleName(in.Name), nil
}

// binding is what is kept with a token: which certificate it was given for. A
// certificate that was issued anew for the same key by the same authority is
// the same client. Version 1.
type binding struct {
	V      int    `json:"v"`
	Role   string `json:"role"`
	RoleID string `json:"role_id"`
	Key    string `json:"key"`    // SHA-256 of its public key, hexadecimal
	Issuer string `json:"issuer"` // of its issuer's name
}

func bindingOf(r *trusted, c *x509.Certificate) binding {
	key, issuer := sha256.Sum256(c.RawSubjectPublicKeyInfo), sha256.Sum256(c.RawIssuer)
	return binding{V: 1, Role: r.name, RoleID: r.ID, Key: hex.EncodeToString(key[:]), Issuer: hex.EncodeToString(issuer[:])}
}

// errUntrusted is what every certificate that no role takes is answered. It
// does not tell whether there is such a role, or which of its demands are not
// met; the server's log at level debug does.
var errUntrusted = errs.New(errs.Invalid, "invalid certificate: no role trusts it, or it does not have what the role asks for")

func (e *Engine) login(ctx context.Context, req *route.Request, in loginIn) (*route.Auth, error) {
	chain, err := presented(req.TLS)
	if err != nil {
		return nil, err
	}
	t, err := e.trusting(ctx)
	if err != nil {
		return nil, err
	}
	r, err := e.judge(ctx, t, chain, roleName(in.Name))
	if err != nil {
		return nil, err
	}
	if !r.Admits(req.Remote) {
		return nil, errs.New(errs.Denied, "permission denied")
	}
	return r.auth(t, chain[0]), nil
}

// auth is what a role grants the holder of a certificate.
func (r *trusted) auth(t *trust, c *x509.Certificate) *route.Auth {
	a := r.Params.Auth()
	a.Role = r.name
	a.DisplayName = r.DisplayName
	a.Metadata = map[string]string{
		"cert_name": r.name, "common_name": c.Subject.CommonName, "serial_number": c.SerialNumber.String(),
		"subject_key_id": hexColons(c.SubjectKeyId), "authority_key_id": hexColons(c.AuthorityKeyId),
	}
	r.extensionMetadata(c, a.Metadata)
	// Without a common name it is nobody whom identity could know.
	if c.Subject.CommonName != "" {
		a.Alias = &route.Alias{Name: c.Subject.CommonName}
		if t.config.AliasMetadata {
			a.Alias.Metadata = a.Metadata
		}
	}
	b := bindingOf(r, c)
	a.Internal = wire.Object(wire.Marshal(&b))
	return a
}

// RenewLogin asks for the certificate that the token was given for, unless
// disable_binding says not to, and judges it anew.
func (e *Engine) RenewLogin(ctx context.Context, r engine.Renewal) (*route.Auth, error) {
	var b binding
	if err := wire.Unmarshal([]byte(r.Internal), &b); err != nil || b.V != 1 {
		return nil, errs.Wrap(errs.Internal, errors.Join(err, errors.New("cert: the token's binding cannot be read")), "internal error; the server's log has the cause")
	}
	t, err := e.trusting(ctx)
	if err != nil {
		return nil, err
	}
	role := t.roles[b.Role]
	if role == nil || role.ID != b.RoleID {
		return nil, errs.New(errs.Invalid, "the role that the token was given by is gone; log in again")
	}
	if t.config.DisableBinding {
		return role.Params.Auth(), nil
	}
	chain, err := presented(r.TLS)
	if err != nil {
		return nil, err
	}
	if now := bindingOf(role, chain[0]); now != b {
		return nil, errs.New(errs.Invalid, "client identity during renewal not matching client identity used during login: renew over a connection with the same certificate, or log in again")
	}
	if role, err = e.judge(ctx, t, chain, b.Role); err != nil {
		return nil, err
	}
	return role.Params.Auth(), nil
}

// presented is the chain that the client of a connection sent, its own first.
// TLS has made sure that it holds that one's key.
func presented(state *tls.ConnectionState) ([]*x509.Certificate, error) {
	switch {
	case state == nil:
		return nil, errs.New(errs.Invalid, "tls connection required: log in over a listener with TLS")
	case len(state.PeerCertificates) == 0:
		return nil, errs.New(errs.Invalid, "client certificate must be supplied: the connection came without one")
	case len(state.PeerCertificates) > maxChain:
		return nil, errs.New(errs.Invalid, "the client sent %d certificates; at most %d are looked at", len(state.PeerCertificates), maxChain)
	}
	return state.PeerCertificates, nil
}

// judge finds the role that takes a certificate: by itself, or by an authority
// that it leads to.
func (e *Engine) judge(ctx context.Context, t *trust, sent []*x509.Certificate, name string) (*trusted, error) {
	if t.broken != nil {
		return nil, t.errBroken()
	}
	// However many roles ask however many responders, a login ends.
	ctx, cancel := context.WithTimeout(ctx, ocspTotal)
	defer cancel()
	c := sent[0]
	refused := errUntrusted
	// A role's demands are asked in the order of the least cost; a responder is
	// asked only about what is good otherwise.
	try := func(r *trusted, chain []*x509.Certificate) bool {
		err := e.accept(ctx, t, r, chain, sent)
		if err == nil {
			return true
		}
		e.env.Log.Debug("a role does not take a certificate", "role", r.name, "serial", c.SerialNumber.String(), "reason", err)
		if errs.KindOf(err) == errs.Unavailable {
			refused = err
		}
		return false
	}
	if roles := t.candidates(name, t.byLeaf[fingerprintOf(c)]); len(roles) > 0 {
		if err := e.usable(c); err != nil {
			return nil, err
		}
		for _, r := range roles {
			if try(r, sent[:1]) {
				return r, nil
			}
		}
	}
	chains, err := e.chains(t, sent)
	if err != nil {
		return nil, err
	}
	for _, chain := range chains {
		tried := map[*trusted]bool{} // a role may trust several links of it
		for _, link := range chain {
			for _, r := range t.candidates(name, t.byCert[fingerprintOf(link)]) {
				if tried[r] {
					continue
				}
				if try(r, chain) {
					return r, nil
				}
				tried[r] = true
			}
		}
	}
	if len(chains) == 0 && refused == errUntrusted {
		e.env.Log.Debug("no role's authority issued a certificate", "serial", c.SerialNumber.String(), "role", name)
	}
	return nil, refused
}

// chains leads a client's certificate to trusted authorities. Without one it is
// empty; the error is about the client's own certificate, and tells its holder
// nothing that it does not say itself.
func (e *Engine) chains(t *trust, sent []*x509.Certificate) ([][]*x509.Certificate, error) {
	opts := x509.VerifyOptions{
		Roots: t.roots, Intermediates: x509.NewCertPool(), CurrentTime: e.env.Now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range sent[1:] {
		opts.Intermediates.AddCert(c)
	}
	chains, err := sent[0].Verify(opts)
	if err == nil {
		return chains, nil
	}
	if err := e.usable(sent[0]); err != nil {
		return nil, err
	}
	e.env.Log.Debug("a certificate leads to no authority that is trusted", "serial", sent[0].SerialNumber.String(), "reason", err)
	return nil, nil
}

// usable reports what in a certificate itself keeps it from being logged in
// with.
func (e *Engine) usable(c *x509.Certificate) error {
	now := e.env.Now()
	switch {
	case now.Before(c.NotBefore):
		return errs.New(errs.Invalid, "failed to verify client's certificate: it is not valid before %s", c.NotBefore.UTC().Format("2006-01-02 15:04:05 UTC"))
	case now.After(c.NotAfter):
		return errs.New(errs.Invalid, "failed to verify client's certificate: it has expired at %s", c.NotAfter.UTC().Format("2006-01-02 15:04:05 UTC"))
	case !forClients(c):
		return errs.New(errs.Invalid, "failed to verify client's certificate: its extended key usage does not include TLS client authentication")
	}
	return nil
}

// accept reports why a role does not take a certificate that leads to what it
// trusts.
func (e *Engine) accept(ctx context.Context, t *trust, r *trusted, chain, sent []*x509.Certificate) error {
	if field := r.unmet(chain[0]); field != "" {
		return errors.New("it does not fit " + field)
	}
	if slices.ContainsFunc(chain, t.gone.has) {
		return errors.New("it, or an authority above it, is on a CRL")
	}
	if !r.OCSPEnabled {
		return nil
	}
	return e.ocsp.check(ctx, chain[0], issuerOf(chain, sent, r.ocspCAs), r)
}

// issuerOf finds who issued the first certificate of a chain. One that is
// trusted by itself has no chain; then it is looked for among what the client
// sent and what the role knows. Nil: nobody is found.
func issuerOf(chain, sent, known []*x509.Certificate) *x509.Certificate {
	if len(chain) > 1 {
		return chain[1]
	}
	for _, c := range slices.Concat(sent[1:], known) {
		if bytes.Equal(c.RawSubject, chain[0].RawIssuer) && chain[0].CheckSignatureFrom(c) == nil {
			return c
		}
	}
	return nil
}
