package sys

import (
	"context"
	"encoding/base64"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// Policies holds what tokens may do. Names are lower case.
type Policies interface {
	Read(ctx context.Context, ns, name string) (p Policy, ok bool, err error)
	// List gives the policies whose names begin with a prefix, in order.
	List(ctx context.Context, ns, prefix string) ([]Policy, error)
	// Check parses a text. A fault in it, or a name that belongs to the
	// server, is errs.Invalid.
	Check(name, text string) error
	// Write stores what change makes of a policy whose text was checked: its
	// text, expiry and CASRequired. It may call change more than once.
	Write(ctx context.Context, ns, name string, change func(old Policy, ok bool) (Policy, error)) error
	// Delete forgets a policy. One that is not there is no error; one that
	// the server needs is errs.Invalid.
	Delete(ctx context.Context, ns, name string) error
}

// Policy is what a token may do.
type Policy struct {
	Name, Text  string // the text as it was written
	Version     int    // counts the writes, from 1; 0: written before they were counted
	Modified    time.Time
	Expires     time.Time // from when on it is not there; zero: never
	CASRequired bool      // whoever writes it must say which version they have seen
}

func (e *Engine) policyRoutes(t *route.Table) {
	top := route.InForm(route.TopLevel)
	route.List(t, "policies/acl", e.listPolicies, route.Doc("List the policies."))
	route.List(t, "policies/acl/{prefix...}", e.listPolicies, route.Doc("List the policies below a prefix of their names."))
	route.Read(t, "policies/acl/{name...}", e.readPolicy, top, route.Doc("Read a policy."))
	route.Write(t, "policies/acl/{name...}", e.writePolicy, route.Doc("Write a policy, in HCL or JSON."))
	route.Patch(t, "policies/acl/{name...}", e.patchPolicy, route.Doc("Change parts of a policy."))
	route.Delete(t, "policies/acl/{name...}", e.deletePolicy, route.Doc("Delete a policy."))
	route.List(t, "policies/detailed/acl", e.listDetailed, route.Doc("List the policies with what they say."))
	route.List(t, "policies/detailed/acl/{prefix...}", e.listDetailed, route.Doc("List the policies below a prefix of their names with what they say."))

	// The older paths, whose answers call the text "rules".
	route.Read(t, "policy", e.listOldPolicies, top, route.Doc("List the policies (older path)."))
	route.List(t, "policy", e.listOldPolicies, top, route.Doc("List the policies (older path)."))
	route.List(t, "policy/{prefix...}", e.listOldPolicies, top, route.Doc("List the policies below a prefix of their names (older path)."))
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
	policyFacts
}

type oldPolicyOut struct {
	Name  string `json:"name"`
	Rules string `json:"rules"`
	policyFacts
}

type policyFacts struct {
	Version     int                 `json:"version"`
	CASRequired bool                `json:"cas_required"`
	Modified    wire.Opt[time.Time] `json:"modified"`
	Expires     wire.Opt[time.Time] `json:"expiration"`
}

func (p Policy) facts() policyFacts {
	out := policyFacts{Version: p.Version, CASRequired: p.CASRequired}
	if !p.Modified.IsZero() {
		out.Modified = wire.Some(p.Modified)
	}
	if !p.Expires.IsZero() {
		out.Expires = wire.Some(p.Expires)
	}
	return out
}

type policyPrefixIn struct {
	Prefix string `json:"prefix" doc:"The part of the names before a slash; all without."`
}

// policiesIn lists what tokens may have, root with it, which begins with no
// prefix.
func (e *Engine) policiesIn(ctx context.Context, ns string, in policyPrefixIn) ([]Policy, error) {
	prefix := strings.ToLower(strings.Trim(in.Prefix, "/"))
	if prefix != "" {
		list, err := e.cfg.Policies.List(ctx, ns, prefix+"/")
		if err == nil && len(list) == 0 {
			err = errs.Gone
		}
		return list, err
	}
	list, err := e.cfg.Policies.List(ctx, ns, "")
	return append(list, Policy{Name: rootPolicy}), err
}

func namesOf(list []Policy) []string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = p.Name
	}
	return names
}

func (e *Engine) listPolicies(ctx context.Context, req *route.Request, in policyPrefixIn) (route.Keys, error) {
	list, err := e.policiesIn(ctx, req.Mount.Namespace, in)
	return route.Keys{Keys: namesOf(list)}, err
}

type detailedOut struct {
	Keys []string             `json:"keys"`
	Info map[string]policyOut `json:"key_info"`
}

func (e *Engine) listDetailed(ctx context.Context, req *route.Request, in policyPrefixIn) (detailedOut, error) {
	list, err := e.policiesIn(ctx, req.Mount.Namespace, in)
	out := detailedOut{Keys: namesOf(list), Info: make(map[string]policyOut, len(list))}
	for _, p := range list {
		out.Info[p.Name] = policyOut{p.Name, p.Text, p.facts()}
	}
	return out, err
}

type oldPoliciesOut struct {
	Keys     []string `json:"keys"`
	Policies []string `json:"policies"`
}

func (e *Engine) listOldPolicies(ctx context.Context, req *route.Request, in policyPrefixIn) (oldPoliciesOut, error) {
	list, err := e.policiesIn(ctx, req.Mount.Namespace, in)
	names := namesOf(list)
	return oldPoliciesOut{Keys: names, Policies: names}, err
}

