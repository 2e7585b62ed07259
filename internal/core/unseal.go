package core

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/audit/outbox"
	"github.com/leasehold/leasehold/internal/barrier"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
)

// makeOpen builds everything that exists while unsealed, on the root key, and
// opens it for requests. Nothing is loaded but the mount table, the audit
// devices and one entry per lane: its cost does not grow with the leases.
func (c *Core) makeOpen(ctx context.Context, root []byte) (err error) {
	if c.stopping.Load() {
		return errStopping // the store is being closed
	}
	b, err := barrier.Open(ctx, c.cfg.Store, root, c.cfg.Now)
	if err != nil {
		return err
	}
	uctx, cancel := context.WithCancel(context.Background())
	u := &unsealed{core: c, ctx: uctx, cancel: cancel, store: b, drained: make(chan struct{}, 1), kicked: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			cancel()
			u.wg.Wait()
			if u.broker != nil {
				err = errors.Join(err, u.broker.Close())
			}
			err = errors.Join(err, b.Close())
		}
	}()
	if err := u.firstRows(ctx); err != nil {
		return fmt.Errorf("writing the first rows: %w", err)
	}
	if err := u.startClock(ctx); err != nil {
		return fmt.Errorf("reading the clock: %w", err)
	}
	leaseHash, err1 := b.KeyedHash("lease")
	tokenHash, err2 := b.KeyedHash("token")
	lockHash, err3 := b.KeyedHash("lockout")
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	u.lockouts.u, u.lockouts.hash, u.lockouts.fails = u, lockHash, newFailures()
	u.broker = audit.NewBroker(c.log)
	u.outbox = outbox.New(outbox.Config{Store: b, Sink: u.broker, Log: c.log, Now: c.cfg.Now})
	u.setClock()
	handlers := map[string]lane.Handler{}
	u.lanes = lane.New(lane.Config{Store: b, Handlers: handlers, Held: u.fenced, Limits: c.cfg.Lanes, Now: c.cfg.Now, Log: c.log})
	u.leases = lease.New(lease.Config{
		Store: b, Lanes: u.lanes, Origin: u.origin, Hash: leaseHash, Kind: u.leaseKind, Mounts: u.leaseMounts,
		Alive:  func(ctx context.Context, ns, owner string) (bool, error) { return u.tokens.Alive(ctx, ns, owner) },
		Record: u.recordLeases, Fenced: u.fenced, Now: c.cfg.Now, Log: c.log,
	})
	u.tokens = token.New(token.Config{
		Store: b, Hash: tokenHash, Seal: b.SealBlob, Open: b.OpenBlob, EndLeases: u.leases.RevokeOwned,
		Dropped: u.dropToken, Living: u.living, Record: u.recordTokens, Fenced: u.fenced, Now: c.cfg.Now, Log: c.log,
	})
	handlers[lease.DueKind] = u.leases.Handler()
	handlers[lease.OfferKind] = u.leases.Offers()
	handlers[token.DueKind] = u.tokens.Handler()
	handlers[engine.DueKind] = engine.DueHandler(u.worker, c.log)
	u.spaces.u, u.mounts.u, u.policies.u, u.quotas.u = u, u, u, u

	// From here on every cache hears of every change before the Update that
	// made it returns.
	watching, watched := make(chan struct{}), make(chan error, 1)
	u.background(func() { watched <- u.watch(watching) })
	select {
	case <-watching:
	case err := <-watched:
		return fmt.Errorf("watching the store: %w", err)
	case <-ctx.Done():
		return ctx.Err()
	}
	u.lost(0) // nothing is loaded yet
	if err := u.freshDevices(ctx); err != nil {
		return err
	}
	if _, err := u.mounts.current(ctx); err != nil {
		return err
	}
	u.background(func() {
		if err := u.lanes.Run(uctx); err != nil {
			c.log.Error("the lanes have stopped; nothing expires until the server is restarted", "error", err)
		}
	})
	u.background(func() {
		if err := u.outbox.Run(uctx); err != nil && uctx.Err() == nil {
			c.log.Error("delivering audit records has stopped", "error", err)
		}
	})
	u.background(func() { u.keepTime(uctx) })
	u.background(func() { u.sweep(uctx) })
	c.open_.Store(u)
	c.wasOpen.Store(true)
	c.seal.unseal.Reset() // shares that were given before the seal's key came
	c.minders.Go(func() { c.mind(u, <-watched) })
	c.log.Info("unsealed", "epoch", u.origin.Epoch)
	return nil
}

