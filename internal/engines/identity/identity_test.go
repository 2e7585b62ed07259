package identity_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

type obj = map[string]any

func list(v any) (out []string) {
	all, _ := v.([]any)
	for _, s := range all {
		out = append(out, s.(string))
	}
	return out
}

func TestEntities(t *testing.T) {
	r := start(t)
	defer r.close()
	id := r.write("entity", obj{"name": "Ann", "metadata": obj{"team": "core"}, "policies": []string{"p2", "p1", "p2"}})["id"].(string)
	got := r.read("entity/id/" + id)
	if got["name"] != "Ann" || fmt.Sprint(got["policies"]) != "[p1 p2]" || got["disabled"] != false || got["merged_entity_ids"] != nil {
		t.Errorf("the entity is read as %v", got)
	}
	if out := r.write("entity/name/ann", obj{"policies": "p3"}); out != nil {
		t.Errorf("changing an entity by its name in other case answers %v, want nothing", out)
	}
	if got := r.read("entity/name/ANN"); got["id"] != id || fmt.Sprint(got["policies"], got["metadata"]) != "[p3] map[team:core]" {
		t.Errorf("by name it is read as %v", got)
	}
	r.write("entity/id/"+id, obj{"name": "anna"})
	if _, err := r.do(wire.OpRead, "entity/name/ann", ""); !errs.Is(err, errs.NotFound) {
		t.Errorf("its old name finds %v, want nothing", err)
	}
	unnamed := r.write("entity", "")
	if name := unnamed["name"].(string); !strings.HasPrefix(name, "entity_") || unnamed["aliases"] != nil {
		t.Errorf("an entity without a name is made as %v", unnamed)
	}
	r.refused(errs.Invalid, wire.OpUpdate, "entity", obj{"id": "none"})
	r.refused(errs.Invalid, wire.OpUpdate, "entity/id/"+id, obj{"name": unnamed["name"]})
	r.refused(errs.Invalid, wire.OpUpdate, "entity", obj{"name": "x", "policies": "Root"})
	r.refused(errs.Invalid, wire.OpUpdate, "entity", obj{"name": "x", "metadata": obj{strings.Repeat("k", 129): "v"}})
	r.refused(errs.Invalid, wire.OpUpdate, "entity/batch-delete", obj{})
	r.refused(errs.NotFound, wire.OpRead, "entity/id/none", nil)
	if keys := list(r.must(wire.OpList, "entity/name/", "")["keys"]); len(keys) != 2 || !slices.Contains(keys, "anna") {
		t.Errorf("names are listed as %v", keys)
	}
	r.write("entity/batch-delete", obj{"entity_ids": []string{id, "none"}})
	r.must(wire.OpDelete, "entity/id/"+unnamed["id"].(string), "")
	r.must(wire.OpDelete, "entity/name/none", "")
	r.refused(errs.NotFound, wire.OpList, "entity/id/", nil)
	if left := r.keys(""); len(left) > 0 {
		t.Errorf("rows are left: %v", left)
	}
}

