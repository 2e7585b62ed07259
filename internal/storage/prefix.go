package storage

import (
	"context"
	"strings"
)

// Prefix is the slice of b whose keys begin with prefix, as a Backend of its
// own: keys are given and taken without it. Closing a slice does nothing; its
// figures (Statser) are those of the whole store and so not repeated.
func Prefix(b Backend, prefix string) Backend {
	if p, ok := b.(*prefixed); ok { // one layer, however often a slice is cut
		return &prefixed{p.b, p.prefix + prefix, PrefixEnd(p.prefix + prefix)}
	}
	return &prefixed{b, prefix, PrefixEnd(prefix)}
}

type prefixed struct {
	b           Backend
	prefix, end string
}

func (p *prefixed) View(ctx context.Context, fn func(View) error) error {
	return p.b.View(ctx, func(v View) error { return fn(&prefixView{v, p}) })
}

func (p *prefixed) Update(ctx context.Context, fn func(Tx) error) (Revision, error) {
	return p.b.Update(ctx, func(tx Tx) error { return fn(prefixTx{tx, p.prefix}) })
}

// Watch passes on only changes below the prefix, and the empty batch that says
// it runs.
func (p *prefixed) Watch(ctx context.Context, from Revision, fn func([]Change) error) error {
	var mine []Change
	return p.b.Watch(ctx, from, func(cs []Change) error {
		if len(cs) == 0 {
			return fn(nil)
		}
		mine = mine[:0]
		for _, c := range cs {
			if key, ok := strings.CutPrefix(c.Key, p.prefix); ok {
				mine = append(mine, Change{key, c.Rev})
			}
		}
		if len(mine) == 0 {
			return nil
		}
		return fn(mine)
	})
}

func (p *prefixed) Close() error { return nil }

type prefixView struct {
	v View
	p *prefixed
}

func (v *prefixView) Get(key string) ([]byte, error) {
	if key == "" { // the key that is the prefix itself is no row of the slice
		return nil, nil
	}
	b, err := v.v.Get(v.p.prefix + key)
	return b, v.cut(err)
}

func (v *prefixView) Revision() Revision { return v.v.Revision() }

func (v *prefixView) Scan(from, to string, limit int, fn func(string, []byte) bool) error {
	lo, hi := v.bounds(from, to)
	return v.cut(v.v.Scan(lo, hi, limit, v.strip(fn)))
}

func (v *prefixView) ScanDesc(from, to string, limit int, fn func(string, []byte) bool) error {
	lo, hi := v.bounds(from, to)
	return v.cut(v.v.ScanDesc(lo, hi, limit, v.strip(fn)))
}

func (v *prefixView) bounds(from, to string) (lo, hi string) {
	if from == "" {
		from = "\x00" // past the key that is the prefix itself
	}
	if to == "" {
		return v.p.prefix + from, v.p.end
	}
	return v.p.prefix + from, v.p.prefix + to
}

func (v *prefixView) strip(fn func(string, []byte) bool) func(string, []byte) bool {
	n := len(v.p.prefix)
	return func(key string, value []byte) bool { return fn(key[n:], value) }
}

// cut names a bad row as the slice knows it, so that ScanEach can go on.
func (v *prefixView) cut(err error) error { return cutCorrupt(err, v.p.prefix) }

func cutCorrupt(err error, prefix string) error {
	if bad, ok := err.(*CorruptError); ok { // exactly that: a wrapped one has been handled below
		return &CorruptError{strings.TrimPrefix(bad.Key, prefix), bad.Err}
	}
	return err
}

// Whole is the transaction of the whole store that one of a slice is part of.
// It is for what belongs to the slice's owner and stands in a range of its own
// over all slices.
func Whole(tx Tx) Tx {
	if p, ok := tx.(prefixTx); ok {
		return p.tx
	}
	return tx
}

type prefixTx struct {
	tx     Tx
	prefix string
}

func (t prefixTx) Get(key string) ([]byte, error) {
	if key == "" {
		return nil, nil
	}
	b, err := t.tx.Get(t.prefix + key)
	return b, cutCorrupt(err, t.prefix)
}

func (t prefixTx) Put(key string, value []byte) error {
	if key == "" {
		return t.tx.Put("", value) // fails the transaction with ErrBadKey
	}
	return t.tx.Put(t.prefix+key, value)
}

func (t prefixTx) Delete(key string) error {
	if key == "" {
		return nil
	}
	return t.tx.Delete(t.prefix + key)
}
