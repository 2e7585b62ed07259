package identity_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

// model is what the engine is to know, as simply as it can be said: maps, and
// groups that are walked.
type model struct {
	entities map[string]*person
	groups   map[string]*circle
	merged   map[string]string // into which entity one went
	ever     []string          // the ids of all entities there have been
}

type person struct {
	policy   string
	disabled bool
	aliases  map[string]string // the name, by accessor
	groups   map[string]string // by which alias of a group, "accessor/name"; "" for an internal one
}

// in are the groups that somebody is directly in: external ones as long as both
// sides still have the alias by which a login led there.
func (m *model) in(p *person) map[string]bool {
	out := map[string]bool{}
	for id, by := range p.groups {
		at, _, _ := strings.Cut(by, "/")
		if by == "" || m.groups[id].alias == by && p.aliases[at] != "" {
			out[id] = true
		}
	}
	return out
}

// lose takes away somebody's alias of a mount, leave the groups that it led to.
func (p *person) lose(at string) {
	delete(p.aliases, at)
	p.leave(at)
}

func (p *person) leave(at string) {
	maps.DeleteFunc(p.groups, func(_, by string) bool { return strings.HasPrefix(by, at+"/") })
}

type circle struct {
	policy   string
	external bool
	alias    string // "accessor/name"
	children map[string]bool
}

func (m *model) resolve(id string) string {
	for m.entities[id] == nil && m.merged[id] != "" {
		id = m.merged[id]
	}
	return id
}

// above are the groups that some are in, themselves included.
func (m *model) above(ids map[string]bool) map[string]bool {
	out := maps.Clone(ids)
	for grown := true; grown; {
		grown = false
		for id, g := range m.groups {
			for child := range g.children {
				if out[child] && !out[id] {
					out[id], grown = true, true
				}
			}
		}
	}
	return out
}

func (m *model) byAlias(accessor, name string) string {
	for id, p := range m.entities {
		if p.aliases[accessor] == name {
			return id
		}
	}
	return ""
}