func TestAliases(t *testing.T) {
	r := start(t)
	defer r.close()
	ann := r.write("entity", obj{"name": "ann"})["id"].(string)
	bob := r.write("entity", obj{"name": "bob"})["id"].(string)
	made := r.write("entity-alias", obj{"name": "Ann-Login", "mount_accessor": "up", "canonical_id": ann, "custom_metadata": obj{"k": "v"}})
	id := made["id"].(string)
	if made["canonical_id"] != ann {
		t.Errorf("making an alias answers %v", made)
	}
	got := r.read("alias/id/" + id)
	if got["mount_path"] != "auth/userpass/" || got["mount_type"] != "userpass" || got["name"] != "Ann-Login" || got["namespace_id"] != "root" {
		t.Errorf("an alias is read as %v", got)
	}
	if out := r.write("entity-alias", obj{"name": "ann-login", "mount_accessor": "up"}); out == nil {
		t.Error("changing the case of a name answers nothing")
	}
	if out := r.write("entity-alias", obj{"name": "ann-login", "mount_accessor": "up", "entity_id": ann}); out != nil {
		t.Errorf("writing an alias as it is answers %v, want nothing", out)
	}
	if got := r.write("lookup/entity", obj{"alias_name": "ANN-login", "alias_mount_accessor": "up"}); got["id"] != ann {
		t.Errorf("by its alias it is found as %v", got)
	}
	// An entity has one alias of a mount.
	r.refused(errs.Invalid, wire.OpUpdate, "entity-alias", obj{"name": "second", "mount_accessor": "up", "canonical_id": ann})
	r.refused(errs.Invalid, wire.OpUpdate, "entity-alias", obj{"name": "x", "mount_accessor": "none", "canonical_id": ann})
	r.refused(errs.Invalid, wire.OpUpdate, "entity-alias", obj{"name": "x", "mount_accessor": "up", "canonical_id": "none"})
	r.refused(errs.Invalid, wire.OpUpdate, "entity-alias", obj{"name": "x"})
	r.refused(errs.Invalid, wire.OpUpdate, "entity-alias/id/none", obj{"name": "x"})
	// A name of its own mount leads to one entity.
	r.write("persona", obj{"name": "bob", "mount_accessor": "up", "entity_id": bob, "metadata": obj{"a": "b"}})
	r.refused(errs.Invalid, wire.OpUpdate, "entity-alias/id/"+id, obj{"name": "BOB"})
	r.refused(errs.Invalid, wire.OpUpdate, "entity-alias/id/"+id, obj{"canonical_id": bob})
	r.write("entity-alias/id/"+id, obj{"mount_accessor": "ldap"})
	if got := r.write("entity-alias/id/"+id, obj{"canonical_id": bob}); got["canonical_id"] != bob {
		t.Errorf("moving an alias answers %v", got)
	}
	if got := len(r.read("entity/id/" + ann)["aliases"].([]any)); got != 0 {
		t.Errorf("the entity that it left has %d aliases, want none", got)
	}
	if who := r.login(engine.AliasLogin{Accessor: "ldap", Name: "ann-login"}); who.ID != bob {
		t.Errorf("its login is %s's, want %s's", who.ID, bob)
	}
	if got := r.must(wire.OpList, "entity-alias/id/", ""); len(list(got["keys"])) != 2 {
		t.Errorf("aliases are listed as %v", got)
	}
	r.must(wire.OpDelete, "entity-alias/id/"+id, "")
	r.must(wire.OpDelete, "entity-alias/id/"+id, "")
	if who := r.login(engine.AliasLogin{Accessor: "ldap", Name: "ann-login"}); who.ID == bob {
		t.Error("a login by a deleted alias is still its entity's")
	}
}

func TestMounts(t *testing.T) {
	r := start(t)
	defer r.close()
	local := r.login(engine.AliasLogin{Accessor: "role", Name: "r", Local: true})
	other := r.write("entity", "")["id"].(string)
	r.refused(errs.Invalid, wire.OpUpdate, "entity-alias", obj{"name": "r", "mount_accessor": "role", "canonical_id": other})
	r.refused(errs.Invalid, wire.OpUpdate, "group-alias", obj{"name": "r", "mount_accessor": "role"})
	var many []string
	for i := range 60 { // more than one transaction's worth
		many = append(many, r.login(engine.AliasLogin{Accessor: "up", Name: fmt.Sprint("u", i)}).ID)
	}
	ga := r.write("group-alias", obj{"name": "staff", "mount_accessor": "up"})
	if err := r.e.DropMount(t.Context(), "up"); err != nil {
		t.Fatal(err)
	}
	for _, id := range many {
		if who := r.who(id); who == nil || len(who.Aliases) > 0 {
			t.Fatalf("after its mount was removed the entity is %+v, want one without aliases", who)
		}
	}
	r.refused(errs.NotFound, wire.OpRead, "group-alias/id/"+ga["id"].(string), nil)
	if left := append(r.keys("al/up/"), r.keys("gal/")...); len(left) > 0 {
		t.Errorf("index rows are left: %v", left)
	}
	if got := len(r.keys("a/")); got != 1 || len(r.who(local.ID).Aliases) != 1 {
		t.Errorf("%d aliases are left, want the other mount's", got)
	}
}

