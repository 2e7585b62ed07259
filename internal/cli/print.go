package cli

import "context"

func printCommand() *command {
	return &command{
		name: "print", short: "Print settings that are in force",
		sub: []*command{{
			name: "token", max: 0, local: true, short: "Print the token in use", example: []string{"leasehold print token"},
			run: func(_ context.Context, c *call) error {
				cl, err := c.realClient()
				if err != nil {
					return err
				}
				c.printf("%s\n", cl.Token())
				return nil
			},
		}},
	}
}