func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := startFor(rt, t)
		defer r.close()
		m := &model{entities: map[string]*person{}, groups: map[string]*circle{}, merged: map[string]string{}}
		policies := rapid.SampledFrom([]string{"p1", "p2", "p3", "p4"})
		accessors := rapid.SampledFrom([]string{"up", "ldap"})
		names := rapid.SampledFrom([]string{"ann", "bob", "carl"})
		entity := func(rt *rapid.T) string {
			ids := slices.Sorted(maps.Keys(m.entities))
			if len(ids) == 0 {
				rt.Skip("no entity")
			}
			return rapid.SampledFrom(ids).Draw(rt, "entity")
		}
		group := func(rt *rapid.T) string {
			ids := slices.Sorted(maps.Keys(m.groups))
			if len(ids) == 0 {
				rt.Skip("no group")
			}
			return rapid.SampledFrom(ids).Draw(rt, "group")
		}
		some := func(rt *rapid.T, from []string, label string) map[string]bool {
			out := map[string]bool{}
			for _, id := range from {
				if rapid.Bool().Draw(rt, label) {
					out[id] = true
				}
			}
			return out
		}
		rt.Repeat(map[string]func(*rapid.T){
			"make an entity": func(rt *rapid.T) {
				p := policies.Draw(rt, "policy")
				id := r.write("entity", obj{"policies": p})["id"].(string)
				m.entities[id] = &person{policy: p, aliases: map[string]string{}, groups: map[string]string{}}
				m.ever = append(m.ever, id)
			},
			"change an entity": func(rt *rapid.T) {
				p := m.entities[entity(rt)]
				for id, q := range m.entities {
					if p == q {
						p.policy, p.disabled = policies.Draw(rt, "policy"), rapid.Bool().Draw(rt, "disabled")
						r.write("entity/id/"+id, obj{"policies": p.policy, "disabled": p.disabled})
					}
				}
			},
			"delete an entity": func(rt *rapid.T) {
				id := entity(rt)
				r.must(wire.OpDelete, "entity/id/"+id, "")
				delete(m.entities, id)
			},
			"log in": func(rt *rapid.T) {
				l := engine.AliasLogin{Accessor: accessors.Draw(rt, "accessor"), Name: names.Draw(rt, "name")}
				l.Metadata = map[string]string{"n": fmt.Sprint(rapid.IntRange(0, 1).Draw(rt, "metadata"))}
				for name := range some(rt, []string{"red", "green"}, "said groups") {
					l.Groups = append(l.Groups, name)
				}
				id := m.byAlias(l.Accessor, l.Name)
				who := r.login(engine.AliasLogin{
					Accessor: l.Accessor, Name: strings.ToUpper(l.Name), Metadata: l.Metadata, Groups: l.Groups,
				})
				if id == "" {
					id = who.ID
					m.entities[id] = &person{aliases: map[string]string{l.Accessor: l.Name}, groups: map[string]string{}}
					m.ever = append(m.ever, id)
				}
				if who.ID != id {
					rt.Fatalf("the login of %s at %s is %s's, want %s's", l.Name, l.Accessor, who.ID, id)
				}
				if m.entities[id].disabled {
					return
				}
				for gid, g := range m.groups {
					p := m.entities[id]
					if g.external && !m.in(p)[gid] {
						delete(p.groups, gid)
					}
					accessor, name, ok := strings.Cut(g.alias, "/")
					if !ok || accessor != l.Accessor {
						continue
					}
					delete(p.groups, gid)
					if slices.Contains(l.Groups, name) {
						p.groups[gid] = g.alias
					}
				}
			},
			"delete an alias": func(rt *rapid.T) {
				id, at := entity(rt), accessors.Draw(rt, "accessor")
				for _, a := range r.who(id).Aliases {
					if a.Accessor == at {
						r.must(wire.OpDelete, "entity-alias/id/"+a.ID, "")
						m.entities[id].lose(at)
					}
				}
			},
			"write an alias": func(rt *rapid.T) {
				id, at, name := entity(rt), accessors.Draw(rt, "accessor"), names.Draw(rt, "name")
				owner := m.byAlias(at, name)
				_, err := r.do(wire.OpUpdate, "entity-alias", text(obj{"name": name, "mount_accessor": at, "canonical_id": id}))
				switch has := m.entities[id].aliases[at]; {
				case owner == id:
				case has != "":
					if !errs.Is(err, errs.Invalid) {
						rt.Fatalf("a second alias of one mount = %v, want it refused", err)
					}
					return
				case owner != "":
					m.entities[owner].lose(at)
				}
				if err != nil {
					rt.Fatalf("writing an alias = %v", err)
				}
				m.entities[id].aliases[at] = name
			},
			"remove a mount": func(rt *rapid.T) {
				at := accessors.Draw(rt, "accessor")
				if err := r.e.DropMount(t.Context(), at); err != nil {
					rt.Fatalf("DropMount = %v", err)
				}
				for _, p := range m.entities {
					delete(p.aliases, at)
				}
				for _, g := range m.groups {
					if strings.HasPrefix(g.alias, at+"/") {
						g.alias = ""
					}
				}
			},
			"make a group": func(rt *rapid.T) {
				g := &circle{policy: policies.Draw(rt, "policy"), external: rapid.Bool().Draw(rt, "external"), children: map[string]bool{}}
				body := obj{"policies": g.policy}
				members := map[string]bool{}
				if g.external {
					body["type"] = "external"
				} else {
					members = some(rt, slices.Sorted(maps.Keys(m.entities)), "members")
					g.children = some(rt, slices.Sorted(maps.Keys(m.groups)), "children")
					body["member_entity_ids"], body["member_group_ids"] = slices.Collect(maps.Keys(members)), slices.Collect(maps.Keys(g.children))
				}
				id := r.write("group", body)["id"].(string)
				m.groups[id] = g
				for e := range members {
					m.entities[e].groups[id] = ""
				}
			},
			"change a group": func(rt *rapid.T) {
				id := group(rt)
				g := m.groups[id]
				if g.external {
					rt.Skip("external")
				}
				members := some(rt, slices.Sorted(maps.Keys(m.entities)), "members")
				children := some(rt, slices.Sorted(maps.Keys(m.groups)), "children")
				policy := policies.Draw(rt, "policy")
				_, err := r.do(wire.OpUpdate, "group/id/"+id, text(obj{
					"policies": policy, "member_entity_ids": slices.Collect(maps.Keys(members)),
					"member_group_ids": slices.Collect(maps.Keys(children)),
				}))
				for child := range m.above(map[string]bool{id: true}) {
					if children[child] && !g.children[child] {
						if !errs.Is(err, errs.Invalid) {
							rt.Fatalf("a cycle = %v, want it refused", err)
						}
						return
					}
				}
				if err != nil {
					rt.Fatalf("changing a group = %v", err)
				}
				g.policy, g.children = policy, children
				for e, p := range m.entities {
					delete(p.groups, id)
					if members[e] {
						p.groups[id] = ""
					}
				}
			},
			"delete a group": func(rt *rapid.T) {
				id := group(rt)
				r.must(wire.OpDelete, "group/id/"+id, "")
				delete(m.groups, id)
				for _, g := range m.groups {
					delete(g.children, id)
				}
				for _, p := range m.entities {
					delete(p.groups, id)
				}
			},
			"write a group's alias": func(rt *rapid.T) {
				id := group(rt)
				if !m.groups[id].external {
					rt.Skip("internal")
				}
				at, name := accessors.Draw(rt, "accessor"), rapid.SampledFrom([]string{"red", "green"}).Draw(rt, "said name")
				r.write("group-alias", obj{"name": name, "mount_accessor": at, "canonical_id": id})
				for _, g := range m.groups {
					if g.alias == at+"/"+name {
						g.alias = ""
					}
				}
				m.groups[id].alias = at + "/" + name
			},
			"merge": func(rt *rapid.T) {
				from, to := entity(rt), entity(rt)
				keep := rapid.SampledFrom([]string{"", from, to}).Draw(rt, "keep")
				body := obj{"from_entity_ids": from, "to_entity_id": to}
				clash := ""
				for at := range m.entities[from].aliases {
					if m.entities[to].aliases[at] != "" {
						clash = at
					}
				}
				if keep != "" {
					var ids []string
					for _, a := range r.who(keep).Aliases {
						ids = append(ids, a.ID)
					}
					body["conflicting_alias_ids_to_keep"] = ids
				}
				_, err := r.do(wire.OpUpdate, "entity/merge", text(body))
				if from == to || clash != "" && keep == "" {
					if !errs.Is(err, errs.Invalid) {
						rt.Fatalf("a merge that cannot be = %v, want it refused", err)
					}
					return
				}
				if err != nil {
					rt.Fatalf("merging = %v", err)
				}
				for at, name := range m.entities[from].aliases {
					if m.entities[to].aliases[at] != "" {
						loser := from
						if keep == from {
							loser = to
						}
						m.entities[loser].leave(at)
					}
					if m.entities[to].aliases[at] == "" || keep == from {
						m.entities[to].aliases[at] = name
					}
				}
				for id, by := range m.entities[from].groups {
					if _, there := m.entities[to].groups[id]; !there || by != "" && by == m.groups[id].alias {
						m.entities[to].groups[id] = by
					}
				}
				delete(m.entities, from)
				m.merged[from] = to
			},
			"restart": func(*rapid.T) { r.load() },
			"": func(rt *rapid.T) {
				for _, id := range m.ever {
					m.check(rt, r, id)
				}
			},
		})
		for id := range m.entities {
			r.must(wire.OpDelete, "entity/id/"+id, "")
		}
		for id := range m.groups {
			r.must(wire.OpDelete, "group/id/"+id, "")
		}
		// What an entity was merged into may have been deleted before it was
		// itself merged by nobody: no other row may be left.
		if left := r.keys(""); len(left) > 0 {
			rt.Fatalf("rows are left: %v", left)
		}
	})
}