// TestLoginWritesWhatDiffers is the promise to those who log in often.
func TestLoginWritesWhatDiffers(t *testing.T) {
	r := start(t)
	defer r.close()
	staff := r.write("group", obj{"name": "staff", "type": "external", "policies": "staff"})["id"].(string)
	r.write("group-alias", obj{"name": "cn=Staff", "mount_accessor": "ldap", "canonical_id": staff})
	l := engine.AliasLogin{Accessor: "ldap", Name: "ann", Metadata: map[string]string{"mail": "a@x"}, Groups: []string{"CN=staff", "cn=staff", "other"}}
	first := r.login(l)
	if !slices.Equal(first.Policies, []string{"staff"}) || first.Aliases[0].Metadata["mail"] != "a@x" {
		t.Fatalf("a login gives %+v", first)
	}
	same := func(what string) {
		t.Helper()
		before := r.revision()
		who := r.login(l)
		if now := r.revision(); now != before || who.ID != first.ID {
			t.Errorf("%s: revision %d, was %d; entity %s, want %s", what, now, before, who.ID, first.ID)
		}
	}
	same("the same login")
	r.load()
	same("the same login after a start")
	l.Name = "ANN"
	same("the same name in other case")
	l.Metadata = map[string]string{"mail": "b@x"}
	if who := r.login(l); who.Aliases[0].Metadata["mail"] != "b@x" {
		t.Errorf("new metadata are not kept: %+v", who.Aliases)
	}
	l.Groups = nil
	if who := r.login(l); len(who.Policies) > 0 || len(r.keys("gm/")) > 0 {
		t.Errorf("who has left the group has policies %v, rows %v", who.Policies, r.keys("gm/"))
	}
	// Another mount's login leaves this mount's groups alone.
	l.Groups = []string{"cn=staff"}
	r.login(l)
	r.write("entity-alias", obj{"name": "ann", "mount_accessor": "up", "canonical_id": first.ID})
	if who := r.login(engine.AliasLogin{Accessor: "up", Name: "ann"}); !slices.Equal(who.Policies, []string{"staff"}) {
		t.Errorf("after a login elsewhere the policies are %v, want those of the group", who.Policies)
	}
	// A disabled entity is told as such, and nothing is written for it.
	r.write("entity/id/"+first.ID, obj{"disabled": true})
	l.Metadata, l.Groups = nil, nil
	before := r.revision()
	if who := r.login(l); !who.Disabled || r.revision() != before {
		t.Errorf("the login of a disabled entity: %+v", who)
	}
	if _, err := r.e.Login(t.Context(), engine.AliasLogin{Accessor: "up"}); !errs.Is(err, errs.Invalid) {
		t.Errorf("a login without a name = %v, want it refused", err)
	}
}

// TestLoginsAtOnce: a name leads to one entity, also when all of its first
// logins come together.
func TestLoginsAtOnce(t *testing.T) {
	r := start(t)
	defer r.close()
	g := r.write("group-alias", obj{"name": "g", "mount_accessor": "up"})["canonical_id"].(string)
	var wg sync.WaitGroup
	ids := make([]string, 32)
	for i := range ids {
		wg.Go(func() {
			who, err := r.e.Login(t.Context(), engine.AliasLogin{Accessor: "up", Name: "ann", Groups: []string{"g"}})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = who.ID
		})
	}
	wg.Wait()
	if got := slices.Compact(ids); len(got) != 1 || len(r.keys("e/")) != 1 || len(r.keys("en/")) != 1 {
		t.Errorf("%d logins at once made %v", len(ids), r.keys("e/"))
	}
	if got := r.keys("gm/" + g); len(got) != 1 {
		t.Errorf("the group has %v", got)
	}
}

// TestFullCache: what has to make room for others is read again.
func TestFullCache(t *testing.T) {
	r := start(t)
	defer r.close()
	large := map[string]string{"x": strings.Repeat("x", 700<<10)}
	var ids []string
	for i := range 100 {
		ids = append(ids, r.login(engine.AliasLogin{Accessor: "up", Name: fmt.Sprint("u", i), Metadata: large}).ID)
	}
	for i, id := range ids {
		if who := r.who(id); who.Aliases[0].Name != fmt.Sprint("u", i) {
			t.Fatalf("entity %d is %s's", i, who.Aliases[0].Name)
		}
	}
}

