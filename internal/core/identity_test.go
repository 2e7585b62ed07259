package core_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/identity"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// hall is an auth method that believes whoever comes.
type hall struct{}

type guestIn struct {
	Name   string   `json:"name"`
	Team   string   `json:"team"`
	Groups wire.CSV `json:"groups"`
	Batch  bool     `json:"batch"`
}

func (hall) Routes(t *route.Table) {
	route.Login(t, "login/{name}", func(_ context.Context, _ *route.Request, in guestIn) (*route.Auth, error) {
		a := &route.Auth{
			Policies: []string{"app"}, Alias: &route.Alias{Name: in.Name, Metadata: map[string]string{"team": in.Team}}, Groups: in.Groups,
		}
		if in.Batch {
			a.Type = route.TokenBatch
		}
		return a, nil
	})
}

// people is a core with identities and two halls.
type people struct {
	*rig
	db storage.Backend
}

func openPeople(t *testing.T) *people {
	db := mem.New()
	p := &people{db: db}
	p.rig = openWith(t, db, map[string]engine.Factory{
		"auth/hall": func(context.Context, engine.Env) (engine.Engine, error) { return hall{}, nil },
		"secret/identity": identity.Factory(identity.Config{
			Mount: func(ctx context.Context, ns, accessor string) (identity.Mount, bool, error) {
				m, ok, err := p.c.MountOf(ctx, ns, accessor)
				return identity.Mount{Path: m.Path, Type: m.Type, Local: m.Local}, ok, err
			},
		}),
	})
	for _, path := range []string{"auth/hall/", "auth/other/"} {
		if err := p.c.AddMount(t.Context(), &core.Mount{Namespace: token.RootNamespace, Path: path, Class: core.ClassAuth, Type: "hall"}); err != nil {
			t.Fatal(err)
		}
	}
	p.mount("kv/", "kv", nil)
	return p
}

func (p *people) accessor(path string) string {
	p.t.Helper()
	m, ok, err := p.c.MountAt(p.t.Context(), token.RootNamespace, path, true)
	if err != nil || !ok {
		p.t.Fatalf("MountAt(%q) = %v, %v", path, ok, err)
	}
	return m.Accessor
}

func (p *people) policy(name, text string) {
	p.t.Helper()
	if err := p.c.WritePolicy(p.t.Context(), core.ACLPolicy, token.RootNamespace, name, text); err != nil {
		p.t.Fatal(err)
	}
}

type granted struct {
	Token    string   `json:"client_token"`
	Entity   string   `json:"entity_id"`
	Policies []string `json:"policies"`
	Own      []string `json:"token_policies"`
	Identity []string `json:"identity_policies"`
}

func (p *people) login(path, body string) (g granted) {
	p.t.Helper()
	resp := p.ok(wire.OpUpdate, path, secret.String{}, body)
	if err := json.Unmarshal(resp.Auth.AppendJSON(nil), &g); err != nil {
		p.t.Fatal(err)
	}
	return g
}

func (g granted) secret() secret.String { return secret.New(g.Token) }

// object is the body of a write.
type object map[string]any

// write is a write as root: the id of what it made, if any.
func (p *people) write(path string, body object) string {
	p.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		p.t.Fatal(err)
	}
	resp := p.ok(wire.OpUpdate, path, p.root, string(b))
	if resp.Data == nil {
		return ""
	}
	var out struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(resp.Data.AppendJSON(nil), &out); err != nil {
		p.t.Fatal(err)
	}
	return out.ID
}

// may asks whether a token may read a path.
func (p *people) may(g granted, path string, want bool) {
	p.t.Helper()
	resp := p.do(wire.OpRead, path, g.secret(), "")
	if got := !errs.Is(resp.Err, errs.Denied); got != want {
		p.t.Errorf("reading %s is allowed: %v (%v), want %v", path, got, resp.Err, want)
	}
}

func (p *people) revision() (rev storage.Revision) {
	_ = p.db.View(p.t.Context(), func(v storage.View) error { rev = v.Revision(); return nil })
	return rev
}