// mind seals when watching the store has ended and nobody asked for that: the
// caches are not true any more.
func (c *Core) mind(u *unsealed, err error) {
	if u.ctx.Err() != nil {
		return
	}
	c.log.Error("watching the store has stopped; sealing", "error", err)
	u.closed.Store(true) // at once; a sealing that goes on may hold the lock
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	if c.open_.CompareAndSwap(u, nil) {
		c.finish(u, sealGrace)
	}
}

// watch keeps the caches true until sealing. It ends early with an error.
func (u *unsealed) watch(running chan<- struct{}) error {
	for first := true; u.ctx.Err() == nil; first = false {
		var from storage.Revision
		err := u.store.View(u.ctx, func(v storage.View) error { from = v.Revision(); return nil })
		if err == nil {
			if !first {
				u.lost(from)
			}
			told := !first
			err = u.store.Watch(u.ctx, from, func(changes []storage.Change) error {
				if !told {
					told = true
					close(running)
				}
				u.changed(changes)
				return nil
			})
		}
		if u.ctx.Err() != nil {
			break
		}
		if !errors.Is(err, storage.ErrLost) {
			return err
		}
	}
	return nil
}

func (u *unsealed) changed(changes []storage.Change) {
	u.tokens.Changed(changes)
	for _, c := range changes {
		switch prefix, _, _ := strings.Cut(c.Key, "/"); prefix + "/" {
		case namespacePrefix:
			u.spaces.fresh.changed()
		case mountPrefix:
			u.mounts.changed(c.Key)
		case policyPrefix:
			u.policies.changed(c.Key, c.Rev)
		case slicePrefix:
			u.sliceChanged(c)
		case settingsPrefix:
			u.settings.fresh.changed()
		case quotaPrefix, quotaConfPrefix:
			u.quotas.changed()
		case lockPrefix:
			u.lockouts.changed(c.Key)
		case devicePrefix, headerPrefix:
			u.auditing.fresh.changed()
		}
	}
}

// lost drops every cache: changes up to rev may have been missed.
func (u *unsealed) lost(rev storage.Revision) {
	u.tokens.Lost(rev)
	u.policies.drop(rev)
	u.slicesLost(rev)
	u.settings.fresh.changed()
	u.quotas.changed()
	u.lockouts.rows.changed()
	u.spaces.fresh.changed()
	u.mounts.lost()
	u.auditing.fresh.changed()
}

// tokenDropper is an engine that drops what a token kept when the token ends.
type tokenDropper interface {
	Drop(ctx context.Context, caller string) error
}

// dropToken deletes what hangs from a token beside its leases: a wrapped
// answer, and its cubbyhole, which is in its own namespace.
func (u *unsealed) dropToken(ctx context.Context, ns, key string) error {
	var has bool
	err := u.store.View(ctx, func(v storage.View) error {
		b, err := v.Get(wrapPrefix + key)
		has = b != nil
		return err
	})
	if err == nil && has {
		_, err = u.store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(wrapPrefix + key) })
	}
	if err != nil {
		return err
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return err
	}
	for _, m := range t.ofNS[ns] {
		if d, ok := m.engine.(tokenDropper); ok && m.Ending.IsZero() {
			if err := d.Drop(ctx, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweep finishes what takes many steps, such as mounts and namespaces that are
// ending, rotates the keyring when it is time, and lets engines do the same.
func (u *unsealed) sweep(ctx context.Context) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	engines := time.NewTicker(30 * time.Second)
	defer engines.Stop()
	for {
		u.sweepSpaces(ctx)
		u.sweepMounts(ctx)
		u.sweepQuotas(ctx)
		u.lockouts.sweep(ctx)
		u.sweepPolicies(ctx)
		u.rotateIfDue(ctx)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-engines.C:
			u.sweepEngines(ctx)
		case <-u.kicked:
		}
	}
}

// sweepEngines lets engines do what of their own has become due.
func (u *unsealed) sweepEngines(ctx context.Context) {
	t, err := u.mounts.current(ctx)
	if err != nil {
		u.core.log.Error("reading the mounts to sweep them", "error", err)
		return
	}
	for _, m := range t.byPath {
		s, ok := m.engine.(engine.Sweeper)
		if !ok || ctx.Err() != nil {
			continue
		}
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			u.core.log.Error("an engine's own work is tried again later", "mount", m.Path, "error", err)
		}
	}
}

