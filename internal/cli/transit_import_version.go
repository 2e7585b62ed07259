package cli

import "context"

func transitImportVersionCommand() *command {
	return &command{
		name: "import-version", args: "PATH KEY [KEY=VALUE …]", min: 2, max: -1, plain: true,
		short:   "Bring a new version of an imported key along",
		long:    "Imports a key as the next version of one that was imported before.\n\n" + importNotes,
		example: []string{"leasehold transit import-version transit/keys/mine @newer.pem"},
		run:     func(ctx context.Context, c *call) error { return c.transitImport(ctx, "import_version") },
	}
}