func TestLookups(t *testing.T) {
	r := start(t)
	defer r.close()
	for _, path := range []string{"lookup/entity", "lookup/group"} {
		if got := r.write(path, obj{"name": "none"}); got != nil {
			t.Errorf("%s of nobody finds %v", path, got)
		}
		r.refused(errs.Invalid, wire.OpUpdate, path, obj{})
		r.refused(errs.Invalid, wire.OpUpdate, path, obj{"id": "a", "name": "b"})
		r.refused(errs.Invalid, wire.OpUpdate, path, obj{"alias_name": "a"})
	}
}

func TestMerge(t *testing.T) {
	r := start(t)
	defer r.close()
	to := r.login(engine.AliasLogin{Accessor: "up", Name: "ann"}).ID
	from := r.login(engine.AliasLogin{Accessor: "ldap", Name: "ann"}).ID
	older := r.write("entity", obj{"name": "older"})["id"].(string)
	g := r.write("group", obj{"policies": "g", "member_entity_ids": []string{from, older}})["id"].(string)
	r.refused(errs.Invalid, wire.OpUpdate, "entity/merge", obj{"from_entity_ids": from})
	r.refused(errs.Invalid, wire.OpUpdate, "entity/merge", obj{"to_entity_id": to})
	r.refused(errs.Invalid, wire.OpUpdate, "entity/merge", obj{"from_entity_ids": to, "to_entity_id": to})
	r.refused(errs.Invalid, wire.OpUpdate, "entity/merge", obj{"from_entity_ids": []string{from, "none"}, "to_entity_id": to})
	r.refused(errs.Invalid, wire.OpUpdate, "entity/merge", obj{"from_entity_ids": from, "to_entity_id": "none"})
	r.write("entity/merge", obj{"from_entity_ids": older, "to_entity_id": from})
	r.write("entity/merge", obj{"from_entity_ids": from, "to_entity_id": to})
	for _, id := range []string{to, from, older} {
		if who := r.who(id); who == nil || who.ID != to || !slices.Equal(who.Policies, []string{"g"}) || len(who.Aliases) != 2 {
			t.Errorf("the entity %s is now %+v, want %s with both aliases and the group", id, who, to)
		}
	}
	got := r.read("entity/id/" + to)
	if merged := list(got["merged_entity_ids"]); !slices.Contains(merged, from) || !slices.Contains(merged, older) {
		t.Errorf("merged_entity_ids are %v", merged)
	}
	if members := list(r.read("group/id/" + g)["member_entity_ids"]); !slices.Equal(members, []string{to}) {
		t.Errorf("the group has %v, want %s", members, to)
	}
	if who := r.login(engine.AliasLogin{Accessor: "ldap", Name: "ann"}); who.ID != to {
		t.Errorf("a login by the alias that came along is %s's", who.ID)
	}

	// Where both have an alias of one mount, somebody has to choose.
	clash := r.login(engine.AliasLogin{Accessor: "up", Name: "ann2"})
	mine := ""
	for _, a := range r.who(to).Aliases {
		if a.Accessor == "up" {
			mine = a.ID
		}
	}
	body := obj{"from_entity_ids": clash.ID, "to_entity_id": to}
	r.refused(errs.Invalid, wire.OpUpdate, "entity/merge", body)
	body["conflicting_alias_ids_to_keep"] = []string{mine, clash.Aliases[0].ID}
	r.refused(errs.Invalid, wire.OpUpdate, "entity/merge", body)
	body["conflicting_alias_ids_to_keep"] = clash.Aliases[0].ID
	r.write("entity/merge", body)
	r.refused(errs.NotFound, wire.OpRead, "entity-alias/id/"+mine, nil)
	if who := r.login(engine.AliasLogin{Accessor: "up", Name: "ann2"}); who.ID != to {
		t.Errorf("a login by the alias that was kept is %s's", who.ID)
	}
	r.must(wire.OpDelete, "entity/id/"+to, "")
	r.must(wire.OpDelete, "group/id/"+g, "")
	if left := r.keys(""); len(left) > 0 {
		t.Errorf("rows are left: %v", left)
	}
}

