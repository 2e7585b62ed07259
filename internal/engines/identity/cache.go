package identity

import (
	"hash/maphash"
	"sync"

	"github.com/leasehold/leasehold/internal/storage"
)

// cache keeps what was read lately, also that there is nothing. A value comes
// with the revision of the snapshot that it was read from, and is refused when
// its key, or all, has been invalidated since.
type cache[V any] struct {
	seed   maphash.Seed
	shards [32]cacheShard[V]
}

type cacheShard[V any] struct {
	mu      sync.RWMutex
	entries map[string]V
	invalid storage.Revision // of the newest invalidation here
}

// perShard bounds a cache to about 16,000 values.
const perShard = 512

func newCache[V any]() *cache[V] { return &cache[V]{seed: maphash.MakeSeed()} }

func (c *cache[V]) shard(key string) *cacheShard[V] {
	return &c.shards[maphash.String(c.seed, key)%uint64(len(c.shards))]
}

func (c *cache[V]) get(key string) (v V, ok bool) {
	s := c.shard(key)
	s.mu.RLock()
	v, ok = s.entries[key]
	s.mu.RUnlock()
	return v, ok
}

func (c *cache[V]) put(key string, v V, rev storage.Revision) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev < s.invalid {
		return
	}
	if s.entries == nil {
		s.entries = make(map[string]V)
	}
	for k := range s.entries { // any other one: the order of a map is random
		if len(s.entries) < perShard {
			break
		}
		delete(s.entries, k)
	}
	s.entries[key] = v
}

func (c *cache[V]) invalidate(key string, rev storage.Revision) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.entries, key)
	s.invalid = max(s.invalid, rev)
}

// drop empties the cache: what it holds may have changed up to rev.
func (c *cache[V]) drop(rev storage.Revision) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.entries = nil
		s.invalid = max(s.invalid, rev)
		s.mu.Unlock()
	}
}