// TestPoliciesThroughIdentity: what an entity and its groups are given counts
// from the answer to that on, for every token that they have.
func TestPoliciesThroughIdentity(t *testing.T) {
	p := openPeople(t)
	for _, name := range []string{"own", "group", "above"} {
		p.policy(name, fmt.Sprintf(`path "kv/%s" { capabilities = ["read"] }`, name))
	}
	ann := p.login("auth/hall/login/ann", `{}`)
	if ann.Entity == "" || ann.Identity != nil || !slices.Equal(ann.Policies, []string{"app", "default"}) {
		t.Fatalf("the login is answered as %+v", ann)
	}
	p.may(ann, "kv/own", false)
	p.write("identity/entity/id/"+ann.Entity, object{"policies": "Own"})
	p.may(ann, "kv/own", true)
	group := p.write("identity/group", object{"name": "g", "policies": "group"})
	p.may(ann, "kv/group", false)
	p.write("identity/group/id/"+group, object{"member_entity_ids": ann.Entity})
	p.may(ann, "kv/group", true)
	above := p.write("identity/group", object{"name": "a", "member_group_ids": group})
	p.may(ann, "kv/above", false)
	p.write("identity/group/id/"+above, object{"policies": "above"})
	p.may(ann, "kv/above", true)
	again := p.login("auth/hall/login/ann", `{}`)
	if !slices.Equal(again.Identity, []string{"above", "group", "own"}) || !slices.Equal(again.Own, []string{"app", "default"}) ||
		!slices.Equal(again.Policies, []string{"above", "app", "default", "group", "own"}) || again.Entity != ann.Entity {
		t.Errorf("the next login is answered as %+v", again)
	}
	p.policy("above", `path "kv/elsewhere" { capabilities = ["read"] }`)
	p.may(ann, "kv/above", false)
	p.may(ann, "kv/elsewhere", true)
	p.write("identity/group/id/"+above, object{"member_group_ids": []string{}})
	p.may(ann, "kv/elsewhere", false)
	p.ok(wire.OpDelete, "identity/group/id/"+group, p.root, "")
	p.may(ann, "kv/group", false)
	p.write("identity/entity/id/"+ann.Entity, object{"policies": []string{}})
	p.may(ann, "kv/own", false)

	// What the entity has is not the token's to give away.
	p.write("identity/entity/id/"+ann.Entity, object{"policies": "own"})
	child, err := p.c.CreateToken(t.Context(), &token.Entry{EntityID: ann.Entity, Policies: []string{"default"}, Expires: time.Now().Add(time.Hour)}, secret.String{})
	if err != nil {
		t.Fatal(err)
	}
	p.may(granted{Token: child.Text.Reveal()}, "kv/own", true)
	if set, err := p.c.SetOf(t.Context(), child.Entry); err != nil || !slices.Equal(set.Capabilities("kv/own"), []string{"read"}) {
		t.Errorf("its capabilities are %v, %v", set, err)
	}
}

// TestTemplatesAreBound: a templated policy speaks of the entity that asks.
func TestTemplatesAreBound(t *testing.T) {
	p := openPeople(t)
	at := p.accessor("auth/hall/")
	p.policy("app", strings.NewReplacer("AT", at).Replace(`
path "kv/home/{{identity.entity.aliases.AT.name}}" { capabilities = ["read"] }
path "kv/seen/{{identity.entity.aliases.AT.metadata.team}}" { capabilities = ["read"] }
path "kv/note/{{identity.entity.aliases.AT.custom_metadata.n}}" { capabilities = ["read"] }
path "kv/id/{{identity.entity.id}}" { capabilities = ["read"] }
path "kv/named/{{identity.entity.name}}" { capabilities = ["read"] }
path "kv/team/{{identity.entity.metadata.team}}" { capabilities = ["read"] }
path "kv/group/{{identity.groups.names.devs.metadata.room}}" { capabilities = ["read"] }
path "kv/of/{{identity.groups.names.devs.id}}" { capabilities = ["read"] }`))
	ann := p.login("auth/hall/login/ann", `{"team":"red"}`)
	bob := p.login("auth/hall/login/bob", `{}`)
	for path, want := range map[string]bool{
		"kv/home/ann": true, "kv/home/bob": false, "kv/seen/red": true, "kv/seen/blue": false, "kv/team/core": false,
		"kv/id/" + ann.Entity: true, "kv/id/" + bob.Entity: false, "kv/group/7": false, "kv/note/x": false,
	} {
		p.may(ann, path, want)
	}
	p.may(bob, "kv/home/bob", true)
	devs := p.write("identity/group", object{"name": "devs", "metadata": map[string]string{"room": "7"}, "member_entity_ids": ann.Entity})
	p.write("identity/entity/id/"+ann.Entity, object{"name": "Ann", "metadata": map[string]string{"team": "core"}})
	p.write("identity/entity-alias", object{"name": "ann", "mount_accessor": at, "custom_metadata": map[string]string{"n": "x"}})
	p.login("auth/hall/login/ann", `{"team":"blue"}`)
	for path, want := range map[string]bool{
		"kv/team/core": true, "kv/named/Ann": true, "kv/group/7": true, "kv/of/" + devs: true, "kv/note/x": true,
		"kv/seen/red": false, "kv/seen/blue": true,
	} {
		p.may(ann, path, want)
	}
	p.may(bob, "kv/group/7", false)
	// The default policy lets everybody read their own entity.
	p.ok(wire.OpRead, "identity/entity/id/"+ann.Entity, ann.secret(), "")
	p.may(ann, "identity/entity/id/"+bob.Entity, false)
}

