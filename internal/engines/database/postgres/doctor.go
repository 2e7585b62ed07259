package postgres

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leasehold/leasehold/internal/secret"
)

// Finding is one thing that the doctor tried.
type Finding struct {
	Check string
	Error string // "" when it went well
	Hint  string // what to do: a statement to run, where one mends it
	Fatal bool   // credentials cannot be issued or revoked while it stands
}

// Patient is what the doctor looks at beside the connection itself.
type Patient struct {
	// Groups are the roles that credentials become members of.
	Groups []string
	// Roles are operator's creation statements by role, rendered for the
	// user ProbeRole gives. They are tried and rolled back.
	Roles []TrialRole
	// Probe is the name of the login that is made and dropped.
	Probe string
}

// TrialRole is a role's statements, to be tried.
type TrialRole struct {
	Name string
	SQL  []string
}

// ProbeRole is a fresh name for a doctor's login.
func ProbeRole() string {
	var b [10]byte
	rand.Read(b[:])
	return "leasehold-doctor-" + hex.EncodeToString(b[:])
}

// Doctor makes a login, logs in, ends and drops it, and says for what does not
// work which grant is missing. It always tries to leave nothing behind.
func (t *Target) Doctor(ctx context.Context, p Patient) (Info, []Finding) {
	d := &doctor{t: t, p: p, password: secret.New(rand.Text())}
	conn, s, err := t.acquire(ctx, t.create, "")
	if err != nil {
		d.add("connect as the managing user", err, "check connection_url, username and password, and the server's pg_hba.conf", true)
		return Info{}, d.found
	}
	defer conn.Release()
	d.conn, d.s = conn, s
	d.add("connect as the managing user", nil, "", true)
	d.identity()
	if d.make(ctx) {
		d.probe(ctx)
	}
	d.groups(ctx)
	d.trials(ctx)
	d.databases(ctx)
	return s.Info, d.found
}

type doctor struct {
	t        *Target
	p        Patient
	conn     *pgxpool.Conn
	s        *session
	password secret.String // of the probe: drawn, as a crash may leave it behind for its ten minutes
	found    []Finding
}

func (d *doctor) me() string { return ident(d.s.User) }

// add notes how a check went, and reports whether it went well.
func (d *doctor) add(check string, err error, hint string, severe bool) bool {
	f := Finding{Check: check}
	if err != nil {
		f.Error, f.Hint, f.Fatal = err.Error(), hint, severe
	}
	d.found = append(d.found, f)
	return err == nil
}

func (d *doctor) identity() {
	var err error
	if d.s.Weak() {
		err = errors.New("the managing user may not execute pg_control_system(), so the server's identity is only made of two of its numbers")
	}
	d.add("read the server's identity", err, "GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO "+d.me()+";", false)
}

func (d *doctor) run(ctx context.Context, statements ...string) error {
	m := begin(d.s, callLimit)
	for _, q := range statements {
		m.add(q)
	}
	_, err := m.commit(ctx, d.conn.Conn().PgConn())
	return err
}

// permission gives hint where the server refused for lack of a right.
func permission(err error, hint string) string {
	if Code(err) == codePermission {
		return hint
	}
	return ""
}

const probeMark = "leasehold: a doctor's probe; drop it if it is still here"

func (d *doctor) make(ctx context.Context) bool {
	verifier, err := Verifier(d.password, DefaultIterations)
	if err == nil {
		err = d.run(ctx, "CREATE ROLE "+ident(d.p.Probe)+" LOGIN PASSWORD "+quote(verifier.Reveal())+
			" VALID UNTIL "+quote(timestamp(d.t.now().Add(10*time.Minute))),
			"COMMENT ON ROLE "+ident(d.p.Probe)+" IS "+quote(probeMark))
	}
	return d.add("create a role with a password and a mark", err, permission(err, "ALTER ROLE "+d.me()+" CREATEROLE;"), true)
}

