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
	entries map[string]cached[V]
	weight  int              // of the entries together
	invalid storage.Revision // of the newest invalidation here
}

type cached[V any] struct {
	value  V
	weight int
}

// A value weighs one for each page of memory that it takes, and at least one.
// perShard bounds a cache to about 16,000 values, or 64 MB: nobody fills the
// memory with large ones.
const (
	perShard   = 512
	weightPage = 4 << 10
)

func weightOf(size int) int { return 1 + size/weightPage }

func newCache[V any]() *cache[V] { return &cache[V]{seed: maphash.MakeSeed()} }

func (c *cache[V]) shard(key string) *cacheShard[V] {
	return &c.shards[maphash.String(c.seed, key)%uint64(len(c.shards))]
}

func (c *cache[V]) get(key string) (v V, ok bool) {
	s := c.shard(key)
	s.mu.RLock()
	e, ok := s.entries[key]
	s.mu.RUnlock()
	return e.value, ok
}

func (c *cache[V]) put(key string, v V, weight int, rev storage.Revision) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if rev < s.invalid {
		return
	}
	if s.entries == nil {
		s.entries = make(map[string]cached[V])
	}
	s.removeLocked(key)
	for k := range s.entries { // any other one: the order of a map is random
		if s.weight+weight <= perShard {
			break
		}
		s.removeLocked(k)
	}
	s.entries[key] = cached[V]{v, weight}
	s.weight += weight
}

func (s *cacheShard[V]) removeLocked(key string) {
	s.weight -= s.entries[key].weight
	delete(s.entries, key)
}

func (c *cache[V]) invalidate(key string, rev storage.Revision) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removeLocked(key)
	s.invalid = max(s.invalid, rev)
}

// drop empties the cache: what it holds may have changed up to rev.
func (c *cache[V]) drop(rev storage.Revision) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.entries, s.weight = nil, 0
		s.invalid = max(s.invalid, rev)
		s.mu.Unlock()
	}
}
