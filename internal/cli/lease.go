package cli

import (
	"context"
	"strings"

	"github.com/leasehold/leasehold/api"
)

func leaseCommand() *command {
	return &command{
		name: "lease", short: "Who has what until when; renew and revoke",
		long: "A lease says until when a credential lives. Revoking it takes the credential away.",
		sub:  []*command{leaseListCommand(), leaseLookupCommand(), leaseRenewCommand(), leaseRevokeCommand()},
	}
}

// leaseRequest is what the lease routes take.
type leaseRequest struct {
	LeaseID   string `json:"lease_id,omitempty"`
	Increment string `json:"increment,omitempty"`
	Sync      bool   `json:"sync,omitempty"`
}

func leaseLookupCommand() *command {
	return &command{
		name: "lookup", args: "ID", min: 1, max: 1, short: "Show a lease", example: []string{"leasehold lease lookup database/creds/readonly/2f6a614c"},
		run: func(ctx context.Context, c *call) error {
			id := strings.TrimSpace(c.arg(0))
			s, err := c.write(ctx, "sys/leases/lookup", leaseRequest{LeaseID: id})
			if err != nil {
				return step(err, "looking up lease id %s", id)
			}
			return c.printSecret(s, "")
		},
	}
}

func leaseRenewCommand() *command {
	var increment string
	return &command{
		name: "renew", args: "ID", min: 1, max: 1, short: "Extend a lease",
		long:    "Extends a lease from now on, as far as its maximum allows.",
		example: []string{"leasehold lease renew -increment=1h database/creds/readonly/2f6a614c"},
		flags:   []*flag{durationFlag(&increment, "increment", "How long it is to last from now on.").alias("i")},
		run: func(ctx context.Context, c *call) error {
			id := strings.TrimSpace(c.arg(0))
			s, err := c.write(ctx, "sys/leases/renew", leaseRequest{LeaseID: id, Increment: increment})
			if err != nil {
				return step(err, "renewing %s", id)
			}
			return c.printSecret(s, "")
		},
	}
}

func leaseRevokeCommand() *command {
	var prefix, force, sync bool
	return &command{
		name: "revoke", args: "ID | -prefix PREFIX", min: 1, max: 1, short: "Take a credential away before its time",
		long: "Ends a lease, or with -prefix all below a path. The credential's login is off " +
			"when the command returns; -sync waits until it is gone altogether.\n\n" +
			"-force forgets leases although their target does not answer. What is left behind " +
			"there must then be removed by hand.",
		example: []string{"leasehold lease revoke database/creds/readonly/2f6a614c", "leasehold lease revoke -prefix database/creds/readonly"},
		flags: []*flag{
			boolFlag(&prefix, "prefix", "Revoke all leases below the path."),
			boolFlag(&sync, "sync", "Wait until the credentials are gone."),
			boolFlag(&force, "force", "With -prefix: forget the leases whatever their target says.").alias("f"),
		},
		run: func(ctx context.Context, c *call) error {
			id := strings.Trim(strings.TrimSpace(c.arg(0)), "/")
			if force && !prefix {
				return localf("-force goes with -prefix: it forgets all leases below a path")
			}
			var s *api.Secret
			var err error
			switch {
			case force:
				c.note("WARNING! Leases are forgotten without asking their targets. Credentials may stay behind there.")
				s, err = c.write(ctx, "sys/leases/revoke-force/"+id, nil)
			case prefix:
				s, err = c.write(ctx, "sys/leases/revoke-prefix/"+id, leaseRequest{Sync: sync})
			default:
				s, err = c.write(ctx, "sys/leases/revoke", leaseRequest{LeaseID: id, Sync: sync})
			}
			if err != nil {
				return step(err, "revoking %s", id)
			}
			switch {
			case force:
				c.say("Success! Force revoked any leases with prefix: %s", id)
			case sync && s != nil && len(s.Warnings) > 0:
				c.say("What is left to clean up: leasehold lease list")
			case sync && prefix:
				c.say("Success! Revoked any leases with prefix: %s", id)
			case sync:
				c.say("Success! Revoked lease: %s", id)
			default:
				c.say("All revocation operations queued successfully!")
			}
			return nil
		},
	}
}
