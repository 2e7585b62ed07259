package lease

import (
	"sync"
)

// waits holds who in this process waits for an ending at the moment. It is no
// truth: who misses a word reads the row.
type waits struct {
	mu   sync.Mutex
	keys map[string][]chan<- stage
}

// stage is how far the ending of a lease has come.
type stage struct {
	at  stageKind
	err error
}

type stageKind uint8

const (
	stageDisabled stageKind = iota + 1 // no new login is possible
	stageDropped                       // the login was dropped; the row stays for make_by
	stageGone                          // the rows are deleted
	stageLater                         // this try is over without either; it is tried again
)

func (w *waits) tell(key string, at stageKind, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.keys[key] {
		select {
		case c <- stage{at, err}:
		default: // the waiter has what it needs already
		}
	}
}

// listen gives the stages of one lease from now on, and a func to stop.
func (w *waits) listen(key string) (<-chan stage, func()) {
	c := make(chan stage, 8)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.keys == nil {
		w.keys = map[string][]chan<- stage{}
	}
	w.keys[key] = append(w.keys[key], c)
	return c, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		list := w.keys[key]
		for i, x := range list {
			if x == (chan<- stage)(c) {
				list = append(list[:i:i], list[i+1:]...)
				break
			}
		}
		if len(list) == 0 {
			delete(w.keys, key)
		} else {
			w.keys[key] = list
		}
	}
}
