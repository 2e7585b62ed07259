package cli

import (
	"context"
	"strings"
)

func versionCommand() *command {
	return &command{
		name: "version", max: 0, local: true, short: "Print the program's version", example: []string{"leasehold version"},
		run: func(_ context.Context, c *call) error {
			c.printf("%s\n", versionLine(c.cfg))
			return nil
		},
	}
}

// versionLine is "Leasehold v1.2.3", as scripts that cut it expect; what is no
// release stands without the v.
func versionLine(cfg Config) string {
	if strings.Contains(cfg.Version, ".") {
		return "Leasehold v" + cfg.Version
	}
	return "Leasehold " + cfg.Version
}
