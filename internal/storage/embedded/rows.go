package embedded

import (
	"hash/maphash"
	"sync"

	"github.com/leasehold/leasehold/internal/storage"
)

// rowCache keeps rows that were read or written lately, as they are stored
// (sealed by the barrier, that is), so that reading one again costs a map
// lookup and not a search of the memtable and the levels. An absent key is
// kept as nil.
//
// An entry is the newest value of its key, and has been since rev: it serves
// the committer, and every snapshot from rev on. The committer writes through
// it before the snapshot of a commit is shown. A reader of an older snapshot
// may not fill it once its shard has seen a write since: that write may have
// been of this key.
//
// A shard has two generations. When the young one is full it becomes the old
// one, and what the old one held is forgotten unless it was used meanwhile.
type rowCache struct {
	seed   maphash.Seed
	shards [rowShards]rowShard
}

type rowShard struct {
	mu         sync.RWMutex
	young, old map[string]cachedRow
	bytes      int              // of young
	written    storage.Revision // of the newest write here
}

type cachedRow struct {
	value []byte
	rev   storage.Revision
}

const (
	rowShards = 32
	// rowBytes bounds one generation of all shards, keys and the maps' own
	// cost included.
	rowBytes    = 4 << 20
	rowOverhead = 96       // what an entry costs beside its key and value
	rowValue    = 16 << 10 // larger values are not kept
)

func newRowCache() *rowCache { return &rowCache{seed: maphash.MakeSeed()} }

func (c *rowCache) shard(key string) *rowShard {
	return &c.shards[maphash.String(c.seed, key)%rowShards]
}

// get gives the value of a key in the snapshot of a revision, if it is known.
// The value must not be changed.
func (c *rowCache) get(key string, at storage.Revision) (value []byte, ok bool) {
	s := c.shard(key)
	s.mu.RLock()
	row, ok := s.young[key]
	inOld := false
	if !ok {
		row, ok = s.old[key]
		inOld = ok
	}
	s.mu.RUnlock()
	if !ok || row.rev > at {
		return nil, false
	}
	if inOld {
		s.mu.Lock()
		if now, still := s.old[key]; still && now.rev == row.rev {
			if _, newer := s.young[key]; !newer {
				s.keepLocked(key, row)
			}
		}
		s.mu.Unlock()
	}
	return row.value, true
}

// fill keeps what a snapshot of a revision has of a key.
func (c *rowCache) fill(key string, value []byte, at storage.Revision) {
	if len(value) > rowValue {
		return
	}
	row := cachedRow{copied(value), at}
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if at < s.written {
		return
	}
	if have, ok := s.young[key]; ok && have.rev <= at {
		return
	}
	s.keepLocked(key, row)
}

// write keeps what a commit has made of a key.
func (c *rowCache) write(key string, value []byte, rev storage.Revision) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written = rev
	if len(value) > rowValue {
		delete(s.young, key)
		delete(s.old, key)
		return
	}
	s.keepLocked(key, cachedRow{copied(value), rev})
}

func copied(value []byte) []byte {
	if value == nil {
		return nil
	}
	return append(make([]byte, 0, len(value)), value...)
}

func (s *rowShard) keepLocked(key string, row cachedRow) {
	switch {
	case s.young == nil:
		s.young, s.old = make(map[string]cachedRow), make(map[string]cachedRow)
	case s.bytes > rowBytes/rowShards:
		clear(s.old) // used again, since a new map would grow step by step
		s.old, s.young, s.bytes = s.young, s.old, 0
	}
	if have, ok := s.young[key]; ok {
		s.bytes -= len(have.value)
	} else {
		s.bytes += len(key) + rowOverhead
	}
	s.young[key] = row
	s.bytes += len(row.value)
}