// TestEntityRefusesItsTokens: disabled, deleted and unreadable entities do.
func TestEntityRefusesItsTokens(t *testing.T) {
	p := openPeople(t)
	p.policy("app", `path "kv/*" { capabilities = ["read"] }`)
	ann := p.login("auth/hall/login/ann", `{}`)
	batch := p.login("auth/hall/login/ann", `{"batch":true}`)
	bob := p.login("auth/hall/login/bob", `{}`)
	p.may(ann, "kv/x", true)
	p.may(batch, "kv/x", true)
	p.write("identity/entity/id/"+ann.Entity, object{"disabled": true})
	p.may(ann, "kv/x", false)
	p.may(batch, "kv/x", false)
	p.may(bob, "kv/x", true)
	if resp := p.do(wire.OpUpdate, "auth/hall/login/ann", secret.String{}, `{}`); !errs.Is(resp.Err, errs.Denied) {
		t.Errorf("a disabled entity's login = %v, want it denied", resp.Err)
	}
	p.write("identity/entity/id/"+ann.Entity, object{"disabled": false})
	p.may(ann, "kv/x", true)

	other := p.login("auth/other/login/ann", `{}`)
	p.write("identity/entity/merge", object{"from_entity_ids": ann.Entity, "to_entity_id": other.Entity})
	p.policy("merged", `path "sys/merged" { capabilities = ["read"] }`)
	p.write("identity/entity/id/"+other.Entity, object{"policies": "merged"})
	p.may(ann, "sys/merged", true)
	if again := p.login("auth/hall/login/ann", `{}`); again.Entity != other.Entity {
		t.Errorf("after merging the login is %s's, want %s's", again.Entity, other.Entity)
	}
	p.ok(wire.OpDelete, "identity/entity/id/"+other.Entity, p.root, "")
	p.may(ann, "kv/x", false)
	p.may(other, "kv/x", false)
	if again := p.login("auth/hall/login/ann", `{}`); again.Entity == other.Entity || again.Entity == ann.Entity {
		t.Error("a login after its entity was deleted is still that one's")
	}

	row := ""
	_ = p.db.View(t.Context(), func(v storage.View) error {
		return v.Scan("m/", "m0", 0, func(key string, _ []byte) bool {
			if strings.HasSuffix(key, "/e/"+bob.Entity) {
				row = key
			}
			return true
		})
	})
	if _, err := p.db.Update(t.Context(), func(tx storage.Tx) error { return tx.Put(row, []byte("damaged")) }); err != nil {
		t.Fatal(err)
	}
	p.may(bob, "kv/x", false)
	if resp := p.do(wire.OpUpdate, "auth/hall/login/bob", secret.String{}, `{}`); resp.Err == nil {
		t.Error("who cannot be read logs in")
	}
}

