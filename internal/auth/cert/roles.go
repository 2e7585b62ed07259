package cert

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/auth/tokenparams"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// constraints are what a role asks of a certificate and how. They are stored,
// and answered, as they were written.
type constraints struct {
	Certificate    string   `json:"certificate"` // PEM
	DisplayName    string   `json:"display_name"`
	Names          []string `json:"allowed_names"`
	CommonNames    []string `json:"allowed_common_names"`
	DNSSANs        []string `json:"allowed_dns_sans"`
	EmailSANs      []string `json:"allowed_email_sans"`
	URISANs        []string `json:"allowed_uri_sans"`
	Units          []string `json:"allowed_organizational_units"`
	Extensions     []string `json:"required_extensions"`
	MetaExtensions []string `json:"allowed_metadata_extensions"`
	OCSPCA         string   `json:"ocsp_ca_certificates"` // PEM
	OCSPEnabled    bool     `json:"ocsp_enabled"`
	OCSPServers    []string `json:"ocsp_servers_override"`
	OCSPFailOpen   bool     `json:"ocsp_fail_open"`
	OCSPAllServers bool     `json:"ocsp_query_all_servers"`
	tokenparams.Params
}

// role is a role as it is stored. Version 1.
type role struct {
	V     int      `json:"v"`
	ID    string   `json:"id"`              // drawn when it was made: a role that was deleted and made again is another one
	Older []string `json:"older,omitempty"` // older names under which token parameters were written last
	constraints
}

const roleVersion = 1

type roleIn struct {
	Name           string             `json:"name" doc:"Name of the role. Its case does not matter."`
	Certificate    wire.Opt[string]   `json:"certificate" doc:"What is trusted (PEM): authorities, or the very certificate of a client."`
	DisplayName    wire.Opt[string]   `json:"display_name" doc:"How tokens of the role are called; the role's name unless said otherwise."`
	Names          wire.Opt[wire.CSV] `json:"allowed_names" doc:"Common names, DNS names or email addresses, with * for any text. One of the certificate's must be among them; empty: any."`
	CommonNames    wire.Opt[wire.CSV] `json:"allowed_common_names" doc:"Common names, with * for any text; empty: any."`
	DNSSANs        wire.Opt[wire.CSV] `json:"allowed_dns_sans" doc:"DNS names, with * for any text. One of the certificate's must be among them; empty: any."`
	EmailSANs      wire.Opt[wire.CSV] `json:"allowed_email_sans" doc:"Email addresses, with * for any text. One of the certificate's must be among them; empty: any."`
	URISANs        wire.Opt[wire.CSV] `json:"allowed_uri_sans" doc:"URIs, with * for any text. One of the certificate's must be among them; empty: any."`
	Units          wire.Opt[wire.CSV] `json:"allowed_organizational_units" doc:"Organizational units, with * for any text. One of the certificate's must be among them; empty: any."`
	Extensions     wire.Opt[wire.CSV] `json:"required_extensions" doc:"Extensions that the certificate must have, all of them, as oid:text or hex:oid:bytes, with * for any."`
	MetaExtensions wire.Opt[wire.CSV] `json:"allowed_metadata_extensions" doc:"Extensions (their OIDs) whose texts become the token's metadata, under the OID with dashes for dots."`
	OCSPEnabled    wire.Opt[bool]     `json:"ocsp_enabled" doc:"Ask the authority's OCSP responder whether the certificate is revoked."`
	OCSPCA         wire.Opt[string]   `json:"ocsp_ca_certificates" doc:"More authorities (PEM) whose word about revocation is taken."`
	OCSPServers    wire.Opt[wire.CSV] `json:"ocsp_servers_override" doc:"Addresses of responders in place of those that the certificate names."`
	OCSPFailOpen   wire.Opt[bool]     `json:"ocsp_fail_open" doc:"Let the client in if no responder answers or knows the certificate."`
	OCSPAllServers wire.Opt[bool]     `json:"ocsp_query_all_servers" doc:"Ask all responders, and believe the one that says revoked."`
	OldLease       wire.Opt[wire.TTL] `json:"lease" doc:"Oldest name of token_ttl."`
	tokenparams.Change
	tokenparams.Older
}

