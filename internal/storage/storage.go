// Package storage is the contract between Leasehold and whatever keeps its
// rows: an ordered map from text keys to small values, with snapshots to read
// from, serialisable and durable transactions to write with, and a feed of
// what changed.
//
// The barrier, a prefix view and the fault injector have the same shape as a
// store, so that layers stack in any order. storagetest holds every
// implementation to the contract written here.
package storage

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"
)

// Limits of one Update, chosen so that engines that others run (etcd,
// PostgreSQL-protocol databases) can keep them too.
const (
	MaxTxKeys   = 100     // distinct keys read or written
	MaxTxBytes  = 1 << 20 // keys and values written, together
	MaxKeyBytes = 1 << 10 // a key is UTF-8 text without zero bytes, as PostgreSQL wants it
)

var (
	// ErrTooLarge is returned by Update for a transaction over the limits. Nothing was written.
	ErrTooLarge = errors.New("storage: the transaction is over 100 keys or 1 MiB")
	// ErrBadKey is returned for writing under a key that ValidKey refuses.
	// Reading one finds nothing.
	ErrBadKey = errors.New("storage: a key must be UTF-8 text of 1 to 1024 bytes without a zero byte")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("storage: closed")
	// ErrReadOnly is the named state "full and read-only": reads go on,
	// writes are refused until there is room again.
	ErrReadOnly = errors.New("storage: full and read-only")
	// ErrStopped is returned for good once a sync has failed: what is on the
	// disk is unknown until the store is opened anew.
	ErrStopped = errors.New("storage: stopped after a failed sync; restart the server")
	// ErrLost ends a Watch that can no longer give every change since its
	// start. The reader drops all that it cached and watches again.
	ErrLost = errors.New("storage: watch lost; drop caches and start again")
	// ErrUnknownTerm is returned (by the barrier) for a row under a key term
	// that this process does not have, even after it read the keyring again.
	// It says nothing about the row: who caches rows stops answering.
	ErrUnknownTerm = errors.New("storage: the row is encrypted under a key term that the keyring does not have")
)

// CorruptError says that one row cannot be read: it was damaged, moved to
// another key or forged. Callers quarantine that row and go on.
type CorruptError struct {
	Key string
	Err error
}

func (e *CorruptError) Error() string {
	return "storage: the row " + e.Key + " cannot be read: " + e.Err.Error()
}

func (e *CorruptError) Unwrap() error { return e.Err }

// ValidKey reports whether a row can have this key.
func ValidKey(key string) bool {
	return key != "" && len(key) <= MaxKeyBytes && strings.IndexByte(key, 0) < 0 && utf8.ValidString(key)
}

// Revision numbers the durable states of a store. It grows; equal revisions
// mean equal contents. Zero is before the first write.
type Revision uint64

// Reader reads single keys. A missing key is (nil, nil); an empty value is not
// nil. The value is only valid until the function that was given the Reader
// returns, and must not be changed. A Reader belongs to one goroutine.
type Reader interface {
	Get(key string) ([]byte, error)
}

// View is one durable snapshot.
type View interface {
	Reader
	// Scan calls fn for keys in [from, to) in ascending byte order until fn
	// returns false or limit keys were given (0: no limit). An empty to
	// means no upper bound. Key and value are valid during the call only;
	// key is an immutable string and may be kept. A row that cannot be read
	// ends the scan with a *CorruptError, after all rows before it; ScanEach
	// goes on behind it.
	Scan(from, to string, limit int, fn func(key string, value []byte) bool) error
	// ScanDesc is Scan in descending order over the same half-open range.
	ScanDesc(from, to string, limit int, fn func(key string, value []byte) bool) error
	// Revision of the snapshot.
	Revision() Revision
}

// Tx is a transaction. Only single keys are read, present or absent; those
// reads and the writes conflict with other transactions. There is no scan:
// "none left" is a counter or tombstone that all writers read. Get sees this
// transaction's own writes. Values handed to Put are copied. After an error of
// Get, Put or Delete the Update fails with that error, whatever fn returns;
// only a *CorruptError leaves fn the choice to go on without that row.
type Tx interface {
	Reader
	Put(key string, value []byte) error
	Delete(key string) error // deleting what is absent is no error
}

// Change is one key that was written or deleted, and the revision that did it.
type Change struct {
	Key string
	Rev Revision
}

// Backend is a store. Implementations are safe for concurrent use.
type Backend interface {
	// View runs fn on the newest durable snapshot: it includes every Update
	// that has returned in this process. fn's error is returned as it is.
	View(ctx context.Context, fn func(View) error) error
	// Update runs fn in a serialisable transaction and returns when its
	// writes are durable. fn may run more than once (on conflict), must be
	// short, must do no I/O and must not call Update. When fn returns an error nothing is written
	// and the error is returned as it is. A cancelled ctx is looked at only
	// before fn runs: an Update that has begun is waited for.
	// The revision returned is one whose snapshot includes the writes.
	Update(ctx context.Context, fn func(Tx) error) (Revision, error)
	// Watch calls fn with batches of changes after revision from, in order,
	// each at least once, until ctx ends (its error), fn fails (that error)
	// or changes were missed (ErrLost): also when from is older than what the
	// store still knows, or newer than the store. First come the changes
	// made already, then one empty batch, which says that the Watch runs;
	// from then on Update returns only after fn has returned for its
	// changes. The slice is valid during the call only. fn must be short and
	// must not call Update or Watch.
	Watch(ctx context.Context, from Revision, fn func([]Change) error) error
	// Close waits for what has begun, ends every Watch with ErrClosed and
	// releases everything. It may be called twice, but not from inside fn.
	Close() error
}

// Statser is the optional ability to report figures for metrics.
type Statser interface {
	Stats() Stats
}

// Stats are figures of a store since it was opened.
type Stats struct {
	Commits     uint64 // Updates that wrote
	Syncs       uint64 // fsyncs they shared
	DiskBytes   uint64 // bytes on disk now, 0 where there is none
	MemoryBytes uint64 // caches and memtables
	ReadOnly    bool
}

// ScanEach is v.Scan that does not end at a row which cannot be read: fn is
// given such a row without a value and with bad set. These rows do not count
// towards limit.
func ScanEach(v View, from, to string, limit int, fn func(key string, value []byte, bad error) bool) error {
	for given := 0; ; {
		more := true
		rest := 0
		if limit > 0 {
			if rest = limit - given; rest <= 0 {
				return nil
			}
		}
		err := v.Scan(from, to, rest, func(key string, value []byte) bool {
			given++
			more = fn(key, value, nil)
			return more
		})
		var bad *CorruptError
		if !more || !errors.As(err, &bad) {
			return err
		}
		if !fn(bad.Key, nil, bad) {
			return nil
		}
		from = bad.Key + "\x00"
	}
}

// PrefixEnd is the smallest key greater than every key that begins with
// prefix: the upper bound of a range scan. It is empty (no bound) when there
// is none.
func PrefixEnd(prefix string) string {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return string(b[:i+1])
		}
	}
	return ""
}
