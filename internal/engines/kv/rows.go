package kv

import (
	"fmt"
	"strconv"
	"time"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// keyMeta is the row 2/m/<path>. Format is its version, now 1. Times are Unix
// nanoseconds, 0 for none.
type keyMeta struct {
	Format      int       `json:"f"`
	Created     int64     `json:"c"`
	Updated     int64     `json:"u"`
	Current     int64     `json:"n,omitempty"` // the newest version; 0: none was written
	Oldest      int64     `json:"o,omitempty"` // the oldest kept, once some were dropped
	MaxVersions int       `json:"max,omitempty"`
	CASRequired bool      `json:"cas,omitempty"`
	DeleteAfter int64     `json:"dva,omitempty"` // nanoseconds
	Custom      wire.KV   `json:"custom,omitempty"`
	Versions    []version `json:"vs,omitempty"` // ascending
}

// version is one version of a secret. Its data are a row of their own, which
// is there unless the version was destroyed.
type version struct {
	N         int64 `json:"n"`
	Created   int64 `json:"c"`
	Deleted   int64 `json:"d,omitempty"` // may lie in the future
	Destroyed bool  `json:"x,omitempty"`
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
	m := new(keyMeta)
	if err := unmarshalRow(row, m, &m.Format); err != nil {
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
	if err := unmarshalRow(row, &c, &c.Format); err != nil {
		return c, fmt.Errorf("reading the mount's configuration: %w", err)
	}
	return c, nil
}

func unmarshalRow[T any](row []byte, into *T, format *int) error {
	json, err := unpack(row)
	if err != nil {
		return err
	}
	if err := wire.Unmarshal(json, into); err != nil {
		return err
	}
	if *format != rowFormat {
		return errDamaged
	}
	return nil
}

func (m *keyMeta) put(tx storage.Tx, path string) error {
	m.Format = rowFormat
	return tx.Put(metaKey(path), pack(wire.Marshal(m)))
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
// of the mount's and the key's delete_version_after.
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
	return now.UnixNano() + after
}

func moment(nanos int64) wire.Time {
	if nanos == 0 {
		return wire.Time{}
	}
	return wire.Time{Time: time.Unix(0, nanos).UTC()}
}
