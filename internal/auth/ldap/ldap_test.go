package ldap_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/auth/ldap"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/testenv"
	"github.com/leasehold/leasehold/internal/testenv/tcpproxy"
	"github.com/leasehold/leasehold/internal/wire"
)

// TestLogin finds people and their groups in every way that there is.
func TestLogin(t *testing.T) {
	l := testenv.Slapd(t, testenv.SlapdConfig{LDIF: people})
	base := basics(l)
	nobody := object{"binddn": nil, "bindpass": nil}
	with := func(b object, changes ...object) object {
		for _, c := range changes {
			b = with(b, c)
		}
		return b
	}
	for _, tt := range []struct {
		name   string
		conf   object
		user   string // Ann unless said otherwise
		alias  string // Ann
		groups []string
	}{
		{name: "an account looks", conf: base},
		{name: "anybody looks", conf: with(base, nobody, object{"discoverdn": true})},
		{name: "nobody looks", conf: with(base, nobody)},
		{name: "StartTLS", conf: with(base, object{"starttls": true, "certificate": l.CA, "url": strings.Replace(l.URL(), "127.0.0.1", "localhost", 1)})},
		{name: "TLS", conf: with(base, object{"url": l.TLSURL(), "certificate": l.CA, "tls_max_version": "tls13"})},
		{name: "TLS, unverified", conf: with(base, object{"url": l.TLSURL(), "insecure_tls": true})},
		{name: "the second address", conf: with(base, object{"url": "ldap://127.0.0.1:1, " + l.URL()})},
		{name: "known by the name that was typed", conf: with(base, object{"username_as_alias": true}), alias: "ann"},
		{name: "the same, as it was typed", conf: with(base, object{"username_as_alias": true, "case_sensitive_names": true}), alias: "Ann"},
		{name: "in pages", conf: with(base, object{"max_page_size": 1})},
		{name: "groups looked for by anybody", conf: with(base, object{"anonymous_group_search": true})},
		{name: "by another attribute", conf: with(base, object{"userattr": "mail"}), user: "ann@EXAMPLE.org", alias: "ann@example.org", groups: []string{"Admins"}},
		{name: "by two attributes", conf: with(base, object{"userfilter": "(|(uid={{.Username}})(mail={{ .Username }}))"}), user: "ann@example.org", groups: []string{"Admins"}},
		{name: "groups by their members", conf: with(base, object{"groupfilter": "(&(objectClass=inetOrgPerson)(uid={{.Username}}))", "groupdn": base["userdn"], "groupattr": "mail"}), groups: []string{"ann@example.org"}},
		{name: "groups without their attribute", conf: with(base, object{"groupattr": "description"})},
		{name: "no groups", conf: with(base, object{"groupdn": ""}), groups: []string{}},
		{name: "spelt otherwise", conf: base, user: "  ＡＮＮ ", groups: []string{"Admins"}}, // memberUid tells cases apart
		{name: "characters that mean something", conf: base, user: `eve, (the) *STAR*   \o/`, alias: `Eve, (the) *star* \o/`, groups: []string{"Admins"}},
		{name: "the same, in a DN of ours", conf: with(base, nobody), user: `eve, (the) *star* \o/`, alias: `Eve, (the) *star* \o/`, groups: []string{"Admins"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.write("config", with(tt.conf, object{"token_policies": "base", "token_ttl": "10m"}))
			r.write("groups/ADMINS", object{"policies": "p-admins,P-All"})
			r.write("groups/devs", object{"policies": []string{"p-devs", "p-all"}})
			if tt.user == "" {
				tt.user = "Ann"
			}
			if tt.alias == "" {
				tt.alias = "Ann"
			}
			if tt.groups == nil {
				tt.groups = []string{"Admins", "devs"}
			}
			password := "ann-pw"
			if strings.Contains(tt.user, "eve") {
				password = "eve-pw"
			}
			a := r.lets("first", tt.user, password)
			if a.Alias == nil || a.Alias.Name != tt.alias {
				t.Errorf("alias = %+v, want %s", a.Alias, tt.alias)
			}
			if !slices.Equal(a.Groups, tt.groups) && len(a.Groups)+len(tt.groups) > 0 {
				t.Errorf("groups = %q, want %q", a.Groups, tt.groups)
			}
			if tt.conf["case_sensitive_names"] == nil {
				for group, p := range map[string]string{"Admins": "p-admins", "devs": "p-devs"} {
					if slices.Contains(tt.groups, group) != slices.Contains(a.Policies, p) {
						t.Errorf("policies of groups %q = %q", tt.groups, a.Policies)
					}
				}
			}
			if !slices.Contains(a.Policies, "base") || a.TTL.String() != "10m0s" || strings.Contains(string(a.Internal), password) {
				t.Errorf("login = %+v", a)
			}
			if _, err := r.login(tt.user, password+"x"); !errors.Is(err, route.ErrCredentials) {
				t.Errorf("with a wrong password: login = %v", err)
			}
		})
	}
}

