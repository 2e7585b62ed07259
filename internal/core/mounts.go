package core

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
)

// What is stored of mounts, and under which keys:
//
//	mount/<ns>/<id>        Mount, JSON; kept as a tombstone while it ends
//	mountpath/<ns>/<path>  the id: the path is taken
//	alive/m/<id>           lease.Alive, or lease.Ended
//	m/<ns>/<id>/...        the engine's own slice
const (
	mountPrefix     = "mount/"
	mountPathPrefix = "mountpath/"
	mountLivePrefix = "alive/m/"
	slicePrefix     = "m/"
	mountVersion    = 1
)

// The classes of mounts.
const (
	ClassSecret = "secret"
	ClassAuth   = "auth"
)

// Mount is one entry of the mount table as it is stored. Version 1.
type Mount struct {
	V           int               `json:"v"`
	ID          string            `json:"id"`
	Namespace   string            `json:"ns"`
	Path        string            `json:"path"` // "database/", "auth/token/"
	Class       string            `json:"class"`
	Type        string            `json:"type"`
	Accessor    string            `json:"acc"`
	Description string            `json:"desc,omitempty"`
	Options     map[string]string `json:"opt,omitempty"`
	Config      MountConfig       `json:"conf"`
	Local       bool              `json:"local,omitempty"`
	SealWrap    bool              `json:"sw,omitempty"`
	Former      []string          `json:"former,omitempty"` // paths whose leases still name it
	Ending      time.Time         `json:"ending,omitzero"`  // removed; its leases are being revoked
	Marked      bool              `json:"marked,omitempty"` // all that it has issued has been made due
}

// MountConfig is what tune changes. Zero durations take the server's.
type MountConfig struct {
	DefaultTTL            time.Duration `json:"dttl,omitempty"`
	MaxTTL                time.Duration `json:"mttl,omitempty"`
	ForceNoCache          bool          `json:"fnc,omitempty"`
	ListingVisibility     string        `json:"lv,omitempty"`
	AuditRequestKeys      []string      `json:"arq,omitempty"` // answered in the clear in the log
	AuditResponseKeys     []string      `json:"ars,omitempty"`
	PassthroughHeaders    []string      `json:"pth,omitempty"`
	AllowedHeaders        []string      `json:"arh,omitempty"`
	AllowedManagedKeys    []string      `json:"amk,omitempty"`
	TokenType             string        `json:"tt,omitempty"`
	PluginVersion         string        `json:"pv,omitempty"`
	LockoutThreshold      uint64        `json:"lth,omitempty"`
	LockoutDuration       time.Duration `json:"ldu,omitempty"`
	LockoutCounterReset   time.Duration `json:"lcr,omitempty"`
	LockoutDisable        bool          `json:"ldi,omitempty"`
	DelegatedAuthAccesors []string      `json:"daa,omitempty"`
}

func (m *Mount) rowKey() string  { return mountPrefix + m.Namespace + "/" + m.ID }
func (m *Mount) pathKey() string { return mountPathPrefix + m.Namespace + "/" + m.Path }

// Slice is what the keys of the mount's rows begin with.
func (m *Mount) Slice() string { return m.slice() }

func (m *Mount) slice() string { return slicePrefix + m.Namespace + "/" + m.ID + "/" }

// LiveKey is the mount's liveness key.
func (m *Mount) LiveKey() string { return mountLivePrefix + m.ID }

// Protected mounts are the server's own: they are neither made nor removed.
func (m *Mount) Protected() bool { return protectedTypes[m.Class+"/"+m.Type] }

var protectedTypes = map[string]bool{
	"secret/system": true, "secret/cubbyhole": true, "secret/identity": true, "auth/token": true,
}

// mounted is a mount with its engine. It is never changed once it is in the
// table; a tune makes another.
type mounted struct {
	Mount
	engine engine.Engine // nil if it could not be made
	err    error         // why not
	table  *route.Table
	kinds  map[string]lease.AnyKind
	info   route.MountInfo
	live   []string // liveness keys of what is issued here
	cancel context.CancelFunc
	// figures are counted; they are the mount's as long as it is known.
	figures *mountFigures
	// watcher is the engine, if it wants to hear of changes in its slice.
	watcher engine.Watcher
}

