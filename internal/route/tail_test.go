package route_test

import (
	"context"
	"strings"
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

// TestFolds: a path is told with its first name as the engine knows it, and
// where that begins.
func TestFolds(t *testing.T) {
	table := route.NewTable()
	none := func(context.Context, *route.Request, route.None) (route.None, error) { return route.None{}, nil }
	table.With(func(t *route.Table) {
		route.List(t, "users", none)
		route.Read(t, "users/{name}", none)
		route.Delete(t, "users/{name}/keys/{id}", none)
		route.Write(t, "groups/{name...}", none)
		route.List(t, "groups/{name...}", none)
	}, route.Folds(func(name string) string { return strings.ToLower(strings.TrimSpace(name)) }))
	route.Read(table, "ids/{id}", none)

	for _, c := range []struct {
		path, want string
		from       int
		ok         bool
	}{
		{"users/Ann", "users/ann", 6, true},
		{"users/ann", "users/ann", 6, true},
		{"users/ Ann ", "users/ann", 6, true},
		{"users/ ", "users/ ", 6, true}, // no name at all
		{"users/Ann/keys/ID", "users/ann/keys/ID", 6, true},
		{"groups/A/B", "groups/a/b", 7, true},
		{"groups/A/B/", "groups/a/b/", 7, true},
		{"users/", "", 0, false}, {"ids/ID", "", 0, false}, {"Other", "", 0, false},
	} {
		if got, from, ok := table.Known(c.path); got != c.want || from != c.from || ok != c.ok {
			t.Errorf("Known(%q) = %q, %d, %v, want %q, %d, %v", c.path, got, from, ok, c.want, c.from, c.ok)
		}
	}
	if _, _, ok := (*route.Endpoint)(nil).Known(&route.Request{}); ok {
		t.Error("no endpoint knows a name")
	}
}
