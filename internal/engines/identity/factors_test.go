package identity_test

import (
	"testing"

	"github.com/leasehold/leasehold/internal/engine"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

// TestSecondFactorsFollowTheirEntity: a person keeps the second factor when two
// entities become one, and nothing is left of it when the entity goes.
func TestSecondFactorsFollowTheirEntity(t *testing.T) {
	r := start(t)
	defer r.close()
	made := func(path string, body obj) string {
		t.Helper()
		id, _ := r.write(path, body)["id"].(string)
		return id
	}
	method, _ := r.write("mfa/method/totp", obj{"issuer": "x"})["method_id"].(string)
	from, to := made("entity", obj{"name": "from"}), made("entity", obj{"name": "to"})
	// enrolled tries to make a secret, which answers nothing where there is one.
	enrolled := func(entity string) bool {
		t.Helper()
		return r.write("mfa/method/totp/admin-generate", obj{"method_id": method, "entity_id": entity}) == nil
	}
	for _, entity := range []string{from, to} {
		if enrolled(entity) {
			t.Fatalf("a new entity has a secret")
		}
	}
	merge := obj{"from_entity_ids": from, "to_entity_id": to}
	r.refused(errs.Invalid, wire.OpUpdate, "entity/merge", merge)
	r.must(wire.OpRead, "entity/id/"+from, "")
	r.write("mfa/method/totp/admin-destroy", obj{"method_id": method, "entity_id": to})
	r.write("entity/merge", merge)
	if !enrolled(to) {
		t.Error("the secret did not go with its entity into the other")
	}
	again := made("entity", obj{"name": "again"})
	enrolled(again)
	r.write("entity/merge", obj{"from_entity_ids": again, "to_entity_id": to, "force": true})
	r.must(wire.OpDelete, "entity/id/"+to, "")
	r.refused(errs.Invalid, wire.OpUpdate, "mfa/method/totp/admin-generate", obj{"method_id": method, "entity_id": to})
	if left := r.keys("mfa/secret/"); len(left) > 0 {
		t.Errorf("the rows %v are left of entities that are gone", left)
	}
}

// TestEnforcementsFollowTheirEntity: whoever needs a second factor needs it
// under whichever name they are merged into.
func TestEnforcementsFollowTheirEntity(t *testing.T) {
	r := start(t)
	defer r.close()
	method, _ := r.write("mfa/method/totp", obj{"issuer": "x"})["method_id"].(string)
	from := r.login(engine.AliasLogin{Accessor: "up", Name: "ann"})
	to := r.write("entity", obj{"name": "to"})["id"].(string)
	r.write("mfa/login-enforcement/guard", obj{"mfa_method_ids": method, "identity_entity_ids": from.ID})
	needed := func() bool {
		t.Helper()
		who := r.login(engine.AliasLogin{Accessor: "up", Name: "ann"})
		d, err := r.e.Demand(r.ctx, engine.FactorLogin{Accessor: "up", Type: "userpass", Who: who})
		if err != nil {
			t.Fatal(err)
		}
		return d != nil
	}
	if !needed() {
		t.Fatal("before the merge no second factor is needed")
	}
	r.write("entity/merge", obj{"from_entity_ids": from.ID, "to_entity_id": to})
	if !needed() {
		t.Error("after the merge no second factor is needed")
	}
}

// TestEnforcementsNameWhatIsThere: one that names nobody would hold for nobody.
func TestEnforcementsNameWhatIsThere(t *testing.T) {
	r := start(t)
	defer r.close()
	method, _ := r.write("mfa/method/totp", obj{"issuer": "x"})["method_id"].(string)
	entity := r.write("entity", obj{"name": "ann"})["id"].(string)
	group := r.write("group", obj{"name": "people"})["id"].(string)
	for field, id := range map[string]string{
		"auth_method_accessors": "up", "auth_method_types": "ldap", "identity_entity_ids": entity, "identity_group_ids": group,
	} {
		r.refused(errs.Invalid, wire.OpUpdate, "mfa/login-enforcement/e", obj{"mfa_method_ids": method, field: id + "x"})
		r.write("mfa/login-enforcement/e", obj{"mfa_method_ids": method, field: id})
	}
	// One who went since does not stand in the way of a change elsewhere.
	r.must(wire.OpDelete, "entity/id/"+entity, "")
	r.write("mfa/login-enforcement/e", obj{"auth_method_types": "userpass"})
}
