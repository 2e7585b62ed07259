package embedded

// recent keeps rows that Updates read or wrote lately, as they are stored, so
// that reading them again costs a map lookup and not a search of the memtable
// and the levels. Only the committer touches it, and every write passes
// through the committer: it is never stale. An absent key is kept as nil.
//
// There are two generations. When the young one is full it becomes the old
// one, and what the old one held is forgotten unless it was used meanwhile.
type recent struct {
	young, old map[string][]byte
	bytes      int // of young
}

// recentBytes bounds one generation, keys and the maps' own cost included.
const (
	recentBytes = 4 << 20
	recentRow   = 64       // what an entry costs beside its key and value
	recentValue = 16 << 10 // larger values are not kept
)

func (r *recent) get(key string) (value []byte, ok bool) {
	if value, ok = r.young[key]; ok {
		return value, true
	}
	if value, ok = r.old[key]; ok {
		r.keep(key, value)
	}
	return value, ok
}

// put keeps a copy of a value.
func (r *recent) put(key string, value []byte) {
	if len(value) > recentValue {
		delete(r.young, key)
		delete(r.old, key)
		return
	}
	if value != nil {
		value = append(make([]byte, 0, len(value)), value...)
	}
	r.keep(key, value)
}

func (r *recent) keep(key string, value []byte) {
	if r.young == nil || r.bytes > recentBytes {
		r.old, r.young, r.bytes = r.young, make(map[string][]byte), 0
	}
	if have, ok := r.young[key]; ok {
		r.bytes -= len(have)
	} else {
		r.bytes += len(key) + recentRow
	}
	r.young[key] = value
	r.bytes += len(value)
}
