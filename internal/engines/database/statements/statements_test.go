package statements_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/engines/database/statements"
)

var values = statements.Values{Name: "v-token-ro-abc", Password: "p-w1", Expiration: "2026-11-23 10:00:00+0000"}

func TestRenderForms(t *testing.T) {
	two := `CREATE ROLE "{{name}}" PASSWORD '{{password}}'; GRANT app TO "{{username}}";`
	want := []string{`CREATE ROLE "v-token-ro-abc" PASSWORD 'p-w1'`, `GRANT app TO "v-token-ro-abc"`}
	asJSON := `["CREATE ROLE \"{{name}}\" PASSWORD '{{password}}'", "GRANT app TO \"{{username}}\";"]`
	for _, tt := range []struct {
		name  string
		given []string
	}{
		{"one string", []string{two}},
		{"a list", strings.SplitAfter(two, "; ")},
		{"JSON", []string{asJSON}},
		{"base64", []string{base64.StdEncoding.EncodeToString([]byte(two))}},
		{"base64 in lines", []string{lines(base64.StdEncoding.EncodeToString([]byte(two)))}},
		{"JSON in base64", []string{base64.StdEncoding.EncodeToString([]byte(asJSON))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := statements.Compile(tt.given)
			if err != nil {
				t.Fatalf("Compile(%q): %v", tt.given, err)
			}
			got, err := s.Render(values)
			if err != nil {
				t.Fatalf("Render: %v", err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("Render differs (-want +got):\n%s", d)
			}
		})
	}
}

// lines breaks a text as the tool base64 does.
func lines(s string) string {
	var b strings.Builder
	for ; len(s) > 76; s = s[76:] {
		b.WriteString(s[:76] + "\r\n")
	}
	return b.String() + s + "\n"
}

func TestSplit(t *testing.T) {
	for _, tt := range []struct {
		sql  string
		want []string
	}{
		{"", nil},
		{" ; ;; -- nothing\n /* ; */", nil},
		{"a; b", []string{"a", "b"}},
		{"DROP", []string{"DROP"}}, // four letters that are base64 too
		{"SELECT\nlength", []string{"SELECT\nlength"}},
		{`SELECT ';', "x;y", E'\';', $$;$$, $t$;$$;$t$ -- ;` + "\n/* ; /* ; */ ; */; b", []string{
			`SELECT ';', "x;y", E'\';', $$;$$, $t$;$$;$t$ -- ;` + "\n/* ; /* ; */ ; */", "b"}},
		{`SELECT 'it''s;'; b`, []string{`SELECT 'it''s;'`, "b"}},
		{`SELECT '\'; b`, []string{`SELECT '\'`, "b"}}, // a backslash is a character of a plain literal
		{`SELECT a$b$; c$b$`, []string{"SELECT a$b$", "c$b$"}},
		{`SELECT $1;$2`, []string{"SELECT $1", "$2"}},
		{"CREATE RULE r AS ON INSERT TO t DO (a; b); c", []string{"CREATE RULE r AS ON INSERT TO t DO (a; b)", "c"}},
		{"CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE 1 WHEN 1 THEN 2 END; SELECT 2; END; b", []string{
			"CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE 1 WHEN 1 THEN 2 END; SELECT 2; END", "b"}},
		{"CREATE FUNCTION f(begin int) RETURNS int BEGIN ATOMIC SELECT (CASE begin WHEN 1 THEN 2 END); SELECT 2; END; b", []string{
			"CREATE FUNCTION f(begin int) RETURNS int BEGIN ATOMIC SELECT (CASE begin WHEN 1 THEN 2 END); SELECT 2; END", "b"}},
		{"CREATE FUNCTION f() RETURNS TABLE (begin int) LANGUAGE sql AS 'SELECT 1'; a; b", []string{
			"CREATE FUNCTION f() RETURNS TABLE (begin int) LANGUAGE sql AS 'SELECT 1'", "a", "b"}},
		{"DO $$ BEGIN IF true THEN NULL; END IF; END $$; b", []string{"DO $$ BEGIN IF true THEN NULL; END IF; END $$", "b"}},
	} {
		s, err := statements.Compile([]string{tt.sql})
		if err != nil {
			t.Errorf("Compile(%q): %v", tt.sql, err)
			continue
		}
		got, err := s.Render(values)
		if err != nil {
			t.Errorf("Render(%q): %v", tt.sql, err)
			continue
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("Split(%q) differs (-want +got):\n%s", tt.sql, d)
		}
	}
}

func TestCompileRefuses(t *testing.T) {
	for _, sql := range []string{
		"SELECT 'open", `SELECT "open`, "SELECT $$open", "SELECT /* open /* */", `SELECT E'open\'`,
		"BEGIN", "COMMIT", "a; END", "rollback", "/* x */ START TRANSACTION", "PREPARE TRANSACTION 'x'", "ABORT", "CREATE FUNCTION f(begin int) RETURNS int LANGUAGE sql AS 'SELECT 1'; COMMIT",
		`SELECT E'\{{name}}'`, `SELECT E'it''s \{{name}}'`, "COPY t (a, b) FROM stdin WITH (FORMAT csv)", "/* x */ copy t from /* y */ STDIN",
		"SELECT E'a'\n'b{{name}}'", "SELECT E'a' -- c\n'b{{name}}'", "SELECT E'a'--\r -- d\n 'b{{name}}'", "SELECT U&'a' -- c\n'b{{name}}'",
		"SELECT '\x00'", "SELECT '\xff'",
	} {
		if _, err := statements.Compile([]string{sql}); err == nil {
			t.Errorf("Compile(%q) was taken, want an error", sql)
		}
	}
	for _, sql := range []string{"ROLLBACK TO SAVEPOINT x", "PREPARE x AS SELECT 1", "x", "COPY stdin FROM '/x'", "COPY (SELECT 1 FROM t) TO STDOUT", "SELECT 1 FROM stdin", "SELECT E'a' -- 'b'\n", "SELECT E'a' -- c\n, 'b'"} {
		if _, err := statements.Compile([]string{sql}); err != nil {
			t.Errorf("Compile(%q): %v", sql, err)
		}
	}
}

// Whatever a value holds, it stays inside what its placeholder stands in.
func TestRenderEscapes(t *testing.T) {
	evil := `x'; DROP ROLE "root"; --\`
	for _, tt := range []struct {
		sql, value, want string // an empty want is a refusal
	}{
		{`SELECT '{{password}}'`, evil, `SELECT 'x''; DROP ROLE "root"; --\'`},
		{`SELECT "{{password}}"`, evil, `SELECT "x'; DROP ROLE ""root""; --\"`},
		{`SELECT E'{{password}}'`, evil, `SELECT E'x''; DROP ROLE "root"; --\\'`},
		{`SELECT E'\\{{password}}'`, `'`, `SELECT E'\\'''`},
		{`SELECT dblink_exec('b', 'CREATE ROLE x PASSWORD ''{{password}}''')`, `a'b`, ""},
		{`SELECT dblink_exec('b', 'CREATE ROLE "{{password}}"')`, `a"b`, ""},
		{`SELECT dblink_exec('b', E'CREATE ROLE x PASSWORD \'{{password}}\'')`, `a\b`, ""},
		{`SELECT dblink_exec('b', 'CREATE ROLE x PASSWORD ''{{password}}''')`, `a!b c$d`, `SELECT dblink_exec('b', 'CREATE ROLE x PASSWORD ''a!b c$d''')`},
		{`SELECT U&'{{password}}'`, evil, ""},
		{`SELECT $${{password}}$$`, evil, ""},
		{`SELECT $${{password}}$$`, "abc-1", `SELECT $$abc-1$$`},
		{`SELECT $a$ ${{password}}$ $a$`, "a", ""},
		{`SELECT {{password}}`, evil, ""},
		{`SELECT {{password}}`, "ok_1", `SELECT ok_1`},
		{`SELECT {{password}}`, "Folded", ""},
		{`SELECT {{password}}'b'`, "e", ""},
		{`SELECT a{{password}}`, "b", ""},
		{`SELECT 1 -- {{password}}`, "a\nb", ""},
		{`SELECT 1 /* {{password}} */`, "*/ b /*", ""},
		{`DO $$ BEGIN EXECUTE 'CREATE ROLE x PASSWORD ''{{password}}'''; END $$`, `'`, ""},
		{`DO $$ BEGIN EXECUTE 'CREATE ROLE x PASSWORD ''{{password}}'''; END $$`, `Ab-1`,
			`DO $$ BEGIN EXECUTE 'CREATE ROLE x PASSWORD ''Ab-1'''; END $$`},
	} {
		s, err := statements.Compile([]string{tt.sql})
		if err != nil {
			t.Errorf("Compile(%q): %v", tt.sql, err)
			continue
		}
		got, err := s.Render(statements.Values{Password: tt.value})
		switch {
		case tt.want == "" && err == nil:
			t.Errorf("Render(%q) with %q = %q, want a refusal", tt.sql, tt.value, got)
		case tt.want != "" && (err != nil || got[0] != tt.want):
			t.Errorf("Render(%q) with %q = %q, %v, want %q", tt.sql, tt.value, got, err, tt.want)
		}
	}
}

