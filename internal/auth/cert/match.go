package cert

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
)

// This file compares what a certificate says with what a role asks of it.

// unmet is the first thing that a role asks of a certificate and that it does
// not have; "" if it has all.
func (t *trusted) unmet(c *x509.Certificate) string {
	uris := make([]string, len(c.URIs))
	for i, u := range c.URIs {
		uris[i] = u.String()
	}
	for _, ask := range []struct {
		field   string
		allowed []string
		have    [][]string
	}{
		{"allowed_names", t.Names, [][]string{{c.Subject.CommonName}, c.DNSNames, c.EmailAddresses}},
		{"allowed_common_names", t.CommonNames, [][]string{{c.Subject.CommonName}}},
		{"allowed_dns_sans", t.DNSSANs, [][]string{c.DNSNames}},
		{"allowed_email_sans", t.EmailSANs, [][]string{c.EmailAddresses}},
		{"allowed_uri_sans", t.URISANs, [][]string{uris}},
		{"allowed_organizational_units", t.Units, [][]string{c.Subject.OrganizationalUnit}},
	} {
		if len(ask.allowed) > 0 && !slices.ContainsFunc(ask.have, func(have []string) bool { return anyMatches(ask.allowed, have) }) {
			return ask.field
		}
	}
	for _, x := range t.extensions {
		if !slices.ContainsFunc(c.Extensions, x.matches) {
			return "required_extensions"
		}
	}
	return ""
}

// anyMatches reports whether one of some texts fits one of some patterns.
func anyMatches(patterns, texts []string) bool {
	return slices.ContainsFunc(texts, func(text string) bool {
		return slices.ContainsFunc(patterns, func(p string) bool { return glob(p, text) })
	})
}

// glob reports whether a text fits a pattern in which * stands for any text.
// Each literal part is taken where it is found first, which is never a worse
// choice than a later one; so the time is bounded by the lengths.
func glob(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	text, ok := strings.CutPrefix(text, parts[0])
	if !ok {
		return false
	}
	last := parts[len(parts)-1]
	for _, part := range parts[1 : len(parts)-1] {
		if _, text, ok = strings.Cut(text, part); !ok {
			return false
		}
	}
	return strings.HasSuffix(text, last)
}

// extension is one of required_extensions: "oid:pattern" looks at the text of
// an extension, "hex:oid:pattern" at its bytes in hexadecimal.
type extension struct {
	oid, pattern string
	hex          bool
}

func parseExtensions(list []string) ([]extension, error) {
	out := make([]extension, 0, len(list))
	for _, s := range list {
		rest, isHex := strings.CutPrefix(s, "hex:")
		oid, pattern, ok := strings.Cut(rest, ":")
		if !ok || !isOID(oid) {
			return nil, errs.New(errs.Invalid, "required_extensions: %q is not oid:text or hex:oid:bytes, as in 1.2.3.4:prod*", s)
		}
		if isHex {
			pattern = strings.ToLower(pattern)
		}
		out = append(out, extension{oid, pattern, isHex})
	}
	return out, nil
}

func (x extension) matches(have pkix.Extension) bool {
	if have.Id.String() != x.oid {
		return false
	}
	if x.hex {
		return glob(x.pattern, hex.EncodeToString(have.Value))
	}
	return glob(x.pattern, extensionText(have.Value))
}

// extensionText is the text that an extension holds, "" where it is anything
// but a single ASN.1 string.
func extensionText(der []byte) string {
	var raw asn1.RawValue
	rest, err := asn1.Unmarshal(der, &raw)
	if err != nil || len(rest) > 0 {
		return ""
	}
	var s string
	if _, err := asn1.Unmarshal(der, &s); err != nil {
		return ""
	}
	return s
}

// isOID reports whether a text is an OID in its only spelling: what is
// compared with it is written without leading zeros.
func isOID(s string) bool {
	parts := strings.Split(s, ".")
	if len(parts) < 2 || len(s) > 256 {
		return false
	}
	return !slices.ContainsFunc(parts, func(p string) bool {
		n, err := strconv.ParseUint(p, 10, 63)
		return err != nil || strconv.FormatUint(n, 10) != p
	})
}

// extensionMetadata are the texts of the extensions that a role turns into
// metadata.
func (t *trusted) extensionMetadata(c *x509.Certificate, into map[string]string) {
	for _, x := range c.Extensions {
		if oid := x.Id.String(); slices.Contains(t.MetaExtensions, oid) {
			into[strings.ReplaceAll(oid, ".", "-")] = extensionText(x.Value)
		}
	}
}
