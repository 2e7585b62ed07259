package cli

import (
	"context"

	"github.com/leasehold/leasehold/api"
)

func listCommand() *command {
	return &command{
		name: "list", args: "PATH", min: 1, max: 1,
		short:   "List the keys below a path",
		example: []string{"leasehold list database/roles"},
		run: func(ctx context.Context, c *call) error {
			return c.list(ctx, cleanPath(c.arg(0)))
		},
	}
}

// list prints the keys below a path.
func (c *call) list(ctx context.Context, path string) error {
	s, err := c.do(ctx, &api.Request{Method: "LIST", Path: path})
	if s, err = keepMissing(s, err); err == nil && s == nil {
		if c.format != formatTable {
			return c.emptyList()
		}
		return &notFound{"No value found at " + path}
	}
	if err != nil {
		return step(err, "listing %s", path)
	}
	var out struct{ Keys []string }
	if err := decode(s, &out); err != nil {
		return err
	}
	t := newTable("Keys")
	for _, k := range out.Keys {
		t.add(k)
	}
	return c.printTable(t, out.Keys)
}

// emptyList is what programs get for a list of nothing: an empty one, and the
// exit code that says so, as Vault's list does.
func (c *call) emptyList() error {
	if err := c.print([]string{}, nil); err != nil {
		return err
	}
	return exitStatus(exitServer)
}