// TestCostGrowsWithTheText: eight times the text is not many times eight times
// the work, whatever is in it.
func TestCostGrowsWithTheText(t *testing.T) {
	nested := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "$a%x$", i)
		}
		for i := range n {
			fmt.Fprintf(&b, "$a%x$", n-1-i)
		}
		return b.String()
	}
	for name, sql := range map[string]func(n int) string{
		"dollar quotes": nested, "placeholders": func(n int) string { return strings.Repeat("'{{name}}',", n) },
	} {
		cost := func(n int) time.Duration {
			text, least := "SELECT "+sql(n), time.Hour
			for range 3 {
				begun := time.Now()
				s, err := statements.Compile([]string{text})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Render(values); err != nil {
					t.Fatal(err)
				}
				least = min(least, time.Since(begun))
			}
			return least
		}
		if small, large := cost(5_000), cost(40_000); large > 25*small {
			t.Errorf("%s: 5,000 take %s, and 40,000 take %s", name, small, large)
		}
	}
}

// TestDeepQuotes: what is too deep to be read is filled in all the same, by
// what cannot end a quote at any depth.
func TestDeepQuotes(t *testing.T) {
	open, closed := "", ""
	for i := range 30 {
		tag := fmt.Sprintf("$t%d$", i)
		open, closed = open+tag, tag+closed
	}
	s, err := statements.Compile([]string{"SELECT " + open + "'{{password}}'" + closed})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Render(statements.Values{Password: "a-1"}); err != nil || got[0] != "SELECT "+open+"'a-1'"+closed {
		t.Errorf("Render = %q, %v", got, err)
	}
	for _, value := range []string{"a'b", "$t29$", "a$b"} {
		if got, err := s.Render(statements.Values{Password: value}); err == nil {
			t.Errorf("Render with %q = %q, want a refusal", value, got)
		}
	}
}

