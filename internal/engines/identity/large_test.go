package identity_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// Rows that are each within their limits may together be more than one
// transaction takes. What goes through them page by page ends all the same.

func TestDropMountOfLargeEntities(t *testing.T) {
	r := start(t)
	defer r.close()
	large := map[string]string{"claim": strings.Repeat("x", 60<<10)}
	for i := range 30 {
		name := fmt.Sprint("somebody", i)
		who := r.login(engine.AliasLogin{Accessor: "ldap", Name: name, Metadata: large})
		r.write("entity-alias", map[string]any{"mount_accessor": "up", "name": name, "canonical_id": who.ID})
	}
	if err := r.e.DropMount(r.ctx, "up"); err != nil {
		t.Fatalf("DropMount = %v", err)
	}
	if left := r.keys("al/up/"); len(left) > 0 {
		t.Errorf("%d aliases are left", len(left))
	}
}

func TestGroupOfPeopleInManyGroups(t *testing.T) {
	r := start(t)
	defer r.close()
	many := make([]string, 2000) // groups that are gone: the row is as long as with others
	for i := range many {
		many[i] = fmt.Sprintf("%036d", i)
	}
	var ids []string
	for i := range 40 {
		id := r.login(engine.AliasLogin{Accessor: "ldap", Name: fmt.Sprint("somebody", i)}).ID
		_, err := r.env.Store.Update(r.ctx, func(tx storage.Tx) error {
			return tx.Put("eg/"+id, []byte(text(map[string]any{"v": 1, "in": many})))
		})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	id := r.write("group", map[string]any{"name": "all", "member_entity_ids": ids})["id"].(string)
	if n := len(r.keys("gm/" + id + "/")); n != len(ids) {
		t.Errorf("the group has %d members, want %d", n, len(ids))
	}
	if who := r.who(ids[len(ids)-1]); len(who.Groups) != 1 || who.Groups[0].ID != id {
		t.Errorf("the last of them is in %+v, want the group", who.Groups)
	}
	r.must(wire.OpDelete, "group/id/"+id, "")
	if left := append(r.keys("gm/"+id+"/"), r.keys("gx/")...); len(left) > 0 {
		t.Errorf("after the group's end there are %q", left)
	}
}
