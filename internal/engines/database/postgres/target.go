package postgres

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/secret"
)

//go:embed sql/probe.sql
var probeSQL string

//go:embed sql/probe_weak.sql
var probeWeakSQL string

// Target is one PostgreSQL server. It is safe for concurrent use.
type Target struct {
	cfg       Config
	templated bool // the password goes in by the hook
	create    *pgxpool.Pool
	revoke    *pgxpool.Pool
	now       func() time.Time
	log       *slog.Logger
	// catalogue is held by whoever runs statements that rewrite the access
	// lists of many tables: two at a time would only make each other fail.
	catalogue chan struct{}
	ahead     atomic.Int64 // of the session met last, a time.Duration

	mu      sync.Mutex
	working secret.String // of Password and Candidate, the one that last let us in
	other   secret.String // the one to try next
}

// Info is what a server said of itself.
type Info struct {
	Identity   string // the same for a replica, different for any other server
	Version    int    // 150004 is 15.4
	ReadOnly   bool
	Superuser  bool
	CreateRole bool
	User       string
	Database   string
}

// Weak reports whether the identity is only made of two of the server's
// numbers, because the managing user may not read its real one.
func (i Info) Weak() bool { return strings.HasPrefix(i.Identity, "weak-") }

// session is what is known of one connection.
type session struct {
	Info
	// ahead is how far the server's clock is ahead of ours, at the least.
	ahead    time.Duration
	measured time.Time
	dirty    bool // ran an operator's statements: reset before anybody else
	notices  *[]*pgconn.PgError
}

const sessionKey = "leasehold"

func sessionOf(c *pgconn.PgConn) *session {
	s, _ := c.CustomData()[sessionKey].(*session)
	return s
}

// fresh is how long a session's clock offset and role (primary or replica) are
// believed.
const fresh = time.Minute

// Open reads the configuration. Nothing is connected before the first use.
func Open(cfg Config) (*Target, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	t := &Target{
		cfg: cfg, now: cfg.Now, log: cfg.Log, catalogue: make(chan struct{}, 1),
		working: cfg.Password, other: cfg.Candidate,
		templated: strings.Contains(cfg.URL, "{{password}}"),
	}
	total := max(cfg.MaxOpen, 2)
	revoke := max(total/4, 1) // ending goes in batches, creating mostly does not
	var err error
	if t.create, err = t.pool(total - revoke); err != nil {
		return nil, err
	}
	if t.revoke, err = t.pool(revoke); err != nil {
		t.create.Close()
		return nil, err
	}
	return t, nil
}

// Limits are the creations and revocations that the target takes at a time.
func (t *Target) Limits() lane.Limits {
	return lane.Limits{
		Create: int(t.create.Config().MaxConns),
		Revoke: int(t.revoke.Config().MaxConns) + 1, // one batch is read while another is worked on
		Batch:  BatchSize,
	}
}

func (t *Target) pool(size int) (*pgxpool.Pool, error) {
	pc, err := t.cfg.parse()
	if err != nil {
		return nil, err
	}
	pc.MaxConns = int32(size)
	pc.BeforeConnect = t.connectHook
	pc.AfterConnect = func(ctx context.Context, c *pgx.Conn) error { return t.meet(ctx, c.PgConn()) }
	pc.AfterRelease = t.clean
	return pgxpool.NewWithConfig(context.Background(), pc)
}

// Close ends all connections, after the work in progress. It may be called
// twice.
func (t *Target) Close() {
	t.create.Close()
	t.revoke.Close()
}

func (t *Target) password() secret.String {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.working
}

// Working is the password of the managing user that last let us in, which
// after an interrupted rotation may be the candidate.
func (t *Target) Working() secret.String { return t.password() }

// swap tries the other password next, if there is one, and reports whether
// there is.
func (t *Target) swap(failed secret.String) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.other.IsZero() {
		return false
	}
	if t.working.Equal(failed) { // nobody has swapped meanwhile
		t.working, t.other = t.other, t.working
	}
	return true
}

