package ldap_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/auth/ldap"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/testenv"
	"github.com/leasehold/leasehold/internal/wire"
)

// people is what every test's directory holds.
const people = `
dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=org
objectClass: organizationalUnit
ou: groups

dn: uid=Ann,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: Ann
cn: Ann Archer
sn: Archer
mail: ann@example.org
userPassword: ann-pw

dn: uid=bob,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: Bob
userPassword: bob-pw

dn: uid=Eve\, (the) *star* \\o/,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: Eve, (the) *star* \o/
cn: Eve
sn: Eve
userPassword: eve-pw

dn: uid=twin,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: twin
cn: first
sn: Twin
userPassword: twin-pw

dn: ou=more,ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: more

dn: uid=twin,ou=more,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: twin
cn: second
sn: Twin
userPassword: twin-pw

dn: cn=finder,dc=example,dc=org
objectClass: inetOrgPerson
cn: finder
sn: finder
userPassword: finder-pw

dn: cn=Admins,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: Admins
member: uid=Ann,ou=people,dc=example,dc=org
member: uid=Eve\, (the) *star* \\o/,ou=people,dc=example,dc=org

dn: cn=devs,ou=groups,dc=example,dc=org
objectClass: posixGroup
cn: devs
gidNumber: 1
memberUid: Ann
memberUid: bob
`

type object map[string]any

// rig is one mount of the method.
type rig struct {
	t      *testing.T
	engine engine.Engine
	table  *route.Table
	remote string
}

func newRig(t *testing.T) *rig {
	t.Helper()
	e, err := ldap.New(t.Context(), engine.Env{
		MountID: "m", Namespace: "root", Type: "ldap", Store: storage.Prefix(mem.New(), "m/root/m/"),
		Now: time.Now, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, engine: e, table: route.NewTable(), remote: "192.0.2.1"}
	e.Routes(r.table)
	return r
}

// basics is a configuration that looks for people with an account.
func basics(l *testenv.LDAP) object {
	return object{
		"url": l.URL(), "userdn": "ou=people,dc=example,dc=org", "userattr": "uid", "groupdn": "ou=groups,dc=example,dc=org",
		"binddn": "cn=finder,dc=example,dc=org", "bindpass": "finder-pw", "connection_timeout": 5, "request_timeout": 5,
		"userfilter": "({{.UserAttr}}={{.Username}})",
	}
}

// with is a configuration with changes. nil takes a member away.
func with(base object, changes object) object {
	out := object{}
	for k, v := range base {
		out[k] = v
	}
	for k, v := range changes {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = v
		}
	}
	return out
}

// do calls an endpoint and gives its data and warnings.
func (r *rig) do(op wire.Op, path string, body object) (object, []string, error) {
	r.t.Helper()
	res, warnings, err := r.call(op, path, body)
	var data object
	if err == nil && res.Data != nil {
		if err := json.Unmarshal(res.Data.AppendJSON(nil), &data); err != nil {
			r.t.Fatal(err)
		}
	}
	return data, warnings, err
}

func (r *rig) call(op wire.Op, path string, body object) (route.Result, []string, error) {
	r.t.Helper()
	req := &route.Request{Op: op, Path: path, Remote: netip.MustParseAddr(r.remote)}
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			r.t.Fatal(err)
		}
		req.Body = b
	}
	ep, err := r.table.Route(req)
	if err != nil {
		r.t.Fatalf("%v %s: %v", op, path, err)
	}
	res, err := ep.Call(r.t.Context(), req)
	return res, req.Reply().Warnings, err
}

func (r *rig) write(path string, body object) {
	r.t.Helper()
	if _, _, err := r.do(wire.OpUpdate, path, body); err != nil {
		r.t.Fatalf("writing %s: %v", path, err)
	}
}

func (r *rig) login(name, password string) (*route.Auth, error) {
	r.t.Helper()
	res, _, err := r.call(wire.OpUpdate, "login/"+name, object{"password": password})
	return res.Auth, err
}

// lets fails the test unless a login is let in.
func (r *rig) lets(when, name, password string) *route.Auth {
	r.t.Helper()
	a, err := r.login(name, password)
	if err != nil {
		r.t.Fatalf("%s: login of %q = %v", when, name, err)
	}
	return a
}

func (r *rig) renew(a *route.Auth) (*route.Auth, error) {
	return r.engine.(engine.Renewer).RenewLogin(r.t.Context(), engine.Renewal{Internal: a.Internal, Metadata: a.Metadata})
}

// loginUnder is login with a context of its own.
func (r *rig) loginUnder(ctx context.Context, name, password string) error {
	body, _ := json.Marshal(object{"password": password})
	req := &route.Request{Op: wire.OpUpdate, Path: "login/" + name, Body: body, Remote: netip.MustParseAddr(r.remote)}
	ep, err := r.table.Route(req)
	if err == nil {
		_, err = ep.Call(ctx, req)
	}
	return err
}
