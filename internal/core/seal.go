package core

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/leasehold/leasehold/internal/barrier"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/token"
)

// SealConfig says which keys open the store without people.
type SealConfig struct {
	Wrappers []seal.Wrapper // none: shares only
}

// sealState is what holders of shares have given so far.
type sealState struct {
	unseal seal.Unseal
}

// sealGrace is how long sealing waits for the requests inside.
const sealGrace = 10 * time.Second

// SealStatus is what sys/seal-status and health report.
type SealStatus struct {
	Type        string // "shamir", "static", "transit": what opens the server as it is configured
	Initialized bool
	Sealed      bool
	Shares      int
	Threshold   int
	Progress    int
	Nonce       string
}

// SealStatus reads the state of the seal.
func (c *Core) SealStatus(ctx context.Context) (SealStatus, error) {
	st := SealStatus{Type: seal.Shamir, Sealed: c.open_.Load() == nil}
	for _, w := range c.cfg.Seal.Wrappers {
		st.Type = w.Kind()
	}
	conf, err := seal.Load(ctx, c.cfg.Store)
	if err != nil || conf == nil {
		return st, err
	}
	st.Initialized = true
	st.Type, st.Shares, st.Threshold = conf.Type(c.cfg.Seal.Wrappers...), conf.Shares, conf.Threshold
	if st.Sealed {
		st.Progress, st.Nonce = c.seal.unseal.Progress()
	}
	return st, nil
}

// Health is the cheap part of the status, read for every health check: no
// storage is touched once the server is open.
func (c *Core) Health(ctx context.Context) (initialized, sealed bool, err error) {
	if c.open_.Load() != nil {
		return true, false, nil
	}
	conf, err := seal.Load(ctx, c.cfg.Store)
	return conf != nil, true, err
}

// ClusterID names this store for the lifetime of its data.
func (c *Core) ClusterID() string {
	if u := c.open_.Load(); u != nil {
		return u.clusterID
	}
	return ""
}

// Initialized is what a fresh store gives away, once.
type Initialized struct {
	Shares [][]byte
	Root   secret.String
}

// Init makes the keyring, the shares and the first root token. A server with a
// key of its own (an auto-unseal) is open afterwards, another is sealed.
func (c *Core) Init(ctx context.Context, p seal.Params, rootID secret.String) (*Initialized, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if is, err := barrier.Initialized(ctx, c.cfg.Store); err != nil || is {
		if err == nil {
			err = barrier.ErrInitialized
		}
		return nil, err
	}
	root := seal.NewRootKey()
	defer clear(root)
	// A seal's key may be another server's: it is asked before the lock.
	conf, shares, err := seal.New(ctx, root, p, c.cfg.Seal.Wrappers...)
	if err != nil {
		return nil, err
	}
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	if err := barrier.Init(ctx, c.cfg.Store, root, c.cfg.Now(), conf.Put); err != nil {
		return nil, fmt.Errorf("initialising: %w", err)
	}
	t, err := c.firstOpen(ctx, root, rootID)
	if err != nil {
		c.shut(sealGrace)
		return nil, errs.Wrap(errs.Unavailable, err,
			"initialising was begun and cannot be finished; the server's log says why. The shares are lost with it, and nothing is kept yet: empty the store and initialise again")
	}
	if len(c.cfg.Seal.Wrappers) == 0 {
		c.shut(sealGrace)
	}
	return &Initialized{Shares: shares, Root: t.Text}, nil
}

// firstOpen opens a store that was just made, and makes its root token.
func (c *Core) firstOpen(ctx context.Context, root []byte, rootID secret.String) (*token.Token, error) {
	if err := c.makeOpen(ctx, root); err != nil {
		return nil, err
	}
	return c.open_.Load().rootToken(ctx, rootID)
}

// Unseal takes one share. With the last of enough the server is open.
func (c *Core) Unseal(ctx context.Context, share []byte) error {
	conf, root, err := c.unsealBy(ctx, share)
	if err != nil || root == nil {
		return err
	}
	defer clear(root)
	c.refreshSlots(context.WithoutCancel(ctx), conf, root) // whoever gave the share may have left
	return nil
}

// unsealBy gives the root key, and the configuration that holds it, if this
// share has opened the server.
func (c *Core) unsealBy(ctx context.Context, share []byte) (conf *seal.Config, root []byte, err error) {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	if conf, err = seal.Load(ctx, c.cfg.Store); err != nil {
		return nil, nil, err
	}
	if conf == nil {
		return nil, nil, ErrUninitialized
	}
	if c.open_.Load() != nil {
		return nil, nil, nil
	}
	if root, err = c.seal.unseal.Submit(conf, share); err != nil || root == nil {
		return nil, nil, err
	}
	if err := c.makeOpen(ctx, root); err != nil {
		clear(root)
		return nil, nil, err
	}
	return conf, root, nil
}