// probe takes the login through its life.
func (d *doctor) probe(ctx context.Context) {
	name := ident(d.p.Probe)
	conn, err := d.t.login(ctx, d.p.Probe, d.password)
	hint := "the server refuses logins of new roles from here: see its pg_hba.conf"
	if Code(err) == codePermission {
		hint = "GRANT CONNECT ON DATABASE " + ident(d.s.Database) + " TO <group>; -- one that the credentials are members of"
	}
	d.add("log in as the new role", err, hint, false)

	err = d.run(ctx, "ALTER ROLE "+name+" VALID UNTIL "+quote(timestamp(d.t.now().Add(20*time.Minute))))
	d.add("extend the login", err, d.admin(err), true)
	err = d.run(ctx, "ALTER ROLE "+name+" NOLOGIN PASSWORD NULL")
	d.add("disable the login", err, d.admin(err), true)

	if conn != nil {
		err = d.terminate(ctx)
		d.add("end an open session of it", err, permission(err, "GRANT pg_signal_backend TO "+d.me()+";"), true)
		_ = conn.Close(ctx) // ended already
	}
	if c, err := d.t.login(ctx, d.p.Probe, d.password); err == nil {
		_ = c.Close(ctx)
		d.add("see its login refused", errors.New("the disabled role could log in again"),
			"the server trusts connections from here without a password: see its pg_hba.conf", true)
	} else {
		d.add("see its login refused", nil, "", true)
	}
	var own []string
	if !d.s.Superuser {
		own = append(own, "GRANT "+name+" TO "+d.me())
	}
	err = d.run(ctx, append(own, "REASSIGN OWNED BY "+name+" TO "+d.me(), "DROP OWNED BY "+name)...)
	d.add("take over what it owns and revoke what it was granted", err, d.admin(err), true)
	err = d.run(ctx, "DROP ROLE "+name)
	d.add("drop the role", err, d.admin(err), true)
}

// admin is the hint for a role that may be created but not altered.
func (d *doctor) admin(err error) string {
	if Code(err) != codePermission {
		return ""
	}
	if d.s.Version >= 160000 {
		return "since PostgreSQL 16, CREATEROLE reaches only roles that one has ADMIN OPTION on; its own creations have it. " +
			"Roles made by another managing user need: GRANT <role> TO " + d.me() + " WITH ADMIN OPTION;"
	}
	return "ALTER ROLE " + d.me() + " CREATEROLE;"
}

func (d *doctor) terminate(ctx context.Context) error {
	found, err := rows(ctx, d.conn.Conn().PgConn(), marksSQL, []string{d.p.Probe})
	if err != nil || len(found) == 0 {
		return err
	}
	probe := &ending{Ending: &Ending{Role: d.p.Probe, Mark: probeMark, Terminate: true, Done: func(e error) { err = e }}, oid: found[0][1]}
	f := &finisher{t: d.t, conn: d.conn, s: d.s, list: []*ending{probe}}
	if serr := f.disconnect(ctx); serr != nil {
		return serr
	}
	return err
}

// groups checks each group by making a member and rolling that back.
func (d *doctor) groups(ctx context.Context) {
	for _, g := range d.p.Groups {
		err := d.rolledBack(ctx, nil, "CREATE ROLE "+ident(d.p.Probe)+" LOGIN IN ROLE "+ident(g))
		hint := ""
		switch {
		case Code(err) == codePermission && d.s.Version >= 160000:
			hint = "GRANT " + ident(g) + " TO " + d.me() + " WITH ADMIN OPTION;"
		case Code(err) == codePermission:
			hint = "ALTER ROLE " + d.me() + " CREATEROLE; -- a superuser's group takes a superuser"
		case Code(err) == "42704":
			hint = "CREATE ROLE " + ident(g) + " NOLOGIN;"
		}
		if !d.add("make a member of "+ident(g), err, hint, true) || d.s.Superuser {
			continue
		}
		// What members own falls to the group.
		err = d.rolledBack(ctx, nil, "CREATE ROLE "+ident(d.p.Probe)+" LOGIN IN ROLE "+ident(g),
			"GRANT "+ident(d.p.Probe)+" TO "+d.me(), "REASSIGN OWNED BY "+ident(d.p.Probe)+" TO "+ident(g))
		hint = permission(err, "GRANT "+ident(g)+" TO "+d.me()+" WITH ADMIN OPTION;")
		if hint != "" && d.s.Version >= 160000 {
			hint = "GRANT " + ident(g) + " TO " + d.me() + " WITH ADMIN OPTION, INHERIT TRUE;"
		}
		d.add("hand what a member owns to "+ident(g), err, hint, true)
	}
}

