package route_test

import (
	"context"
	"testing"

	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestLiteralsAfterTheRest(t *testing.T) {
	table := route.NewTable()
	none := func(context.Context, *route.Request, route.None) (route.None, error) { return route.None{}, nil }
	route.Read(table, "mounts/{path...}", none)
	route.Read(table, "mounts/{path...}/tune", none)
	route.Delete(table, "mounts/{path...}", none)

	for _, c := range []struct {
		op                  wire.Op
		path, pattern, want string
	}{
		{wire.OpRead, "mounts/kv", "mounts/{path...}", "kv"},
		{wire.OpRead, "mounts/kv/tune", "mounts/{path...}/tune", "kv"},
		{wire.OpRead, "mounts/a/b/tune", "mounts/{path...}/tune", "a/b"},
		{wire.OpRead, "mounts/tune", "mounts/{path...}", "tune"},
		{wire.OpDelete, "mounts/kv/tune", "mounts/{path...}", "kv/tune"},
	} {
		ep, params, err := table.Lookup(c.op, c.path)
		if err != nil {
			t.Errorf("Lookup(%s, %q) = %v, want %q", c.op, c.path, err, c.pattern)
			continue
		}
		if got, _ := params.Get("path"); ep.Pattern != c.pattern || got != c.want {
			t.Errorf("Lookup(%s, %q) = %q with path %q, want %q with %q", c.op, c.path, ep.Pattern, got, c.pattern, c.want)
		}
	}
}
