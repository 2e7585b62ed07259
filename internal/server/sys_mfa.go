package server

import (
	"context"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engines/sys"
)

// factors completes logins that wait in core.
type factors struct{ c *core.Core }

var _ sys.Factors = factors{}

func (f factors) Release(ctx context.Context, ns, id string, shown map[string][]string) ([]byte, error) {
	return f.c.ReleaseLogin(ctx, ns, id, shown)
}
