// Package traced is a storage layer that shows in a request's trace how long
// its durable writes took. It is laid over a store only where traces are sent.
package traced

import (
	"context"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/trace"
)

// New lays the layer over a store.
func New(b storage.Backend) storage.Backend { return store{b} }

type store struct{ storage.Backend }

// Update is the store's, in a span of its own. A transaction shares its sync
// with others, so much of the time is waiting.
func (s store) Update(ctx context.Context, fn func(storage.Tx) error) (storage.Revision, error) {
	ctx, span := trace.Start(ctx, "storage update")
	rev, err := s.Backend.Update(ctx, fn)
	span.End(err)
	return rev, err
}
