package identity_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestGroups(t *testing.T) {
	r := start(t)
	defer r.close()
	ann := r.write("entity", obj{"name": "ann", "policies": "own"})["id"].(string)
	devs := r.write("group", obj{"name": "devs", "policies": "g1", "member_entity_ids": []string{ann}, "metadata": obj{"x": "y"}})["id"].(string)
	all := r.write("group", obj{"name": "all", "policies": "g2", "member_group_ids": []string{devs}})["id"].(string)
	got := r.read("group/name/Devs")
	if fmt.Sprintln(got["member_entity_ids"], got["member_group_ids"], got["parent_group_ids"], got["modify_index"], got["alias"], got["type"]) !=
		fmt.Sprintf("[%s] <nil> [%s] 2 map[] internal\n", ann, all) {
		t.Errorf("a group is read as %v", got)
	}
	if who := r.who(ann); !slices.Equal(who.Policies, []string{"g1", "g2", "own"}) {
		t.Errorf("policies through groups are %v", who.Policies)
	}
	e := r.read("entity/id/" + ann)
	if fmt.Sprint(e["direct_group_ids"], e["inherited_group_ids"], e["group_ids"]) != fmt.Sprintf("[%s] [%s] [%s %s]", devs, all, devs, all) {
		t.Errorf("its groups are read as %v", e)
	}
	r.refused(errs.Invalid, wire.OpUpdate, "group/id/"+devs, obj{"member_group_ids": []string{all}})
	r.refused(errs.Invalid, wire.OpUpdate, "group/id/"+devs, obj{"member_group_ids": []string{devs}})
	r.refused(errs.Invalid, wire.OpUpdate, "group/id/"+devs, obj{"member_group_ids": []string{"none"}})
	r.refused(errs.Invalid, wire.OpUpdate, "group/id/"+devs, obj{"member_entity_ids": []string{"none"}})
	r.refused(errs.Invalid, wire.OpUpdate, "group/id/none", obj{"name": "x"})
	r.refused(errs.Invalid, wire.OpUpdate, "group/id/"+devs, obj{"name": "ALL"})
	r.refused(errs.Invalid, wire.OpUpdate, "group/id/"+devs, obj{"type": "external"})
	r.refused(errs.Invalid, wire.OpUpdate, "group", obj{"name": "x", "type": "gold"})
	r.refused(errs.Invalid, wire.OpUpdate, "group", obj{"name": "x", "policies": "root"})
	r.refused(errs.Invalid, wire.OpUpdate, "group", obj{"name": "x", "type": "external", "member_entity_ids": []string{ann}})
	r.refused(errs.Invalid, wire.OpUpdate, "group", obj{"name": "x", "type": "external", "member_group_ids": []string{devs}})

	r.write("group/id/"+all, obj{"policies": "g3"})
	if who := r.who(ann); !slices.Equal(who.Policies, []string{"g1", "g3", "own"}) {
		t.Errorf("after a group's policies were changed they are %v", who.Policies)
	}
	r.write("group/id/"+all, obj{"member_group_ids": []string{}})
	if who := r.who(ann); !slices.Equal(who.Policies, []string{"g1", "own"}) {
		t.Errorf("after a group was taken out they are %v", who.Policies)
	}
	r.write("group/name/all", obj{"name": "everybody", "member_group_ids": devs})
	if got := r.write("lookup/group", obj{"name": "all"}); got["id"] != all {
		// The name in the path wins over the one in the body, so it keeps it.
		t.Errorf("the group is found as %v", got)
	}
	r.write("group/id/"+all, obj{"name": "everybody"})
	info := r.must(wire.OpList, "group/id/", "")["key_info"].(obj)[devs].(obj)
	if fmt.Sprintln(info["name"], info["num_member_entities"], info["num_parent_groups"]) != "devs 1 1\n" {
		t.Errorf("a group is listed as %v", info)
	}
	r.must(wire.OpDelete, "group/id/"+devs, "")
	if who := r.who(ann); !slices.Equal(who.Policies, []string{"own"}) {
		t.Errorf("after its group was deleted the policies are %v", who.Policies)
	}
	r.must(wire.OpDelete, "group/name/everybody", "")
	r.must(wire.OpDelete, "entity/id/"+ann, "")
	if left := r.keys(""); len(left) > 0 {
		t.Errorf("rows are left: %v", left)
	}
}