// mounts keeps the table of one unsealed server in step with the store.
type mounts struct {
	u     *unsealed
	table atomic.Pointer[mountTable]
	fresh fresh
	stale staleRows
}

// changed hears of a row that was written or deleted, and lost that any may
// have been.
func (ms *mounts) changed(key string) {
	ms.stale.add(key)
	ms.fresh.changed()
}

func (ms *mounts) lost() {
	ms.stale.addAll()
	ms.fresh.changed()
}

// current is the table, loaded anew if the store has changed.
func (ms *mounts) current(ctx context.Context) (*mountTable, error) {
	if err := ms.fresh.ensure(func() error { return ms.load(ctx) }); err != nil {
		return nil, fmt.Errorf("loading the mount table: %w", err)
	}
	return ms.table.Load(), nil
}

// load reads what has changed of the table. One call goes on at a time.
func (ms *mounts) load(ctx context.Context) error {
	// What changes from here on is loaded by the next call.
	keys, all := ms.stale.take()
	old := ms.table.Load()
	next := old.clone()
	if all || old == nil {
		next, all = new(mountTable).clone(), true
	}
	rows, err := ms.read(ctx, keys, all)
	if err == nil {
		err = ms.replace(ctx, next, old, keys, rows)
	}
	if err != nil {
		ms.stale.addAll()
		return err
	}
	ms.table.Store(next)
	if old == nil {
		return nil
	}
	gone := func(id string) {
		m, n := old.byID[id], next.byID[id]
		if m != nil && (n == nil || n.table != m.table) { // the two are made together
			m.close(ms.u)
		}
	}
	if !all {
		for _, key := range keys {
			gone(mountInKey(key))
		}
		return nil
	}
	for id := range old.byID {
		gone(id)
	}
	return nil
}

func mountInKey(key string) string { return key[strings.LastIndexByte(key, '/')+1:] }

// replace puts rows into the table in place of what was at keys.
func (ms *mounts) replace(ctx context.Context, next, old *mountTable, keys []string, rows []*Mount) error {
	// What a mount has from its namespace never changes.
	spaces, err := ms.u.spaces.current(ctx)
	if err != nil {
		return err
	}
	for _, key := range keys {
		next.drop(mountInKey(key))
	}
	for _, m := range rows {
		var have *mounted
		if old != nil {
			have = old.byID[m.ID]
		}
		next.add(ms.u.load(m, spaces.byID[m.Namespace], have))
	}
	return nil
}

// read reads the rows at keys, or all. Those that are not there are left out.
func (ms *mounts) read(ctx context.Context, keys []string, all bool) (rows []*Mount, err error) {
	take := func(key string, b []byte, bad error) bool {
		if b == nil && bad == nil {
			return true
		}
		m := new(Mount)
		if bad == nil {
			bad = json.Unmarshal(b, m)
		}
		if bad == nil && m.V > mountVersion {
			bad = fmt.Errorf("it has version %d, written by a newer server", m.V)
		}
		if bad != nil {
			// Quarantined: this mount does not route, the others do.
			ms.u.core.log.Error("a mount cannot be read; it is left out", "key", key, "error", bad)
			return true
		}
		rows = append(rows, m)
		return true
	}
	err = ms.u.store.View(ctx, func(v storage.View) error {
		if all {
			return storage.ScanEach(v, mountPrefix, storage.PrefixEnd(mountPrefix), 0, take)
		}
		for _, key := range keys {
			b, err := v.Get(key)
			if err != nil && !isBadRow(err) {
				return err
			}
			take(key, b, err)
		}
		return nil
	})
	return rows, err
}

// close ends an engine whose mount is gone or was made anew.
func (m *mounted) close(u *unsealed) {
	if m.cancel != nil {
		m.cancel()
	}
	if c, ok := m.engine.(engine.Closer); ok {
		if err := c.Close(); err != nil {
			u.core.log.Warn("closing an engine", "mount", m.Path, "error", err)
		}
	}
}

