package cli

import (
	"context"
	"net/http"

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
					if err := decode(s, &out); err != nil {
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
			namespacePatchCommand(),
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
			namespaceLockCommand(),
			{
				name: "unlock", args: "[PATH]", max: 1, short: "Open a namespace's API again",
				long:    "Opens the API of a namespace that is locked. The key is what locking printed; a root token can leave it out.",
				example: []string{"leasehold namespace unlock -unlock-key=… team-a/"},
				run: func(ctx context.Context, c *call) error {
					_, err := c.write(ctx, lockPath("unlock", c.arg(0)), struct {
						Key string `json:"unlock_key,omitempty"`
					}{c.common.unlockKey})
					if err != nil {
						return step(err, "unlocking namespace")
					}
					c.say("Success! Namespace unlocked")
					return nil
				},
			},
		},
	}
}

func namespaceLockCommand() *command {
	var field string
	return &command{
		name: "lock", args: "[PATH]", max: 1, short: "Close a namespace's API",
		long:    "Closes the API of a namespace, and of those below it, to everybody. Without PATH it is the one that -namespace names. The key that opens it again is printed once.",
		example: []string{"leasehold namespace lock team-a/"},
		flags:   []*flag{fieldFlag(&field)},
		run: func(ctx context.Context, c *call) error {
			s, err := c.write(ctx, lockPath("lock", c.arg(0)), nil)
			if err != nil {
				return step(err, "locking namespace")
			}
			if s.HasData() {
				c.once("The key that opens the namespace again is lost: it is not shown again. A root token opens it without.")
			}
			return c.printSecret(s, field)
		},
	}
}

func lockPath(what, path string) string {
	at := namespacePath + "/api-lock/" + what
	if path = cleanPath(path); path != "" {
		at += "/" + path
	}
	return at
}

func namespacePatchCommand() *command {
	var field string
	var remove []string
	var metadata map[string]string
	return &command{
		name: "patch", args: "PATH", min: 1, max: 1, short: "Change the notes about a namespace",
		example: []string{"leasehold namespace patch -custom-metadata=owner=ops team-a/"},
		flags: []*flag{
			pairsFlag(&metadata, "custom-metadata", "Field of your own; may be repeated."),
			listFlag(&remove, "remove-custom-metadata", "KEY", "Field of your own to take away; may be repeated."), fieldFlag(&field),
		},
		run: func(ctx context.Context, c *call) error {
			notes := make(map[string]*string, len(metadata)+len(remove))
			for k, v := range metadata {
				notes[k] = &v
			}
			for _, k := range remove {
				notes[k] = nil
			}
			path := namespacePath + "/" + cleanPath(c.arg(0))
			s, err := c.do(ctx, &api.Request{Method: http.MethodPatch, Path: path, Body: struct {
				CustomMetadata map[string]*string `json:"custom_metadata,omitempty"`
			}{notes}})
			if err != nil {
				return step(err, "changing namespace")
			}
			return c.printWritten(s, field, path)
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