// TestBadInput: every name that is none, and every password that is not its,
// is answered alike; nothing that is sent becomes a part of a filter or a DN.
func TestBadInput(t *testing.T) {
	l := testenv.Slapd(t, testenv.SlapdConfig{LDIF: people})
	modes := map[string]object{
		"an account looks": basics(l),
		"anybody looks":    with(basics(l), object{"binddn": nil, "bindpass": nil, "discoverdn": true}),
		"nobody looks":     with(basics(l), object{"binddn": nil, "bindpass": nil}),
		"by UPN":           with(basics(l), object{"binddn": nil, "bindpass": nil, "upndomain": "example.org"}),
	}
	for mode, conf := range modes {
		r := newRig(t)
		r.write("config", conf)
		want := ""
		for _, in := range []struct{ name, password string }{
			{"ann", "wrong"}, {"nobody", "ann-pw"}, {"nobody", "wrong"}, {"twin", "wrong"},
			{"*", "ann-pw"}, {"a*", "ann-pw"}, {"ann)(uid=*", "ann-pw"}, {"*)(|(uid=*", "ann-pw"}, {"ann)(|(objectClass=*)", "ann-pw"},
			{`ann\`, "ann-pw"}, {`\61nn`, "ann-pw"}, {`\2a`, "ann-pw"}, {"ann)", "ann-pw"}, {"(ann", "ann-pw"}, {"&", "x"}, {"!(uid=x)", "x"},
			{"ann,ou=people,dc=example,dc=org", "ann-pw"}, {"ann+cn=Ann Archer", "ann-pw"}, {`ann"`, "ann-pw"}, {"#616e6e", "ann-pw"}, {"uid=Ann,ou=people,dc=example,dc=org", "ann-pw"},
			{"ann\x00", "ann-pw"}, {"ann\u200b", "ann-pw"}, {"ann\n", "x"}, {"\u202eann", "ann-pw"}, {"ann@example.org@", "ann-pw"}, {`example\ann`, "ann-pw"},
			{" ", "x"}, {strings.Repeat("a", 100_000), "x"}, {"ann", strings.Repeat("p", 100_000)}, {strings.Repeat("ﷺ", 100), "x"}, {strings.Repeat("*", 512), "x"},
		} {
			a, err := r.login(in.name, in.password)
			if a != nil || errs.KindOf(err) != errs.Invalid || !errors.Is(err, route.ErrCredentials) {
				t.Errorf("%s: login(%.40q, %.20q) = %+v, %v, want it refused", mode, in.name, in.password, a, err)
				continue
			}
			if want == "" {
				want = errs.Message(err)
			}
			if got := errs.Message(err); got != want {
				t.Errorf("%s: login(%.40q, %.20q) is answered %q, others %q", mode, in.name, in.password, got, want)
			}
		}
		for _, deny := range []bool{true, false} {
			r.write("config", object{"deny_null_bind": deny})
			for _, name := range []string{"ann", "nobody"} {
				if a, err := r.login(name, ""); a != nil || errs.KindOf(err) != errs.Invalid {
					t.Errorf("%s: deny_null_bind %v: login of %s with an empty password = %+v, %v", mode, deny, name, a, err)
				}
			}
		}
	}
	t.Run("two of one name", func(t *testing.T) {
		r := newRig(t)
		r.write("config", basics(l))
		if a, err := r.login("twin", "twin-pw"); !errors.Is(err, route.ErrCredentials) {
			t.Errorf("login = %+v, %v", a, err)
		}
	})
	t.Run("from elsewhere", func(t *testing.T) {
		r := newRig(t)
		r.write("config", with(basics(l), object{"token_bound_cidrs": "10.0.0.0/8"}))
		if a, err := r.login("ann", "ann-pw"); errs.KindOf(err) != errs.Denied {
			t.Errorf("login = %+v, %v", a, err)
		}
	})
	t.Run("nothing configured", func(t *testing.T) {
		r := newRig(t)
		if a, err := r.login("ann", "ann-pw"); errs.KindOf(err) != errs.Invalid || errors.Is(err, route.ErrCredentials) {
			t.Errorf("login = %+v, %v", a, err)
		}
	})
}

// TestSameSteps: a wrong name costs the directory, and so the client, the same
// messages as a wrong password.
func TestSameSteps(t *testing.T) {
	l := testenv.Slapd(t, testenv.SlapdConfig{LDIF: people})
	var pieces atomic.Int64
	p, err := tcpproxy.New(l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.Break(func([]byte) tcpproxy.Action { pieces.Add(1); return tcpproxy.Pass })
	for mode, conf := range map[string]object{
		"an account looks": basics(l),
		"anybody looks":    with(basics(l), object{"binddn": nil, "bindpass": nil, "discoverdn": true}),
		"nobody looks":     with(basics(l), object{"binddn": nil, "bindpass": nil}),
	} {
		r := newRig(t)
		r.write("config", with(conf, object{"url": "ldap://" + p.Addr()}))
		steps := func(name, password string) int64 {
			was := pieces.Load()
			if _, err := r.login(name, password); !errors.Is(err, route.ErrCredentials) {
				t.Errorf("%s: login of %s = %v", mode, name, err)
			}
			return pieces.Load() - was
		}
		if wrong, none, two := steps("ann", "wrong"), steps("zed", "wrong"), steps("twin", "wrong"); wrong != none || wrong != two || wrong == 0 {
			t.Errorf("%s: a wrong password takes %d messages, a wrong name %d, a name of two %d", mode, wrong, none, two)
		}
	}
}

func TestRenewal(t *testing.T) {
	l := testenv.Slapd(t, testenv.SlapdConfig{LDIF: people, Settings: []string{
		// Nobody may look; whoever has bound may.
		"access to attrs=userPassword by anonymous auth by * none", "access to * by users read by * none",
	}})
	r := newRig(t)
	r.write("config", basics(l))
	r.write("groups/admins", object{"policies": "p-admins"})
	r.write("users/bob", object{"policies": "p-bob", "groups": "Admins"})
	ann, bob := r.lets("first", "ann", "ann-pw"), r.lets("first", "bob", "bob-pw")
	if want := []string{"p-bob", "p-admins"}; !slices.Equal(bob.Policies, want) || !slices.Contains(bob.Groups, "admins") {
		t.Errorf("bob's login = %+v, want policies %q", bob, want)
	}
	again, err := r.renew(ann)
	if err != nil || !slices.Equal(again.Policies, ann.Policies) || again.Alias.Name != ann.Alias.Name || !slices.Equal(again.Groups, ann.Groups) {
		t.Errorf("renewal = %+v, %v, want what the login gave: %+v", again, err, ann)
	}
	// core refuses the renewal because these differ.
	if err := l.Modify(t.Context(), "dn: cn=Admins,ou=groups,dc=example,dc=org\nchangetype: modify\ndelete: member\nmember: uid=Ann,ou=people,dc=example,dc=org\n"); err != nil {
		t.Fatal(err)
	}
	if again, err := r.renew(ann); err != nil || slices.Contains(again.Policies, "p-admins") {
		t.Errorf("out of her group: renewal = %+v, %v", again, err)
	}
	if _, _, err := r.do(wire.OpDelete, "users/BOB", nil); err != nil {
		t.Fatal(err)
	}
	if again, err := r.renew(bob); err != nil || len(again.Policies) != 0 {
		t.Errorf("without his own policies: renewal = %+v, %v", again, err)
	}
	if err := l.Modify(t.Context(), "dn: uid=bob,ou=people,dc=example,dc=org\nchangetype: delete\n"); err != nil {
		t.Fatal(err)
	}
	if again, err := r.renew(bob); errs.KindOf(err) != errs.Invalid {
		t.Errorf("gone from the directory: renewal = %+v, %v", again, err)
	}
	t.Run("where nobody may look", func(t *testing.T) {
		r := newRig(t)
		r.write("config", with(basics(l), object{"binddn": nil, "bindpass": nil}))
		ann := r.lets("first", "ann", "ann-pw")
		if again, err := r.renew(ann); errs.KindOf(err) != errs.Invalid || !strings.Contains(errs.Message(err), "binddn") {
			t.Errorf("renewal = %+v, %v, want it refused with a way out", again, err)
		}
	})
	t.Run("where anybody may look", func(t *testing.T) {
		open := testenv.Slapd(t, testenv.SlapdConfig{LDIF: people})
		r := newRig(t)
		r.write("config", with(basics(open), object{"binddn": nil, "bindpass": nil}))
		ann := r.lets("first", "ann", "ann-pw")
		if again, err := r.renew(ann); err != nil || !slices.Equal(again.Groups, ann.Groups) {
			t.Errorf("renewal = %+v, %v", again, err)
		}
	})
	t.Run("of what is not ours", func(t *testing.T) {
		if again, err := r.renew(&route.Auth{Internal: wire.Object(`{"v":7}`)}); err == nil {
			t.Errorf("renewal = %+v", again)
		}
	})
}

func TestMappings(t *testing.T) {
	r := newRig(t)
	for _, kind := range []string{"groups", "users"} {
		if _, _, err := r.do(wire.OpList, kind, nil); !errs.Is(err, errs.NotFound) {
			t.Errorf("listing no %s = %v, want NotFound", kind, err)
		}
		if _, _, err := r.do(wire.OpRead, kind+"/none", nil); !errs.Is(err, errs.NotFound) {
			t.Errorf("reading one of no %s = %v, want NotFound", kind, err)
		}
	}
	r.write("groups/Domain Admins/EU", object{"policies": "B, a,B"})
	if got, _, err := r.do(wire.OpRead, "groups/domain admins/eu", nil); err != nil || !reflect.DeepEqual(got, object{"policies": []any{"a", "b"}}) {
		t.Errorf("group = %v, %v", got, err)
	}
	r.write("users/Ann", object{"policies": []string{"p"}, "groups": "Two,one,two"})
	if got, _, err := r.do(wire.OpRead, "users/ann", nil); err != nil || !reflect.DeepEqual(got, object{"policies": []any{"p"}, "groups": "one,two"}) {
		t.Errorf("user = %v, %v", got, err)
	}
	r.write("users/ann", object{"policies": "q"})
	if got, _, err := r.do(wire.OpRead, "users/ann", nil); err != nil || !reflect.DeepEqual(got, object{"policies": []any{"q"}, "groups": ""}) {
		t.Errorf("a user written without groups = %v, %v", got, err)
	}
	if got, _, err := r.do(wire.OpList, "users", nil); err != nil || !reflect.DeepEqual(got["keys"], []any{"ann"}) {
		t.Errorf("users = %v, %v", got, err)
	}
	r.write("config", object{"case_sensitive_names": true})
	r.write("users/Bob", object{"policies": "q"})
	if _, _, err := r.do(wire.OpRead, "users/bob", nil); !errs.Is(err, errs.NotFound) {
		t.Errorf("with case_sensitive_names bob = %v, want NotFound", err)
	}
	for _, path := range []string{"groups/domain admins/eu", "users/ann", "users/Bob", "users/none", "users/" + strings.Repeat("x", 9999)} {
		if _, _, err := r.do(wire.OpDelete, path, nil); err != nil {
			t.Errorf("deleting %.30s = %v", path, err)
		}
	}
	if _, _, err := r.do(wire.OpUpdate, "users/"+strings.Repeat("x", 9999), object{"policies": "p"}); errs.KindOf(err) != errs.Invalid {
		t.Errorf("a name that is too long = %v, want Invalid", err)
	}
}

func TestConfig(t *testing.T) {
	r := newRig(t)
	want := object{
		"url": "ldap://127.0.0.1", "starttls": false, "insecure_tls": false, "certificate": "", "tls_min_version": "tls12", "tls_max_version": "tls12",
		"binddn": "", "userdn": "", "userattr": "cn", "userfilter": "({{.UserAttr}}={{.Username}})", "upndomain": "", "discoverdn": false,
		"anonymous_group_search": false, "groupdn": "", "groupfilter": "(|(memberUid={{.Username}})(member={{.UserDN}})(uniqueMember={{.UserDN}}))",
		"groupattr": "cn", "use_token_groups": false, "use_pre111_group_cn_behavior": false, "deny_null_bind": true, "case_sensitive_names": false,
		"username_as_alias": false, "request_timeout": 90.0, "connection_timeout": 30.0, "dereference_aliases": "never", "max_page_size": 0.0,
		"token_bound_cidrs": []any{}, "token_explicit_max_ttl": 0.0, "token_max_ttl": 0.0, "token_no_default_policy": false, "token_num_uses": 0.0,
		"token_period": 0.0, "token_policies": []any{}, "token_ttl": 0.0, "token_type": "default",
	}
	got, _, err := r.do(wire.OpRead, "config", nil)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("the configuration that nobody wrote (-want +got): %v\n%s", err, diff)
	}
	r.write("config", object{"url": "LDAPS://One.example.com,ldap://two:1389/", "binddn": "cn=x", "bindpass": "hush", "userattr": "uid", "token_policies": "p", "request_timeout": "1m"})
	want["url"], want["binddn"], want["userattr"], want["token_policies"], want["request_timeout"] = "ldaps://one.example.com,ldap://two:1389/", "cn=x", "uid", []any{"p"}, 60.0
	got, _, err = r.do(wire.OpRead, "config", nil)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("the configuration (-want +got): %v\n%s", err, diff)
	}
	if _, warnings, err := r.do(wire.OpUpdate, "config", object{"userfilter": "(uid={{.Username}})"}); err != nil || !strings.Contains(fmt.Sprint(warnings), "UserAttr") {
		t.Errorf("a filter without the attribute = %q, %v, want a warning", warnings, err)
	}
	if _, warnings, err := r.do(wire.OpUpdate, "config", object{"deny_null_bind": "false"}); err != nil || !strings.Contains(fmt.Sprint(warnings), "refused all the same") {
		t.Errorf("deny_null_bind = %q, %v, want a warning", warnings, err)
	}
	for field, values := range map[string][]any{
		"url":                 {"", "http://x", "ldap://", "ldap://u:p@x", "ldap://x/dc=y", "x", strings.Repeat("ldap://x,", 20) + "ldap://x"},
		"userfilter":          {"uid", "(uid={{.UserDN}})", "({{.Username}}=x)", "(uid{{.Username}})", "{{.Username}}", "(uid={{range .Username}}x{{end}})", `(uid={{printf "%s" .Username}})`, "(uid={{.Username | html}})", "(uid={{.Username.X}})", "(uid={{$x := .Username}})", "(uid={{.Username}}", strings.Repeat("(!", 9000), `{{define "x"}}{{end}}(uid={{.Username}})`},
		"groupfilter":         {"(cn={{.UserAttr}})", "x", "({{.UserDN}}=x)"},
		"userattr":            {"", "u)(id", "uid=", " uid"},
		"groupattr":           {"c n"},
		"tls_min_version":     {"", "ssl3", "tls13"},
		"tls_max_version":     {"tls1", "tls11"},
		"dereference_aliases": {"sometimes"},
		"max_page_size":       {-1},
		"certificate":         {"x"},
		"request_timeout":     {0, "-1s"},
		"connection_timeout":  {0},
		"upndomain":           {"a@b"},
		"token_type":          {"x"},
	} {
		for _, v := range values {
			if _, _, err := r.do(wire.OpUpdate, "config", object{field: v}); errs.KindOf(err) != errs.Invalid {
				t.Errorf("%s = %.40v: %v, want Invalid", field, v, err)
			}
		}
	}
}

