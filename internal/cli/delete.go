package cli

import (
	"context"
	"net/http"

	"github.com/leasehold/leasehold/api"
)

func deleteCommand() *command {
	var field string
	return &command{
		name: "delete", args: "PATH [KEY=VALUE …]", min: 1, max: -1,
		short:   "Delete what is at a path",
		long:    "Deletes what is at a path. Deleting what is not there is no error.",
		example: []string{"leasehold delete database/roles/readonly"},
		flags:   []*flag{fieldFlag(&field)},
		run: func(ctx context.Context, c *call) error {
			path := cleanPath(c.arg(0))
			query, err := c.query(c.args[1:])
			if err != nil {
				return err
			}
			s, err := c.do(ctx, &api.Request{Method: http.MethodDelete, Path: path, Query: query})
			if err != nil {
				return step(err, "deleting %s", path)
			}
			if hasContent(s) {
				return c.printSecret(s, field)
			}
			c.say("Success! Data deleted (if it existed) at: %s", path)
			return nil
		},
	}
}
