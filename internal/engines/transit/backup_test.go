package transit_test

import (
	"context"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// meanwhile lets something happen after the next Update.
type meanwhile struct {
	storage.Backend
	then func()
}

func (b *meanwhile) Update(ctx context.Context, fn func(storage.Tx) error) (storage.Revision, error) {
	rev, err := b.Backend.Update(ctx, fn)
	if then := b.then; then != nil {
		b.then = nil
		then()
	}
	return rev, err
}

// TestBackupOfWhatIsDeleted deletes a key while it is backed up: there is no
// backup then, rather than one without the versions that are gone already.
func TestBackupOfWhatIsDeleted(t *testing.T) {
	store := &meanwhile{Backend: mem.New()}
	m, elsewhere := open(t, store), open(t, store.Backend)
	m.must("keys/k", object{"exportable": true, "allow_plaintext_backup": true}, nil)
	m.must("keys/k/config", object{"deletion_allowed": true}, nil)
	store.then = func() { elsewhere.mustDo(wire.OpDelete, "keys/k", nil, nil) }
	if _, data, err := m.ask(wire.OpRead, "backup/k", nil); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Errorf("backing up a key that goes = %s, %v, want a refusal", data, err)
	}
}
