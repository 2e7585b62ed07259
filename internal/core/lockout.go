package core

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
)

// Who fails to log in too often is locked out for a while. Failures are counted
// in memory, in a table of a fixed size (failures.go); what they lead to is a
// row, so that neither a restart nor another node lets anybody in early. A name
// is counted and locked whether there is such a user or not, and who is locked
// out reads the same with the right password as with a wrong one.
//
// What is stored, and under which keys; <who> is <ns>/<mount's id>/<hash of the alias>:
//
//	lockout/<who>          lockRow, JSON
//	lockend/<time>/<who>   empty: by when it ends, for sweeping
const (
	lockPrefix    = "lockout/"
	lockEndPrefix = "lockend/"
	lockVersion   = 1
	lockTime      = "20060102T150405Z"
)

// lockRow is an alias that is locked out. Version 1.
type lockRow struct {
	V     int       `json:"v"`
	Mount string    `json:"mount"` // its id
	Alias string    `json:"alias"`
	Until time.Time `json:"until"`
}

func lockEnd(who string, until time.Time) string {
	return lockEndPrefix + until.UTC().Format(lockTime) + "/" + who
}

// Lockout says when an alias of a mount is locked out.
type Lockout struct {
	Threshold    int           // failures in a row; 0: 5
	Duration     time.Duration // 0: 15 minutes
	CounterReset time.Duration // after which a failure is forgotten; 0: 15 minutes
	Disable      bool
}

// lockout is what holds at a mount: its own tuning, else the configuration's
// for its type, else the defaults.
func (c *Core) lockout(m *mounted) Lockout {
	conf := c.cfg.Lockouts[m.Type]
	const defThreshold, defTime = 5, 15 * time.Minute
	return Lockout{
		Threshold:    int(min(cmp.Or(m.Config.LockoutThreshold, uint64(max(conf.Threshold, 0)), defThreshold), 1_000_000)),
		Duration:     cmp.Or(m.Config.LockoutDuration, conf.Duration, defTime),
		CounterReset: cmp.Or(m.Config.LockoutCounterReset, conf.CounterReset, defTime),
		Disable:      m.Config.LockoutDisable || conf.Disable,
	}
}

// lockouts are those of one unsealed server.
type lockouts struct {
	u     *unsealed
	hash  func(string) [32]byte
	fails *failures
	rows  fresh
	any   atomic.Bool // there are rows
	rate  lockRate
}

// mostAlias bounds an alias that is counted. No method knows a longer one.
const mostAlias = 512

func (l *lockouts) who(m *mounted, alias string) string {
	h := l.hash(m.ID + "/" + alias)
	return m.Namespace + "/" + m.ID + "/" + hex.EncodeToString(h[:16])
}

// attempt is one try to log in.
type attempt struct {
	l     *lockouts
	m     *mounted
	alias string
	key   string // see who; "" until somebody asks
}

func (a *attempt) who() string {
	if a.key == "" {
		a.key = a.l.who(a.m, a.alias)
	}
	return a.key
}

// quiet reports that nobody is locked out and nobody has failed, which costs
// next to nothing to find out.
func (l *lockouts) quiet(ctx context.Context) (bool, error) {
	err := l.rows.ensure(func() error {
		some := false
		err := l.u.store.View(ctx, func(v storage.View) error {
			return storage.ScanEach(v, lockPrefix, storage.PrefixEnd(lockPrefix), 1, func(string, []byte, error) bool {
				some = true
				return false
			})
		})
		l.any.Store(some)
		return err
	})
	return !l.any.Load() && l.fails.empty(), err
}

// admit refuses an alias that is locked out.
func (a *attempt) admit(ctx context.Context) error {
	l := a.l
	quiet, err := l.quiet(ctx)
	if err != nil || quiet || l.u.core.lockout(a.m).Disable {
		return err
	}
	who, now := a.who(), l.u.core.cfg.Now()
	locked := l.fails.locked(who, now)
	if !locked && l.any.Load() {
		row, err := l.read(ctx, who)
		if err != nil {
			return err
		}
		locked = row != nil && row.Until.After(now)
	}
	if locked {
		return errDenied
	}
	return nil
}

func (l *lockouts) read(ctx context.Context, who string) (row *lockRow, err error) {
	err = l.u.store.View(ctx, func(v storage.View) error {
		row, err = lockAt(v, who)
		return err
	})
	return row, err
}

func lockAt(v storage.Reader, who string) (*lockRow, error) {
	b, err := v.Get(lockPrefix + who)
	row := new(lockRow)
	if err == nil && b != nil {
		err = json.Unmarshal(b, row)
		if err != nil {
			err = &storage.CorruptError{Key: lockPrefix + who, Err: err}
		}
	}
	if err != nil || b == nil {
		return nil, err
	}
	return row, nil
}

// outcome takes note of how a login went. Whoever was locked out
// meanwhile, by guesses made at the same time, is refused after all: many
// guesses at once are no way around the limit.
func (a *attempt) outcome(ctx context.Context, err error) error {
	l, m := a.l, a.m
	if err == nil {
		if err := a.admit(ctx); err != nil {
			return err
		}
		if !l.fails.empty() {
			l.fails.clear(a.who())
		}
		return nil
	}
	lim := l.u.core.lockout(m)
	if lim.Disable || len(a.alias) > mostAlias || !errors.Is(err, route.ErrCredentials) {
		return err
	}
	who, now := a.who(), l.u.core.cfg.Now()
	if l.fails.add(who, now, lim) && l.rate.take(now) {
		row := lockRow{V: lockVersion, Mount: m.ID, Alias: a.alias, Until: now.Add(lim.Duration).Round(0)}
		// The attempt that locks is answered like the others before it,
		// whether its row could be written or not.
		if werr := l.write(context.WithoutCancel(ctx), who, row); werr != nil {
			l.u.core.log.Error("a lockout could not be written; it holds until the server is restarted", "mount", m.Path, "error", werr)
		} else {
			l.u.core.log.Warn("an alias is locked out after too many failed logins; sys/locked-users names it", "mount", m.Path, "until", row.Until)
		}
	}
	return err
}

