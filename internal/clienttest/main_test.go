package clienttest_test

import (
	"testing"

	"github.com/leasehold/leasehold/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// loginWorks says whether credentials open a session.
func loginWorks(t *testing.T, pg *testenv.PG, user, password string) bool {
	t.Helper()
	who, err := pg.QueryAs(t.Context(), user, password, "postgres", "SELECT current_user")
	return err == nil && who == user
}
