package ldap_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/leasehold/leasehold/internal/auth/ldap"
)

// FuzzFilter: whatever a template that was taken is given, the filter has the
// conditions that it has for a plain name, and a value comes out as it went in.
func FuzzFilter(f *testing.F) {
	f.Add("({{.UserAttr}}={{.Username}})", "ann", "uid=ann,dc=x")
	f.Add("(|(memberUid={{.Username}})(member={{.UserDN}})(uniqueMember={{.UserDN}}))", "*)(uid=*", `uid=a\,b,dc=x`)
	f.Add("(&(cn=*{{.Username}}*)(member:1.2.840.113556.1.4.1941:={{.UserDN}}))", `\2a`, "\x00")
	f.Add("(!(uid>={{- .Username -}}))", "é\xff", "")
	f.Fuzz(func(t *testing.T, template, name, dn string) {
		vars := []string{"UserAttr", "Username", "UserDN"}
		got, err := ldap.Filter(template, map[string]string{"UserAttr": "uid", "Username": name, "UserDN": dn}, vars...)
		if err != nil || name == "" || dn == "" {
			return
		}
		plain, err := ldap.Filter(template, map[string]string{"UserAttr": "uid", "Username": "one", "UserDN": "two"}, vars...)
		if err != nil {
			t.Fatal(err)
		}
		want, err := goldap.CompileFilter(plain)
		if err != nil {
			t.Fatalf("%q was taken, and is none with plain values: %v", template, err)
		}
		p, err := goldap.CompileFilter(got)
		if err != nil {
			t.Fatalf("%q with %q and %q is no filter: %v", template, name, dn, err)
		}
		if ldap.Shape(p) != ldap.Shape(want) {
			t.Errorf("%q with %q and %q has other conditions: %q", template, name, dn, got)
		}
		if template == "({{.UserAttr}}={{.Username}})" && p.Children[1].Data.String() != name {
			t.Errorf("%q is looked for as %q", name, p.Children[1].Data.String())
		}
	})
}

// FuzzDN: a name in a DN is one value of one attribute of the entry right below
// the one that was meant.
func FuzzDN(f *testing.F) {
	const base = "ou=people,dc=example,dc=org"
	below, err := goldap.ParseDN(base)
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range []string{"ann", "ann,ou=admins", "ann+cn=x", "#616263", " a ", `a\`, `"`, "a=b", "a;b<c>", "\x00\x1f", "é", `\2c`} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, name string) {
		plain, ok := ldap.Plain(name)
		if ok {
			if again, ok := ldap.Plain(plain); !ok || again != plain {
				t.Errorf("the plain form of %q is %q, and of that %q", name, plain, again)
			}
			if folded := ldap.Fold(name); ldap.Fold(folded) != folded || folded == "" {
				t.Errorf("%q is folded to %q, and that to %q", name, folded, ldap.Fold(folded))
			}
		}
		if name == "" || !utf8.ValidString(name) {
			return
		}
		text := ldap.ChildDN("uid", name, base)
		dn, err := goldap.ParseDN(text)
		if err != nil {
			t.Fatalf("%q in a DN is %q: %v", name, text, err)
		}
		if len(dn.RDNs) != 1+len(below.RDNs) || len(dn.RDNs[0].Attributes) != 1 || !below.AncestorOf(dn) {
			t.Fatalf("%q in a DN is %q, another entry", name, text)
		}
		if a := dn.RDNs[0].Attributes[0]; !strings.EqualFold(a.Type, "uid") || a.Value != name {
			t.Errorf("%q in a DN is %s=%q", name, a.Type, a.Value)
		}
	})
}
