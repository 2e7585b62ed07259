package postgres

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leasehold/leasehold/internal/lease"
)

//go:embed sql/marks.sql
var marksSQL string

//go:embed sql/sessions.sql
var sessionsSQL string

// Ending is one login on its way out.
type Ending struct {
	Role, Mark string
	// Heir is the role that what the login owns falls to; "" is the managing
	// user.
	Heir string
	// SQL is the operator's own way to end it, run after the first stages.
	SQL []string
	// Late says that no creation may commit any more. A role that is not
	// there is then made sure of: see vouch.
	Late bool
	// Terminate ends open sessions. Otherwise they are left alone.
	Terminate bool
	// Disabled is called when no new login is possible any more, Done once
	// with the end: nil, lease.ErrAbsent, a *lease.WaitError, or what failed.
	Disabled func()
	Done     func(error)
}

// endLimit bounds the work on one batch; the lane tries again what is left.
const endLimit = 30 * time.Second

// ending is an Ending in the middle of its stages.
type ending struct {
	*Ending
	oid  string
	over bool
}

func (e *ending) done(err error) {
	if !e.over {
		e.over = true
		e.Done(err)
	}
}

// finisher is a batch in its stages, on one connection.
type finisher struct {
	t    *Target
	conn *pgxpool.Conn
	s    *session
	list []*ending
}

// End takes logins of the server with an identity through the stages. It calls
// Done of each exactly once.
func (t *Target) End(ctx context.Context, identity string, list []*Ending) {
	ctx, cancel := context.WithTimeout(ctx, endLimit)
	defer cancel()
	f := &finisher{t: t}
	for _, e := range list {
		f.list = append(f.list, &ending{Ending: e})
	}
	conn, s, err := t.acquire(ctx, t.revoke, identity)
	if err != nil {
		f.fail(err)
		return
	}
	defer conn.Release()
	f.conn, f.s = conn, s
	for _, stage := range []func(context.Context) error{f.find, f.disable, f.disconnect, f.own, f.inherit, f.drop} {
		if err := stage(ctx); err != nil {
			if Code(err) == "" || conn.Conn().IsClosed() {
				err = connecting(ctx, err)
			}
			f.fail(err)
			return
		}
		if f.left() == nil {
			return
		}
	}
	f.fail(errors.New("ending a login stopped half way")) // no stage leaves any
}

// left are those not done yet.
func (f *finisher) left() []*ending {
	var out []*ending
	for _, e := range f.list {
		if !e.over {
			out = append(out, e)
		}
	}
	return out
}

func (f *finisher) fail(err error) {
	for _, e := range f.left() {
		e.done(err)
	}
}

// find asks which roles are there and ours.
func (f *finisher) find(ctx context.Context) error {
	found, err := rows(ctx, f.conn.Conn().PgConn(), marksSQL, names(f.list))
	if err != nil {
		return fmt.Errorf("reading marks: %w", err)
	}
	byName := map[string][]string{}
	for _, r := range found {
		byName[r[0]] = r
	}
	var late []*ending
	for _, e := range f.list {
		r, ok := byName[e.Role]
		switch {
		case !ok && e.Late:
			late = append(late, e)
		case !ok:
			e.done(lease.ErrAbsent)
		case r[2] != e.Mark:
			f.t.log.Warn("a role has the name of a lease's login but not its mark; it is left alone", "role", e.Role, "lease_mark", e.Mark)
			e.done(lease.ErrNameTaken)
		default:
			e.oid = r[1]
			if r[3] == "f" { // an earlier try got this far
				e.Disabled()
				e.Disabled = func() {}
			}
		}
	}
	return f.vouch(ctx, late)
}

// vouch makes sure that roles which are not there will not appear. A creation
// whose last check was passed in time may still be committing, on a disk that
// hangs or while a synchronous replica is away, and nobody can see it. It holds
// the role's name in the catalogue's index, so a creation of our own, which is
// rolled back, waits for its end or gives up.
func (f *finisher) vouch(ctx context.Context, list []*ending) error {
	run := func(list []*ending) error {
		m := begin(f.s, remaining(ctx))
		for _, e := range list {
			m.add("CREATE ROLE " + ident(e.Role))
		}
		m.add("ROLLBACK")
		_, err := m.send(ctx, f.conn.Conn().PgConn())
		return err
	}
	for alone := len(list) == 1; len(list) > 0; alone = true {
		part := list
		if alone {
			part = list[:1]
		}
		err := run(part)
		switch {
		case f.conn.Conn().IsClosed():
			return fmt.Errorf("making sure that a role is gone: %w", err)
		case err != nil && !alone:
			continue // each for itself
		case err != nil && Code(err) != codePermission: // who may not create, did not
			err = fmt.Errorf("a creation that came late may still be under way: %w", err)
		default:
			err = lease.ErrAbsent
		}
		for _, e := range part {
			e.done(err)
		}
		list = list[len(part):]
	}
	return nil
}

