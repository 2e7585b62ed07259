package clienttest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
	"github.com/leasehold/leasehold/internal/testenv"
)

// TestTransitColumn runs the program that encrypts a column, with a token for
// each of its parts: who writes cannot read, and who rewraps does neither.
func TestTransitColumn(t *testing.T) {
	program := filepath.Join(t.TempDir(), "transit-column")
	if out, err := exec.Command("go", "build", "-o", program, "../../examples/transit-column").CombinedOutput(); err != nil {
		t.Fatalf("building examples/transit-column: %v\n%s", err, out)
	}
	pg := testenv.SharedPostgres(t, testenv.Config{})
	db := pg.NewDatabase(t)
	srv := leaseholdtest.Start(t, leaseholdtest.Config{})
	write(t, srv, "sys/mounts/transit", `{"type":"transit"}`)
	write(t, srv, "transit/keys/shop", `{"derived":true}`)
	tokens := map[string]string{}
	for name, rules := range map[string]string{
		"writer":    `path \"transit/encrypt/shop\" { capabilities = [\"update\"] }`,
		"reader":    `path \"transit/decrypt/shop\" { capabilities = [\"update\"] }`,
		"rewrapper": `path \"transit/rewrap/shop\" { capabilities = [\"update\"] } path \"transit/keys/shop\" { capabilities = [\"read\"] }`,
	} {
		write(t, srv, "sys/policies/acl/"+name, `{"policy":"`+rules+`"}`)
		var out struct {
			Auth struct {
				ClientToken string `json:"client_token"`
			} `json:"auth"`
		}
		if err := srv.Call(t.Context(), "POST", "auth/token/create", srv.Root, rawJSON(`{"policies":["`+name+`"]}`), &out); err != nil {
			t.Fatal(err)
		}
		tokens[name] = out.Auth.ClientToken
	}
	as := func(who string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), program, append([]string{"-db", pg.Super(db)}, args...)...)
		cmd.Env = append(os.Environ(), "VAULT_ADDR="+srv.Addr, "VAULT_TOKEN="+tokens[who])
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(who, want string, args ...string) {
		t.Helper()
		if out, err := as(who, args...); err != nil || out != want {
			t.Fatalf("%s as %s: %v\n%s, want\n%s", args, who, err, out, want)
		}
	}
	must("writer", "added ann\n", "add", "ann", "4111 1111 1111 1111")
	must("writer", "added bob\n", "add", "bob", "5500 0000 0000 0004")
	must("reader", "ann 4111 1111 1111 1111\nbob 5500 0000 0000 0004\n", "list")
	if out, err := as("writer", "list"); err == nil {
		t.Errorf("the writer reads:\n%s", out)
	}
	write(t, srv, "transit/keys/shop/rotate", `{}`)
	must("writer", "added cat\n", "add", "cat", "3400 0000 0000 009")
	must("rewrapper", "rewrapped 2 rows\n", "rewrap")
	must("rewrapper", "rewrapped 0 rows\n", "rewrap")
	write(t, srv, "transit/keys/shop/config", `{"min_decryption_version":2}`)
	must("reader", "ann 4111 1111 1111 1111\nbob 5500 0000 0000 0004\ncat 3400 0000 0000 009\n", "list")

	if card := pg.Query(t, db, `SELECT card FROM customers WHERE name = 'ann'`); !strings.HasPrefix(card, "vault:v2:") {
		t.Fatalf("the column holds %q", card)
	}
	pg.Exec(t, db, `UPDATE customers SET card = (SELECT card FROM customers WHERE name = 'ann') WHERE name = 'bob'`)
	if out, err := as("reader", "list"); err == nil || !strings.Contains(out, "authentication failed") {
		t.Errorf("a card in another's row opens: %v\n%s", err, out)
	}
}
