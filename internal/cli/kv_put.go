package cli

import (
	"context"

	"github.com/leasehold/leasehold/api"
)

func kvPutCommand() *command {
	var field, mount string
	var cas *int
	return &command{
		name: "put", args: "PATH [KEY=VALUE | @FILE | -] …", min: 1, max: -1,
		short:   "Store a secret, a new version of it in version 2",
		long:    "Stores a secret. All of its fields are replaced; \"kv patch\" changes some.\n\n" + writeData,
		example: []string{"leasehold kv put secret/app user=ann pass=@password.txt"},
		flags: []*flag{
			optIntFlag(&cas, "cas", "Store only if the current version is N; 0: only if there is none."),
			fieldFlag(&field), mountFlag(&mount),
		},
		run: func(ctx context.Context, c *call) error {
			if len(c.args) < 2 {
				return localf("There is nothing to store: add KEY=VALUE, @FILE or -")
			}
			in, err := c.parseInput(c.args[1:])
			if err != nil {
				return err
			}
			p, err := c.kvFind(ctx, mount)
			if err != nil {
				return err
			}
			var body any = in
			if p.v2 {
				body = kvBody{Data: in, Options: casOptions(cas)}
			}
			s, err := c.write(ctx, p.at("data"), body)
			if err != nil {
				return step(err, "writing data to %s", p.at("data"))
			}
			return c.printKVWritten(s, p, field)
		},
	}
}

// kvBody is a version 2 write.
type kvBody struct {
	Data    any        `json:"data"`
	Options *kvOptions `json:"options,omitempty"`
}

type kvOptions struct {
	CAS *int `json:"cas,omitempty"`
}

// casOptions leaves out a negative number, which Vault's scripts send for "none".
func casOptions(cas *int) *kvOptions {
	if cas == nil || *cas < 0 {
		return &kvOptions{}
	}
	return &kvOptions{CAS: cas}
}

// printKVWritten prints the metadata of the version that was made.
func (c *call) printKVWritten(s *api.Secret, p kvPath, field string) error {
	if !hasContent(s) || field != "" || c.format != formatTable || s.WrapInfo != nil {
		return c.printWritten(s, field, p.at("data"))
	}
	meta, err := parseValue(s.Data)
	if err != nil {
		return err
	}
	c.printPath("Secret Path", p.at("data"))
	c.printSection("Metadata", meta)
	return nil
}