// roleOut is a role as it is read. The older names of token parameters are
// there where those were written under them.
type roleOut struct {
	constraints
	OldPolicies   []string       `json:"policies,omitempty"`
	OldTTL        wire.TTL       `json:"ttl,omitempty"`
	OldMaxTTL     wire.TTL       `json:"max_ttl,omitempty"`
	OldPeriod     wire.TTL       `json:"period,omitempty"`
	OldBoundCIDRs []netip.Prefix `json:"bound_cidrs,omitempty"`
}

// roleName is how a role is known: names are folded as Vault folds them.
func roleName(s string) string { return strings.ToLower(s) }

func getRole(r storage.Reader, name string) (*role, error) {
	b, err := r.Get(rowsRoles + name)
	if err != nil || b == nil {
		return nil, err
	}
	return parseRole(name, b)
}

func parseRole(name string, b []byte) (*role, error) {
	row := new(role)
	if err := wire.Unmarshal(b, row); err != nil {
		return nil, err
	}
	if row.V > roleVersion {
		return nil, errs.New(errs.Internal, "role %q has version %d, written by a newer server", name, row.V)
	}
	return row, nil
}

func (e *Engine) listRoles(ctx context.Context, _ *route.Request, _ route.None) (route.Keys, error) {
	return e.list(ctx, rowsRoles)
}

func (e *Engine) readRole(ctx context.Context, _ *route.Request, in nameIn) (out roleOut, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		row, err := getRole(v, roleName(in.Name))
		if err == nil && row == nil {
			err = errs.Gone
		}
		if err != nil {
			return err
		}
		out = row.out()
		return nil
	})
	return out, err
}

func (row *role) out() roleOut {
	out := roleOut{constraints: row.constraints}
	for _, name := range row.Older {
		switch name {
		case "policies":
			out.OldPolicies = row.Policies
		case "ttl":
			out.OldTTL = row.TTL
		case "max_ttl":
			out.OldMaxTTL = row.MaxTTL
		case "period":
			out.OldPeriod = row.Period
		case "bound_cidrs":
			out.OldBoundCIDRs = row.BoundCIDRs
		}
	}
	return out
}

func (e *Engine) writeRole(ctx context.Context, req *route.Request, in roleIn) (route.None, error) {
	name := roleName(in.Name)
	if err := checkName(name); err != nil {
		return route.None{}, err
	}
	id, err := e.newID()
	if err != nil {
		return route.None{}, err
	}
	var parsed *trusted
	err = e.change(ctx, func(tx storage.Tx) error {
		row, err := getRole(tx, name)
		if err != nil {
			return err
		}
		if row == nil {
			row = &role{ID: id}
			row.Params.Type = tokenparams.Default
		}
		if err := in.apply(name, row); err != nil {
			return err
		}
		if parsed, err = row.parse(name); err != nil {
			return err
		}
		return tx.Put(rowsRoles+name, wire.Marshal(row))
	})
	if err != nil {
		return route.None{}, err
	}
	parsed.warn(req, e.env.Now())
	return route.None{}, nil
}

func (in roleIn) apply(name string, row *role) error {
	row.V = roleVersion
	in.Certificate.Apply(&row.Certificate)
	in.DisplayName.Apply(&row.DisplayName)
	if row.DisplayName == "" {
		row.DisplayName = name
	}
	for _, l := range []struct {
		in wire.Opt[wire.CSV]
		to *[]string
	}{
		{in.Names, &row.Names}, {in.CommonNames, &row.CommonNames}, {in.DNSSANs, &row.DNSSANs},
		{in.EmailSANs, &row.EmailSANs}, {in.URISANs, &row.URISANs}, {in.Units, &row.Units},
		{in.Extensions, &row.Extensions}, {in.MetaExtensions, &row.MetaExtensions}, {in.OCSPServers, &row.OCSPServers},
	} {
		if v, ok := l.in.Get(); ok {
			*l.to = slices.DeleteFunc(slices.Clone([]string(v)), func(s string) bool { return s == "" })
		}
	}
	in.OCSPEnabled.Apply(&row.OCSPEnabled)
	in.OCSPCA.Apply(&row.OCSPCA)
	in.OCSPFailOpen.Apply(&row.OCSPFailOpen)
	in.OCSPAllServers.Apply(&row.OCSPAllServers)
	if !in.OldTTL.Set {
		in.OldTTL = in.OldLease
	}
	for _, o := range []struct {
		name     string
		now, old bool
	}{
		{"policies", in.Policies.Set, in.OldPolicies.Set}, {"ttl", in.TTL.Set, in.OldTTL.Set},
		{"max_ttl", in.MaxTTL.Set, in.OldMaxTTL.Set}, {"period", in.Period.Set, in.OldPeriod.Set},
		{"bound_cidrs", in.BoundCIDRs.Set, in.OldBoundCIDRs.Set},
	} {
		if o.now || o.old {
			row.Older = slices.DeleteFunc(row.Older, func(s string) bool { return s == o.name })
		}
		if o.old {
			row.Older = append(row.Older, o.name)
		}
	}
	return row.Params.Apply(in.Older.Or(in.Change))
}

