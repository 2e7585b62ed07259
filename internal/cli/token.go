package cli

import (
	"context"
	"strings"

	"github.com/leasehold/leasehold/api"
)

func tokenCommand() *command {
	return &command{
		name: "token", short: "Make, look up, renew and revoke tokens",
		long: "A token says who sends a request and what they may do. Revoking one ends its " +
			"children and its leases too.",
		sub: []*command{
			tokenCreateCommand(), tokenLookupCommand(), tokenRenewCommand(), tokenRevokeCommand(), tokenCapabilitiesCommand(),
		},
	}
}

// tokenRequest is auth/token/create's body; what was not given is left out.
type tokenRequest struct {
	ID              string            `json:"id,omitempty"`
	Policies        []string          `json:"policies,omitempty"`
	Metadata        map[string]string `json:"meta,omitempty"`
	TTL             string            `json:"ttl,omitempty"`
	ExplicitMaxTTL  string            `json:"explicit_max_ttl,omitempty"`
	Period          string            `json:"period,omitempty"`
	DisplayName     string            `json:"display_name,omitempty"`
	NumUses         *int              `json:"num_uses,omitempty"`
	Renewable       *bool             `json:"renewable,omitempty"`
	NoDefaultPolicy bool              `json:"no_default_policy,omitempty"`
	Type            string            `json:"type,omitempty"`
	EntityAlias     string            `json:"entity_alias,omitempty"`
}

func tokenCreateCommand() *command {
	var (
		req         tokenRequest
		role, field string
		orphan      bool
	)
	return &command{
		name: "create", max: 0, short: "Make a token", long: "Makes a token. It has the policies of the one that asks unless -policy names some.",
		example: []string{"leasehold token create -policy=app -ttl=1h"},
		flags: []*flag{
			listFlag(&req.Policies, "policy", "NAME", "Policy of the token; may be repeated."),
			durationFlag(&req.TTL, "ttl", "How long it lives unless renewed."),
			durationFlag(&req.ExplicitMaxTTL, "explicit-max-ttl", "How long it lives at most, renewed or not."),
			durationFlag(&req.Period, "period", "Lives on as long as it is renewed within this time."),
			optIntFlag(&req.NumUses, "use-limit", "How many requests it is good for; 0 for any number."),
			optBoolFlag(&req.Renewable, "renewable", "Whether it can be renewed; true by default."),
			boolFlag(&orphan, "orphan", "Without a parent: it outlives the token that asks."),
			stringFlag(&req.Type, "type", "TYPE", "service (stored, can be revoked) or batch (neither)."),
			stringFlag(&role, "role", "NAME", "Token role to make it by."),
			stringFlag(&req.DisplayName, "display-name", "NAME", "Name that logs and leases show."),
			pairsFlag(&req.Metadata, "metadata", "Field kept with the token; may be repeated."),
			boolFlag(&req.NoDefaultPolicy, "no-default-policy", "Leave the default policy out."),
			stringFlag(&req.ID, "id", "TEXT", "The token itself, instead of a random one; needs sudo."),
			stringFlag(&req.EntityAlias, "entity-alias", "NAME", "Alias of the entity that it belongs to."),
			fieldFlag(&field),
		},
		run: func(ctx context.Context, c *call) error {
			path := "auth/token/create"
			switch {
			case role != "":
				path += "/" + role
			case orphan:
				path += "-orphan"
			}
			s, err := c.write(ctx, path, &req)
			if err != nil {
				return step(err, "creating token")
			}
			c.onceSecret(s)
			return c.printSecret(s, field)
		},
	}
}

// tokenArg is a command's own token or accessor: at most one argument.
type tokenArg struct {
	Token    string `json:"token,omitempty"`
	Accessor string `json:"accessor,omitempty"`
}

func (c *call) tokenArg(accessor bool) (tokenArg, error) {
	v := strings.TrimSpace(c.arg(0))
	if v == "-" {
		var err error
		if v, err = c.line(); err != nil {
			return tokenArg{}, err
		}
	}
	if !accessor {
		return tokenArg{Token: v}, nil
	}
	if v == "" {
		return tokenArg{}, localf("-accessor needs the accessor as an argument")
	}
	return tokenArg{Accessor: v}, nil
}

func accessorFlag(to *bool) *flag {
	return boolFlag(to, "accessor", "The argument is an accessor, not a token.")
}

