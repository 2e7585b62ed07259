package database_test

import (
	"testing"

	"github.com/leasehold/leasehold/internal/errs"
)

// Statements that run and leave the password as it was lock nobody out: it is
// what lets the managing user in that counts.
func TestRotationThatSetsNoPassword(t *testing.T) {
	r := newRig(t, 0)
	r.connect(object{"root_rotation_statements": []string{"SELECT '{{username}}'"}})
	if a := r.write("rotate-root/main", nil); kindOf(a.err) != errs.Invalid {
		t.Errorf("rotating by statements that set no password = %v, want Invalid", a.err)
	}
	r.stop()
	r.start()
	r.mustIssue("app")
	r.mustWrite("config/main", object{"root_rotation_statements": []string{`ALTER ROLE "{{username}}" PASSWORD '{{password}}'`}})
	r.mustWrite("rotate-root/main", nil)
	if _, err := r.pg.QueryAs(t.Context(), r.manager, "manager-pw", r.db, "SELECT 1"); err == nil {
		t.Error("the old password works after a rotation by own statements")
	}
	r.stop()
	r.start()
	r.mustIssue("app")
}
