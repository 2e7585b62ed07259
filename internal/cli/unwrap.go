package cli

import (
	"context"
	"net/http"

	"github.com/leasehold/leasehold/api"
)

func unwrapCommand() *command {
	var field string
	return &command{
		name: "unwrap", args: "[TOKEN]", max: 1, short: "Open a wrapped reply, once",
		long: "Fetches what a wrapping token holds. That works once; if it was opened before " +
			"you, somebody else has read it. Without an argument the token in use is opened.",
		example: []string{"leasehold unwrap hvs.CAESIJ…"},
		flags:   []*flag{fieldFlag(&field)},
		run: func(ctx context.Context, c *call) error {
			c.ownToken = c.arg(0) != ""
			cl, err := c.client()
			if err != nil {
				return err
			}
			// The request goes with the wrapping token itself, so that nobody
			// needs a token of their own to open what they were given.
			if token := c.arg(0); token != "" {
				if token == "-" {
					if token, err = c.line(); err != nil {
						return err
					}
				}
				if err := checkToken(token, "What was given", "give the wrapping token alone"); err != nil {
					return err
				}
				cl = cl.WithToken(token)
				c.target = cl
			}
			resp, err := cl.WithWrapTTL("").Do(ctx, &api.Request{Method: http.MethodPut, Path: "sys/wrapping/unwrap"})
			if err != nil {
				return step(err, "unwrapping")
			}
			s, err := resp.Secret()
			if err != nil {
				return err
			}
			if s == nil {
				return &notFound{"The wrapped reply was empty"}
			}
			c.warn(s.Warnings)
			c.once("What was wrapped is lost: it could be had this once.")
			c.onceSecret(s)
			return c.printSecret(s, field)
		},
	}
}
