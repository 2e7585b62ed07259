package sys

import (
	"context"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
)

// PasswordPolicies holds how passwords look.
type PasswordPolicies interface {
	// Read gives a policy's text as it was written.
	Read(ctx context.Context, ns, name string) (text string, ok bool, err error)
	// Names lists the policies in order.
	Names(ctx context.Context, ns string) ([]string, error)
	// Write stores a text that it has parsed. A fault in it is errs.Invalid.
	Write(ctx context.Context, ns, name, text string) error
	// Delete forgets a policy. One that is not there is no error.
	Delete(ctx context.Context, ns, name string) error
}

// Password policies say how passwords that the server draws look. Engines use
// them by name.
func (e *Engine) passwordRoutes(t *route.Table) {
	route.List(t, "policies/password", e.listPasswordPolicies, route.Doc("List the password policies."))
	route.Read(t, "policies/password/{name}", e.readPasswordPolicy, route.Doc("Read a password policy."))
	route.Write(t, "policies/password/{name}", e.writePasswordPolicy, route.Doc("Write a password policy."))
	route.Delete(t, "policies/password/{name}", e.deletePasswordPolicy, route.Doc("Delete a password policy."))
	route.Read(t, "policies/password/{name}/generate", e.generatePassword, route.Doc("Draw a password by a policy."))
}

func (e *Engine) listPasswordPolicies(ctx context.Context, req *route.Request, _ route.None) (route.Keys, error) {
	names, err := e.cfg.Passwords.Names(ctx, req.Mount.Namespace)
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(names)
}

type passwordPolicyOut struct {
	Policy string `json:"policy"`
}

func (e *Engine) readPasswordPolicy(ctx context.Context, req *route.Request, in nameIn) (passwordPolicyOut, error) {
	text, err := e.passwordPolicy(ctx, req, in.Name)
	return passwordPolicyOut{Policy: text}, err
}

func (e *Engine) passwordPolicy(ctx context.Context, req *route.Request, name string) (string, error) {
	text, ok, err := e.cfg.Passwords.Read(ctx, req.Mount.Namespace, name)
	if err == nil && !ok {
		err = errs.New(errs.NotFound, "policy does not exist")
	}
	return text, err
}

type passwordPolicyIn struct {
	Name   string `json:"name"`
	Policy string `json:"policy" doc:"The policy's text, plain or in base64."`
}

func (e *Engine) writePasswordPolicy(ctx context.Context, req *route.Request, in passwordPolicyIn) (route.None, error) {
	if in.Policy == "" {
		return route.None{}, errs.New(errs.Invalid, "missing policy")
	}
	return route.None{}, e.cfg.Passwords.Write(ctx, req.Mount.Namespace, in.Name, fromBase64(in.Policy))
}

func (e *Engine) deletePasswordPolicy(ctx context.Context, req *route.Request, in nameIn) (route.None, error) {
	return route.None{}, e.cfg.Passwords.Delete(ctx, req.Mount.Namespace, in.Name)
}

type passwordOut struct {
	Password secret.String `json:"password"`
}

func (e *Engine) generatePassword(ctx context.Context, req *route.Request, in nameIn) (passwordOut, error) {
	text, err := e.passwordPolicy(ctx, req, in.Name)
	if err != nil {
		return passwordOut{}, err
	}
	p, err := e.cfg.Password(text)
	return passwordOut{Password: p}, err
}
