package token

import (
	"hash/maphash"
	"sync"

	"github.com/leasehold/leasehold/internal/storage"
)

// cache holds tokens that were used lately. It lives in the unsealed struct
// and is dropped with it. An entry carries the revision it was read at, and is
// refused when something of its shard was invalidated since.
type cache struct {
	seed   maphash.Seed
	shards [64]cacheShard
}

type cacheShard struct {
	mu      sync.RWMutex
	entries map[string]*cached
	invalid storage.Revision // of the newest invalidation here
}

// cached is one token's row and the word on its liveness key.
type cached struct {
	entry *Entry
	alive string
	rev   storage.Revision
}

// mostCached bounds the rows that are kept: one with much metadata is read at
// each use, so that nobody fills the memory with them.
const mostCached = 4 << 10

// perShard bounds the cache to about 16,000 tokens, some 10 MB.
const perShard = 256

func newCache() *cache { return &cache{seed: maphash.MakeSeed()} }

func (c *cache) shard(key string) *cacheShard {
	return &c.shards[maphash.String(c.seed, key)%uint64(len(c.shards))]
}

func (c *cache) get(key string) *cached {
	s := c.shard(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.entries[key]
}

func (c *cache) put(key string, e *cached) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.rev < s.invalid {
		return
	}
	if s.entries == nil {
		s.entries = make(map[string]*cached)
	}
	for k := range s.entries { // any other one: the order of a map is random
		if len(s.entries) < perShard {
			break
		}
		delete(s.entries, k)
	}
	s.entries[key] = e
}

func (c *cache) invalidate(key string, rev storage.Revision) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, key)
	s.invalid = max(s.invalid, rev)
}

// drop empties the cache: changes may have been missed.
func (c *cache) drop(rev storage.Revision) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.entries = nil
		s.invalid = max(s.invalid, rev)
		s.mu.Unlock()
	}
}