// trials runs the operators' creation statements and rolls them back. GRANT of
// what one may not grant on is only a warning in PostgreSQL, and the credential
// then opens nothing.
func (d *doctor) trials(ctx context.Context) {
	for _, r := range d.p.Roles {
		var warned []*pgconn.PgError
		err := d.rolledBack(ctx, &warned, r.SQL...)
		hint := ""
		if Code(err) == codePermission {
			hint = d.missing(err)
		}
		if err == nil && len(warned) > 0 {
			var said, grants []string
			for _, w := range warned {
				said = append(said, w.Message)
				grants = append(grants, "GRANT ALL ON "+ident(named(w.Message))+" TO "+d.me()+" WITH GRANT OPTION;")
			}
			err = errors.New(strings.Join(said, "; "))
			hint = strings.Join(grants, " ")
		}
		d.add("creation_statements of role "+r.Name+" (rolled back)", err, hint, true)
	}
}

// missing is the grant that an operator's statements lack. Which object it is
// about, the server says only in words; they are quoted for the reader, and
// nothing is decided by them.
func (d *doctor) missing(err error) string {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return ""
	}
	if strings.HasPrefix(pe.Routine, "check_role_") {
		return "GRANT " + ident(named(pe.Message)) + " TO " + d.me() + " WITH ADMIN OPTION;"
	}
	if pe.Routine == "CreateRole" {
		return "ALTER ROLE " + d.me() + " CREATEROLE;"
	}
	return "GRANT ALL ON " + named(pe.Message) + " TO " + d.me() + " WITH GRANT OPTION; -- or make it the owner"
}

// named is what a message of the server is about: the last name in quotes, or
// its last word.
func named(message string) string {
	if parts := strings.Split(message, `"`); len(parts) >= 3 {
		return parts[len(parts)-2]
	}
	return message[strings.LastIndexByte(message, ' ')+1:]
}

// rolledBack runs statements in a transaction that never commits. warned
// collects the server's warnings (class 01).
func (d *doctor) rolledBack(ctx context.Context, warned *[]*pgconn.PgError, statements ...string) error {
	m := begin(d.s, callLimit)
	for _, q := range statements {
		m.add(q)
	}
	m.add("ROLLBACK")
	var notices []*pgconn.PgError
	d.s.notices, d.s.dirty = &notices, true
	_, err := m.send(ctx, d.conn.Conn().PgConn())
	d.s.notices = nil
	if warned != nil {
		for _, n := range notices {
			if strings.HasPrefix(n.Code, "01") {
				*warned = append(*warned, n)
			}
		}
	}
	return err
}

// databases checks that whatever a login may own anywhere can be reached.
func (d *doctor) databases(ctx context.Context) {
	res := d.conn.Conn().PgConn().ExecParams(ctx, `SELECT datname FROM pg_catalog.pg_database
		WHERE datallowconn AND NOT pg_catalog.has_database_privilege(oid, 'CONNECT') ORDER BY 1`, nil, nil, nil, nil).Read()
	err := res.Err
	var grants []string
	for _, r := range res.Rows {
		grants = append(grants, "GRANT CONNECT ON DATABASE "+ident(string(r[0]))+" TO "+d.me()+";")
	}
	if err == nil && len(grants) > 0 {
		err = fmt.Errorf("%d databases cannot be entered; what a credential owns there could not be taken over", len(grants))
	}
	d.add("enter every database of the server", err, strings.Join(grants, " "), false)
}

// login opens a connection to our database as another user.
func (t *Target) login(ctx context.Context, user string, pw secret.String) (*pgx.Conn, error) {
	cc := t.create.Config().ConnConfig.Copy()
	cc.User, cc.Password = user, pw.Reveal()
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return nil, err
	}
	return conn, nil
}
