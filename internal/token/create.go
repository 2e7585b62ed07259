package token

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
)

// Create makes a token of what e says. e.Expires is set by the caller; zero
// never expires. id is the text wanted by the caller, or empty. live are
// further liveness keys that must hold (the namespace's, the mount's).
func (s *Store) Create(ctx context.Context, e *Entry, id secret.String, live ...string) (*Token, error) {
	e.Created = s.cfg.Now().Round(0)
	if e.Namespace == "" {
		e.Namespace = RootNamespace
	}
	if e.Type == Batch {
		return s.createBatch(e)
	}
	text := id.Reveal()
	if text == "" {
		text = ServicePrefix + randomText(drawnSize)
		if !e.Expires.IsZero() {
			text = ServicePrefix + when(e.Created) + randomText(drawnSize)
		}
	}
	if e.Namespace != RootNamespace {
		text += "." + e.Namespace
	}
	t := &Token{Entry: e, Text: secret.New(text)}
	t.Key = s.Key(t.Text)
	if e.Accessor == "" {
		e.Accessor = when(e.Created) + randomText(drawnSize)
		if e.Namespace != RootNamespace {
			e.Accessor += "." + e.Namespace
		}
	}
	if depth, err := s.depth(ctx, e); err != nil || depth > maxDepth {
		if err == nil {
			err = errs.New(errs.Invalid, "the chain of parent tokens is %d deep; create an orphan token instead", depth)
		}
		return nil, err
	}
	acc, accKey := []byte(e.Accessor+" "+t.Key), s.accessorKey(e.Namespace, e.Accessor)
	_, err := s.cfg.Store.Update(ctx, func(tx storage.Tx) error {
		if e.Parent != "" {
			live = append(live[:len(live):len(live)], LiveKey(e.Parent))
		}
		for _, k := range live {
			v, err := tx.Get(k)
			if err != nil {
				return err
			}
			if string(v) != lease.Alive {
				return lease.ErrNotLive
			}
		}
		if !id.IsZero() { // a text that was drawn just now is nobody's
			if v, err := tx.Get(rowPrefix + t.Key); err != nil || v != nil {
				if err == nil {
					err = errs.New(errs.Invalid, "cannot create a token with a duplicate ID")
				}
				return err
			}
		}
		puts := []struct {
			key   string
			value []byte
		}{
			{LiveKey(t.Key), []byte(lease.Alive)},
			{accKey, acc},
		}
		if e.Parent != "" {
			puts = append(puts, struct {
				key   string
				value []byte
			}{kidPrefix + e.Parent + "/" + t.Key, nil})
		}
		if e.NumUses > 0 {
			puts = append(puts, struct {
				key   string
				value []byte
			}{usesPrefix + t.Key, strconv.AppendInt(nil, int64(e.NumUses), 10)})
		}
		for _, p := range puts {
			if err := tx.Put(p.key, p.value); err != nil {
				return err
			}
		}
		if err := s.addCount(tx, e.counter(), 1); err != nil {
			return err
		}
		e.Due = time.Time{}
		if err := e.putDue(tx, t.Key, e.Expires, s.cfg.Now()); err != nil {
			return err
		}
		return putRow(tx, t.Key, e)
	})
	if err != nil {
		return nil, fmt.Errorf("creating a token: %w", err)
	}
	return t, nil
}

func (s *Store) depth(ctx context.Context, e *Entry) (n int, err error) {
	for e.Parent != "" && n <= maxDepth {
		c, err := s.load(ctx, e.Parent)
		if err != nil {
			return n, err
		}
		if c == nil {
			return n, ErrInvalid
		}
		e, n = c.entry, n+1
	}
	return n, nil
}

// A batch token is its own row: the entry, encrypted under the keyring. It has
// no accessor, and is as alive as its parent and its clock say.
func (s *Store) createBatch(e *Entry) (*Token, error) {
	e.Accessor, e.MountID, e.LoginRole = "", "", "" // what nobody counts
	sealed, err := s.cfg.Seal(encode(e))
	if err != nil {
		return nil, fmt.Errorf("sealing a batch token: %w", err)
	}
	text := BatchPrefix + base64.RawURLEncoding.EncodeToString(sealed)
	if e.Namespace != RootNamespace {
		text += "." + e.Namespace
	}
	if len(text) > maxText {
		return nil, errs.New(errs.Invalid, "the batch token would be %d bytes; at most %d are possible: give it less metadata", len(text), maxText)
	}
	t := &Token{Entry: e, Text: secret.New(text)}
	t.Key = s.Key(t.Text)
	return t, nil
}

func (s *Store) lookupBatch(ctx context.Context, text secret.String) (*Token, error) {
	key := s.Key(text)
	c := s.cache.get(key)
	if c == nil {
		body, _, _ := strings.Cut(strings.TrimPrefix(text.Reveal(), BatchPrefix), ".")
		sealed, err := base64.RawURLEncoding.DecodeString(body)
		if err != nil {
			return nil, ErrInvalid
		}
		plain, err := s.cfg.Open(sealed)
		if err != nil {
			return nil, ErrInvalid
		}
		e, err := decode("batch", plain)
		if err != nil || e.Type != Batch || e.Namespace != NamespaceOf(text.Reveal()) {
			return nil, ErrInvalid
		}
		// Its content never changes: any revision will do.
		c = &cached{entry: e, alive: lease.Alive, rev: ^storage.Revision(0)}
		if len(plain) <= mostCached {
			s.cache.put(key, c)
		}
	}
	if s.expired(c.entry) || !s.living(c.entry.Namespace) {
		return nil, ErrInvalid
	}
	if err := s.ancestors(ctx, c.entry); err != nil {
		return nil, err
	}
	return &Token{Entry: c.entry, Key: key, Text: text}, nil
}
