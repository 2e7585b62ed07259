package postgres

import "testing"

// TestKindOf sees that a trace shows of a statement no more than known words.
func TestKindOf(t *testing.T) {
	for sql, want := range map[string]string{
		`CREATE ROLE "x" LOGIN PASSWORD 'secret'`:      "CREATE ROLE",
		"  \n-- a comment\n--another\n create\tuser x": "CREATE USER",
		"create hunter2":                      "CREATE",
		"GRANT hunter2 TO x":                  "GRANT",
		"hunter2":                             "statement",
		"SELECTED":                            "statement",
		"select(1)":                           "SELECT",
		"":                                    "statement",
		"-- only a comment":                   "statement",
		"/* hunter2 */ SELECT 1":              "statement",
		"DO $$ BEGIN PERFORM hunter2; END $$": "DO",
		"'CREATE ROLE":                        "statement",
		"ALTER ROLEX":                         "ALTER",
		"DROP OWNED BY x":                     "DROP OWNED",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": "statement",
		"\x00CREATE ROLE x": "statement",
	} {
		if got := kindOf(sql); got != want {
			t.Errorf("kindOf(%q) = %q, want %q", sql, got, want)
		}
	}
}
