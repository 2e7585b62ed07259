package lease

import (
	"slices"
	"sync/atomic"
)

// Stats are figures of a store since it was opened.
type Stats struct {
	Issued  uint64 // credentials that were made and confirmed
	Renewed uint64
	Ended   []CauseCount // every cause, in order of their names
}

// CauseCount counts the leases that have ended by one cause.
type CauseCount struct {
	Cause Cause
	Count uint64
}

// counted is what happened in this process.
type counted struct {
	issued, renewed atomic.Uint64
	ended           [6]atomic.Uint64 // in the order of causes
}

var causes = [6]Cause{Expired, Forced, Revoked, TokenEnd, Undone, Unmounted}

// end counts the leases whose ends were written down.
func (c *counted) end(records []Record) {
	for i := range records {
		if n := slices.Index(causes[:], records[i].Cause); n >= 0 {
			c.ended[n].Add(1)
		}
	}
}

// Stats gives the figures for metrics.
func (s *Store) Stats() Stats {
	st := Stats{Issued: s.counted.issued.Load(), Renewed: s.counted.renewed.Load()}
	for i, cause := range causes {
		st.Ended = append(st.Ended, CauseCount{cause, s.counted.ended[i].Load()})
	}
	return st
}
