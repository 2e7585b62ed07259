package cert_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestLogin(t *testing.T) {
	r := newRig(t)
	root := newCA(t, "root")
	middle := root.issue(caTemplate("middle"))
	stranger := newCA(t, "root") // the same name, another key
	self := (&authority{t: t}).issue(clientTemplate("self"))
	selfCA := newCA(t, "self-made") // as openssl req -x509 makes them
	r.role("web", root, object{"display_name": "Web", "token_ttl": "10m", "token_max_ttl": "1h"})
	r.role("self", self, nil)
	r.role("made", selfCA, nil)

	for _, tt := range []struct {
		name  string
		role  string
		c     *authority
		above []*authority
		want  string // the role; "" is refused
		says  string
	}{
		{name: "by the authority", c: root.issue(clientTemplate("a")), want: "web"},
		{name: "by its role", role: "WEB", c: root.issue(clientTemplate("a")), want: "web"},
		{name: "by an intermediate", c: middle.issue(clientTemplate("a")), above: []*authority{middle}, want: "web"},
		{name: "with the root sent along", c: middle.issue(clientTemplate("a")), above: []*authority{middle, root}, want: "web"},
		{name: "intermediate not sent", c: middle.issue(clientTemplate("a")), says: "no role trusts"},
		{name: "the very leaf", c: self, want: "self"},
		{name: "the very authority", c: selfCA, want: "made"},
		{name: "another role's leaf", role: "web", c: self, says: "no role trusts"},
		{name: "another role's authority", role: "self", c: root.issue(clientTemplate("a")), says: "no role trusts"},
		{name: "no such role", role: "nobody", c: root.issue(clientTemplate("a")), says: "no role trusts"},
		{name: "forged: the same subject, another key", c: stranger.issue(clientTemplate("a")), says: "no role trusts"},
		{name: "forged, with the true root sent along", c: stranger.issue(clientTemplate("a")), above: []*authority{root}, says: "no role trusts"},
		{name: "forged leaf: the same names and number", c: (&authority{t: t}).issue(clientTemplate("self")), says: "no role trusts"},
		{name: "no authority in between", c: root.issue(clientTemplate("x")).issue(clientTemplate("a")), says: "no role trusts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := r.login(tt.role, tt.c, tt.above...)
			if tt.want == "" {
				if got.Kind != errs.Invalid || !strings.Contains(got.Message, tt.says) {
					t.Errorf("login = %v %q, want it refused with %q", got.Kind, got.Message, tt.says)
				}
				return
			}
			if got.refused() {
				t.Fatalf("login is refused: %s", got.Message)
			}
			if p := got.Auth.Policies; len(p) != 1 || p[0] != "app-"+tt.want || got.Auth.Metadata["cert_name"] != tt.want {
				t.Errorf("login = %+v, want role %s", got.Auth, tt.want)
			}
		})
	}
	t.Run("a client between that is no authority", func(t *testing.T) {
		x := root.issue(clientTemplate("x"))
		if got := r.login("", x.issue(clientTemplate("a")), x); !got.refused() {
			t.Errorf("a client's certificate issued another, and it was taken: %+v", got.Auth)
		}
	})
	t.Run("without a certificate", func(t *testing.T) {
		if got := r.post("/login", nil, nil); got.Kind != errs.Invalid || !strings.Contains(got.Message, "client certificate must be supplied") {
			t.Errorf("login = %v %q", got.Kind, got.Message)
		}
	})
	t.Run("without TLS", func(t *testing.T) {
		_, _, err := r.do(wire.OpUpdate, "login", nil)
		if errs.KindOf(err) != errs.Invalid {
			t.Errorf("login = %v", err)
		}
	})
	t.Run("with somebody else's certificate and one's own key", func(t *testing.T) {
		mine, theirs := root.issue(clientTemplate("mine")), root.issue(clientTemplate("theirs"))
		if got := r.post("/login", nil, mine.key, theirs.cert); !got.refused() {
			t.Errorf("it was taken: %+v", got.Auth)
		}
	})
	t.Run("what it grants", func(t *testing.T) {
		got := r.login("web", root.issue(&x509.Certificate{
			Subject: pkix.Name{CommonName: "app"}, SerialNumber: big.NewInt(4711), SubjectKeyId: []byte{1, 0xab},
		})).Auth
		want := map[string]string{"cert_name": "web", "common_name": "app", "serial_number": "4711", "subject_key_id": "01:ab"}
		want["authority_key_id"] = got.Metadata["authority_key_id"]
		if diff := cmp.Diff(want, got.Metadata); diff != "" {
			t.Errorf("metadata (-want +got):\n%s", diff)
		}
		if got.Alias == nil || got.Alias.Name != "app" || got.Alias.Metadata != nil || got.DisplayName != "Web" || got.TTL != 10*time.Minute || got.MaxTTL != time.Hour {
			t.Errorf("login = %+v", got)
		}
	})
	t.Run("with the alias's metadata", func(t *testing.T) {
		r.write("config", object{"enable_identity_alias_metadata": true})
		if got := r.login("web", root.issue(clientTemplate("app"))).Auth; !reflect.DeepEqual(got.Alias.Metadata, got.Metadata) {
			t.Errorf("the alias has %v, want %v", got.Alias.Metadata, got.Metadata)
		}
	})
	t.Run("a role that is gone", func(t *testing.T) {
		if _, _, err := r.do(wire.OpDelete, "certs/Self", nil); err != nil {
			t.Fatal(err)
		}
		if got := r.login("", self); !got.refused() {
			t.Errorf("it was taken: %+v", got.Auth)
		}
	})
}

