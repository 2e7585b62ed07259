package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/leasehold/leasehold/internal/engines/database/statements"
	"github.com/leasehold/leasehold/internal/testenv"
)

// PostgreSQL itself reads every value back as it was put in: our reading of its
// quotes is its own.
func TestServerReadsValuesBack(t *testing.T) {
	p := testenv.SharedPostgres(t, testenv.Config{})
	conn, err := pgx.Connect(t.Context(), p.Super("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	set, err := statements.Compile([]string{
		`SELECT '<{{password}}>' /* /* ' */ $$ */, E'\\<{{password}}>\\'` + "\n" + `, $t$'{{name}}'$t$, '{{name}}' AS "<{{password}}>" -- ' {{name}}`})
	if err != nil {
		t.Fatal(err)
	}
	const name = "v-token-app"
	for _, value := range []string{
		"plain", `'`, `''`, `\`, `\'`, `\\'; DROP ROLE root; --`, `"`, `""`, `$$`, `$t$`, `/*`, `*/`, `--`, "line\nbreak", "tab\t", `{{name}}`, "ünïcödé", `%s%d`, `:name`, `;`,
	} {
		sql, err := set.Render(statements.Values{Name: name, Password: value})
		if err != nil {
			t.Errorf("Render with %q: %v", value, err)
			continue
		}
		results, err := conn.PgConn().Exec(t.Context(), sql[0]).ReadAll()
		if err != nil || len(results) != 1 {
			t.Errorf("%q: %d results, %v, of %s", value, len(results), err, sql[0])
			continue
		}
		row := results[0].Rows[0]
		if got, want := string(row[0]), "<"+value+">"; got != want {
			t.Errorf("in '': %q, want %q", got, want)
		}
		if got, want := string(row[1]), `\<`+value+`>\`; got != want {
			t.Errorf("in E'': %q, want %q", got, want)
		}
		if got, want := string(row[2]), "'"+name+"'"; got != want {
			t.Errorf("in $t$: %q, want %q", got, want)
		}
		if got, want := results[0].FieldDescriptions[3].Name, "<"+value+">"; got != want {
			t.Errorf(`in "": %q, want %q`, got, want)
		}
	}
}
