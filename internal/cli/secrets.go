package cli

func secretsCommand() *command {
	k := secretsKind
	return &command{
		name: "secrets", short: "Mount, tune and remove secrets engines",
		long: "A secrets engine stores or makes secrets: kv keeps what it is given, database " +
			"makes users that expire. Each is mounted at a path.",
		sub: []*command{
			mountsListCommand(k, "leasehold secrets list"),
			enableCommand(k, "leasehold secrets enable -path=app kv-v2"),
			tuneCommand(k, "leasehold secrets tune -max-lease-ttl=24h database/"),
			moveCommand(k, "leasehold secrets move app/ apps/app/"),
			disableCommand(k, "leasehold secrets disable app/"),
		},
	}
}