// meet asks a new connection who and when it is.
func (t *Target) meet(ctx context.Context, c *pgconn.PgConn) error {
	for _, p := range []string{"standard_conforming_strings", "client_encoding"} {
		if v := c.ParameterStatus(p); v != "on" && v != "UTF8" {
			return fmt.Errorf("the session has %s = %q; our statements need on and UTF8", p, v)
		}
	}
	s := sessionOf(c)
	if s == nil {
		s = &session{}
		c.CustomData()[sessionKey] = s
	}
	res := c.ExecParams(ctx, probeSQL, nil, nil, nil, nil).Read()
	if code := Code(res.Err); code == codePermission || code == codeUndefinedFunction {
		res = c.ExecParams(ctx, probeWeakSQL, nil, nil, nil, nil).Read()
	}
	after := t.now()
	if res.Err != nil {
		return fmt.Errorf("asking the server who it is: %w", res.Err)
	}
	if len(res.Rows) != 1 || len(res.Rows[0]) != 8 {
		return errors.New("asking the server who it is: no answer")
	}
	r := res.Rows[0]
	micros, err := strconv.ParseInt(string(r[1]), 10, 64)
	version, err2 := strconv.Atoi(string(r[3]))
	if err := errors.Join(err, err2); err != nil {
		return fmt.Errorf("reading who the server is: %w", err)
	}
	yes := func(i int) bool { return string(r[i]) == "t" }
	s.Info = Info{
		Identity: string(r[0]), Version: version, ReadOnly: yes(2),
		Superuser: yes(4), CreateRole: yes(5), User: string(r[6]), Database: string(r[7]),
	}
	// The server read its clock before the answer arrived, so it is at least
	// this far ahead: what follows from it errs on the early side.
	s.ahead, s.measured = time.UnixMicro(micros).Sub(after), after
	t.ahead.Store(int64(s.ahead))
	return nil
}

// clean resets a connection after an operator's statements; false destroys it.
// The pool runs it beside the caller, who has his answer already.
func (t *Target) clean(c *pgx.Conn) bool {
	s := sessionOf(c.PgConn())
	if s == nil || c.PgConn().TxStatus() != 'I' {
		return false
	}
	s.notices = nil
	if !s.dirty {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := c.PgConn().Exec(ctx, "DISCARD ALL").ReadAll(); err != nil {
		return false
	}
	s.dirty = false
	return true
}

// lostMost is how many connections that died while they were idle are passed
// over for another one.
const lostMost = 16

// acquire gives a connection to the server with an identity ("" takes any),
// ready to write. Its errors are known failures: nothing was sent.
func (t *Target) acquire(ctx context.Context, pool *pgxpool.Pool, identity string) (_ *pgxpool.Conn, _ *session, err error) {
	ctx, span := call(ctx, "sql connection", nil)
	defer func() { span.End(err) }()
	for lost := 0; ; {
		pw := t.password()
		conn, err := pool.Acquire(ctx)
		if err != nil {
			if c := Code(err); (c == codeBadPassword || c == codeBadAuthorization) && t.swap(pw) && ctx.Err() == nil && t.untried(pw) {
				continue
			}
			return nil, nil, connecting(ctx, err)
		}
		s := sessionOf(conn.Conn().PgConn())
		if s.ReadOnly || t.now().Sub(s.measured) > fresh {
			if err := t.meet(ctx, conn.Conn().PgConn()); err != nil {
				died := conn.Conn().IsClosed()
				destroy(conn)
				if died && lost < lostMost && ctx.Err() == nil {
					lost++
					continue
				}
				return nil, nil, connecting(ctx, err)
			}
		}
		if identity != "" && s.Identity != identity {
			err := &lease.WaitError{Reason: fmt.Sprintf("the address leads to another server: it is %s, the login was made on %s", s.Identity, identity)}
			destroy(conn)
			return nil, nil, err
		}
		if s.ReadOnly {
			destroy(conn) // the address may lead to the new primary next time
			return nil, nil, &lease.WaitError{Reason: "the server is a read-only replica"}
		}
		return conn, s, nil
	}
}

// untried reports whether the present password differs from one that failed
// and has not itself failed just now.
func (t *Target) untried(failed secret.String) bool {
	return !t.password().Equal(failed) && failed.Equal(t.cfg.Password)
}

func destroy(c *pgxpool.Conn) {
	raw := c.Hijack()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = raw.Close(ctx) // it is given up whatever closing says
}

// Ping connects if need be and says who answers, read-only or not.
func (t *Target) Ping(ctx context.Context) (Info, error) {
	conn, s, err := t.acquire(ctx, t.create, "")
	var wait *lease.WaitError
	if errors.As(err, &wait) {
		return Info{ReadOnly: true}, err
	}
	if err != nil {
		return Info{}, err
	}
	defer conn.Release()
	return s.Info, nil
}

// clock is a moment of ours on the server's clock.
func (s *session) clock(at time.Time) time.Time { return at.Add(s.ahead) }

//go:embed sql/epoch.sql
var epochSQL string

// NewestEpoch is the newest epoch of an instance's marks on the server, 0
// without any. instance is of letters and digits.
func (t *Target) NewestEpoch(ctx context.Context, identity, instance string) (uint64, error) {
	conn, _, err := t.acquire(ctx, t.revoke, identity)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	found, err := rows(ctx, conn.Conn().PgConn(), epochSQL, []string{instance})
	if err != nil || len(found) != 1 {
		return 0, fmt.Errorf("reading the marks' epochs: %w", err)
	}
	return strconv.ParseUint(found[0][0], 10, 64)
}
