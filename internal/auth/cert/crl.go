package cert

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
)

// This file reads revocation lists and says whether a certificate is on one.

// revocations are the certificates that lists revoke: serial numbers by the
// name of who issued them, as identity gives it. A serial number alone means
// nothing: small authorities count from 1.
type revocations map[string]map[string]bool

// parseCRL reads a list as PEM, DER, or DER in base64.
func parseCRL(text []byte) (*x509.RevocationList, error) {
	der := bytes.TrimSpace(text)
	if block, _ := pem.Decode(der); block != nil {
		if block.Type != "X509 CRL" {
			return nil, errs.New(errs.Invalid, "failed to parse CRL: it is a PEM block %q, not X509 CRL", block.Type)
		}
		der = block.Bytes
	} else if raw, err := base64.StdEncoding.DecodeString(string(der)); err == nil && len(raw) > 0 {
		der = raw
	} else {
		der = text
	}
	return parseDER(der)
}

// parseDER reads a list of version 2, or of version 1, which has no extensions.
// The library knows only the former, and OpenSSL writes the latter unless it is
// told otherwise.
func parseDER(der []byte) (*x509.RevocationList, error) {
	list, err := x509.ParseRevocationList(der)
	if err == nil {
		return list, nil
	}
	if list, ok := parseV1(der); ok {
		return list, nil
	}
	return nil, errs.New(errs.Invalid, "failed to parse CRL: %v", err)
}

type crlV1 struct {
	TBS       tbsV1
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

type tbsV1 struct {
	Raw       asn1.RawContent
	Algorithm pkix.AlgorithmIdentifier // where version 2 has its number
	Issuer    asn1.RawValue
	This      time.Time
	Next      time.Time       `asn1:"optional"`
	Revoked   []revokedV1     `asn1:"optional"`
	Extra     []asn1.RawValue `asn1:"optional,explicit,tag:0"`
}

type revokedV1 struct {
	Serial *big.Int
	Date   time.Time
	Extra  []asn1.RawValue `asn1:"optional"`
}

// signatures are the algorithms that a list of version 1 may be signed with.
var signatures = map[string]x509.SignatureAlgorithm{
	"1.2.840.113549.1.1.11": x509.SHA256WithRSA, "1.2.840.113549.1.1.12": x509.SHA384WithRSA, "1.2.840.113549.1.1.13": x509.SHA512WithRSA,
	"1.2.840.10045.4.3.2": x509.ECDSAWithSHA256, "1.2.840.10045.4.3.3": x509.ECDSAWithSHA384, "1.2.840.10045.4.3.4": x509.ECDSAWithSHA512,
	"1.3.101.112": x509.PureEd25519,
}

func parseV1(der []byte) (*x509.RevocationList, bool) {
	var in crlV1
	rest, err := asn1.Unmarshal(der, &in)
	if err != nil || len(rest) > 0 || len(in.TBS.Extra) > 0 || in.TBS.This.IsZero() {
		return nil, false
	}
	var issuer pkix.RDNSequence
	if rest, err := asn1.Unmarshal(in.TBS.Issuer.FullBytes, &issuer); err != nil || len(rest) > 0 {
		return nil, false
	}
	list := &x509.RevocationList{
		Raw: der, RawTBSRevocationList: in.TBS.Raw, RawIssuer: in.TBS.Issuer.FullBytes, ThisUpdate: in.TBS.This, NextUpdate: in.TBS.Next,
		Signature: in.Signature.RightAlign(), SignatureAlgorithm: signatures[in.Algorithm.Algorithm.String()],
	}
	list.Issuer.FillFromRDNSequence(&issuer)
	for _, r := range in.TBS.Revoked {
		if r.Serial == nil || len(r.Extra) > 0 {
			return nil, false
		}
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: r.Serial, RevocationTime: r.Date})
	}
	return list, true
}

var (
	oidDelta             = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidCertificateIssuer = asn1.ObjectIdentifier{2, 5, 29, 29}
	oidReason            = asn1.ObjectIdentifier{2, 5, 29, 21}
)

// removeFromCRL is the reason of an entry that takes a revocation back.
const removeFromCRL = 8

// add takes over what a list revokes. An entry is about a certificate of the
// list's issuer, until one says that it and those after it are about another's
// (an indirect list, RFC 5280, 5.3.3).
func (rs revocations) add(list *x509.RevocationList) error {
	issuer := identity(list.RawIssuer)
	for i := range list.RevokedCertificateEntries {
		entry := &list.RevokedCertificateEntries[i]
		for _, x := range entry.Extensions {
			switch {
			case x.Id.Equal(oidCertificateIssuer):
				name, err := directoryName(x.Value)
				if err != nil {
					return errs.New(errs.Invalid, "failed to parse CRL: the issuer of entry %d cannot be read", i+1)
				}
				issuer = name
			case x.Critical && !x.Id.Equal(oidReason):
				return errs.New(errs.Invalid, "failed to parse CRL: entry %d has a critical extension %s, which this server does not know", i+1, x.Id)
			}
		}
		if entry.ReasonCode == removeFromCRL {
			continue
		}
		serials := rs[issuer]
		if serials == nil {
			serials = map[string]bool{}
			rs[issuer] = serials
		}
		serials[serialKey(entry.SerialNumber)] = true
	}
	return nil
}

// isDelta reports whether a list says only what has changed since another. It
// is taken: what it revokes is revoked.
func isDelta(list *x509.RevocationList) bool {
	for _, x := range list.Extensions {
		if x.Id.Equal(oidDelta) {
			return true
		}
	}
	return false
}

// has reports whether a certificate is revoked.
func (rs revocations) has(c *x509.Certificate) bool {
	if len(rs) == 0 {
		return false
	}
	return rs[identity(c.RawIssuer)][serialKey(c.SerialNumber)]
}

func serialKey(n *big.Int) string { return n.Text(62) }

// identity is a name in a form by which it can be compared: authorities spell
// the same name in different ASN.1 string types, and case and runs of spaces
// do not tell names apart (RFC 5280, 7.1).
func identity(raw []byte) string {
	var seq pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &seq); err != nil || len(rest) > 0 {
		return "raw " + string(raw)
	}
	return strings.ToLower(strings.Join(strings.Fields(seq.String()), " "))
}

// directoryName reads the name in a certificateIssuer extension.
func directoryName(der []byte) (string, error) {
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &names); err != nil || len(rest) > 0 {
		return "", errs.New(errs.Invalid, "bad GeneralNames")
	}
	for _, n := range names {
		if n.Class == asn1.ClassContextSpecific && n.Tag == 4 {
			return identity(n.Bytes), nil
		}
	}
	return "", errs.New(errs.Invalid, "no directoryName")
}