// refreshSlots gives each configured key its slot, so that a key which was
// added to the configuration opens the store the next time. A key may be
// another server's, so no lock is held. conf is the configuration that gave the
// root key: one that is stored by now may hold another key. The server is open
// whatever comes of this, so that a failure is for the operator's log.
func (c *Core) refreshSlots(ctx context.Context, conf *seal.Config, root []byte) {
	changed := false
	for _, w := range c.cfg.Seal.Wrappers {
		made, err := conf.Refresh(ctx, root, w)
		if err != nil {
			c.log.Error("a seal's key cannot wrap the root key; the server is open, but may not open by that key the next time", "seal", w.Kind(), "error", err)
			continue
		}
		changed = changed || made
	}
	if !changed {
		return
	}
	stored := false
	_, err := c.cfg.Store.Update(ctx, func(tx storage.Tx) (err error) {
		stored, err = conf.Replace(tx)
		return err
	})
	switch {
	case err != nil:
		c.log.Error("the root key wrapped with the seal's key cannot be stored; the server is open, but may not open by that key the next time", "error", err)
	case stored:
		c.log.Info("the root key was wrapped anew with the seal's key in the configuration")
	}
}

// AutoUnseal opens the server with a key of its own, where it has one and the
// store is initialised. opened is false when people's shares are needed. A
// server that was open before stays as it is, and opened is true: whoever
// sealed it meant that, also if its key was being waited for.
func (c *Core) AutoUnseal(ctx context.Context) (opened bool, err error) {
	conf, err := seal.Load(ctx, c.cfg.Store)
	if err != nil || conf == nil || c.wasOpen.Load() {
		return c.wasOpen.Load(), err
	}
	root, err := c.rootKey(ctx, conf)
	if err != nil || root == nil {
		return false, err
	}
	defer clear(root)
	if err := c.openBy(ctx, root); err != nil {
		return false, err
	}
	c.refreshSlots(ctx, conf, root)
	return true, nil
}

// rootKey is the root key by the first of the configured keys that gives it;
// nil if the store was sealed with none of them.
func (c *Core) rootKey(ctx context.Context, conf *seal.Config) ([]byte, error) {
	var failed []error
	for _, w := range c.cfg.Seal.Wrappers {
		root, err := conf.Open(ctx, w)
		if err != nil {
			failed = append(failed, err)
		} else if root != nil {
			return root, nil
		}
	}
	return nil, errors.Join(failed...)
}

// openBy opens the server if nobody else has, yet.
func (c *Core) openBy(ctx context.Context, root []byte) error {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	if c.wasOpen.Load() {
		return nil
	}
	return c.makeOpen(ctx, root)
}

// ResetUnseal forgets the shares given so far.
func (c *Core) ResetUnseal() { c.seal.unseal.Reset() }

// Seal closes the server: it refuses requests, waits for running ones within
// their limit, and forgets the keys.
func (c *Core) Seal() error {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	if c.open_.Load() == nil {
		return ErrSealed
	}
	c.shut(sealGrace)
	c.log.Info("sealed")
	return nil
}

// SealSoon is Seal for a request: it returns when no further request is let in,
// and the rest happens once the one that asks has been answered.
func (c *Core) SealSoon() error {
	c.stateMu.Lock()
	u := c.refuse()
	if u == nil {
		c.stateMu.Unlock()
		return ErrSealed
	}
	go func() { // Stop waits for it by the lock
		defer c.stateMu.Unlock()
		c.finish(u, sealGrace)
		c.log.Info("sealed")
	}()
	return nil
}

func (c *Core) sealConfig(ctx context.Context) (*seal.Config, *unsealed, error) {
	u, err := c.open()
	if err != nil {
		return nil, nil, err
	}
	conf, err := seal.Load(ctx, c.cfg.Store)
	if err == nil && conf == nil {
		err = ErrUninitialized
	}
	return conf, u, err
}

// Reshare wraps a new root key for n new shares, for those who hold enough of
// the old ones. The old ones stay good until commit is called, which may fail
// with barrier.ErrUnsure.
func (c *Core) Reshare(ctx context.Context, old [][]byte, n, threshold int) (made [][]byte, commit func(context.Context) error, err error) {
	conf, u, err := c.sealConfig(ctx)
	if err != nil {
		return nil, nil, err
	}
	if _, err := conf.Combine(old); err != nil {
		return nil, nil, err
	}
	root := seal.NewRootKey()
	next, made, err := seal.New(ctx, root, seal.Params{Shares: n, Threshold: threshold}, c.cfg.Seal.Wrappers...)
	if err != nil {
		clear(root)
		return nil, nil, err
	}
	return made, func(ctx context.Context) error {
		c.stateMu.Lock()
		defer c.stateMu.Unlock()
		// The key is wiped once it is stored and not before: who verifies the
		// new shares tries again after a failure.
		if err := u.store.Rekey(context.WithoutCancel(ctx), root, next.Put); err != nil {
			return err
		}
		clear(root)
		return nil
	}, nil
}

// RootToken makes a root token for those who hold enough shares.
func (c *Core) RootToken(ctx context.Context, shares [][]byte) (secret.String, error) {
	conf, u, err := c.sealConfig(ctx)
	if err != nil {
		return noID, err
	}
	if _, err := conf.Combine(shares); err != nil {
		return noID, err
	}
	t, err := u.rootToken(ctx, noID)
	if err != nil {
		return noID, err
	}
	return t.Text, nil
}

// RotateKey adds a term to the keyring: what is written from now on is
// encrypted under a new key.
func (c *Core) RotateKey(ctx context.Context) (barrier.KeyStatus, error) {
	u, err := c.open()
	if err != nil {
		return barrier.KeyStatus{}, err
	}
	return u.store.Rotate(ctx)
}

// KeyStatus tells of the key in use.
func (c *Core) KeyStatus() (barrier.KeyStatus, error) {
	u, err := c.open()
	if err != nil {
		return barrier.KeyStatus{}, err
	}
	return u.store.KeyStatus()
}