// load makes the engine of a mount, or keeps the one it has where nothing that
// the engine was given has changed. s is its namespace; of one that cannot be
// read nil, and then nothing leads to the mount.
func (u *unsealed) load(m *Mount, s *space, have *mounted) *mounted {
	if s == nil {
		s = &space{live: []string{NamespaceLiveKey(m.Namespace)}}
	}
	n := &mounted{Mount: *m, live: append([]string{m.LiveKey()}, s.live...), figures: new(mountFigures)}
	if have != nil {
		n.figures = have.figures
	}
	def, most := u.core.ttls(m.Config)
	n.info = route.MountInfo{
		Path: m.Path, Type: m.Type, ID: m.ID, Accessor: m.Accessor, Namespace: m.Namespace, NamespacePath: s.Path,
		Options: m.Options, DefaultTTL: def, MaxTTL: most,
	}
	if have != nil && have.err == nil && maps.Equal(have.Options, m.Options) {
		n.engine, n.table, n.kinds, n.cancel = have.engine, have.table, have.kinds, have.cancel
		n.watcher = have.watcher
		return n
	}
	n.table = route.NewTable()
	factory, ok := u.core.cfg.Engines[m.Class+"/"+m.Type]
	if !ok {
		n.err = fmt.Errorf("this server has no %s engine of type %q", m.Class, m.Type)
		u.core.log.Error("a mount has no engine", "mount", m.Path, "type", m.Type)
		return n
	}
	hash, err := u.store.KeyedHash("mount/" + m.ID)
	if err != nil {
		n.err = err // sealed meanwhile
		return n
	}
	ctx, cancel := context.WithCancel(u.ctx)
	slice := m.slice()
	e, err := factory(ctx, engine.Env{
		MountID: m.ID, Namespace: m.Namespace, Type: m.Type, Options: m.Options,
		Store: storage.Prefix(u.store, slice), Key: func(rel string) string { return slice + rel }, Hash: hash,
		Due: engine.DueOf(m.ID), Lanes: u.lanes, Origin: u.origin, Now: u.core.cfg.Now, Rand: rand.Reader,
		Log: u.core.log.With("mount", m.Path),
		Password: func(ctx context.Context, name string) (secret.String, error) {
			return u.password(ctx, m.Namespace, name)
		},
		Fence: u.laterLife, Leases: mountLeases{u},
	})
	if err != nil {
		cancel()
		n.err = err
		u.core.log.Error("an engine could not be made; its mount answers errors", "mount", m.Path, "error", err)
		return n
	}
	n.engine, n.cancel = e, cancel
	n.watcher, _ = e.(engine.Watcher)
	e.Routes(n.table)
	if l, ok := e.(engine.Leaser); ok {
		n.kinds = map[string]lease.AnyKind{}
		for _, k := range l.Kinds() {
			n.kinds[lease.KindName(k)] = k
		}
	}
	if s, ok := e.(engine.Starter); ok {
		u.background(func() {
			if err := s.Start(ctx); err != nil && ctx.Err() == nil {
				u.core.log.Error("starting an engine", "mount", m.Path, "error", err)
			}
		})
	}
	return n
}

// mountLeases answers an engine's questions about its leases.
type mountLeases struct{ u *unsealed }

func (l mountLeases) OnTarget(ctx context.Context, target string) (bool, error) {
	return l.u.leases.OnTarget(ctx, target)
}

// worker is the engine of a mount that has timed work. Of a mount that is
// ending, or has no engine, it is nil.
func (u *unsealed) worker(mountID string) engine.Worker {
	t, err := u.mounts.current(u.ctx)
	if err != nil {
		return nil
	}
	m := t.byID[mountID]
	if m == nil || !m.Ending.IsZero() {
		return nil
	}
	w, _ := m.engine.(engine.Worker)
	return w
}

