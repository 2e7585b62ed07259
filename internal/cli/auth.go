package cli

import (
	"context"
	"strings"

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
		name: "help", args: "METHOD|PATH", min: 1, max: 1, plain: true,
		short: "Tell how to log in by an auth method, and what it offers",
		long: "Tells what \"leasehold login\" takes for a method. Of a mount, which ends in a slash, it " +
			"tells what is below it too: the server is asked.",
		example: []string{"leasehold auth help oidc", "leasehold auth help userpass/"},
		run: func(ctx context.Context, c *call) error {
			arg := c.arg(0)
			path := cleanPath(arg)
			if m := methodNamed(strings.ToLower(arg)); m != nil {
				printMethodHelp(c.cfg.Stdout, m)
				return nil
			}
			if m := methodNamed(c.typeOfAuth(ctx, path)); m != nil {
				printMethodHelp(c.cfg.Stdout, m)
				c.printf("\n")
			}
			err := c.printPathHelp(ctx, "auth/"+path)
			if api.IsNotFound(err) {
				return localf("No auth method is mounted at %s/, and none is called so. \"leasehold auth list\" shows those that are mounted;\n\"leasehold login\" knows %s.", path, methodNames())
			}
			return err
		},
	}
}

// typeOfAuth is the type of the method at a path, as far as the token may know
// it; "" where it may not.
func (c *call) typeOfAuth(ctx context.Context, path string) string {
	var mount struct {
		Type string `json:"type"`
	}
	if err := c.readPlain(ctx, "sys/internal/ui/mounts/auth/"+path, &mount); err != nil {
		return ""
	}
	return mount.Type
}