func TestSIDText(t *testing.T) {
	for _, tt := range []struct {
		in   []byte
		want string
	}{
		{[]byte{1, 2, 0, 0, 0, 0, 0, 5, 32, 0, 0, 0, 0x20, 2, 0, 0}, "S-1-5-32-544"},
		{[]byte{1, 0, 0, 0, 0, 0, 0, 5}, "S-1-5"},
		{[]byte{1, 1, 0, 0, 0, 0, 0, 5}, ""},
		{[]byte{2, 0, 0, 0, 0, 0, 0, 5}, ""},
		{nil, ""},
	} {
		if got, ok := ldap.SIDText(tt.in); got != tt.want || ok != (tt.want != "") {
			t.Errorf("SIDText(%v) = %q, %v, want %q", tt.in, got, ok, tt.want)
		}
	}
}

func TestGroupName(t *testing.T) {
	for _, tt := range []struct {
		value string
		old   bool
		want  string
	}{
		{"CN=Admins,OU=x", false, "Admins"}, {"cn=Admins,ou=x", false, "Admins"}, {"cn=Admins,ou=x", true, "cn=Admins,ou=x"}, {"CN=Admins,OU=x", true, "Admins"},
		{"ou=x,cn=y", false, "y"}, {"ou=x", false, "ou=x"}, {"plain", false, "plain"}, {`cn=a\, b,ou=x`, false, "a, b"},
	} {
		if got := ldap.GroupName(tt.value, tt.old); got != tt.want {
			t.Errorf("GroupName(%q, %v) = %q, want %q", tt.value, tt.old, got, tt.want)
		}
	}
}