func (l *lockouts) write(ctx context.Context, who string, row lockRow) error {
	_, err := l.u.store.Update(ctx, func(tx storage.Tx) error {
		if err := putJSON(tx, lockPrefix+who, row); err != nil {
			return err
		}
		return tx.Put(lockEnd(who, row.Until), nil)
	})
	return err
}

// changed hears of a row that was written or deleted: from then on it alone
// counts, on every node.
func (l *lockouts) changed(key string) {
	if who, ok := strings.CutPrefix(key, lockPrefix); ok {
		l.fails.clear(who)
		l.rows.changed()
	}
}

// sweep deletes the rows of lockouts that are over, page by page.
func (l *lockouts) sweep(ctx context.Context) {
	if _, err := l.quiet(ctx); err != nil || !l.any.Load() {
		return
	}
	now := l.u.core.cfg.Now()
	for ctx.Err() == nil {
		const page = 40
		var ends []string
		err := l.u.store.View(ctx, func(v storage.View) error {
			return storage.ScanEach(v, lockEndPrefix, lockEnd("", now), page, func(key string, _ []byte, _ error) bool {
				ends = append(ends, key)
				return true
			})
		})
		if err == nil && len(ends) > 0 {
			_, err = l.u.store.Update(ctx, func(tx storage.Tx) error { return dropLocks(tx, ends, now) })
		}
		if err != nil {
			if ctx.Err() == nil {
				l.u.core.log.Error("deleting lockouts that are over; it is tried again", "error", err)
			}
			return
		}
		if len(ends) < page {
			return
		}
	}
}

// dropLocks deletes what the entries of the index name, unless it was locked
// anew meanwhile. A row that cannot be read is deleted: its time is over.
func dropLocks(tx storage.Tx, ends []string, now time.Time) error {
	for _, end := range ends {
		_, who, _ := strings.Cut(end[len(lockEndPrefix):], "/")
		row, err := lockAt(tx, who)
		if err != nil && !isBadRow(err) {
			return err
		}
		if row == nil || !row.Until.After(now) {
			if err := tx.Delete(lockPrefix + who); err != nil {
				return err
			}
		}
		if err := tx.Delete(end); err != nil {
			return err
		}
	}
	return nil
}

// LockedUser is an alias that is locked out.
type LockedUser struct {
	Accessor string // of its mount
	Alias    string
}

// LockedUsers lists who is locked out in a namespace, by mount and alias.
func (c *Core) LockedUsers(ctx context.Context, ns string) ([]LockedUser, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return nil, err
	}
	var out []LockedUser
	now, prefix := c.cfg.Now(), lockPrefix+ns+"/"
	err = u.store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, prefix, storage.PrefixEnd(prefix), 0, func(key string, b []byte, bad error) bool {
			var row lockRow
			if bad == nil {
				bad = json.Unmarshal(b, &row)
			}
			if bad != nil {
				c.log.Error("listing lockouts", "error", bad)
				return true
			}
			if m := t.byID[row.Mount]; m != nil && m.Ending.IsZero() && row.Until.After(now) {
				out = append(out, LockedUser{m.Accessor, row.Alias})
			}
			return true
		})
	})
	slices.SortFunc(out, func(a, b LockedUser) int {
		return cmp.Or(strings.Compare(a.Accessor, b.Accessor), strings.Compare(a.Alias, b.Alias))
	})
	return out, err
}

// UnlockUser lets an alias log in again, on every node. One that is not locked
// out is no error.
func (c *Core) UnlockUser(ctx context.Context, ns, accessor, alias string) error {
	u, err := c.open()
	if err != nil {
		return err
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return err
	}
	var at *mounted
	for _, m := range t.byID {
		if m.Namespace == ns && m.Accessor == accessor && m.Ending.IsZero() {
			at = m
		}
	}
	if at == nil {
		return errs.New(errs.Invalid, "no auth method has the mount accessor %q; list them with `leasehold auth list`", accessor)
	}
	who := u.lockouts.who(at, alias)
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		row, err := lockAt(tx, who)
		if err != nil && !isBadRow(err) {
			return err
		}
		if row != nil {
			if err := tx.Delete(lockEnd(who, row.Until)); err != nil {
				return err
			}
		}
		return tx.Delete(lockPrefix + who)
	})
	u.lockouts.fails.clear(who) // deleting nothing need not be a change
	return err
}

// lockRate bounds how fast lockouts are written: strangers must not fill the
// disk. Those beyond it hold on this node, as long as its table has room.
type lockRate struct {
	mu   sync.Mutex
	left float64
	last time.Time
}

func (r *lockRate) take(now time.Time) bool {
	const perSecond, most = 20, 1000
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last.IsZero() {
		r.left = most
	} else if d := now.Sub(r.last); d > 0 {
		r.left = min(most, r.left+d.Seconds()*perSecond)
	}
	r.last = now
	if r.left < 1 {
		return false
	}
	r.left--
	return true
}
