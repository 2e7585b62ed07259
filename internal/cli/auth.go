package cli

import (
	"context"

	"github.com/leasehold/leasehold/api"
)

func authCommand() *command {
	k := authKind
	return &command{
		name: "auth", short: "Mount, tune and remove ways to log in",
		long: "An auth method tells who somebody is and gives them a token. Each is mounted at " +
			"a path below auth/. To log in: \"leasehold login\".",
		sub: []*command{
			mountsListCommand(k, "leasehold auth list"),
			enableCommand(k, "leasehold auth enable userpass"),
			tuneCommand(k, "leasehold auth tune -default-lease-ttl=1h userpass/"),
			moveCommand(k, "leasehold auth move userpass/ people/"),
			disableCommand(k, "leasehold auth disable userpass/"),
			authHelpCommand(),
		},
	}
}

func authHelpCommand() *command {
	return &command{
		name: "help", args: "PATH", min: 1, max: 1, plain: true,
		short: "Tell what an auth method offers", example: []string{"leasehold auth help userpass/"},
		run: func(ctx context.Context, c *call) error {
			path := cleanPath(c.arg(0))
			err := c.printPathHelp(ctx, "auth/"+path)
			if api.IsNotFound(err) {
				return localf("No auth method is mounted at %s/. \"leasehold auth list\" shows those that are.", path)
			}
			return err
		},
	}
}
