package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/leasehold/leasehold/internal/trace"
)

// message is a transaction sent as one text and answered as one: BEGIN, the
// statements, COMMIT. It knows which statement is which, so that an error can
// be attributed by its place and not by its words.
type message struct {
	b     strings.Builder
	count int      // statements so far
	kinds []string // of the statements, for a trace; nil while nothing is traced
}

// begin starts the transaction. Whatever blocks gives up before the deadline,
// so that the server's answer comes before we stop listening.
func begin(s *session, left time.Duration) *message {
	m := &message{}
	m.add("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
	limit := left - left/8
	m.add("SET LOCAL statement_timeout = " + millis(limit))
	m.add("SET LOCAL lock_timeout = " + millis(min(limit/2, 5*time.Second)))
	if s.Version >= 170000 {
		m.add("SET LOCAL transaction_timeout = " + millis(limit))
	}
	return m
}

func millis(d time.Duration) string { return strconv.FormatInt(max(d.Milliseconds(), 1), 10) }

// add appends one statement and gives its index.
func (m *message) add(sql string) int {
	m.b.WriteString(sql)
	// The break ends a comment at the statement's end.
	m.b.WriteString("\n;\n")
	m.count++
	if trace.On() {
		m.kinds = append(m.kinds, kindOf(sql))
	}
	return m.count - 1
}

// failUnless appends a statement that fails unless cond is true. why is for
// the reader of the error; the statement's index is what code goes by.
func (m *message) failUnless(cond, why string) int {
	// The text is no number, and the clock keeps it from being evaluated
	// before it is needed.
	return m.add("SELECT CASE WHEN " + cond + " THEN NULL ELSE pg_catalog.concat(" + quote("leasehold: "+why+" at ") +
		", pg_catalog.clock_timestamp())::int END")
}

// before appends a statement that fails when the server's clock is past a
// time. It is the last before COMMIT.
func (m *message) before(s *session, deadline time.Time) int {
	return m.failUnless("pg_catalog.clock_timestamp() OPERATOR(pg_catalog.<=) "+quote(s.clock(deadline).UTC().Format(time.RFC3339Nano))+"::pg_catalog.timestamptz",
		"too late, the lease's make_by has passed")
}

// commit ends the transaction and sends it. at is the index of the statement
// that failed, meaningful only for an error of the server.
func (m *message) commit(ctx context.Context, c *pgconn.PgConn) (at int, err error) {
	m.add("COMMIT")
	return m.send(ctx, c)
}

// send runs the message and cleans up after an error of the server.
func (m *message) send(ctx context.Context, c *pgconn.PgConn) (at int, err error) {
	if c.IsClosed() || ctx.Err() != nil {
		return 0, &notSent{errors.Join(pgconn.ErrConnClosed, ctx.Err())}
	}
	sctx, span := call(ctx, "sql transaction", m.kinds)
	r := c.Exec(sctx, m.b.String())
	for r.NextResult() {
		if _, rerr := r.ResultReader().Close(); rerr != nil {
			break // the reader below has it too
		}
		at++
	}
	err = r.Close()
	span.End(err)
	var pe *pgconn.PgError
	if errors.As(err, &pe) && !fatal(pe) && c.TxStatus() != 'I' {
		if _, rerr := c.Exec(ctx, "ROLLBACK").ReadAll(); rerr != nil {
			// The transaction is void all the same; the pool drops the
			// connection for its state.
			_ = c.Close(ctx)
		}
	}
	return at, err
}

// quote is text as a literal. standard_conforming_strings is on.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// ident is a name as a quoted identifier.
func ident(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

func idents(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = ident(n)
	}
	return strings.Join(out, ", ")
}

// timestamp is a moment as Vault writes it into {{expiration}}.
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05-0700") }

// array is a list of texts as the text form of a PostgreSQL array.
func array(items []string) []byte {
	var b strings.Builder
	b.WriteByte('{')
	for i, s := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteByte('"')
		b.WriteString(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s))
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return []byte(b.String())
}

// rows runs one of our questions, with one array as its parameter.
func rows(ctx context.Context, c *pgconn.PgConn, sql string, items []string) ([][]string, error) {
	ctx, span := call(ctx, "sql query", []string{kindOf(sql)})
	res := c.ExecParams(ctx, sql, [][]byte{array(items)}, nil, nil, nil).Read()
	span.End(res.Err)
	if res.Err != nil {
		return nil, res.Err
	}
	out := make([][]string, len(res.Rows))
	for i, r := range res.Rows {
		for _, v := range r {
			out[i] = append(out[i], string(v))
		}
	}
	return out, nil
}

// whoseMark is a condition that all these roles exist and carry their marks.
func whoseMark(roles, marks []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d OPERATOR(pg_catalog.=) (SELECT pg_catalog.count(*) FROM pg_catalog.pg_roles r, (VALUES ", len(roles))
	for i := range roles {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("(" + quote(roles[i]) + "::pg_catalog.name, " + quote(marks[i]) + ")")
	}
	b.WriteString(") AS want (role, mark) WHERE r.rolname OPERATOR(pg_catalog.=) want.role AND pg_catalog.shobj_description(r.oid, 'pg_authid') OPERATOR(pg_catalog.=) want.mark)")
	return b.String()
}
