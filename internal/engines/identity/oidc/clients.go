package oidc

import (
	"context"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

const (
	clientPrefix   = "oidc/client/"
	clientIDPrefix = "oidc/clientid/"

	confidential = "confidential" // proves itself by a secret
	public       = "public"       // has none that it could keep: PKCE instead

	// secretPrefix is how Vault's secrets of clients begin; scanners for
	// leaked secrets know it.
	secretPrefix = "hvo_secret_"

	// maxRefs keeps what one row refers to within one transaction.
	maxRefs = 50
)

// clientRow is a program that people log in to. Version 1.
type clientRow struct {
	row
	ID             string        `json:"cid"`
	Secret         secret.String `json:"sec"`
	Type           string        `json:"type"`
	Key            string        `json:"key"`
	RedirectURIs   []string      `json:"uris,omitempty"`
	Assignments    []string      `json:"asg,omitempty"`
	IDTokenTTL     wire.TTL      `json:"ittl"`
	AccessTokenTTL wire.TTL      `json:"attl"`
	NoCode         bool          `json:"nocode,omitempty"` // may not use authorization codes
}

type clientInfo struct {
	Assignments    []string `json:"assignments"`
	ID             string   `json:"client_id"`
	Type           string   `json:"client_type"`
	IDTokenTTL     wire.TTL `json:"id_token_ttl"`
	AccessTokenTTL wire.TTL `json:"access_token_ttl"`
	Key            string   `json:"key"`
	RedirectURIs   []string `json:"redirect_uris"`
	Code           bool     `json:"authorization_code"`
	Credentials    bool     `json:"client_credentials"`
}

type clientOut struct {
	clientInfo
	Secret *secret.String `json:"client_secret,omitempty"`
}

func (c *clientRow) info() clientInfo {
	return clientInfo{
		Assignments: c.Assignments, ID: c.ID, Type: c.Type, IDTokenTTL: c.IDTokenTTL,
		AccessTokenTTL: c.AccessTokenTTL, Key: c.Key, RedirectURIs: c.RedirectURIs, Code: !c.NoCode,
	}
}

func (e *Engine) clientExists(ctx context.Context, _ *route.Request, in nameIn) (bool, error) {
	c, err := load[clientRow](ctx, e, clientPrefix+in.Name)
	return c != nil, err
}

func (e *Engine) readClient(ctx context.Context, _ *route.Request, in nameIn) (clientOut, error) {
	c, err := load[clientRow](ctx, e, clientPrefix+in.Name)
	if err == nil && c == nil {
		err = errs.Gone
	}
	if err != nil {
		return clientOut{}, err
	}
	out := clientOut{clientInfo: c.info()}
	if c.Type == confidential {
		out.Secret = &c.Secret
	}
	return out, nil
}

type clientsOut struct {
	Keys []string              `json:"keys"`
	Info map[string]clientInfo `json:"key_info"`
}

func (e *Engine) listClients(ctx context.Context, _ *route.Request, _ route.None) (clientsOut, error) {
	out := clientsOut{Info: map[string]clientInfo{}}
	err := e.env.Store.View(ctx, func(v storage.View) error {
		return each(v, clientPrefix, func(name string, c *clientRow) error {
			out.Keys = append(out.Keys, name)
			out.Info[name] = c.info()
			return nil
		})
	})
	if err == nil && len(out.Keys) == 0 {
		err = errs.Gone
	}
	return out, err
}

type writeClientIn struct {
	Name           string             `json:"name" doc:"Name of the client."`
	RedirectURIs   wire.Opt[wire.CSV] `json:"redirect_uris" doc:"Where codes may be sent. A loopback address or localhost matches with any port."`
	Assignments    wire.Opt[wire.CSV] `json:"assignments" doc:"Who may log in to it; allow_all is everybody."`
	Key            wire.Opt[string]   `json:"key" doc:"The named key that signs its tokens; it cannot be changed."`
	IDTokenTTL     wire.Opt[wire.TTL] `json:"id_token_ttl" doc:"How long its identity tokens live; 24h by default."`
	AccessTokenTTL wire.Opt[wire.TTL] `json:"access_token_ttl" doc:"How long its access tokens live; 24h by default."`
	Type           wire.Opt[string]   `json:"client_type" doc:"confidential or public; it cannot be changed."`
	Code           wire.Opt[bool]     `json:"authorization_code" doc:"Whether it may use authorization codes; it may by default."`
	Credentials    wire.Opt[bool]     `json:"client_credentials" doc:"Tokens for the program itself; not offered here."`
}

func (in *writeClientIn) Validate() error {
	if in.Credentials.Value {
		return errs.New(errs.Invalid, "client_credentials are not offered: a program that is no person logs in by an auth method, such as approle, and takes identity tokens of a role")
	}
	if t := in.Type.Value; in.Type.Set && t != confidential && t != public {
		return errs.New(errs.Invalid, "invalid client_type %q: want confidential or public", t)
	}
	if len(in.Assignments.Value) > maxRefs {
		return errs.New(errs.Invalid, "a client can have at most %d assignments", maxRefs)
	}
	for _, uri := range in.RedirectURIs.Value {
		u, err := url.Parse(uri)
		if err != nil || u.Scheme == "" || u.Fragment != "" {
			return errs.New(errs.Invalid, "the redirect URI %q is not absolute, or has a fragment", uri)
		}
	}
	return nil
}

func (e *Engine) writeClient(ctx context.Context, _ *route.Request, in writeClientIn) (route.None, error) {
	id, err := randomText(e.env.Rand, 32)
	if err != nil {
		return route.None{}, err
	}
	random, err := randomText(e.env.Rand, 64)
	if err != nil {
		return route.None{}, err
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		c, err := get[clientRow](tx, clientPrefix+in.Name)
		switch {
		case err != nil:
			return err
		case c == nil:
			day := wire.TTL(24 * time.Hour)
			c = &clientRow{row: v1, ID: id, Type: in.Type.Or(confidential), Key: in.Key.Or(defaultName), IDTokenTTL: day, AccessTokenTTL: day}
			if c.Type == confidential {
				c.Secret = secret.New(secretPrefix + random)
			}
			if err := tx.Put(clientIDPrefix+id, []byte(in.Name)); err != nil {
				return err
			}
		case in.Key.Set && in.Key.Value != c.Key:
			return errs.New(errs.Invalid, "key modification is not allowed")
		case in.Type.Set && in.Type.Value != c.Type:
			return errs.New(errs.Invalid, "client_type modification is not allowed")
		}
		if err := in.apply(c); err != nil {
			return err
		}
		if err := e.fits(tx, c.Key, "a client's id_token_ttl", c.IDTokenTTL.Duration()); err != nil {
			return err
		}
		for _, name := range c.Assignments {
			a, err := e.assignment(tx, name)
			if err == nil && a == nil {
				err = errs.New(errs.Invalid, "assignment %q does not exist", name)
			}
			if err != nil {
				return err
			}
		}
		if err := touch(tx); err != nil {
			return err
		}
		return tx.Put(clientPrefix+in.Name, wire.Marshal(c))
	})
	return route.None{}, err
}

