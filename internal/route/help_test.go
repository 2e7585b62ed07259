package route_test

import (
	"context"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestHelp(t *testing.T) {
	type in struct {
		Name string   `json:"name" doc:"Name of the role."`
		TTL  wire.TTL `json:"ttl" doc:"Time of its leases."`
	}
	handle := func(context.Context, *route.Request, in) (route.None, error) {
		t.Error("asking for help calls the handler")
		return route.None{}, nil
	}
	tab := route.NewTable()
	route.Read(tab, "roles/{name}", handle, route.Doc("Read a role."))
	route.Write(tab, "roles/{name}", handle, route.Doc("Write a role."), route.Sudo())
	route.Delete(tab, "secretly", handle, route.Hidden())

	for _, tt := range []struct {
		path string
		want []string
	}{
		{"roles/x", []string{"db/roles/{name}\n", "read     Read a role.\n", "write    Write a role. (needs sudo)\n", "ttl (string)\n        Time of its leases.\n"}},
		{"", []string{"db/ is of type database.", "\ndb/roles/{name}\n    read "}},
	} {
		req := &route.Request{Op: wire.OpHelp, Path: tt.path, Mount: route.MountInfo{Path: "db/", Type: "database"}}
		e, err := tab.Route(req)
		if err != nil {
			t.Fatalf("Route(help %q): %v", tt.path, err)
		}
		res, err := e.Call(t.Context(), req)
		if err != nil {
			t.Fatalf("help of %q: %v", tt.path, err)
		}
		got := strings.ReplaceAll(string(wire.Append(nil, res.Data)), `\n`, "\n")
		for _, want := range tt.want {
			if !strings.Contains(got, want) {
				t.Errorf("help of %q = %s\nwant it to contain %q", tt.path, got, want)
			}
		}
	}
	for _, path := range []string{"nothing", "secretly"} {
		if _, _, err := tab.Lookup(wire.OpHelp, path); !errs.Is(err, errs.NotFound) {
			t.Errorf("Lookup(help, %q) = %v, want errs.NotFound", path, err)
		}
	}
}