func TestGroupAliases(t *testing.T) {
	r := start(t)
	defer r.close()
	ext := r.write("group", obj{"name": "ext", "type": "external", "policies": "x"})["id"].(string)
	in := r.write("group", obj{"name": "in"})["id"].(string)
	made := r.write("group-alias", obj{"name": "staff", "mount_accessor": "ldap", "canonical_id": ext})
	id := made["id"].(string)
	if got := r.read("group-alias/id/" + id); got["canonical_id"] != ext || got["mount_path"] != "auth/ldap/" || got["name"] != "staff" {
		t.Errorf("a group's alias is read as %v", got)
	}
	alias := r.read("group/id/" + ext)["alias"].(obj)
	if _, has := alias["metadata"]; !has || alias["id"] != id {
		t.Errorf("with its group it is read as %v", alias)
	}
	r.refused(errs.Invalid, wire.OpUpdate, "group-alias", obj{"name": "y", "mount_accessor": "ldap", "canonical_id": in})
	r.refused(errs.Invalid, wire.OpUpdate, "group-alias", obj{"name": "y", "mount_accessor": "none", "canonical_id": ext})
	r.refused(errs.Invalid, wire.OpUpdate, "group-alias", obj{"name": "y", "mount_accessor": "ldap", "canonical_id": "none"})
	r.refused(errs.Invalid, wire.OpUpdate, "group-alias", obj{"mount_accessor": "ldap"})
	r.refused(errs.Invalid, wire.OpUpdate, "group-alias/id/none", obj{"name": "y"})
	fresh := r.write("group-alias", obj{"name": "admins", "mount_accessor": "ldap"})["canonical_id"].(string)
	if got := r.read("group/id/" + fresh); got["type"] != "external" {
		t.Errorf("an alias without a group makes %v, want an external group", got)
	}
	r.refused(errs.Invalid, wire.OpUpdate, "group-alias/id/"+id, obj{"name": "Admins"})

	ann := r.login(engine.AliasLogin{Accessor: "ldap", Name: "ann", Groups: []string{"staff"}})
	r.write("group-alias/id/"+id, obj{"canonical_id": fresh})
	if got := r.read("group/id/" + ext)["alias"].(obj); len(got) > 0 {
		t.Errorf("the group that the alias has left has %v", got)
	}
	// The old alias of the other group is gone with that.
	if got := r.write("lookup/group", obj{"alias_name": "admins", "alias_mount_accessor": "ldap"}); got != nil {
		t.Errorf("a replaced alias finds %v", got)
	}
	who := r.login(engine.AliasLogin{Accessor: "ldap", Name: "ann", Groups: []string{"staff"}})
	if who.ID != ann.ID || !slices.ContainsFunc(who.Groups, func(g engine.IdentifiedGroup) bool { return g.ID == fresh }) {
		t.Errorf("after the alias was moved the groups are %v, want %s among them", who.Groups, fresh)
	}
	r.must(wire.OpDelete, "group-alias/id/"+id, "")
	r.refused(errs.NotFound, wire.OpList, "group-alias/id/", nil)
}