// check compares what the engine says of an entity with the model.
func (m *model) check(rt *rapid.T, r *rig, id string) {
	who := r.who(id)
	live := m.resolve(id)
	p := m.entities[live]
	if who == nil || p == nil {
		if (who == nil) != (p == nil) {
			rt.Fatalf("entity %s is %+v, want %+v", id, who, p)
		}
		return
	}
	want := map[string]bool{}
	if p.policy != "" {
		want[p.policy] = true
	}
	direct := m.in(p)
	groups := m.above(direct)
	for g := range groups {
		want[m.groups[g].policy] = true
	}
	if got := slices.Sorted(maps.Keys(want)); who.ID != live || who.Disabled != p.disabled || !slices.Equal(who.Policies, got) {
		rt.Fatalf("entity %s is %+v, want %s with policies %v", id, who, live, got)
	}
	if len(who.Groups) != len(groups) {
		rt.Fatalf("entity %s is in %v, want %v", id, who.Groups, groups)
	}
	for _, g := range who.Groups {
		if !groups[g.ID] || g.Direct != direct[g.ID] {
			rt.Fatalf("entity %s is in %+v, want in %v, directly in %v", id, g, groups, direct)
		}
	}
	aliases := map[string]string{}
	for _, a := range who.Aliases {
		aliases[a.Accessor] = strings.ToLower(a.Name)
	}
	if !maps.Equal(aliases, p.aliases) {
		rt.Fatalf("entity %s has the aliases %v, want %v", id, aliases, p.aliases)
	}
}