// TestEntityInANamespaceBelow: a token keeps its parent's entity there, which
// refuses it, but the names of policies and groups are others there.
func TestEntityInANamespaceBelow(t *testing.T) {
	p := openPeople(t)
	below := p.space("below")
	p.mountIn(below, "kv/", "kv")
	ann := p.login("auth/hall/login/ann", `{}`)
	p.write("identity/entity/id/"+ann.Entity, object{"policies": "same"})
	p.write("identity/group", object{"name": "same", "member_entity_ids": ann.Entity})
	for name, text := range map[string]string{
		"same": `path "kv/x" { capabilities = ["read"] }`, "tmpl": `path "kv/{{identity.groups.names.same.name}}" { capabilities = ["read"] }
			path "kv/y" { capabilities = ["read"] }`,
	} {
		if err := p.c.WritePolicy(t.Context(), core.ACLPolicy, below, name, text); err != nil {
			t.Fatal(err)
		}
	}
	made, err := p.c.CreateToken(t.Context(), &token.Entry{
		Namespace: below, EntityID: ann.Entity, Policies: []string{"tmpl"}, Expires: time.Now().Add(time.Hour),
	}, secret.String{})
	if err != nil {
		t.Fatal(err)
	}
	may := func(path string, want bool) {
		t.Helper()
		resp := p.c.Handle(t.Context(), &core.Request{ID: "x", Op: wire.OpRead, Path: path, Namespace: "below", Token: made.Text})
		if got := !errs.Is(resp.Err, errs.Denied); got != want {
			t.Errorf("reading %s there is allowed: %v (%v), want %v", path, got, resp.Err, want)
		}
	}
	may("kv/y", true)
	may("kv/x", false)
	may("kv/same", false)
	if has, err := p.c.IdentityPolicies(t.Context(), made.Entry); err != nil || len(has) > 0 {
		t.Errorf("it has the identity policies %v, %v", has, err)
	}
	p.write("identity/entity/id/"+ann.Entity, object{"disabled": true})
	may("kv/y", false)
}

// TestBatchLoginsWriteNothing is promised to those who log in a million times.
func TestBatchLoginsWriteNothing(t *testing.T) {
	p := openPeople(t)
	p.login("auth/hall/login/ann", `{"batch":true,"groups":"a,b"}`)
	before := p.revision()
	for range 100 {
		p.login("auth/hall/login/ann", `{"batch":true,"groups":"a,b"}`)
	}
	if now := p.revision(); now != before {
		t.Errorf("100 logins with batch tokens wrote %d times", now-before)
	}
}

// TestAliasesEndWithTheirMount: a mount that is gone names nobody.
func TestAliasesEndWithTheirMount(t *testing.T) {
	p := openPeople(t)
	ann := p.login("auth/hall/login/ann", `{}`)
	if err := p.c.RemoveMount(t.Context(), token.RootNamespace, "auth/hall/"); err != nil {
		t.Fatal(err)
	}
	resp := p.ok(wire.OpRead, "identity/entity/id/"+ann.Entity, p.root, "")
	if got := string(resp.Data.AppendJSON(nil)); !strings.Contains(got, `"aliases":[]`) {
		t.Errorf("after its mount was removed the entity is %s", got)
	}
}

// TestIdentityInTheAuditLog: records say on whose behalf, and by what right.
func TestIdentityInTheAuditLog(t *testing.T) {
	p := openPeople(t)
	path := t.TempDir() + "/audit.log"
	err := p.c.EnableAudit(t.Context(), core.AuditDevice{Path: "file/", Type: "file", Options: map[string]string{"file_path": path}})
	if err != nil {
		t.Fatal(err)
	}
	p.policy("own", `path "kv/own" { capabilities = ["read"] }`)
	ann := p.login("auth/hall/login/ann", `{}`)
	p.write("identity/entity/id/"+ann.Entity, object{"policies": "own"})
	p.may(ann, "kv/own", true)
	again := p.login("auth/hall/login/ann", `{}`)
	lines := strings.Split(strings.TrimSpace(readFile(t, path)), "\n")
	type record struct {
		Type string
		Auth struct {
			EntityID string   `json:"entity_id"`
			Policies []string `json:"policies"`
			Identity []string `json:"identity_policies"`
		}
		Request  struct{ Path string }
		Response struct {
			Auth struct {
				EntityID string   `json:"entity_id"`
				Identity []string `json:"identity_policies"`
			}
		}
	}
	found := 0
	for _, line := range lines {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Request.Path == "kv/own" {
			found++
			if r.Auth.EntityID != ann.Entity || !slices.Equal(r.Auth.Identity, []string{"own"}) || !slices.Contains(r.Auth.Policies, "own") {
				t.Errorf("the request's record says %+v", r.Auth)
			}
		}
		if a := r.Response.Auth; a.EntityID == again.Entity && slices.Equal(a.Identity, []string{"own"}) {
			found++
		}
	}
	if found != 3 {
		t.Errorf("%d records tell of the entity, want 3:\n%s", found, strings.Join(lines, "\n"))
	}
}
