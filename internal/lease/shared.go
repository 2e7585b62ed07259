package lease

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/storage"
)

// Share says that requests of one holder may have one credential between them.
// Each has a lease of its own on it.
type Share struct {
	// Window is how long after its making the credential is given to others,
	// and how long what it is made of is kept.
	Window time.Duration
	// Like is a fingerprint of what the credential was made by: who would be
	// given another kind of credential gets one of his own.
	Like string
}

// A shared credential has a row of its own, which counts the leases that hold
// it. Whoever ends the last of them takes the credential along: in the
// transaction that finds a lease to be the last one, its key is written into
// the row. From then on nobody joins, and that lease goes through the stages
// that every lease goes through, with the credential's mark; its rows and the
// credential's are deleted together. A lease that is not the last goes at once,
// and the login stays.
//
// An offer is written when the credential has been made and its lease
// confirmed: what the first client was given, for the others in the window. It
// is work of a lane of its own, so that no sick target keeps a password from
// being wiped.
const (
	credPrefix  = "cred/"
	sharePrefix = "share/"
	shareTarget = "shares"
	credVersion = 1

	// OfferKind is the kind of due work that wipes offers.
	OfferKind = "w"
)

// credential is a login that leases share, as it is stored. Version 1.
type credential struct {
	V           int             `json:"v"`
	Epoch       uint64          `json:"e"` // of the mark
	Kind        string          `json:"k"`
	KindVersion int             `json:"kv"`
	Target      string          `json:"t"`
	Ref         json.RawMessage `json:"ref"`
	Names       []string        `json:"n,omitempty"`
	MakeBy      time.Time       `json:"mb"`
	Until       time.Time       `json:"x"`  // the target's own expiry, never before a lease's
	Most        time.Time       `json:"mx"` // no lease on it lives longer
	Leases      int             `json:"l"`
	Last        string          `json:"last,omitempty"`  // the key of the lease that is ending it
	Offer       string          `json:"offer,omitempty"` // the key of its offer, if there was one
}

// offer is what is kept for the window. Version 1.
type offer struct {
	V     int             `json:"v"`
	Cred  string          `json:"c"`
	Until time.Time       `json:"x"`
	Due   time.Time       `json:"d"`
	Out   json.RawMessage `json:"out"` // what Make gave: a password, maybe
}

func getCredential(tx storage.Reader, key string) (*credential, error) {
	b, err := tx.Get(credPrefix + key)
	if err != nil || b == nil {
		return nil, err
	}
	c := new(credential)
	if err = json.Unmarshal(b, c); err == nil && c.V > credVersion {
		err = fmt.Errorf("it has version %d, written by a newer server", c.V)
	}
	if err != nil {
		return nil, &storage.CorruptError{Key: credPrefix + key, Err: err}
	}
	return c, nil
}

func putCredential(tx storage.Tx, key string, c *credential) error {
	c.V = credVersion
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return tx.Put(credPrefix+key, b)
}

func getOffer(tx storage.Reader, key string) (*offer, error) {
	b, err := tx.Get(sharePrefix + key)
	if err != nil || b == nil {
		return nil, err
	}
	o := new(offer)
	if err := json.Unmarshal(b, o); err != nil || o.V > credVersion {
		return nil, nil // it is wiped in time, and nobody is given it
	}
	return o, nil
}

func (o *offer) dueKey(key string) string { return lane.Key(shareTarget, o.Due, OfferKind, key) }

// offerKey is where the offer for a request stands: the same holder, path and
// kind of credential find the same one.
func (s *Store) offerKey(d *Draft, h Holder, p *Plan) string {
	sum := s.cfg.Hash("lease-share:" + h.Who + "\x00" + h.rel(d) + "\x00" + p.Share.Like)
	return h.Namespace + "/" + h.Mount.ID + "/" + hex.EncodeToString(sum[:16])
}

// shared makes the credential that a first lease holds. It has the draft's
// identity, since its name was drawn from it; the lease gets one of its own. The
// target's expiry leaves room for whoever joins in the window.
func (s *Store) shared(d *Draft, h Holder, p *Plan, r *row, ttl, maxTTL time.Duration) (*credential, string) {
	var hash string
	r.Random, hash = d.other(s.cfg.Hash)
	r.Cred = h.Namespace + "/" + h.Mount.ID + "/" + d.hash
	c := &credential{
		Epoch: r.Epoch, Kind: r.Kind, KindVersion: r.KindVersion, Target: r.Target, Ref: r.Ref, Names: r.Names,
		MakeBy: r.MakeBy, Until: r.Issued.Add(ttl + p.Share.Window), Most: r.Issued.Add(maxTTL), Leases: 1,
	}
	if c.Until.After(c.Most) {
		c.Until = c.Most
	}
	return c, h.key(d, hash)
}

// errNotShared is for a request that finds no credential to join.
var errNotShared = errors.New("lease: there is no credential to share")