func (in *writeClientIn) apply(c *clientRow) error {
	if v, ok := in.RedirectURIs.Get(); ok {
		c.RedirectURIs = unique(v)
	}
	if v, ok := in.Assignments.Get(); ok {
		c.Assignments = unique(v)
	}
	in.IDTokenTTL.Apply(&c.IDTokenTTL)
	in.AccessTokenTTL.Apply(&c.AccessTokenTTL)
	if v, ok := in.Code.Get(); ok {
		c.NoCode = !v
	}
	if c.IDTokenTTL <= 0 || c.AccessTokenTTL <= 0 {
		return errs.New(errs.Invalid, "id_token_ttl and access_token_ttl must be greater than zero")
	}
	return nil
}

func (e *Engine) deleteClient(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		c, err := get[clientRow](tx, clientPrefix+in.Name)
		if err != nil || c == nil {
			return err
		}
		if err := tx.Delete(clientIDPrefix + c.ID); err != nil {
			return err
		}
		return tx.Delete(clientPrefix + in.Name)
	})
	return route.None{}, err
}

// clientByID finds a client by the id that it shows; nil if there is none.
func (e *Engine) clientByID(ctx context.Context, id string) (c *clientRow, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		name, err := v.Get(clientIDPrefix + id)
		if err != nil || name == nil {
			return err
		}
		c, err = get[clientRow](v, clientPrefix+string(name))
		return err
	})
	return c, err
}

// admits reports whether one of the client's assignments names the person.
func (e *Engine) admits(ctx context.Context, c *clientRow, p *engine.Identified) (ok bool, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		for _, name := range c.Assignments {
			a, err := e.assignment(v, name)
			if err != nil {
				return err
			}
			if a != nil && a.admits(p) {
				ok = true
			}
		}
		return nil
	})
	return ok, err
}

// redirects reports whether codes may be sent to a URI: one that was
// registered, character by character. Programs on a person's own machine draw
// their port anew each time, so that of a loopback address, or of localhost,
// does not count (RFC 8252, 7.3 and 8.3).
func (c *clientRow) redirects(uri string) bool {
	if slices.Contains(c.RedirectURIs, uri) {
		return true
	}
	asked, ok := loopback(uri)
	return ok && slices.ContainsFunc(c.RedirectURIs, func(known string) bool {
		have, ok := loopback(known)
		return ok && have == asked
	})
}

// loopback is a URI without its port, if its host is a loopback address or
// localhost. One is not the other: a client registers what it uses.
func loopback(uri string) (string, bool) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "http" || u.User != nil {
		return "", false
	}
	if u.Hostname() == "localhost" {
		u.Host = "localhost"
		return u.String(), true
	}
	a, err := netip.ParseAddr(u.Hostname())
	if err != nil || !a.IsLoopback() {
		return "", false
	}
	u.Host = a.String()
	return u.String(), true
}
