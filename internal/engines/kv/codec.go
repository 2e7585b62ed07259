package kv

import (
	"encoding/binary"
	"maps"
	"slices"

	"github.com/leasehold/leasehold/internal/wire"
)

// A key's metadata are decoded and encoded at every write, so they are stored
// in a compact binary form. Format 2 is, in this order:
//
//	byte      format
//	byte      flags: 1 cas_required
//	varint    created, updated, in Unix nanoseconds
//	varint    current version, oldest version, max versions, delete_version_after
//	uvarint   custom metadata, how many; of each name and value as uvarint length and bytes
//	uvarint   versions, how many, ascending; of each:
//	  varint    number, after the one before it
//	  varint    created, after the one before it
//	  varint    deleted, or 0
//	  byte      flags: 1 destroyed
const (
	formatMeta    = 2
	flagCAS       = 1
	flagDestroyed = 1
)

// encode is the stored form of m.
func (m *keyMeta) encode() []byte {
	b := make([]byte, 0, 48+16*len(m.Versions))
	b = append(b, formatMeta, 0)
	if m.CASRequired {
		b[1] |= flagCAS
	}
	for _, n := range []int64{m.Created, m.Updated, m.Current, m.Oldest, int64(m.MaxVersions), m.DeleteAfter} {
		b = binary.AppendVarint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(len(m.Custom)))
	for _, k := range slices.Sorted(maps.Keys(m.Custom)) {
		for _, s := range []string{k, m.Custom[k]} {
			b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(m.Versions)))
	var last version
	for _, v := range m.Versions {
		b = binary.AppendVarint(b, v.N-last.N)
		b = binary.AppendVarint(b, v.Created-last.Created)
		b = binary.AppendVarint(b, v.Deleted)
		flags := byte(0)
		if v.Destroyed {
			flags = flagDestroyed
		}
		b = append(b, flags)
		last = v
	}
	return b
}

// decodeMeta reads what encode made.
func decodeMeta(row []byte) (*keyMeta, error) {
	if len(row) < 2 || row[0] != formatMeta {
		return nil, errDamaged
	}
	r := rowReader{left: row[2:]}
	m := &keyMeta{CASRequired: row[1]&flagCAS != 0}
	m.Created, m.Updated, m.Current, m.Oldest = r.varint(), r.varint(), r.varint(), r.varint()
	m.MaxVersions, m.DeleteAfter = int(r.varint()), r.varint()
	if n := r.count(); n > 0 {
		m.Custom = make(wire.KV, n)
		for range n {
			k := r.text()
			m.Custom[k] = r.text()
		}
	}
	if n := r.count(); n > 0 {
		// One more fits without growing: most reads are for a write.
		m.Versions = make([]version, n, n+1)
		var last version
		for i := range m.Versions {
			last = version{N: last.N + r.varint(), Created: last.Created + r.varint(), Deleted: r.varint(), Destroyed: r.flags()&flagDestroyed != 0}
			m.Versions[i] = last
		}
	}
	if r.bad {
		return nil, errDamaged
	}
	return m, nil
}

// rowReader takes a row apart. Once bad it gives zero values.
type rowReader struct {
	left []byte
	bad  bool
}

func (r *rowReader) varint() int64 {
	n, size := binary.Varint(r.left)
	if size <= 0 {
		r.left, r.bad = nil, true
		return 0
	}
	r.left = r.left[size:]
	return n
}

// count reads how many follow; each of them takes a byte at least.
func (r *rowReader) count() int {
	n, size := binary.Uvarint(r.left)
	if size <= 0 || n > uint64(len(r.left)-size) {
		r.left, r.bad = nil, true
		return 0
	}
	r.left = r.left[size:]
	return int(n)
}

func (r *rowReader) text() string {
	n := r.count()
	s := string(r.left[:n])
	r.left = r.left[n:]
	return s
}

func (r *rowReader) flags() byte {
	if len(r.left) == 0 {
		r.bad = true
		return 0
	}
	f := r.left[0]
	r.left = r.left[1:]
	return f
}
