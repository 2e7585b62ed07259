package cli

import (
	"context"

	"github.com/leasehold/leasehold/api"
)

const namespacePath = "sys/namespaces"

func namespaceCommand() *command {
	return &command{
		name: "namespace", short: "Make and remove namespaces",
		long: "A namespace is a server within the server, with mounts, policies and tokens of its own. -namespace says in which one a command works.",
		sub: []*command{
			{
				name: "list", max: 0, short: "List the namespaces", example: []string{"leasehold namespace list"},
				run: func(ctx context.Context, c *call) error {
					s, err := keepMissing(c.do(ctx, &api.Request{Method: "LIST", Path: namespacePath}))
					if err != nil {
						return step(err, "listing namespaces")
					}
					if s == nil {
						return &notFound{"No namespaces found"}
					}
					var out struct{ Keys []string }
					if err := s.Decode(&out); err != nil {
						return err
					}
					t := newTable("Keys")
					for _, k := range out.Keys {
						t.add(k)
					}
					return c.printTable(t, out.Keys)
				},
			},
			namespaceCreateCommand(),
			{
				name: "lookup", args: "PATH", min: 1, max: 1, short: "Show a namespace", example: []string{"leasehold namespace lookup team-a/"},
				run: func(ctx context.Context, c *call) error {
					s, err := keepMissing(c.read(ctx, namespacePath+"/"+cleanPath(c.arg(0))))
					if err != nil {
						return step(err, "looking up namespace")
					}
					if s == nil {
						return &notFound{"Namespace not found"}
					}
					return c.printSecret(s, "")
				},
			},
			{
				name: "delete", args: "PATH", min: 1, max: 1, short: "Delete a namespace with all that is in it", example: []string{"leasehold namespace delete team-a/"},
				run: func(ctx context.Context, c *call) error {
					path := cleanPath(c.arg(0))
					if _, err := c.remove(ctx, namespacePath+"/"+path); err != nil {
						return step(err, "deleting namespace")
					}
					c.say("Success! Namespace deleted at: %s/", path)
					return nil
				},
			},
		},
	}
}

func namespaceCreateCommand() *command {
	var field string
	var metadata map[string]string
	return &command{
		name: "create", args: "PATH", min: 1, max: 1, short: "Make a namespace", example: []string{"leasehold namespace create team-a/"},
		flags: []*flag{pairsFlag(&metadata, "custom-metadata", "Field of your own; may be repeated."), fieldFlag(&field)},
		run: func(ctx context.Context, c *call) error {
			s, err := c.write(ctx, namespacePath+"/"+cleanPath(c.arg(0)), struct {
				CustomMetadata map[string]string `json:"custom_metadata,omitempty"`
			}{metadata})
			if err != nil {
				return step(err, "creating namespace")
			}
			return c.printWritten(s, field, namespacePath+"/"+cleanPath(c.arg(0)))
		},
	}
}
