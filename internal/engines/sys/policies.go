package sys

import (
	"context"
	"encoding/base64"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
)

// PolicyStore holds texts of policies of one kind: what tokens may do, or how
// passwords look. Names are lower case.
type PolicyStore interface {
	// Read gives a policy's text as it was written.
	Read(ctx context.Context, ns, name string) (text string, ok bool, err error)
	// Names lists the policies in order.
	Names(ctx context.Context, ns string) ([]string, error)
	// Write stores a text that it has parsed. A fault in it, or a name that
	// belongs to the server, is errs.Invalid.
	Write(ctx context.Context, ns, name, text string) error
	// Delete forgets a policy. One that is not there is no error; one that
	// the server needs is errs.Invalid.
	Delete(ctx context.Context, ns, name string) error
}

func (e *Engine) policyRoutes(t *route.Table) {
	route.List(t, "policies/acl", e.listPolicies, route.Doc("List the policies."))
	route.Read(t, "policies/acl/{name...}", e.readPolicy, route.InForm(route.TopLevel), route.Doc("Read a policy."))
	route.Write(t, "policies/acl/{name...}", e.writePolicy, route.Doc("Write a policy, in HCL or JSON."))
	route.Delete(t, "policies/acl/{name...}", e.deletePolicy, route.Doc("Delete a policy."))

	// The older paths, whose answers call the text "rules".
	top := route.InForm(route.TopLevel)
	route.Read(t, "policy", e.listOldPolicies, top, route.Doc("List the policies (older path)."))
	route.List(t, "policy", e.listOldPolicies, top, route.Doc("List the policies (older path)."))
	route.Read(t, "policy/{name...}", e.readOldPolicy, top, route.Doc("Read a policy (older path)."))
	route.Write(t, "policy/{name...}", e.writePolicy, route.Doc("Write a policy (older path)."))
	route.Delete(t, "policy/{name...}", e.deletePolicy, route.Doc("Delete a policy (older path)."))
}

// rootPolicy allows everything. It has no text and is not stored.
const rootPolicy = "root"

type nameIn struct {
	Name string `json:"name" doc:"Name of the policy."`
}

type policyOut struct {
	Name   string `json:"name"`
	Policy string `json:"policy"`
}

type oldPolicyOut struct {
	Name  string `json:"name"`
	Rules string `json:"rules"`
}

type oldPoliciesOut struct {
	Keys     []string `json:"keys"`
	Policies []string `json:"policies"`
}

func (e *Engine) policyNames(ctx context.Context, ns string) ([]string, error) {
	names, err := e.cfg.Policies.Names(ctx, ns)
	if err != nil {
		return nil, err
	}
	return append(names, rootPolicy), nil
}

func (e *Engine) listPolicies(ctx context.Context, req *route.Request, _ route.None) (route.Keys, error) {
	names, err := e.policyNames(ctx, req.Mount.Namespace)
	return route.Keys{Keys: names}, err
}

func (e *Engine) listOldPolicies(ctx context.Context, req *route.Request, _ route.None) (oldPoliciesOut, error) {
	names, err := e.policyNames(ctx, req.Mount.Namespace)
	return oldPoliciesOut{Keys: names, Policies: names}, err
}

func (e *Engine) readPolicy(ctx context.Context, req *route.Request, in nameIn) (policyOut, error) {
	name := strings.ToLower(in.Name)
	if name == rootPolicy {
		return policyOut{Name: name}, nil
	}
	text, ok, err := e.cfg.Policies.Read(ctx, req.Mount.Namespace, name)
	if err == nil && !ok {
		err = errs.Gone
	}
	return policyOut{Name: name, Policy: text}, err
}

func (e *Engine) readOldPolicy(ctx context.Context, req *route.Request, in nameIn) (oldPolicyOut, error) {
	p, err := e.readPolicy(ctx, req, in)
	return oldPolicyOut{Name: p.Name, Rules: p.Policy}, err
}

type policyIn struct {
	Name   string `json:"name"`
	Policy string `json:"policy" doc:"The policy's text, plain or in base64."`
	Rules  string `json:"rules" doc:"Older name of policy."`
}

func (e *Engine) writePolicy(ctx context.Context, req *route.Request, in policyIn) (route.None, error) {
	text := in.Policy
	if text == "" && in.Rules != "" {
		text = in.Rules
		req.Warn("'rules' is deprecated, please use 'policy' instead")
	}
	if text == "" {
		return route.None{}, errs.New(errs.Invalid, "'policy' parameter not supplied or empty")
	}
	name := strings.ToLower(in.Name)
	if name != in.Name {
		req.Warn("policy name was converted to %s", name)
	}
	return route.None{}, e.cfg.Policies.Write(ctx, req.Mount.Namespace, name, fromBase64(text))
}

// fromBase64 takes a text in base64, as Terraform and scripts send it, or as
// it is. No policy in HCL or JSON is also valid base64: it has quotes.
func fromBase64(text string) string {
	if b, err := base64.StdEncoding.DecodeString(text); err == nil {
		return string(b)
	}
	return text
}

func (e *Engine) deletePolicy(ctx context.Context, req *route.Request, in nameIn) (route.None, error) {
	return route.None{}, e.cfg.Policies.Delete(ctx, req.Mount.Namespace, strings.ToLower(in.Name))
}
