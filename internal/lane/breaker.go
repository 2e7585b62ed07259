package lane

import (
	"math/rand/v2"
	"time"
)

// breaker stops asking a target that cannot be reached. It counts connection
// faults only: one role's bad SQL does not stop the others. All its methods
// are called under Set.mu.
type breaker struct {
	faults int       // in a row
	until  time.Time // open until then; zero while closed
	err    error     // the last fault
}

const (
	breakAfter = 3                // faults in a row
	breakFirst = time.Second      // first pause; doubled at each further fault
	breakMost  = 60 * time.Second // longest pause
)

// quiet is a breaker that may be forgotten.
func (b *breaker) quiet() bool { return b.faults == 0 }

// open reports whether the target is left alone at now.
func (b *breaker) open(now time.Time) bool { return now.Before(b.until) }

// trying is the state after a pause: one attempt decides.
func (b *breaker) trying() bool { return !b.until.IsZero() }

func (b *breaker) succeed() { *b = breaker{} }

func (b *breaker) fail(now time.Time, err error) {
	b.err = err
	if b.open(now) {
		return // under way when the pause began, it says nothing new
	}
	b.faults++
	if b.faults < breakAfter {
		return
	}
	pause := breakMost
	if n := b.faults - breakAfter; n < 6 {
		pause = min(breakFirst<<n, breakMost)
	}
	// Half of the pause is drawn, so that lanes of one dead network do not
	// come back in step.
	b.until = now.Add(pause/2 + rand.N(pause/2+1))
}