// shut closes what makeOpen built: new requests are refused, those inside may
// finish within grace, what is still being made becomes due, and the keys are
// wiped.
func (c *Core) shut(grace time.Duration) {
	if u := c.refuse(); u != nil {
		c.finish(u, grace)
	}
}

// refuse lets no request in any more. It gives what was open, or nil.
func (c *Core) refuse() *unsealed {
	u := c.open_.Swap(nil)
	if u != nil {
		u.closed.Store(true)
	}
	return u
}

// finish waits for the requests inside and takes apart what was open.
func (c *Core) finish(u *unsealed, grace time.Duration) {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	for u.active.Load() > 0 {
		select {
		case <-u.drained:
			continue
		case <-timer.C:
			n, err := u.leases.UndoMaking(context.Background())
			c.log.Warn("requests were still running when the server was sealed; what they make is due at once",
				"requests", u.active.Load(), "made due", n, "error", err)
		}
		break
	}
	u.cancel()
	u.wg.Wait()
	if t := u.mounts.table.Load(); t != nil {
		for _, m := range t.byID {
			m.close(u)
		}
	}
	if err := u.broker.Close(); err != nil {
		c.log.Warn("closing audit devices", "error", err)
	}
	if err := u.store.Close(); err != nil {
		c.log.Warn("closing the barrier", "error", err)
	}
}

// firstRows writes what a fresh store begins with, unless it is there: the
// root namespace, the clock, the server's own mounts and policies. It is one
// transaction, so a crash between making the keyring and this leaves nothing
// half done.
func (u *unsealed) firstRows(ctx context.Context) error {
	now := u.core.cfg.Now().Round(0)
	there := false
	err := u.store.View(ctx, func(v storage.View) error {
		b, err := v.Get(clockKey)
		there = b != nil
		return err
	})
	if err != nil || there {
		return err
	}
	_, err = u.store.Update(ctx, func(tx storage.Tx) error {
		if b, err := tx.Get(clockKey); err != nil || b != nil {
			return err
		}
		if err := tx.Put(NamespaceLiveKey(token.RootNamespace), []byte(lease.Alive)); err != nil {
			return err
		}
		if err := putJSON(tx, clockKey, clockRow{V: 1, Instance: newUUID()[:13], Cluster: newUUID(), Seen: now}); err != nil {
			return err
		}
		return addOwn(tx, token.RootNamespace, PolicyRow{V: policyVersion, Modified: now})
	})
	return err
}

// rootToken makes a token with the root policy that never expires. One of a
// text that was asked for, as a dev server's is, looks as if it had been made
// at auth/token/create, where such texts are given.
func (u *unsealed) rootToken(ctx context.Context, id secret.String) (*token.Token, error) {
	e := &token.Entry{
		Namespace: token.RootNamespace, Policies: []string{policy.RootName}, Path: "auth/token/root", DisplayName: "root",
	}
	if !id.IsZero() {
		e.Path, e.DisplayName = "auth/token/create", "token"
	}
	return u.tokens.Create(ctx, e, id)
}

// Stop seals for good: the process is ending. A sealing that goes on is waited
// for.
func (c *Core) Stop(grace time.Duration) {
	c.stopping.Store(true)
	c.stateMu.Lock()
	c.shut(grace)
	c.stateMu.Unlock()
	c.minders.Wait()
}