func tokenLookupCommand() *command {
	var accessor bool
	return &command{
		name: "lookup", args: "[TOKEN | -accessor ACCESSOR]", max: 1, short: "Show what a token is",
		long: "Shows a token's policies, lifetime and origin: your own without an argument.", example: []string{"leasehold token lookup"},
		flags: []*flag{accessorFlag(&accessor)},
		run: func(ctx context.Context, c *call) error {
			arg, err := c.tokenArg(accessor)
			if err != nil {
				return err
			}
			var s *api.Secret
			switch {
			case arg.Accessor != "":
				s, err = c.write(ctx, "auth/token/lookup-accessor", arg)
			case arg.Token != "":
				s, err = c.write(ctx, "auth/token/lookup", arg)
			default:
				s, err = c.read(ctx, "auth/token/lookup-self")
			}
			if err != nil {
				return step(err, "looking up token")
			}
			return c.printSecret(s, "")
		},
	}
}

func tokenRenewCommand() *command {
	var accessor bool
	var increment string
	return &command{
		name: "renew", args: "[TOKEN | -accessor ACCESSOR]", max: 1, short: "Extend a token's life",
		long: "Extends a token's life, as far as its maximum allows: your own without an argument.", example: []string{"leasehold token renew -increment=30m"},
		flags: []*flag{accessorFlag(&accessor), durationFlag(&increment, "increment", "How long it is to live from now on.").alias("i")},
		run: func(ctx context.Context, c *call) error {
			arg, err := c.tokenArg(accessor)
			if err != nil {
				return err
			}
			path := "auth/token/renew-self"
			switch {
			case arg.Accessor != "":
				path = "auth/token/renew-accessor"
			case arg.Token != "":
				path = "auth/token/renew"
			}
			s, err := c.write(ctx, path, struct {
				tokenArg
				Increment string `json:"increment,omitempty"`
			}{arg, increment})
			if err != nil {
				return step(err, "renewing token")
			}
			return c.printSecret(s, "")
		},
	}
}

func tokenRevokeCommand() *command {
	var accessor, self bool
	var mode string
	return &command{
		name: "revoke", args: "[TOKEN | -accessor ACCESSOR | -self]", max: 1, short: "End a token",
		long: "Ends a token, its children and the leases of all of them. -mode=orphan leaves " +
			"the children alive; -mode=path ends the tokens that logins below a path made.",
		example: []string{"leasehold token revoke -accessor 3166kQ4YvH5lEopxRw2VAQPD"},
		flags: []*flag{
			accessorFlag(&accessor), boolFlag(&self, "self", "End your own token."),
			stringFlag(&mode, "mode", "MODE", "orphan or path."),
		},
		run: func(ctx context.Context, c *call) error {
			arg, err := c.tokenArg(accessor)
			if err != nil {
				return err
			}
			path := ""
			switch none := len(c.args) == 0; {
			case self && (!none || accessor || mode != ""):
				return localf("-self goes with no argument and no other flag")
			case none && !self:
				return localf("Which token? Give it, or -accessor and its accessor, or -self%s", c.cmd.seeHelp())
			case accessor && mode != "":
				return localf("-accessor and -mode do not go together")
			case self:
				path = "auth/token/revoke-self"
			case accessor:
				path = "auth/token/revoke-accessor"
			case mode == "orphan":
				path = "auth/token/revoke-orphan"
			case mode == "path":
				path, arg = "sys/leases/revoke-prefix/"+cleanPath(arg.Token), tokenArg{}
			case mode == "":
				path = "auth/token/revoke"
			default:
				return localf("-mode=%s: want orphan or path", mode)
			}
			if _, err := c.write(ctx, path, arg); err != nil {
				return step(err, "revoking token")
			}
			c.say("Success! Revoked token (if it existed)")
			return nil
		},
	}
}

func tokenCapabilitiesCommand() *command {
	var accessor bool
	return &command{
		name: "capabilities", args: "[TOKEN | -accessor ACCESSOR] PATH", min: 1, max: 2, short: "Tell what a token may do at a path",
		long: "Tells what a token may do at a path: your own if only the path is given.", example: []string{"leasehold token capabilities secret/data/app"},
		flags: []*flag{accessorFlag(&accessor)},
		run: func(ctx context.Context, c *call) error {
			var arg tokenArg
			path, api := c.arg(0), "sys/capabilities-self"
			if len(c.args) == 2 {
				path, api, arg.Token = c.arg(1), "sys/capabilities", c.arg(0)
			}
			if accessor {
				if len(c.args) != 2 {
					return localf("-accessor needs the accessor and the path as arguments")
				}
				api, arg = "sys/capabilities-accessor", tokenArg{Accessor: c.arg(0)}
			}
			s, err := c.write(ctx, api, struct {
				tokenArg
				Paths []string `json:"paths"`
			}{arg, []string{path}})
			if err != nil {
				return step(err, "listing capabilities")
			}
			var byPath map[string][]string
			if err := decode(s, &byPath); err != nil {
				return err
			}
			caps, ok := byPath[path]
			if !ok {
				caps = byPath["capabilities"]
			}
			return c.print(caps, func() { c.printf("%s\n", strings.Join(caps, ", ")) })
		},
	}
}
