package postgres

import (
	"context"
	"strings"

	"github.com/leasehold/leasehold/internal/trace"
)

// What a trace shows of SQL is the kinds of the statements: an operator's may
// hold anything, ours hold passwords.

// call begins the span of one message to the server.
func call(ctx context.Context, name string, kinds []string) (context.Context, *trace.Span) {
	ctx, span := trace.StartCall(ctx, name)
	span.Text("db.system.name", "postgresql")
	if span != nil && len(kinds) > 0 {
		span.Text("db.query.summary", strings.Join(kinds, "; "))
		span.Int("db.operation.batch.size", len(kinds))
	}
	return ctx, span
}

// What a statement may begin with, and what may stand behind that. Any other
// word is a name, or could be.
var (
	verbs = words(`ABORT ALTER ANALYZE BEGIN CALL COMMENT COMMIT CREATE DELETE DISCARD DO DROP END EXECUTE GRANT INSERT LOCK MERGE
		PREPARE REASSIGN REFRESH RELEASE RESET REVOKE ROLLBACK SAVEPOINT SECURITY SELECT SET SHOW START TRUNCATE UPDATE VALUES WITH`)
	objects = words(`DATABASE DEFAULT EXTENSION FUNCTION GROUP OWNED POLICY ROLE SCHEMA SEQUENCE TABLE USER VIEW`)
)

func words(list string) map[string]bool {
	out := map[string]bool{}
	for w := range strings.FieldsSeq(list) {
		out[w] = true
	}
	return out
}

// kindOf is the kind of a statement: "CREATE ROLE", or "statement" for what
// begins with anything but a known word.
func kindOf(sql string) string {
	verb, rest := word(sql)
	if !verbs[verb] {
		return "statement"
	}
	switch verb {
	case "ALTER", "CREATE", "DROP", "REASSIGN":
		if object, _ := word(rest); objects[object] {
			return verb + " " + object
		}
	}
	return verb
}

// word is the first word in capitals, and what follows it. Lines of comment
// before it are passed over.
func word(s string) (first, rest string) {
	s = strings.TrimLeft(s, " \t\r\n")
	for strings.HasPrefix(s, "--") {
		_, s, _ = strings.Cut(s, "\n")
		s = strings.TrimLeft(s, " \t\r\n")
	}
	end := strings.IndexFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') })
	if end < 0 {
		end = len(s)
	}
	const longest = 16
	if end > longest {
		return "", ""
	}
	return strings.ToUpper(s[:end]), s[end:]
}
