package cert

import (
	"crypto/x509"
	"time"
)

// What tests look at from outside.
var (
	Glob          = glob
	ExtensionText = extensionText
	ParseCRL      = parseCRL
	ReadOCSP      = readOCSP
)

// RefreshEvery changes how often lists are looked at, before a mount is made.
func RefreshEvery(d time.Duration) (undo func()) {
	was := refreshEvery
	refreshEvery = d
	return func() { refreshEvery = was }
}

// Revokes reports whether a list revokes a certificate.
func Revokes(list *x509.RevocationList, c *x509.Certificate) (bool, error) {
	rs := revocations{}
	err := rs.add(list)
	return rs.has(c), err
}

// Takes reports whether a role with these demands fits a certificate.
func Takes(names, extensions []string, c *x509.Certificate) (bool, error) {
	x, err := parseExtensions(extensions)
	if err != nil {
		return false, err
	}
	t := &trusted{extensions: x}
	t.Names = names
	return t.unmet(c) == "", nil
}

// Certificates reads a PEM text.
func Certificates(text string) ([]*x509.Certificate, error) {
	return parseCertificates("certificate", text)
}