// TestExternalGroupsThatLost what filled them give nothing any more: to tokens
// that there are, at once, and whichever way the person logs in next.
func TestExternalGroupsThatLost(t *testing.T) {
	for what, lose := range map[string]func(r *rig, group, alias string, ann *engine.Identified){
		"its alias": func(r *rig, _, alias string, _ *engine.Identified) {
			r.must(wire.OpDelete, "group-alias/id/"+alias, "")
		},
		"its alias's name": func(r *rig, _, alias string, _ *engine.Identified) {
			r.write("group-alias/id/"+alias, obj{"name": "interns"})
		},
		"its alias to one of another mount": func(r *rig, group, alias string, _ *engine.Identified) {
			r.write("group-alias/id/"+alias, obj{"name": "staff", "mount_accessor": "up", "canonical_id": group})
		},
		"its mount": func(r *rig, _, _ string, _ *engine.Identified) {
			if err := r.e.DropMount(r.ctx, "ldap"); err != nil {
				r.Fatalf("DropMount = %v", err)
			}
		},
		"the person's alias": func(r *rig, _, _ string, ann *engine.Identified) {
			for _, a := range ann.Aliases {
				if a.Accessor == "ldap" {
					r.must(wire.OpDelete, "entity-alias/id/"+a.ID, "")
				}
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := start(t)
			defer r.close()
			group := r.write("group", obj{"name": "staff", "type": "external", "policies": "staff"})["id"].(string)
			outer := r.write("group", obj{"name": "outer", "policies": "outer", "member_group_ids": group})["id"].(string)
			alias := r.write("group-alias", obj{"name": "staff", "mount_accessor": "ldap", "canonical_id": group})["id"].(string)
			id := r.login(engine.AliasLogin{Accessor: "up", Name: "ann"}).ID
			r.write("entity-alias", obj{"name": "ann", "mount_accessor": "ldap", "canonical_id": id})
			ann := r.login(engine.AliasLogin{Accessor: "ldap", Name: "ann", Groups: []string{"staff"}})
			if ann.ID != id || !slices.Equal(ann.Policies, []string{"outer", "staff"}) {
				t.Fatalf("at first ann is %+v", ann)
			}
			lose(r, group, alias, ann)
			if who := r.who(id); len(who.Policies)+len(who.Groups) > 0 {
				t.Errorf("then her tokens have %v by %v, want nothing", who.Policies, who.Groups)
			}
			if got := list(r.read("entity/id/" + id)["group_ids"]); len(got) > 0 {
				t.Errorf("then she is shown in %v", got)
			}
			if who := r.login(engine.AliasLogin{Accessor: "up", Name: "ann"}); who.ID != id || len(who.Policies) > 0 || len(who.Stale) > 0 {
				t.Errorf("after the next login she is %+v, want nothing left", who)
			}
			if got := list(r.read("group/id/" + group)["member_entity_ids"]); len(got) > 0 {
				t.Errorf("after the next login the group has %v", got)
			}
			r.must(wire.OpDelete, "group/id/"+outer, "")
		})
	}
}

// TestDeepGroups: however a chain of groups is put together, it ends somewhere:
// all of it is read for whoever is at its lower end.
func TestDeepGroups(t *testing.T) {
	for _, upwards := range []bool{true, false} {
		r := start(t)
		defer r.close()
		ann := r.login(engine.AliasLogin{Accessor: "up", Name: "ann"}).ID
		var ids []string
		for i := range 60 {
			ids = append(ids, r.write("group", obj{"name": fmt.Sprint("g", i)})["id"].(string))
		}
		r.write("group/id/"+ids[0], obj{"member_entity_ids": ann})
		refused := false
		for i := range len(ids) - 1 {
			at := i // each new one above those there are
			if !upwards {
				at = len(ids) - 2 - i // each new one below
			}
			_, err := r.do(wire.OpUpdate, "group/id/"+ids[at+1], text(obj{"member_group_ids": ids[at]}))
			refused = refused || errs.Is(err, errs.Invalid)
		}
		if n := len(r.who(ann).Groups); !refused || n > 41 {
			t.Errorf("with new groups above (%v) ann is in %d groups, refused was %v; want 41 at most", upwards, n, refused)
		}
	}
}

