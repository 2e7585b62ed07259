package storage

// Buffer is the Tx of implementations that collect a transaction's writes
// before they commit them: it keeps them, answers reads from them, and holds
// the limits. One Buffer serves one transaction after another without
// allocating much.
type Buffer struct {
	read  func(key string) ([]byte, error)
	ops   []op // each key once; at most MaxTxKeys, so a linear search beats a map
	bytes int
	err   error
	arena []byte // holds the written values until Free
}

type op struct {
	key   string
	value []byte // nil: absent or deleted
	write bool
}

var _ Tx = (*Buffer)(nil)

// Begin starts a transaction whose reads of keys it did not write go to read.
// Values of earlier transactions stay valid until Free.
func (b *Buffer) Begin(read func(key string) ([]byte, error)) {
	b.read, b.bytes, b.err = read, 0, nil
	clear(b.ops)
	b.ops = b.ops[:0]
}

// Free lets the memory behind all values be used again.
func (b *Buffer) Free() {
	const keep = 4 << 20
	if cap(b.arena) > keep {
		b.arena = nil
	}
	b.arena = b.arena[:0]
	b.Begin(nil)
}

// Err is the first error of a Get, Put or Delete. With one, nothing may be
// committed.
func (b *Buffer) Err() error { return b.err }

// Writes gives the keys written, each once and in the order of their first
// use. The value is nil for a deleted key and not nil for an empty value.
func (b *Buffer) Writes(yield func(key string, value []byte) bool) {
	for i := range b.ops {
		if o := &b.ops[i]; o.write && !yield(o.key, o.value) {
			return
		}
	}
}

// Get implements Tx.
func (b *Buffer) Get(key string) ([]byte, error) {
	if b.err != nil {
		return nil, b.err
	}
	if !ValidKey(key) {
		return nil, nil
	}
	if o := b.find(key); o != nil {
		return o.value, nil
	}
	if len(b.ops) >= MaxTxKeys {
		return nil, b.fail(ErrTooLarge)
	}
	v, err := b.read(key)
	if err != nil {
		return nil, b.fail(err)
	}
	b.ops = append(b.ops, op{key: key, value: v})
	return v, nil
}

// Put implements Tx.
func (b *Buffer) Put(key string, value []byte) error {
	if b.err == nil && !ValidKey(key) {
		return b.fail(ErrBadKey)
	}
	if err := b.reserve(key, len(value)); err != nil {
		return err
	}
	if b.arena == nil { // a slice of it must not be nil
		b.arena = make([]byte, 0, 4<<10)
	}
	start := len(b.arena)
	b.arena = append(b.arena, value...)
	b.write(key, b.arena[start:len(b.arena):len(b.arena)])
	return nil
}

// Delete implements Tx.
func (b *Buffer) Delete(key string) error {
	if b.err == nil && !ValidKey(key) {
		return nil
	}
	if err := b.reserve(key, 0); err != nil {
		return err
	}
	b.write(key, nil)
	return nil
}

// reserve counts a write against the limits; it replaces the key's earlier one.
func (b *Buffer) reserve(key string, size int) error {
	if b.err != nil {
		return b.err
	}
	o := b.find(key)
	if o == nil && len(b.ops) >= MaxTxKeys {
		return b.fail(ErrTooLarge)
	}
	if o != nil && o.write {
		size -= len(o.value)
	} else {
		size += len(key)
	}
	if b.bytes+size > MaxTxBytes {
		return b.fail(ErrTooLarge)
	}
	b.bytes += size
	return nil
}

func (b *Buffer) write(key string, value []byte) {
	o := b.find(key)
	if o == nil {
		b.ops = append(b.ops, op{key: key})
		o = &b.ops[len(b.ops)-1]
	}
	o.value, o.write = value, true
}

func (b *Buffer) find(key string) *op {
	for i := range b.ops {
		if b.ops[i].key == key {
			return &b.ops[i]
		}
	}
	return nil
}

func (b *Buffer) fail(err error) error {
	b.err = err
	return err
}
