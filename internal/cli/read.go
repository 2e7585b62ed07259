package cli

import (
	"context"
	"errors"
	"net/http"

	"github.com/leasehold/leasehold/api"
)

func fieldFlag(to *string) *flag {
	return stringFlag(to, "field", "NAME", "Print only this field, bare: for scripts.")
}

func readCommand() *command {
	var field string
	return &command{
		name: "read", args: "PATH [KEY=VALUE …]", min: 1, max: -1,
		short: "Read data, or have a credential made",
		long: "Reads what is at a path. Some paths make something new each time: a path " +
			"below database/creds/ answers a fresh database user with its lease. KEY=VALUE " +
			"arguments become the request's query.",
		example: []string{"leasehold read database/creds/readonly"},
		flags:   []*flag{fieldFlag(&field)},
		run: func(ctx context.Context, c *call) error {
			path := cleanPath(c.arg(0))
			query, err := c.query(c.args[1:])
			if err != nil {
				return err
			}
			req := &api.Request{Method: http.MethodGet, Path: path, Query: query}
			if c.format == formatRaw && field == "" {
				return c.printRaw(ctx, req, "reading "+path)
			}
			s, err := c.do(ctx, req)
			missing := api.IsNotFound(err)
			if s, err = keepMissing(s, err); err != nil {
				return step(err, "reading %s", path)
			}
			if s == nil || missing && !s.HasData() && c.format == formatTable {
				return &notFound{"No value found at " + path}
			}
			c.onceSecret(s)
			return c.printSecret(s, field)
		},
	}
}

// keepMissing turns "not there" into nothing, or into the envelope that some
// such answers carry (a deleted version's metadata). An answer with a sentence
// stays an error: there is not even a mount.
func keepMissing(s *api.Secret, err error) (*api.Secret, error) {
	var refused *api.Error
	if !api.IsNotFound(err) || !errors.As(err, &refused) || len(refused.Errors) > 0 {
		return s, err
	}
	return refused.Secret, nil
}

// printRaw prints the reply as the server sent it, whatever it is.
func (c *call) printRaw(ctx context.Context, req *api.Request, doing string) error {
	cl, err := c.client()
	if err != nil {
		return err
	}
	resp, err := cl.Do(ctx, req)
	if err != nil {
		return step(err, "%s", doing)
	}
	_, err = c.cfg.Stdout.Write(resp.Body)
	return err
}