// TestLargeGroups has one with more members than any transaction holds, and an
// entity in more groups than any does.
func TestLargeGroups(t *testing.T) {
	r := start(t)
	defer r.close()
	const many = 1000
	var ids []string
	for i := range many {
		ids = append(ids, r.login(engine.AliasLogin{Accessor: "up", Name: fmt.Sprint("u", i)}).ID)
	}
	g := r.write("group", obj{"name": "all", "policies": "all", "member_entity_ids": ids})["id"].(string)
	if got := len(list(r.read("group/id/" + g)["member_entity_ids"])); got != many {
		t.Fatalf("the group has %d members, want %d", got, many)
	}
	r.write("group/id/"+g, obj{"member_entity_ids": ids[500:]})
	if who := r.who(ids[0]); len(who.Policies) > 0 {
		t.Errorf("who was taken out has %v", who.Policies)
	}
	if who := r.who(ids[many-1]); len(who.Policies) != 1 {
		t.Errorf("who stayed has %v", who.Policies)
	}
	one := ids[many-1]
	for i := range 200 {
		r.write("group", obj{"name": fmt.Sprint("g", i), "member_entity_ids": []string{one}})
	}
	other := ids[0]
	r.write("entity-alias", obj{"id": r.who(other).Aliases[0].ID, "mount_accessor": "ldap"})
	r.write("entity/merge", obj{"from_entity_ids": one, "to_entity_id": other})
	if who := r.who(one); who.ID != other || len(who.Groups) != 201 {
		t.Errorf("after merging it is in %d groups, want 201", len(who.Groups))
	}
	r.must(wire.OpDelete, "entity/id/"+other, "")
	if got := r.who(one); got != nil {
		t.Errorf("a deleted entity is %+v", got)
	}
	r.must(wire.OpDelete, "group/id/"+g, "")
	if left := append(r.keys("gm/"), append(r.keys("eg/"), r.keys("gx/")...)...); len(left) > 0 {
		t.Errorf("%d membership rows are left, such as %s", len(left), left[0])
	}
}

// TestNamesWithSlashes: a name with a slash is one in a path, too.
func TestNamesWithSlashes(t *testing.T) {
	r := start(t)
	defer r.close()
	for _, kind := range []string{"entity", "group"} {
		id := r.write(kind, obj{"name": "team/app"})["id"]
		if got := r.read(kind + "/name/team/app"); got["id"] != id {
			t.Errorf("%s: by its name it is read as %v", kind, got)
		}
		r.write(kind+"/name/Team/App", obj{"policies": "p"})
		if keys := list(r.must(wire.OpList, kind+"/name/", "")["keys"]); len(keys) != 1 || keys[0] != "Team/App" {
			t.Errorf("%s: names are listed as %v", kind, keys)
		}
		r.must(wire.OpDelete, kind+"/name/team/app", "")
		r.refused(errs.NotFound, wire.OpRead, kind+"/name/team/app", nil)
	}
}

// TestGroupPoliciesKeepTheirOrder: they read as they were given.
func TestGroupPoliciesKeepTheirOrder(t *testing.T) {
	r := start(t)
	defer r.close()
	r.write("group", obj{"name": "g", "policies": []string{"p2", " p1", "P2", "", "p1"}})
	if got := r.read("group/name/g")["policies"]; fmt.Sprint(got) != "[p2 p1]" {
		t.Errorf("the policies are %v, want [p2 p1]", got)
	}
}