// leaseKind finds a mount's kind of lease; ending mounts have theirs too.
func (u *unsealed) leaseKind(mountID, kind string) (lease.AnyKind, bool) {
	t, err := u.mounts.current(u.ctx)
	if err != nil {
		return nil, false
	}
	m := t.byID[mountID]
	if m == nil {
		return nil, false
	}
	k, ok := m.kinds[kind]
	return k, ok
}

// leaseMounts gives the mounts whose path, now or formerly, is a prefix of
// prefix or begins with it.
func (u *unsealed) leaseMounts(ns, prefix string) []lease.Mount {
	t, err := u.mounts.current(u.ctx)
	if err != nil {
		// The table as it was: whoever ends a prefix must not think that
		// there is nothing to end. The rows are asked for next, and say so.
		t = u.mounts.table.Load()
	}
	var out []lease.Mount
	for _, m := range t.ofNS[ns] {
		for _, p := range append([]string{m.Path}, m.Former...) {
			if strings.HasPrefix(p, prefix) || strings.HasPrefix(prefix, p) {
				out = append(out, lease.Mount{Namespace: ns, ID: m.ID, Path: p, Former: p != m.Path})
				break
			}
		}
	}
	slices.SortFunc(out, func(a, b lease.Mount) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Mounts lists the mounts of a class in a namespace by path; those that end
// are not there any more.
func (c *Core) Mounts(ctx context.Context, ns, class string) ([]Mount, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return nil, err
	}
	var out []Mount
	for _, m := range t.ofNS[ns] {
		if m.Ending.IsZero() && (class == "" || m.Class == class) {
			out = append(out, m.Mount)
		}
	}
	slices.SortFunc(out, func(a, b Mount) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// MountIDs are the ids of a namespace's mounts, of those too that are ending
// and have leases yet.
func (c *Core) MountIDs(ctx context.Context, ns string) ([]string, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, m := range t.ofNS[ns] {
		ids = append(ids, m.ID)
	}
	slices.Sort(ids)
	return ids, nil
}

// MountAt is the mount at exactly path, or the one that a path belongs to.
func (c *Core) MountAt(ctx context.Context, ns, path string, exact bool) (Mount, bool, error) {
	u, err := c.open()
	if err != nil {
		return Mount{}, false, err
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return Mount{}, false, err
	}
	var m *mounted
	if exact {
		m = t.byPath[ns+"/"+path]
	} else {
		m, _ = t.find(ns, path)
	}
	if m == nil {
		return Mount{}, false, nil
	}
	return m.Mount, true, nil
}

// TTLs are the lease times that hold at a mount.
func (c *Core) TTLs(m Mount) (def, most time.Duration) { return c.ttls(m.Config) }

func (c *Core) ttls(conf MountConfig) (def, most time.Duration) {
	def, most = c.cfg.DefaultTTL, c.cfg.MaxTTL
	if conf.DefaultTTL > 0 {
		def = conf.DefaultTTL
	}
	if conf.MaxTTL > 0 {
		most = conf.MaxTTL
	}
	return min(def, most), most
}

// HasEngine reports whether mounts of a type can be made.
func (c *Core) HasEngine(class, typ string) bool {
	_, ok := c.cfg.Engines[class+"/"+typ]
	return ok && !protectedTypes[class+"/"+typ]
}

// EngineTypes lists what can be mounted, by class.
func (c *Core) EngineTypes(class string) []string {
	var out []string
	for k := range c.cfg.Engines {
		if typ, ok := strings.CutPrefix(k, class+"/"); ok {
			out = append(out, typ)
		}
	}
	slices.Sort(out)
	return out
}

// Tables are the routes of a namespace's mounts, by path, for help and OpenAPI.
func (c *Core) Tables(ctx context.Context, ns string) (map[string]*route.Table, error) {
	u, err := c.open()
	if err != nil {
		return nil, err
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]*route.Table{}
	for _, m := range t.ofNS[ns] {
		if m.Ending.IsZero() {
			out[m.Path] = m.table
		}
	}
	return out, nil
}