func (e *Engine) deleteRole(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	return route.None{}, e.change(ctx, func(tx storage.Tx) error { return tx.Delete(rowsRoles + roleName(in.Name)) })
}

// trusted is a role that is ready to be asked.
type trusted struct {
	name string
	role
	certs      []*x509.Certificate // at least one
	leaf       bool                // the first is itself a client's, and no authority
	extensions []extension
	ocspCAs    []*x509.Certificate
}

// parse makes a role ready, or says what is wrong with it.
func (row *role) parse(name string) (*trusted, error) {
	t := &trusted{name: name, role: *row}
	var err error
	if t.certs, err = parseCertificates("certificate", row.Certificate); err != nil {
		return nil, err
	}
	if len(t.certs) == 0 {
		return nil, errs.New(errs.Invalid, "failed to parse certificate: 'certificate' needs at least one certificate in PEM form")
	}
	first := t.certs[0]
	t.leaf = !isAuthority(first)
	if t.leaf && !forClients(first) {
		return nil, errs.New(errs.Invalid, "non-CA certificates should have TLS client authentication set as an extended key usage")
	}
	if t.extensions, err = parseExtensions(row.Extensions); err != nil {
		return nil, err
	}
	for _, oid := range row.MetaExtensions {
		if !isOID(oid) {
			return nil, errs.New(errs.Invalid, "allowed_metadata_extensions: %q is no OID such as 1.2.3.4", oid)
		}
	}
	if t.ocspCAs, err = parseCertificates("ocsp_ca_certificates", row.OCSPCA); err != nil {
		return nil, err
	}
	for _, s := range row.OCSPServers {
		if !isHTTP(s) {
			return nil, errs.New(errs.Invalid, "ocsp_servers_override: %q is no address such as http://ocsp.example.com", s)
		}
	}
	return t, nil
}

// warn tells the writer of a role what will let nobody in.
func (t *trusted) warn(req *route.Request, now time.Time) {
	for _, c := range t.certs {
		if now.After(c.NotAfter) {
			req.Warn("the certificate of %s has expired: nobody can log in by it", c.Subject)
		}
	}
	if t.leaf && t.OCSPEnabled && !t.OCSPFailOpen && issuerOf(t.certs[:1], t.certs[:1], t.ocspCAs) == nil {
		req.Warn("ocsp_enabled: who issued the certificate must be in ocsp_ca_certificates, or be sent by the client, for a responder to be asked about it")
	}
}

// isAuthority tells who may issue certificates. A certificate of version 1 has
// no field for it, and issues none here either.
func isAuthority(c *x509.Certificate) bool { return c.BasicConstraintsValid && c.IsCA }

// forClients reports whether a certificate may be used to log in with. One
// that says nothing of its use may be used for anything.
func forClients(c *x509.Certificate) bool {
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
		return true
	}
	return slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) || slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny)
}

func isHTTP(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// parseCertificates reads the certificates of a PEM text. What else is in it,
// such as a key that came along, is an error: it does not belong here.
func parseCertificates(field, text string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	rest := []byte(text)
	for len(rest) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			if bytes.Contains(rest, []byte("-----BEGIN")) {
				return nil, errs.New(errs.Invalid, "failed to parse certificate: '%s' has a damaged PEM block", field)
			}
			break // remarks, as openssl writes them around certificates
		}
		if block.Type != "CERTIFICATE" {
			return nil, errs.New(errs.Invalid, "failed to parse certificate: '%s' holds a block %q; it is for certificates only", field, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errs.New(errs.Invalid, "failed to parse certificate: '%s': %v", field, err)
		}
		if !slices.ContainsFunc(certs, c.Equal) {
			certs = append(certs, c)
		}
	}
	return certs, nil
}

func hexColons(b []byte) string {
	parts := make([]string, len(b))
	for i := range b {
		parts[i] = hex.EncodeToString(b[i : i+1])
	}
	return strings.Join(parts, ":")
}