// TestMergeKeepsGroupsOfTheAliasThatStays: of two aliases of one mount the one
// that goes takes along the external groups that it was the way into.
func TestMergeKeepsGroupsOfTheAliasThatStays(t *testing.T) {
	for _, kept := range []string{"ann", "bob"} {
		t.Run(kept, func(t *testing.T) {
			r := start(t)
			defer r.close()
			// Ann is in more than one step of a merge takes.
			in := map[string][]string{"bob": {"web"}}
			for i := range 100 {
				in["ann"] = append(in["ann"], fmt.Sprint("ops", i))
			}
			for _, name := range append(slices.Clone(in["ann"]), in["bob"]...) {
				id := r.write("group", map[string]any{"name": name, "type": "external"})["id"]
				r.write("group-alias", map[string]any{"name": name, "mount_accessor": "ldap", "canonical_id": id})
			}
			ann := r.login(engine.AliasLogin{Accessor: "ldap", Name: "ann", Groups: in["ann"]})
			bob := r.login(engine.AliasLogin{Accessor: "ldap", Name: "bob", Groups: in["bob"]})
			keep := map[string]*engine.Identified{"ann": ann, "bob": bob}[kept].Aliases[0].ID
			own := r.write("group", map[string]any{"name": "own", "member_entity_ids": []string{ann.ID}})["id"].(string)
			r.write("entity/merge", map[string]any{"from_entity_ids": ann.ID, "to_entity_id": bob.ID, "conflicting_alias_ids_to_keep": keep})
			var names []string
			for _, g := range r.who(bob.ID).Groups {
				names = append(names, g.Name)
			}
			slices.Sort(names)
			want := append(slices.Clone(in[kept]), "own")
			slices.Sort(want)
			if !slices.Equal(names, want) {
				t.Errorf("with %s's alias they are in %d groups, %.100q, want %d: %.100q", kept, len(names), names, len(want), want)
			}
			if members := r.keys("gm/"); len(members) != len(want) {
				t.Errorf("there are %d memberships, want %d", len(members), len(want))
			}
			if !slices.Contains(r.keys("gm/"), "gm/"+own+"/"+bob.ID) {
				t.Error("they are not in the group that a person has put them in")
			}
		})
	}
}

// TestAliasThatGoesLeavesItsGroups: who gets an alias of the same mount later
// is not in the groups that the one before was the way into.
func TestAliasThatGoesLeavesItsGroups(t *testing.T) {
	other := func(r *rig) string { return r.write("entity", map[string]any{"name": "other"})["id"].(string) }
	for name, part := range map[string]func(r *rig, alias string){
		"deleted": func(r *rig, alias string) { r.must(wire.OpDelete, "entity-alias/id/"+alias, "") },
		"moved": func(r *rig, alias string) {
			r.write("entity-alias/id/"+alias, map[string]any{"canonical_id": other(r)})
		},
		"of another mount": func(r *rig, alias string) {
			r.write("entity-alias/id/"+alias, map[string]any{"mount_accessor": "up"})
		},
	} {
		t.Run(name, func(t *testing.T) { aliasGoes(t, part) })
	}
}

func aliasGoes(t *testing.T, part func(r *rig, alias string)) {
	r := start(t)
	defer r.close()
	var names []string
	for i := range 100 { // more than one step takes
		name := fmt.Sprint("ops", i)
		id := r.write("group", map[string]any{"name": name, "type": "external"})["id"]
		r.write("group-alias", map[string]any{"name": name, "mount_accessor": "ldap", "canonical_id": id})
		names = append(names, name)
	}
	who := r.login(engine.AliasLogin{Accessor: "ldap", Name: "ann", Groups: names})
	own := r.write("group", map[string]any{"name": "own", "member_entity_ids": []string{who.ID}})["id"].(string)
	part(r, who.Aliases[0].ID)
	r.write("entity-alias", map[string]any{"name": "bob", "mount_accessor": "ldap", "canonical_id": who.ID})
	who = r.who(who.ID)
	if last := len(who.Aliases) - 1; who.Aliases[last].Name != "bob" || len(who.Groups) != 1 || who.Groups[0].ID != own {
		t.Errorf("with the aliases %+v they are in %d groups, want bob in the group that a person has put them in", who.Aliases, len(who.Groups))
	}
	if left := r.keys("gm/"); !slices.Equal(left, []string{"gm/" + own + "/" + who.ID}) {
		t.Errorf("there are %d memberships, want one", len(left))
	}
}
