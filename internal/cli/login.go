package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/leasehold/leasehold/api"
)

func loginCommand() *command {
	var o loginOptions
	return &command{
		name: "login", args: "[TOKEN | KEY=VALUE …]", max: -1, short: "Get a token and keep it in ~/.vault-token",
		long: "Logs in and keeps the token in ~/.vault-token, where later commands find it. " +
			"Without -method the argument is a token already; without an argument it is asked " +
			"for. Methods: " + methodNames() + ". \"leasehold auth help METHOD\" tells what each takes.",
		example: []string{"leasehold login", "leasehold login -method=userpass username=ann", "leasehold login -method=oidc role=people"},
		flags: []*flag{
			stringFlag(&o.method, "method", "NAME", "How to log in; token by default."),
			stringFlag(&o.path, "path", "PATH", "Where the method is mounted; by default at its name."),
			boolFlag(&o.noStore, "no-store", "Do not keep the token."),
			boolFlag(&o.noPrint, "no-print", "Do not print the token."),
			boolFlag(&o.tokenOnly, "token-only", "Print the token and nothing else, and do not keep it."),
			fieldFlag(&o.field),
		},
		run: func(ctx context.Context, c *call) error { return c.login(ctx, &o) },
	}
}

type loginOptions struct {
	method, path, field         string
	noStore, noPrint, tokenOnly bool
}

func (c *call) login(ctx context.Context, o *loginOptions) error {
	if o.tokenOnly {
		o.noStore, o.field = true, "token"
	}
	c.ownToken = true // one that is over or damaged is what a login is to replace
	if o.noStore && o.noPrint {
		return localf("-no-store and -no-print together would lose the token")
	}
	s, err := c.authenticate(ctx, o)
	if err != nil {
		return err
	}
	if s, err = c.secondFactor(ctx, s); err != nil {
		return err
	}
	if s.WrapInfo != nil || mfaOf(s.Auth) != nil {
		return c.printSecret(s, o.field)
	}
	if s.Auth == nil || s.Auth.ClientToken == "" {
		return localf("The login brought no token")
	}
	if o.noStore {
		c.onceSecret(s)
		if !o.tokenOnly && o.field == "" {
			c.note("The token was not stored. Set VAULT_TOKEN to it, or log in without -no-store.\n")
		}
	} else {
		if err := storeToken(c.cfg.Getenv, s.Auth.ClientToken); err != nil {
			return err
		}
		if api.LookupEnv(c.cfg.Getenv, "TOKEN") != "" {
			c.note("WARNING! VAULT_TOKEN is set and goes before the token just stored. To use that one:\n\n    unset VAULT_TOKEN\n")
		}
	}
	switch {
	case o.noPrint:
		return nil
	case o.field != "":
		return c.printSecret(s, o.field)
	}
	text := "Success! You are now authenticated."
	if !o.noStore {
		text += " The token information displayed below is already stored in the token helper. You do NOT need to run \"" +
			programName + " login\" again. Future Leasehold requests will automatically use this token."
	}
	c.say("%s\n", wrap(text, 78))
	return c.printSecret(s, "")
}

// authenticate asks the server by the chosen method.
func (c *call) authenticate(ctx context.Context, o *loginOptions) (*api.Secret, error) {
	name := strings.ToLower(o.method)
	if name == "" {
		name = "token"
	}
	m := methodNamed(name)
	if m == nil {
		return nil, localf("-method=%s: want %s", o.method, methodNames())
	}
	if m.refused != "" {
		return nil, localf("%s", m.refused)
	}
	if name == "token" {
		return c.loginToken(ctx)
	}
	in, err := c.parseInput(c.args)
	if err != nil {
		return nil, err
	}
	mount := cleanPath(o.path)
	if mount == "" {
		mount = cleanPath(in.text("mount")) // as Vault's commands take it too
	}
	if mount == "" {
		mount = name
	}
	in.drop("mount")
	return m.run(ctx, c, mount, in)
}

// loginToken checks a token that is there already.
func (c *call) loginToken(ctx context.Context) (*api.Secret, error) {
	token := strings.TrimPrefix(c.arg(0), "token=")
	if len(c.args) > 1 {
		return nil, localf("Too many arguments: the token method takes one token")
	}
	token, err := c.given(token, "Token (will be hidden):", true)
	if err != nil {
		return nil, err
	}
	if token = strings.TrimSpace(token); token == "" {
		return nil, localf("The token is empty")
	}
	if err := checkToken(token, "What was given", "give the token alone"); err != nil {
		return nil, err
	}
	cl, err := c.client()
	if err != nil {
		return nil, err
	}
	c.made = cl.WithToken(token)
	c.target = c.made
	s, err := c.read(ctx, "auth/token/lookup-self")
	if err != nil {
		return nil, step(err, "authenticating")
	}
	if s.WrapInfo != nil {
		return s, nil
	}
	var d struct {
		ID               string            `json:"id"`
		Accessor         string            `json:"accessor"`
		Policies         []string          `json:"policies"`
		IdentityPolicies []string          `json:"identity_policies"`
		Meta             map[string]string `json:"meta"`
		TTL              int               `json:"ttl"`
		Renewable        bool              `json:"renewable"`
		EntityID         string            `json:"entity_id"`
		Orphan           bool              `json:"orphan"`
	}
	if err := s.Decode(&d); err != nil {
		return nil, err
	}
	s.Data = nil
	s.Auth = &api.Auth{
		ClientToken: token, Accessor: d.Accessor, TokenPolicies: d.Policies, IdentityPolicies: d.IdentityPolicies,
		Policies: append(append([]string(nil), d.Policies...), d.IdentityPolicies...),
		Metadata: d.Meta, LeaseDuration: d.TTL, Renewable: d.Renewable, EntityID: d.EntityID, Orphan: d.Orphan,
		MFARequirement: json.RawMessage("null"),
	}
	return s, nil
}

// sendLogin goes without a token: an old one must not spoil the login.
func (c *call) sendLogin(ctx context.Context, path string, in *input) (*api.Secret, error) {
	cl, err := c.client()
	if err != nil {
		return nil, err
	}
	resp, err := cl.WithToken("").Do(ctx, &api.Request{Method: http.MethodPut, Path: path, Body: in})
	if err != nil {
		return nil, step(err, "authenticating")
	}
	s, err := resp.Secret()
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, localf("The login brought no token")
	}
	c.warn(s.Warnings)
	return s, nil
}