// TestNamesInQuotes: who asks has a say in the name. In a text that is SQL for
// somebody else it is nothing but a name.
func TestNamesInQuotes(t *testing.T) {
	s, err := statements.Compile([]string{`SELECT dblink_exec('b', 'CREATE ROLE {{name}}; COMMENT ON ROLE x IS ''it''')`})
	if err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{"v-token-ro-abc": true, `a"b`: false, "a'b": false, "a SUPERUSER": false, "a;b": false, "a--b": false} {
		if got, err := s.Render(statements.Values{Name: name}); (err == nil) != ok {
			t.Errorf("Render with %q = %q, %v, want ok = %v", name, got, err, ok)
		}
	}
}

func TestCheckSCRAM(t *testing.T) {
	const verifier = "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"
	for _, tt := range []struct {
		sql string
		ok  bool
	}{
		{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'`, true},
		{`CREATE ROLE "{{name}}" LOGIN encrypted password /* ! */ '{{password}}'`, true},
		{`DO $$ BEGIN CREATE ROLE "{{name}}" PASSWORD '{{password}}'; END $$`, true},
		{`GRANT a TO "{{name}}"`, true},
		{`CREATE ROLE "{{name}}" LOGIN PASSWORD 'x{{password}}'`, false},
		{`SELECT make_user('{{name}}', '{{password}}')`, false},
		{`CREATE ROLE "{{name}}" LOGIN PASSWORD "{{password}}"`, false},
		{`CREATE ROLE "{{name}}" LOGIN PASSWORD E'{{password}}'`, false},
		{`CREATE ROLE "{{name}}" PASSWORD '{{password}}'; SELECT '{{password}}'`, false},
		{`DO $$ BEGIN EXECUTE 'CREATE ROLE x PASSWORD ''{{password}}'''; END $$`, false},
	} {
		s, err := statements.Compile([]string{tt.sql})
		if err != nil {
			t.Fatalf("Compile(%q): %v", tt.sql, err)
		}
		if err := s.CheckSCRAM(); (err == nil) != tt.ok {
			t.Errorf("CheckSCRAM(%q) = %v, want ok = %v", tt.sql, err, tt.ok)
		}
		if tt.ok {
			if got, err := s.Render(statements.Values{Name: "n", Password: verifier}); err != nil {
				t.Errorf("Render(%q) with a verifier = %q, %v", tt.sql, got, err)
			}
		}
	}
}

func TestGrantsOnAll(t *testing.T) {
	for sql, want := range map[string]bool{
		`GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}"`:                     true,
		`CREATE ROLE x; grant usage on all sequences in schema public to "{{name}}"`:    true,
		`DO $$ BEGIN GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}"; END $$`: true,
		`REVOKE ALL ON ALL TABLES IN SCHEMA public FROM "{{name}}"`:                     false,
		`GRANT app TO "{{name}}"`: false,
		`GRANT ALL ON t TO "{{name}}"; COMMENT ON ROLE x IS 'GRANT SELECT ON ALL TABLES'`:      false,
		`ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO "{{name}}"`:       false,
		`GRANT SELECT ON t TO "{{name}}"; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA s TO g, h;`: true,
	} {
		s, err := statements.Compile([]string{sql})
		if err != nil {
			t.Fatalf("Compile(%q): %v", sql, err)
		}
		if got := s.GrantsOnAll(); got != want {
			t.Errorf("GrantsOnAll(%q) = %v, want %v", sql, got, want)
		}
	}
}

func TestTouchesSession(t *testing.T) {
	for sql, want := range map[string]bool{
		`CREATE ROLE "{{name}}" LOGIN; GRANT a TO "{{name}}"; /* c */ alter user x SET role = 'y'`: false,
		`COMMENT ON ROLE x IS 'SET'; REVOKE a FROM b; DROP ROLE c`:                                 false,
		`CREATE ROLE x; SET search_path = y`:                                                       true,
		`CREATE TEMP TABLE x (id int)`:                                                             true,
		`SELECT set_config('a', 'b', false)`:                                                       true,
		`DO $$ BEGIN END $$`:                                                                       true,
		`(SELECT 1)`:                                                                               true,
	} {
		s, err := statements.Compile([]string{sql})
		if err != nil {
			t.Fatalf("Compile(%q): %v", sql, err)
		}
		if got := s.TouchesSession(); got != want {
			t.Errorf("TouchesSession(%q) = %v, want %v", sql, got, want)
		}
	}
}

// FuzzRender holds Render to its promise from outside: a statement filled
// with hostile values has as many statements, and as many quotes of each kind,
// as the same one filled with harmless values; and what is outside the values
// is untouched.
func FuzzRender(f *testing.F) {
	f.Add(`CREATE ROLE "{{name}}" PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`, `a"; DROP ROLE x; --`, `'`)
	f.Add(`SELECT E'\\{{name}}', $x${{password}}$x$, U&'{{name}}' -- {{name}}`, `\`, `$x$`)
	f.Add(`DO $$ BEGIN EXECUTE 'CREATE ROLE "{{name}}" PASSWORD ''{{password}}'''; END $$; /* {{name}} /* */ */`, `b`, `*/`)
	f.Add(`SELECT {{name}}'x' || $a{{name}}$ || "{{password}}""{{name}}"`, "e", "b$")
	f.Add(`{{name}}{{password}}{{name}}; x.{{name}}(1)`, "-", "-")
	f.Fuzz(func(t *testing.T, sql, name, password string) {
		s, err := statements.Compile([]string{sql})
		if err != nil {
			return
		}
		hostile, err := s.Render(statements.Values{Name: name, Password: password, Expiration: "2026-11-23 10:00:00+0000"})
		if err != nil {
			return
		}
		if len(hostile) != s.Len() {
			t.Fatalf("Render(%q) gave %d statements, want %d", sql, len(hostile), s.Len())
		}
		for _, one := range hostile {
			again, err := statements.Compile([]string{one + "\n;"})
			if err != nil {
				// A value may hold a placeholder's text, which reads as one.
				if strings.Contains(name+password, "{{") || strings.HasPrefix(strings.TrimSpace(one), "[") {
					continue
				}
				t.Fatalf("Render(%q) with %q and %q gave what does not read as SQL: %q: %v", sql, name, password, one, err)
			}
			if again.Len() != 1 && !strings.HasPrefix(strings.TrimSpace(one), "[") {
				t.Fatalf("Render(%q) with %q and %q gave %d statements in one: %q", sql, name, password, again.Len(), one)
			}
		}
	})
}
