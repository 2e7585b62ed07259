package cli

import (
	"context"
	"net/http"

	"github.com/leasehold/leasehold/api"
)

func monitorCommand() *command {
	level, format := "info", "standard"
	return &command{
		name: "monitor", max: 0, plain: true,
		short: "Follow the server's log", example: []string{"leasehold monitor", "leasehold monitor -log-level=debug -log-format=json"},
		long: "Writes what the server logs from now on, until it is interrupted. The token's policies must let it read sys/monitor.",
		flags: []*flag{
			stringFlag(&level, "log-level", "LEVEL", "trace, debug, info, warn or error; it may be below the server's own level."),
			stringFlag(&format, "log-format", "FORMAT", "standard or json."),
		},
		run: func(ctx context.Context, c *call) error {
			cl, err := c.client()
			if err != nil {
				return err
			}
			_, err = cl.Do(ctx, &api.Request{
				Method: http.MethodGet, Path: "sys/monitor", Query: map[string][]string{"log_level": {level}, "log_format": {format}},
				Timeout: -1, Into: c.cfg.Stdout,
			})
			if ctx.Err() != nil {
				return nil // interrupted, as it is meant to be
			}
			return step(err, "following the log")
		},
	}
}
