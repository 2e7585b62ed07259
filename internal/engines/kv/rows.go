package kv

import (
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// keyMeta is the row 2/m/<path>; codec.go has its stored form. Times are Unix
// nanoseconds, 0 for none.
type keyMeta struct {
	Created     int64
	Updated     int64
	Current     int64 // the newest version; 0: none was written
	Oldest      int64 // the oldest kept, once some were dropped
	MaxVersions int
	CASRequired bool
	DeleteAfter int64 // nanoseconds
	Custom      wire.KV
	Versions    []version // ascending
}

// version is one version of a secret. Its data are a row of their own, which
// is there unless the version was destroyed.
type version struct {
	N         int64
	Created   int64
	Deleted   int64 // may lie in the future
	Destroyed bool
}

// config is the row 2/config.
type config struct {
	Format      int   `json:"f"`
	MaxVersions int   `json:"max,omitempty"`
	CASRequired bool  `json:"cas,omitempty"`
	DeleteAfter int64 `json:"dva,omitempty"` // nanoseconds; negative: never, whatever a key says
}

const rowFormat = 1

// defaultMaxVersions are kept where neither the mount nor the key says.
const defaultMaxVersions = 10

func metaKey(path string) string { return rowsMeta + path }

func dataKey(path string, n int64) string {
	return rowsData + path + "//" + strconv.FormatInt(n, 10)
}

// getMeta reads a path's metadata; nil if there are none.
func getMeta(r storage.Reader, path string) (*keyMeta, error) {
	row, err := r.Get(metaKey(path))
	if err != nil || row == nil {
		return nil, err
	}
	m, err := decodeMeta(row)
	if err != nil {
		return nil, fmt.Errorf("reading the metadata of a secret: %w", err)
	}
	return m, nil
}

func getConfig(r storage.Reader) (config, error) {
	var c config
	row, err := r.Get(rowConfig)
	if err != nil || row == nil {
		return c, err
	}
	json, err := unpack(row)
	if err == nil {
		err = wire.Unmarshal(json, &c)
	}
	if err == nil && c.Format != rowFormat {
		err = errDamaged
	}
	if err != nil {
		return c, fmt.Errorf("reading the mount's configuration: %w", err)
	}
	return c, nil
}

func (m *keyMeta) put(tx storage.Tx, path string) error {
	return tx.Put(metaKey(path), m.encode())
}

func (c *config) put(tx storage.Tx) error {
	c.Format = rowFormat
	return tx.Put(rowConfig, pack(wire.Marshal(c)))
}

// find gives a version that is still listed, or nil. 0 means the current one.
func (m *keyMeta) find(n int64) *version {
	if n == 0 {
		n = m.Current
	}
	for i := len(m.Versions) - 1; i >= 0; i-- {
		if m.Versions[i].N == n {
			return &m.Versions[i]
		}
	}
	return nil
}

// readable reports whether a version's data may be read at a moment.
func (v *version) readable(now time.Time) bool {
	return !v.Destroyed && (v.Deleted == 0 || v.Deleted > now.UnixNano())
}

// surplus is how many of the oldest versions are too many. The larger of the
// mount's and the key's limits counts.
func (m *keyMeta) surplus(c config) int {
	keep := max(m.MaxVersions, c.MaxVersions)
	if keep == 0 {
		keep = defaultMaxVersions
	}
	return max(0, len(m.Versions)-keep)
}

// drop forgets the n oldest versions, rows and all.
func (m *keyMeta) drop(tx storage.Tx, path string, n int) error {
	for _, v := range m.Versions[:n] {
		if err := tx.Delete(dataKey(path, v.N)); err != nil {
			return err
		}
	}
	m.Versions = m.Versions[n:]
	if n > 0 && len(m.Versions) > 0 {
		m.Oldest = m.Versions[0].N
	}
	return nil
}

// deletion is when a version created now will delete itself, or 0: the shorter
// of the mount's and the key's delete_version_after. What lies beyond the last
// moment that a row can hold is that moment.
func (m *keyMeta) deletion(c config, now time.Time) int64 {
	after := m.DeleteAfter
	switch {
	case c.DeleteAfter < 0:
		return 0
	case after == 0 || c.DeleteAfter > 0 && c.DeleteAfter < after:
		after = c.DeleteAfter
	}
	if after == 0 {
		return 0
	}
	return now.UnixNano() + min(after, math.MaxInt64-now.UnixNano())
}

func moment(nanos int64) wire.Time {
	if nanos == 0 {
		return wire.Time{}
	}
	return wire.Time{Time: time.Unix(0, nanos).UTC()}
}
