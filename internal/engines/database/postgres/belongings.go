package postgres

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// What an ended login leaves to the managing user: its objects and its grants,
// in every database of the server.

//go:embed sql/dependents.sql
var dependentsSQL string

// becomeMember grants the roles to the managing user, one by one: some may be
// his already, or not his to grant.
func (f *finisher) becomeMember(ctx context.Context, roles map[string]*ending) error {
	for _, e := range roles {
		m := begin(f.s, remaining(ctx))
		m.add("GRANT " + ident(e.Role) + " TO " + ident(f.s.User))
		if _, err := m.commit(ctx, f.conn.Conn().PgConn()); err != nil && f.conn.Conn().IsClosed() {
			return fmt.Errorf("becoming a member of the login: %w", err)
		}
	}
	return nil
}

// inherit is the third stage: what the logins own falls to their heirs, and
// what they were granted is revoked, in every database that has any of it.
func (f *finisher) inherit(ctx context.Context) error {
	byOID := map[string]*ending{}
	for _, e := range f.left() {
		byOID[e.oid] = e
	}
	deps, err := rows(ctx, f.conn.Conn().PgConn(), dependentsSQL, oids(byOID))
	if err != nil {
		return fmt.Errorf("looking for what the logins own: %w", err)
	}
	byDB := map[string][]*ending{}
	var order []string
	for _, d := range deps {
		if byDB[d[1]] == nil {
			order = append(order, d[1])
		}
		byDB[d[1]] = append(byDB[d[1]], byOID[d[0]])
	}
	// What is shared is dealt with from our own database, once the others are.
	slices.SortFunc(order, func(a, b string) int {
		switch {
		case a == b:
			return 0
		case a == f.s.Database:
			return 1
		case b == f.s.Database:
			return -1
		}
		return 0
	})
	for _, db := range order {
		list := slices.DeleteFunc(byDB[db], func(e *ending) bool { return e == nil || e.over })
		if err := f.inheritIn(ctx, db, list); err != nil {
			return err
		}
	}
	return nil
}

// inheritIn does one database. Access lists of tables are rewritten, so only
// one batch of a target at a time does this.
func (f *finisher) inheritIn(ctx context.Context, db string, list []*ending) error {
	if len(list) == 0 {
		return nil
	}
	select {
	case f.t.catalogue <- struct{}{}:
		defer func() { <-f.t.catalogue }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for others who change the same access lists: %w", ctx.Err())
	}
	if db == f.s.Database {
		return f.inheritOn(ctx, db, list, f.conn.Conn(), f.s)
	}
	conn, s, err := f.t.connectTo(ctx, db)
	if err != nil {
		for _, e := range list {
			e.done(fmt.Errorf("revoking in database %s: %w", ident(db), err))
		}
		return nil
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return f.inheritOn(ctx, db, list, conn, s)
}

func (f *finisher) inheritOn(ctx context.Context, db string, list []*ending, conn *pgx.Conn, s *session) error {
	what := "revoking in database " + ident(db)
	run := func(list []*ending) error {
		for try := 1; ; try++ {
			m := begin(s, remaining(ctx))
			m.failUnless(whoseMark(names(list), marksOf(list)), "a role has changed hands")
			for _, e := range list {
				if !s.Superuser {
					m.add("GRANT " + ident(e.Role) + " TO " + ident(s.User))
				}
				heir := e.Heir
				if heir == "" {
					heir = s.User
				}
				m.add("REASSIGN OWNED BY " + ident(e.Role) + " TO " + ident(heir))
			}
			m.add("DROP OWNED BY " + idents(names(list)))
			_, err := m.commit(ctx, conn.PgConn())
			if err == nil || !passing(classify(err)) || try == attempts || !pause(ctx, try) {
				return err
			}
		}
	}
	err := run(list)
	if err == nil {
		return nil
	}
	for _, e := range list {
		if len(list) > 1 && !conn.IsClosed() {
			err = run([]*ending{e})
		}
		if err != nil {
			e.done(fmt.Errorf("%s: %w", what, err))
		}
	}
	if conn == f.conn.Conn() && conn.IsClosed() {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// connectTo opens a connection of its own to another database of the server.
func (t *Target) connectTo(ctx context.Context, db string) (*pgx.Conn, *session, error) {
	cc := t.revoke.Config().ConnConfig.Copy()
	cc.Database = db
	if err := t.connectHook(ctx, cc); err != nil {
		return nil, nil, err
	}
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return nil, nil, err
	}
	if err := t.meet(ctx, conn.PgConn()); err != nil {
		return nil, nil, errors.Join(err, conn.Close(ctx))
	}
	return conn, sessionOf(conn.PgConn()), nil
}