// kept is the name by which a policy is kept: small letters, without blanks
// around it.
func kept(name string) string { return strings.ToLower(strings.TrimSpace(name)) }

func (e *Engine) policy(ctx context.Context, req *route.Request, in nameIn) (Policy, error) {
	name := kept(in.Name)
	if name == rootPolicy {
		return Policy{Name: name}, nil
	}
	p, ok, err := e.cfg.Policies.Read(ctx, req.Mount.Namespace, name)
	if err == nil && !ok {
		err = errs.Gone
	}
	return p, err
}

func (e *Engine) readPolicy(ctx context.Context, req *route.Request, in nameIn) (policyOut, error) {
	p, err := e.policy(ctx, req, in)
	return policyOut{p.Name, p.Text, p.facts()}, err
}

func (e *Engine) readOldPolicy(ctx context.Context, req *route.Request, in nameIn) (oldPolicyOut, error) {
	p, err := e.policy(ctx, req, in)
	return oldPolicyOut{p.Name, p.Text, p.facts()}, err
}

// policyChange is what a write says beside the policy's text.
type policyChange struct {
	TTL         wire.Opt[wire.TTL]  `json:"ttl" doc:"How long the policy is there; without, until it is deleted."`
	Expires     wire.Opt[time.Time] `json:"expiration" doc:"Until when it is there, in place of ttl."`
	CAS         wire.Opt[int]       `json:"cas" doc:"Write only if this is the policy's version: -1 if there must be none."`
	CASRequired wire.Opt[bool]      `json:"cas_required" doc:"Whether this write and the next must say cas."`

	AllowSlashes   bool `json:"allow_slashes_in_identity_templates" doc:"Not supported: a value with a slash makes its rule match nothing."`
	AllowWildcards bool `json:"allow_wildcards_in_identity_templates" doc:"Not supported: a wildcard in a value is an ordinary character."`
}

// check refuses what cannot be kept, or contradicts itself.
func (c policyChange) check() error {
	if c.AllowSlashes || c.AllowWildcards {
		return errs.New(errs.Invalid, "values of identity templates are plain text: allow_slashes_in_identity_templates and allow_wildcards_in_identity_templates are not supported")
	}
	if ttl, ok := c.TTL.Get(); ok && ttl > 0 && c.Expires.Set && !c.Expires.Value.IsZero() {
		return errs.New(errs.Invalid, "ttl and expiration exclude each other: say one of them")
	}
	return nil
}

// apply makes the policy that is to be stored of the one that is there. What
// is not said stays as p has it.
func (c policyChange) apply(p, old Policy, ok bool, now time.Time) (Policy, error) {
	c.CASRequired.Apply(&p.CASRequired)
	if p.CASRequired || ok && old.CASRequired || c.CAS.Set {
		version := -1
		if ok {
			version = old.Version
		}
		switch {
		case !c.CAS.Set:
			return Policy{}, errs.New(errs.Invalid, "check-and-set parameter required for this call")
		case c.CAS.Value != version:
			return Policy{}, errs.New(errs.Invalid, "check-and-set parameter did not match the current version")
		}
	}
	c.Expires.Apply(&p.Expires)
	if ttl, said := c.TTL.Get(); said {
		if p.Expires = (time.Time{}); ttl > 0 {
			p.Expires = now.Add(ttl.Duration()).Round(0)
		} else if c.Expires.Set {
			p.Expires = c.Expires.Value
		}
	}
	if (c.Expires.Set || c.TTL.Set) && !p.Expires.IsZero() && !p.Expires.After(now) {
		return Policy{}, errs.New(errs.Invalid, "expiration must not be in the past")
	}
	return p, nil
}

type policyIn struct {
	Name   string `json:"name"`
	Policy string `json:"policy" doc:"The policy's text, plain or in base64."`
	Rules  string `json:"rules" doc:"Older name of policy."`
	policyChange
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
	text = fromBase64(text)
	name := kept(in.Name)
	if name != in.Name {
		req.Warn("policy name was converted to %s", name)
	}
	if err := e.cfg.Policies.Check(name, text); err != nil {
		return route.None{}, err
	}
	if err := in.check(); err != nil {
		return route.None{}, err
	}
	return route.None{}, e.cfg.Policies.Write(ctx, req.Mount.Namespace, name, func(old Policy, ok bool) (Policy, error) {
		return in.apply(Policy{Text: text}, old, ok, e.cfg.Now())
	})
}

func (e *Engine) patchPolicy(ctx context.Context, req *route.Request, in policyIn) (route.None, error) {
	name := kept(in.Name)
	text := ""
	if in.Policy != "" {
		text = fromBase64(in.Policy)
	}
	// An empty text is checked too: the name may be the server's own.
	if err := e.cfg.Policies.Check(name, text); err != nil {
		return route.None{}, err
	}
	if err := in.check(); err != nil {
		return route.None{}, err
	}
	return route.None{}, e.cfg.Policies.Write(ctx, req.Mount.Namespace, name, func(old Policy, ok bool) (Policy, error) {
		if !ok {
			return Policy{}, errs.New(errs.NotFound, "there is no policy %q to change; write it with POST", name)
		}
		p := old
		if text != "" {
			p.Text = text
		}
		return in.apply(p, old, ok, e.cfg.Now())
	})
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
	name := kept(in.Name)
	return route.None{}, e.cfg.Policies.Delete(ctx, req.Mount.Namespace, name)
}
