package cli

import (
	"context"
	"fmt"
	"runtime/debug"
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

// versionLine names the commit where the build recorded one.
func versionLine(cfg Config) string {
	line := "Leasehold v" + cfg.Version
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return line
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return fmt.Sprintf("%s (%.12s)", line, s.Value)
		}
	}
	return line
}