// TestBadCertificates are what no role takes, whether it trusts the authority
// or the certificate itself.
func TestBadCertificates(t *testing.T) {
	r := newRig(t)
	root := newCA(t, "root")
	r.role("ca", root, nil)
	for i, tt := range []struct {
		name   string
		change func(c *x509.Certificate)
		says   string
	}{
		{"expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, "expired"},
		{"not yet valid", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) }, "not valid before"},
		{"for servers", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "extended key usage"},
		{"for an unknown use", func(c *x509.Certificate) {
			c.ExtKeyUsage, c.UnknownExtKeyUsage = nil, []asn1.ObjectIdentifier{{1, 2, 3}}
		}, "extended key usage"},
	} {
		for _, by := range []*authority{root, {t: t}} {
			c := clientTemplate("c")
			tt.change(c)
			leaf := by.issue(c)
			name := fmt.Sprint("leaf", i)
			if by != root {
				_, _, err := r.do(wire.OpUpdate, "certs/"+name, object{"certificate": leaf.pem()})
				if strings.Contains(tt.says, "usage") {
					if errs.KindOf(err) != errs.Invalid {
						t.Errorf("%s: a role that trusts it was written: %v", tt.name, err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if got := r.login("", leaf); got.Kind != errs.Invalid || !strings.Contains(got.Message, tt.says) {
				t.Errorf("%s: login = %v %q, want it refused with %q", tt.name, got.Kind, got.Message, tt.says)
			}
		}
	}
	t.Run("outlived by its authority's end", func(t *testing.T) {
		old := caTemplate("old")
		old.NotAfter = time.Now().Add(-time.Minute)
		ca := (&authority{t: t}).issue(old)
		if _, warnings, err := r.do(wire.OpUpdate, "certs/old", object{"certificate": ca.pem()}); err != nil || !contains(warnings, "expired") {
			t.Errorf("writing the role = %v, %q, want a warning", err, warnings)
		}
		if got := r.login("old", ca.issue(clientTemplate("c"))); !got.refused() {
			t.Errorf("it was taken: %+v", got.Auth)
		}
	})
	t.Run("too many", func(t *testing.T) {
		above := []*authority{root}
		for range 12 {
			above = append(above, above[len(above)-1].issue(caTemplate("m")))
		}
		c := above[len(above)-1].issue(clientTemplate("c"))
		if got := r.login("", c, above...); got.Kind != errs.Invalid || !strings.Contains(got.Message, "at most 10") {
			t.Errorf("login = %v %q", got.Kind, got.Message)
		}
	})
	t.Run("too large", func(t *testing.T) {
		c := clientTemplate("c")
		for n := range 8000 {
			c.DNSNames = append(c.DNSNames, fmt.Sprintf("%d.a-name-that-is-rather-long.example.com", n))
		}
		if got := r.login("", root.issue(c)); !got.refused() {
			t.Errorf("a certificate of 300 kB was taken")
		}
	})
}

func TestDemands(t *testing.T) {
	r := newRig(t)
	root := newCA(t, "root")
	oid := asn1.ObjectIdentifier{1, 2, 840, 113556, 1, 8000}
	text, _ := asn1.Marshal("prod-7")
	blob := asn1.ObjectIdentifier{1, 2, 3, 4}
	u, _ := url.Parse("spiffe://example.com/app")
	c := clientTemplate("app.example.com")
	c.DNSNames, c.EmailAddresses, c.URIs = []string{"app.internal", "b.internal"}, []string{"app@example.com"}, []*url.URL{u}
	c.Subject.OrganizationalUnit = []string{"engineering", "payments"}
	c.ExtraExtensions = []pkix.Extension{{Id: oid, Value: text}, {Id: blob, Value: []byte{0xde, 0xad}}}
	client := root.issue(c)
	for _, tt := range []struct {
		field string
		value any
		want  bool
	}{
		{"allowed_names", "app.example.com", true},
		{"allowed_names", "*.internal", true},
		{"allowed_names", []string{"other", "app@*"}, true},
		{"allowed_names", "spiffe://*", false},
		{"allowed_names", "app", false},
		{"allowed_common_names", "app.*.com", true},
		{"allowed_common_names", "app.internal", false},
		{"allowed_dns_sans", "b.*", true},
		{"allowed_dns_sans", "app.example.com", false},
		{"allowed_email_sans", "*@example.com", true},
		{"allowed_email_sans", "*@example.org", false},
		{"allowed_uri_sans", "spiffe://example.com/*", true},
		{"allowed_uri_sans", "spiffe://*/db", false},
		{"allowed_organizational_units", "pay*", true},
		{"allowed_organizational_units", "sales,eng", false},
		{"required_extensions", "1.2.840.113556.1.8000:prod-*", true},
		{"required_extensions", "1.2.840.113556.1.8000:test-*", false},
		{"required_extensions", "1.2.840.113556.1.8000:*,1.2.3.4:*", true},
		{"required_extensions", "1.2.840.113556.1.8000:*,1.2.3.5:*", false},
		{"required_extensions", "hex:1.2.3.4:DEAD", true},
		{"required_extensions", "hex:1.2.3.4:be*", false},
		{"required_extensions", "hex:1.2.840.113556.1.8000:*" + hex.EncodeToString([]byte("-7")), true},
	} {
		r.role("r", root, object{tt.field: tt.value})
		if got := r.login("r", client); got.refused() == tt.want {
			t.Errorf("%s = %v: let in %v (%s), want %v", tt.field, tt.value, !got.refused(), got.Message, tt.want)
		}
		r.write("certs/r", object{tt.field: ""}) // takes the demand back
	}
	r.role("r", root, object{"allowed_metadata_extensions": "1.2.840.113556.1.8000,1.2.3.4,1.9.9"})
	got := r.login("r", client).Auth.Metadata
	if got["1-2-840-113556-1-8000"] != "prod-7" || got["1-2-3-4"] != "" || got["1-9-9"] != "" {
		t.Errorf("metadata = %v", got)
	}
	t.Run("the first role whose demands are met", func(t *testing.T) {
		r.role("r", root, object{"allowed_names": "nobody"})
		r.role("s", root, nil)
		if got := r.login("", client); got.refused() || got.Auth.Metadata["cert_name"] != "s" {
			t.Errorf("login = %+v", got)
		}
	})
	t.Run("from elsewhere", func(t *testing.T) {
		r.role("s", root, object{"token_bound_cidrs": "10.0.0.0/8"})
		if got := r.login("s", client); got.Kind != errs.Denied {
			t.Errorf("login = %+v", got)
		}
	})
}

func TestRenewal(t *testing.T) {
	r := newRig(t)
	root, other := newCA(t, "root"), newCA(t, "other")
	r.role("web", root, object{"token_ttl": "10m"})
	key := newKey(t)
	c := root.issueFor(clientTemplate("app"), key)
	first := r.login("web", c)
	if first.refused() {
		t.Fatal(first.Message)
	}
	for _, tt := range []struct {
		name string
		c    *authority
		want bool
	}{
		{"the same certificate", c, true},
		{"issued anew for the same key", root.issueFor(clientTemplate("app"), key), true},
		{"the same name, another key", root.issue(clientTemplate("app")), false},
		{"the same key by another authority", other.issueFor(clientTemplate("app"), key), false},
	} {
		if got := r.renew(first, tt.c); got.refused() == tt.want {
			t.Errorf("%s: renewed %v (%s), want %v", tt.name, !got.refused(), got.Message, tt.want)
		}
	}
	if got := r.post("/renew", []byte(first.Auth.Internal), nil); !got.refused() {
		t.Error("without a certificate it is renewed")
	}
	r.role("web", root, object{"token_ttl": "20m"})
	if got := r.renew(first, c); got.refused() || got.Auth.TTL != 20*time.Minute || got.Auth.Policies[0] != "app-web" {
		t.Errorf("renewed = %+v, want what the role says now", got)
	}
	r.write("crls/all", object{"crl": crlPEM(root.list(1, time.Hour, c))})
	if got := r.renew(first, c); !got.refused() {
		t.Error("a revoked certificate renews its token")
	}
	r.write("config", object{"disable_binding": true})
	if got := r.post("/renew", []byte(first.Auth.Internal), nil); got.refused() {
		t.Errorf("with disable_binding it needs a certificate: %s", got.Message)
	}
	if _, _, err := r.do(wire.OpDelete, "certs/web", nil); err != nil {
		t.Fatal(err)
	}
	if got := r.renew(first, c); !got.refused() {
		t.Error("without its role a token is renewed")
	}
	r.role("web", root, nil)
	if got := r.renew(first, c); !got.refused() {
		t.Error("a token is renewed by another role of the same name")
	}
}

func TestRoles(t *testing.T) {
	r := newRig(t)
	root := newCA(t, "root")
	if _, _, err := r.do(wire.OpList, "certs", nil); !errs.Is(err, errs.NotFound) {
		t.Errorf("listing nothing = %v, want NotFound", err)
	}
	r.write("certs/Web", object{"certificate": "remarks\n" + root.pem() + "\nmore remarks", "allowed_names": "a,b", "lease": 60, "policies": "P1", "max_ttl": "1h", "ocsp_fail_open": "true"})
	got, _, err := r.do(wire.OpRead, "certs/web", nil)
	if err != nil {
		t.Fatal(err)
	}
	none := []any{}
	want := object{
		"certificate": "remarks\n" + root.pem() + "\nmore remarks", "display_name": "web", "allowed_names": []any{"a", "b"},
		"allowed_common_names": none, "allowed_dns_sans": none, "allowed_email_sans": none, "allowed_uri_sans": none,
		"allowed_organizational_units": none, "required_extensions": none, "allowed_metadata_extensions": none,
		"ocsp_ca_certificates": "", "ocsp_enabled": false, "ocsp_fail_open": true, "ocsp_query_all_servers": false, "ocsp_servers_override": none,
		"policies": []any{"P1"}, "ttl": 60.0, "max_ttl": 3600.0,
		"token_bound_cidrs": none, "token_explicit_max_ttl": 0.0, "token_max_ttl": 3600.0, "token_no_default_policy": false,
		"token_num_uses": 0.0, "token_period": 0.0, "token_policies": []any{"P1"}, "token_ttl": 60.0, "token_type": "default",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the role reads as (-want +got):\n%s", diff)
	}
	r.write("certs/web", object{"token_ttl": 30})
	if got, _, _ := r.do(wire.OpRead, "certs/web", nil); got["ttl"] != nil || got["token_ttl"] != 30.0 || got["max_ttl"] != 3600.0 {
		t.Errorf("after token_ttl was written: %v", got)
	}
	if got, _, err := r.do(wire.OpList, "certs", nil); err != nil || !reflect.DeepEqual(got["keys"], []any{"web"}) {
		t.Errorf("list = %v, %v", got, err)
	}
	key := "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
	for name, body := range map[string]object{
		"no certificate":      {"display_name": "x"},
		"text":                {"certificate": "x"},
		"a key":               {"certificate": root.pem() + key},
		"a damaged block":     {"certificate": root.pem() + "-----BEGIN CERTIFICATE-----\nAA"},
		"truncated":           {"certificate": root.pem()[:200]},
		"an extension":        {"certificate": root.pem(), "required_extensions": "1.2.3"},
		"an OID":              {"certificate": root.pem(), "allowed_metadata_extensions": "1.02"},
		"an OCSP address":     {"certificate": root.pem(), "ocsp_servers_override": "ldap://x"},
		"an OCSP certificate": {"certificate": root.pem(), "ocsp_ca_certificates": key},
		"times":               {"certificate": root.pem(), "token_ttl": "2h", "token_max_ttl": "1h"},
	} {
		if _, _, err := r.do(wire.OpUpdate, "certs/bad", body); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: writing the role = %v, want Invalid", name, err)
		}
	}
	if _, _, err := r.do(wire.OpRead, "certs/bad", nil); !errs.Is(err, errs.NotFound) {
		t.Errorf("a refused role reads as %v, want NotFound", err)
	}
}

func TestConfig(t *testing.T) {
	r := newRig(t)
	want := object{"disable_binding": false, "enable_identity_alias_metadata": false, "ocsp_cache_size": 100.0, "role_cache_size": 200.0}
	if got, _, err := r.do(wire.OpRead, "config", nil); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("config = %v, %v, want %v", got, err, want)
	}
	r.write("config", object{"disable_binding": true, "ocsp_cache_size": "50"})
	want["disable_binding"], want["ocsp_cache_size"] = true, 50.0
	if got, _, err := r.do(wire.OpRead, "config", nil); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("config = %v, %v, want %v", got, err, want)
	}
	for _, body := range []object{{"ocsp_cache_size": 1}, {"ocsp_cache_size": 1000000}, {"role_cache_size": -2}} {
		if _, _, err := r.do(wire.OpUpdate, "config", body); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%v = %v, want Invalid", body, err)
		}
	}
}