// Join gives a lease on a credential that the same holder was given a moment
// ago, and what the first client was given. Where there is none the lease is
// nil: the caller makes one, and calls done when that has come to its end. While
// one is being made in this process Join waits for it, once: who finds none
// then does not wait for the next.
func (s *Store) Join(ctx context.Context, d *Draft, h Holder, p *Plan, ttl, maxTTL time.Duration) (l *Issued, out any, done func(), err error) {
	if p.Share == nil {
		return nil, nil, func() {}, nil
	}
	key := s.offerKey(d, h, p)
	for first := true; ; first = false {
		l, out, err = s.join(ctx, key, d, h, p, ttl, maxTTL)
		if err != nil || l != nil {
			return l, out, func() {}, err
		}
		made, done := s.turns.take(key)
		if done != nil {
			// One may have come to its end between the look and the turn.
			if l, out, err = s.join(ctx, key, d, h, p, ttl, maxTTL); err != nil || l != nil {
				done()
				return l, out, func() {}, err
			}
			return nil, nil, done, nil
		}
		if !first {
			return nil, nil, func() {}, nil
		}
		select {
		case <-made:
		case <-ctx.Done():
			return nil, nil, nil, ctx.Err()
		}
	}
}

func (s *Store) join(ctx context.Context, at string, d *Draft, h Holder, p *Plan, ttl, maxTTL time.Duration) (*Issued, any, error) {
	now := s.cfg.Now().Round(0)
	there := false
	err := s.cfg.Store.View(ctx, func(v storage.View) error {
		o, err := getOffer(v, at)
		there = o != nil && o.Until.After(now)
		return err
	})
	if err != nil || !there {
		return nil, nil, err
	}
	if err := s.room(ctx, d, h, p); err != nil {
		return nil, nil, err
	}
	r := s.newRow(d, h, p, now, ttl, maxTTL)
	key := h.key(d, d.hash)
	var given any
	_, err = s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
		if err := allAlive(tx, h.Live, p.Live); err != nil {
			return err
		}
		o, err := getOffer(tx, at)
		if err != nil {
			return err
		}
		if o == nil || !o.Until.After(now) {
			return errNotShared
		}
		c, err := getCredential(tx, o.Cred)
		if isBadRow(err) {
			return errNotShared
		}
		if err != nil {
			return err
		}
		if c == nil || c.Last != "" || c.Target != p.Target || c.KindVersion != p.KindVersion {
			return errNotShared
		}
		r.Cred, r.Epoch, r.MakeBy = o.Cred, c.Epoch, c.MakeBy
		r.Kind, r.KindVersion, r.Target, r.Ref, r.Names = c.Kind, c.KindVersion, c.Target, c.Ref, c.Names
		r.cut(c.Most)
		if r.Expires.After(c.Until) || r.TTL <= 0 {
			return errNotShared
		}
		if given, err = p.read(o.Out); err != nil {
			return errNotShared
		}
		c.Leases++
		if err := putCredential(tx, r.Cred, c); err != nil {
			return err
		}
		return s.add(tx, key, r, now)
	})
	l, err := s.committed(ctx, &Issued{
		Info: r.info(key), Draft: d, plan: p, ns: h.Namespace, cred: r.Cred,
		Made: Made{MakeBy: r.MakeBy, Expires: r.Expires},
	}, err)
	if errors.Is(err, errNotShared) {
		return nil, nil, nil
	}
	return l, given, err
}

// Offer lets others of the same holder join a credential that was made and
// whose lease was confirmed. A failure costs nobody anything but the sharing.
func (s *Store) Offer(ctx context.Context, l *Issued, h Holder, out any) error {
	if l.plan.Share == nil {
		return nil
	}
	at := s.offerKey(l.Draft, h, l.plan)
	now := s.cfg.Now().Round(0)
	o := &offer{V: credVersion, Cred: l.cred, Until: l.Issued.Add(l.plan.Share.Window), Out: l.plan.keep(out)}
	if !o.Until.After(now) {
		return nil
	}
	_, err := s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
		c, err := getCredential(tx, l.cred)
		if err != nil || c == nil || c.Last != "" {
			return err
		}
		before, err := getOffer(tx, at)
		if err != nil {
			return err
		}
		if before != nil {
			if err := tx.Delete(before.dueKey(at)); err != nil {
				return err
			}
		}
		due, err := lane.Later(tx, shareTarget, o.Until, now)
		if err != nil {
			return err
		}
		o.Due, c.Offer = due.Round(0), at
		b, err := json.Marshal(o)
		if err != nil {
			return err
		}
		if err := errors.Join(tx.Put(o.dueKey(at), nil), tx.Put(sharePrefix+at, b)); err != nil {
			return err
		}
		return putCredential(tx, l.cred, c)
	})
	return err
}

// Offers wipes what was kept for a window that is over: the due work of kind
// OfferKind. It does not wait for a clock that is in doubt: wiping too early
// harms nobody.
func (s *Store) Offers() lane.Handler { return offers{s} }

type offers struct{ s *Store }

