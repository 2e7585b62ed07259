package postgres_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/leasehold/leasehold/internal/lease"
)

// A creation that has passed its last check and is still committing cannot be
// seen. Its role is not called absent.
func TestCommitThatHangs(t *testing.T) {
	onEach(t, func(t *testing.T, l lab) {
		target := l.open(t)
		c := l.creation(t)
		late := ending(c)
		late.Late = true
		if err := end(t, target, late)[0]; !errors.Is(err, lease.ErrAbsent) {
			t.Errorf("End of what was never made = %v, want absent", err)
		}
		hanging, err := pgx.Connect(t.Context(), l.DSN(l.config().Username, l.config().Password.Reveal(), "postgres"))
		if err != nil {
			t.Fatal(err)
		}
		defer hanging.Close(t.Context())
		name := pgx.Identifier{c.Role}.Sanitize()
		if _, err := hanging.Exec(t.Context(), "BEGIN; CREATE ROLE "+name+" LOGIN; COMMENT ON ROLE "+name+" IS '"+c.Mark+"'"); err != nil {
			t.Fatal(err)
		}
		// It waits for the commit's end, and gives up before long.
		if err := end(t, target, late)[0]; err == nil || errors.Is(err, lease.ErrAbsent) {
			t.Errorf("End while the creation commits = %v, want an error to try again", err)
		}
		if _, err := hanging.Exec(t.Context(), "COMMIT"); err != nil {
			t.Fatal(err)
		}
		if err := end(t, target, late)[0]; err != nil || l.exists(t, c.Role) {
			t.Errorf("End once it has committed = %v, the role is there: %v", err, l.exists(t, c.Role))
		}
	})
}