// together runs one transaction for all of list, and where the server refuses
// it, one for each; each gets its own error by done.
func (f *finisher) together(ctx context.Context, what string, list []*ending, statements func(m *message, list []*ending), ok func(*ending)) error {
	run := func(list []*ending) error {
		for try := 1; ; try++ {
			m := begin(f.s, remaining(ctx))
			m.failUnless(whoseMark(names(list), marksOf(list)), "a role has changed hands")
			statements(m, list)
			_, err := m.commit(ctx, f.conn.Conn().PgConn())
			if err == nil || !passing(classify(err)) || try == attempts || !pause(ctx, try) {
				return err
			}
		}
	}
	if len(list) == 0 {
		return nil
	}
	err := run(list)
	if err == nil {
		for _, e := range list {
			ok(e)
		}
		return nil
	}
	if f.conn.Conn().IsClosed() {
		return fmt.Errorf("%s: %w", what, err)
	}
	for _, e := range list {
		if len(list) > 1 {
			err = run([]*ending{e})
		}
		switch {
		case err == nil:
			ok(e)
		case f.conn.Conn().IsClosed():
			return fmt.Errorf("%s: %w", what, err)
		default:
			e.done(fmt.Errorf("%s: %w", what, err))
		}
	}
	return nil
}

func remaining(ctx context.Context) time.Duration {
	if d, ok := ctx.Deadline(); ok {
		return time.Until(d)
	}
	return endLimit
}

// disable is the first stage: no login, no password.
func (f *finisher) disable(ctx context.Context) error {
	return f.together(ctx, "disabling the login", f.left(), func(m *message, list []*ending) {
		for _, e := range list {
			m.add("ALTER ROLE " + ident(e.Role) + " NOLOGIN PASSWORD NULL")
		}
	}, func(e *ending) { e.Disabled() })
}

// disconnect is the second stage: sessions ended, and none seen in two looks.
// A login that was let in just before the first stage may show a moment later,
// hence the pause between the looks.
func (f *finisher) disconnect(ctx context.Context) error {
	waiting := map[string]*ending{}
	for _, e := range f.left() {
		if e.Terminate {
			waiting[e.oid] = e
		}
	}
	ctx, cancel := context.WithTimeout(ctx, endLimit/3)
	defer cancel()
	clear := 0
	granted := false
	for wait := 5 * time.Millisecond; clear < 2 && len(waiting) > 0; {
		open, err := rows(ctx, f.conn.Conn().PgConn(), sessionsSQL, oids(waiting))
		switch {
		case Code(err) == codePermission && !granted:
			// Who may grant a role may also act as it.
			granted = true
			if err := f.becomeMember(ctx, waiting); err != nil {
				return err
			}
			continue
		case Code(err) == codePermission:
			for _, e := range waiting {
				e.done(fmt.Errorf("ending its sessions: %w (GRANT pg_signal_backend TO %s)", err, ident(f.s.User)))
			}
			return nil
		case err != nil && ctx.Err() == nil || f.conn.Conn().IsClosed():
			return fmt.Errorf("ending sessions: %w", err)
		}
		if clear++; len(open) > 0 {
			clear = 0
		}
		if clear == 2 {
			break
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			for _, r := range open {
				waiting[r[0]].done(errors.New("its sessions did not end in time"))
			}
			return nil
		}
		if clear == 0 {
			wait = min(2*wait, 200*time.Millisecond)
		}
	}
	return nil
}

// drop is the last stage.
func (f *finisher) drop(ctx context.Context) error {
	return f.together(ctx, "dropping the role", f.left(), func(m *message, list []*ending) {
		m.add("DROP ROLE " + idents(names(list)))
	}, func(e *ending) { e.done(nil) })
}

func names(list []*ending) []string {
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = e.Role
	}
	return out
}

func marksOf(list []*ending) []string {
	out := make([]string, len(list))
	for i, e := range list {
		out[i] = e.Mark
	}
	return out
}

func oids(m map[string]*ending) []string {
	out := make([]string, 0, len(m))
	for oid := range m {
		out = append(out, oid)
	}
	return out
}

// own runs the operator's statements, each login's alone: what those of one
// role set is gone before another's run.
func (f *finisher) own(ctx context.Context) error {
	ran := false
	for _, e := range f.left() {
		if len(e.SQL) == 0 {
			continue
		}
		ran = true
		f.s.dirty = true
		if err := f.ownOne(ctx, e); err != nil {
			return err
		}
		if !f.t.clean(f.conn.Conn()) {
			return errors.New("resetting the connection after revocation statements")
		}
	}
	if !ran {
		return nil
	}
	// They usually drop the role. One that is gone now is done.
	list := f.left()
	found, err := rows(ctx, f.conn.Conn().PgConn(), marksSQL, names(list))
	if err != nil {
		return fmt.Errorf("reading marks: %w", err)
	}
	for _, e := range list {
		if !slices.ContainsFunc(found, func(r []string) bool { return r[1] == e.oid }) {
			e.done(nil)
		}
	}
	return nil
}

func (f *finisher) ownOne(ctx context.Context, e *ending) error {
	for try := 1; ; try++ {
		m := begin(f.s, remaining(ctx))
		theirs := map[int]int{}
		for i, sql := range e.SQL {
			theirs[m.add(sql)] = i + 1
		}
		at, err := m.commit(ctx, f.conn.Conn().PgConn())
		switch {
		case err == nil:
			return nil
		case f.conn.Conn().IsClosed():
			return fmt.Errorf("running revocation_statements: %w", err)
		case passing(classify(err)) && try < attempts && pause(ctx, try):
			continue
		case theirs[at] > 0:
			err = &StatementError{Index: theirs[at], Err: err}
		}
		e.done(fmt.Errorf("revocation_statements: %w", err))
		return nil
	}
}