// Run implements lane.Handler.
func (h offers) Run(ctx context.Context, _ string, items []lane.Work) error {
	for len(items) > 0 {
		n := min(len(items), markAtOnce)
		_, err := h.s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
			for _, w := range items[:n] {
				o, err := getOffer(tx, w.ID)
				if err != nil && !isBadRow(err) {
					return err
				}
				if o == nil || o.Due.Equal(w.Due) {
					if err := tx.Delete(sharePrefix + w.ID); err != nil {
						return err
					}
				}
				if err := tx.Delete(w.Key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			h.s.cfg.Log.Error("wiping what was kept for sharing; it is done again", "error", err)
			return err
		}
		items = items[n:]
	}
	return nil
}

// errNoCredential makes a lease wait: whether others hold its login cannot be
// known any more, and theirs must not be ended.
var errNoCredential = &WaitError{Reason: "the row of the credential that this lease shares is gone or cannot be read"}

// release parts the leases on their way out whose login others hold from those
// that take it along. The former are over at once; of the latter, and of all
// that share nothing, the list is given back.
func (s *Store) release(ctx context.Context, batch []*ending) ([]*ending, error) {
	var live, sharing []*ending
	for _, e := range batch {
		if e.row.Cred == "" || e.finished {
			live = append(live, e)
		} else {
			sharing = append(sharing, e)
		}
	}
	for len(sharing) > 0 {
		n := min(len(sharing), releaseAtOnce)
		part := sharing[:n]
		var stay []*ending
		var records []Record
		_, err := s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
			stay, records = stay[:0], records[:0]
			changed := deltas{}
			for _, e := range part {
				last, err := s.releaseOne(tx, e, changed, &records)
				if err != nil {
					return err
				}
				if last {
					stay = append(stay, e)
				}
			}
			if s.cfg.Record != nil && len(records) > 0 {
				if err := s.cfg.Record(tx, part[0].row.Target, records); err != nil {
					return err
				}
			}
			return changed.write(tx, s.cfg.Part)
		})
		if err != nil {
			return nil, err
		}
		s.counted.end(records)
		live = append(live, stay...)
		for _, e := range part {
			if !slices.Contains(stay, e) {
				s.waits.tell(e.key, stageGone, nil)
			}
		}
		sharing = sharing[n:]
	}
	return live, nil
}

// releaseAtOnce leases, each with up to six keys and a credential, fit into a
// transaction beside their counts.
const releaseAtOnce = 9

// releaseOne reports whether a lease is the last one on its credential, which
// it then ends; another one is deleted here.
func (s *Store) releaseOne(tx storage.Tx, e *ending, changed deltas, records *[]Record) (last bool, err error) {
	r, err := getRow(tx, e.key)
	if isBadRow(err) || err == nil && r == nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c, err := getCredential(tx, r.Cred)
	switch {
	case isBadRow(err), err == nil && c == nil:
		e.lost = true
		return true, nil
	case err != nil:
		return false, err
	case c.Leases > 1 && c.Last == "":
		c.Leases--
		if err := putCredential(tx, r.Cred, c); err != nil {
			return false, err
		}
		*records = append(*records, s.record(e.key, r, r.Ending))
		return false, removeRow(tx, e.key, r, changed)
	case c.Last == "":
		c.Last = e.key
		if err := withdraw(tx, c, r.Cred); err != nil {
			return false, err
		}
		return true, putCredential(tx, r.Cred, c)
	}
	if c.Last != e.key {
		e.lost = true
	}
	return true, nil
}

// withdraw wipes the offer of a credential that nobody can join any more. Its
// due key finds nothing then.
func withdraw(tx storage.Tx, c *credential, key string) error {
	if c.Offer == "" {
		return nil
	}
	o, err := getOffer(tx, c.Offer)
	if isBadRow(err) || err == nil && (o == nil || o.Cred != key) {
		return nil // wiped in time; or a later credential's
	}
	if err != nil {
		return err
	}
	return tx.Delete(sharePrefix + c.Offer)
}

// removeCredential deletes what a shared credential leaves, with its last lease.
func removeCredential(tx storage.Tx, key string, r *row) error {
	c, err := getCredential(tx, r.Cred)
	if isBadRow(err) || err == nil && (c == nil || c.Last != key) {
		return nil // not this lease's to delete
	}
	if err == nil {
		err = tx.Delete(credPrefix + r.Cred)
	}
	for _, name := range r.Names {
		if err == nil {
			err = tx.Delete(namePrefix + name)
		}
	}
	return err
}

// turns lets one request at a time make a credential that others wait for to
// share. It is no truth: another process makes one of its own.
type turns struct {
	mu  sync.Mutex
	now map[string]chan struct{}
}

// take gives the turn's end to its taker, and to others a channel that closes
// then.
func (t *turns) take(key string) (made <-chan struct{}, done func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c := t.now[key]; c != nil {
		return c, nil
	}
	if t.now == nil {
		t.now = map[string]chan struct{}{}
	}
	c := make(chan struct{})
	t.now[key] = c
	return nil, sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.now, key)
		close(c)
	})
}