// TestCrashes dies at each write of what takes several steps; doing it again,
// or the sweep after a start, ends it.
func TestCrashes(t *testing.T) {
	for after := range 12 {
		r := start(t)
		var ids []string
		for i := range 70 {
			ids = append(ids, r.login(engine.AliasLogin{Accessor: "up", Name: fmt.Sprint("u", i)}).ID)
		}
		g := r.write("group", obj{"name": "g", "policies": "g", "member_entity_ids": ids})["id"].(string)
		p := r.write("group", obj{"name": "p", "policies": "p", "member_group_ids": []string{g}})["id"].(string)
		whole := r.env.Store
		r.env.Store = &dying{Backend: whole, left: after}
		r.load()
		if _, err := r.do(wire.OpDelete, "group/id/"+g, ""); err == nil && after < 3 {
			t.Errorf("deleting %d members in %d steps succeeds", len(ids), after)
		}
		r.env.Store = whole
		r.load()
		if err := r.e.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		gone := r.read("group/id/" + p)["member_group_ids"] == nil
		if _, err := r.do(wire.OpRead, "group/id/"+g, ""); (err != nil) != gone {
			t.Errorf("after %d writes the group is there: %v; it is in the other: %v", after, err == nil, !gone)
		}
		want := 0
		if !gone {
			want = len(ids)
		}
		if got := len(r.keys("gm/")); got != want {
			t.Errorf("after %d writes there are %d memberships, want %d", after, got, want)
		}
		r.close()
	}
}

// dying refuses writes after a number of them.
type dying struct {
	storage.Backend
	left int
}

func (d *dying) Update(ctx context.Context, fn func(storage.Tx) error) (storage.Revision, error) {
	if d.left == 0 {
		return 0, storage.ErrStopped
	}
	d.left--
	return d.Backend.Update(ctx, fn)
}

// TestBadRows: what cannot be read refuses its own, and nothing else.
func TestBadRows(t *testing.T) {
	r := start(t)
	defer r.close()
	ann := r.login(engine.AliasLogin{Accessor: "up", Name: "ann"}).ID
	bob := r.login(engine.AliasLogin{Accessor: "up", Name: "bob"}).ID
	g := r.write("group", obj{"name": "g", "policies": "g", "member_entity_ids": []string{ann}})["id"].(string)
	put := func(key, value string) {
		t.Helper()
		if _, err := r.env.Store.Update(t.Context(), func(tx storage.Tx) error { return tx.Put(key, []byte(value)) }); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []string{"e/" + ann, "g/" + g} {
		for _, bad := range []string{"{", `{"v":2}`} {
			put(row, bad)
			if who, err := r.e.Identify(t.Context(), ann); err == nil {
				t.Errorf("with %s = %s the entity is %+v, want an error", row, bad, who)
			}
		}
		if row[0] == 'e' {
			if _, err := r.e.Login(t.Context(), engine.AliasLogin{Accessor: "up", Name: "ann"}); err == nil {
				t.Error("the entity that cannot be read logs in")
			}
			r.must(wire.OpDelete, "entity/id/"+ann, "")
			ann = r.login(engine.AliasLogin{Accessor: "up", Name: "ann"}).ID
			r.write("group/id/"+g, obj{"member_entity_ids": []string{ann}})
		}
	}
	if who := r.who(bob); who == nil {
		t.Error("another entity is not found")
	}
	// Whoever cleans up gets rid of them, and the names are free again.
	r.must(wire.OpDelete, "group/id/"+g, "")
	r.write("group", obj{"name": "g", "member_entity_ids": []string{ann}})
	named := r.write("entity", obj{"name": "named"})["id"].(string)
	put("e/"+named, "{")
	r.must(wire.OpDelete, "entity/id/"+named, "")
	if again := r.write("entity", obj{"name": "named"}); again["id"] == named {
		t.Error("a deleted id is given again")
	}
	r.must(wire.OpDelete, "entity/name/named", "")
	if got := list(r.must(wire.OpList, "entity/id/", "")["keys"]); len(got) != 2 {
		t.Errorf("entities are listed as %v", got)
	}
}
