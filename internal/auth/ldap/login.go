package ldap

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

type loginIn struct {
	Username string        `json:"username" doc:"Name of the user, as userattr has it."`
	Password secret.String `json:"password" doc:"The user's password."`
}

// kept is what a token keeps of its login: who was meant. Version 1.
type kept struct {
	V    int    `json:"v"`
	Name string `json:"name"` // as it was sent, in plain form
	DN   string `json:"dn"`
}

// person is a user as the directory knows them.
type person struct {
	dn     string // "" if it does not say
	alias  string
	groups []string
}

// errRefused is the one answer to every name and password that do not fit
// together, whichever of them is wrong.
var errRefused = errs.Wrap(errs.Invalid, route.ErrCredentials, "ldap operation failed: failed to bind as user: the name or the password is wrong")

// maxPassword is longer than any directory takes.
const maxPassword = 4096

func (e *Engine) login(ctx context.Context, req *route.Request, in loginIn) (*route.Auth, error) {
	r, err := e.ready(ctx)
	if err != nil {
		return nil, err
	}
	if !r.Admits(req.Remote) {
		return nil, errs.New(errs.Denied, "permission denied")
	}
	// To a directory an empty password is nobody's, and nobody may be let in.
	if in.Password.IsZero() {
		return nil, errs.New(errs.Invalid, "missing password: it cannot be of zero length")
	}
	name, ok := plain(in.Username)
	if !ok || len(in.Password.Reveal()) > maxPassword || r.UPNDomain != "" && !isUPN(name) {
		return nil, errRefused
	}
	p, err := e.prove(ctx, r, name, in.Password)
	if err != nil {
		return nil, e.answer(err)
	}
	a, err := e.grant(ctx, r, name, p)
	if err != nil {
		return nil, err
	}
	if len(p.groups) == 0 {
		req.Warn("no LDAP groups found in groupDN %q; only policies from locally-defined groups available", r.GroupDN)
	}
	return a, nil
}

// ready is the mount's configuration.
func (e *Engine) ready(ctx context.Context) (*ready, error) {
	var c *config
	err := e.env.Store.View(ctx, func(v storage.View) error {
		var there bool
		var err error
		c, there, err = getConfig(v)
		if err == nil && !there {
			err = errs.New(errs.Invalid, "ldap backend not configured: write its config first")
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.parse()
}

// answer turns a failed conversation into what a client may read of it.
func (e *Engine) answer(err error) error {
	switch {
	case errors.Is(err, errWrong):
		e.env.Log.Debug("the directory refused a login", "reason", err)
		return errRefused
	case errs.KindOf(err) != errs.Internal, errors.Is(err, context.Canceled):
		return err
	}
	return upstream(err)
}

// prove has the directory check a name and a password, and asks it about the
// person. Up to where the password is checked it does the same whether there
// is such a person or not.
func (e *Engine) prove(ctx context.Context, r *ready, name string, password secret.String) (*person, error) {
	end, err := e.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	d, err := e.open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer d.close()

	var found *entry
	var as string
	switch {
	case r.looks():
		if err := d.bindAccount(); err != nil {
			return nil, err
		}
		if found, err = d.find(name); err != nil {
			return nil, err
		}
		if found != nil {
			as = found.dn
		} else if as, err = e.nobody(r.UserDN); err != nil {
			return nil, err
		}
	case r.UPNDomain != "":
		as = name + "@" + r.UPNDomain
	default:
		as = childDN(r.UserAttr, name, r.UserDN)
	}
	if as == "" {
		return nil, errWrong // an empty DN binds as nobody, whatever the password
	}
	if err := d.bind(as, password.Reveal()); err != nil {
		return nil, err
	}
	if r.looks() {
		if found == nil {
			return nil, errWrong // whatever a directory makes of our nobody
		}
		if err := d.bindAccount(); err != nil {
			return nil, err
		}
	} else if found, err = d.find(name); err != nil {
		return nil, err
	}
	p, err := r.person(name, as, found)
	if err != nil {
		return nil, err
	}
	p.groups, err = e.groupsOf(ctx, d, p.dn, name)
	return p, err
}

// nobody is the DN of an entry that is not there.
func (e *Engine) nobody(below string) (string, error) {
	b := make([]byte, 10)
	if _, err := io.ReadFull(e.env.Rand, b); err != nil {
		return "", err
	}
	return childDN("cn", hex.EncodeToString(b), below), nil
}

// person puts together who it was that bound, from what the directory told of
// them then.
func (r *ready) person(name, as string, found *entry) (*person, error) {
	p := &person{alias: r.known(name)}
	switch {
	case found != nil && (r.looks() || r.UPNDomain != "" || sameDN(found.dn, as)):
		p.dn = found.dn
	case r.UPNDomain == "" && !r.looks():
		p.dn, found = as, nil // what was found is somebody else
	}
	if r.UsernameAsAlias {
		return p, nil
	}
	if found == nil || found.name == "" {
		return nil, errs.New(errs.Invalid, "missing entity alias attribute value: the directory shows no single %s of the user; set username_as_alias, or a binddn that may read it", r.UserAttr)
	}
	p.alias = found.name
	return p, nil
}

// groupsOf asks for a person's groups, over a connection of nobody's where the
// configuration wants that.
func (e *Engine) groupsOf(ctx context.Context, d *dialogue, dn, name string) ([]string, error) {
	if !d.AnonymousGroups {
		return d.memberships(dn, name)
	}
	d, err := e.open(ctx, d.ready)
	if err != nil {
		return nil, err
	}
	defer d.close()
	return d.memberships(dn, name)
}

// grant is what a person is given: the method's own parameters, and the
// policies of their groups and their own.
func (e *Engine) grant(ctx context.Context, r *ready, name string, p *person) (*route.Auth, error) {
	a := r.Params.Auth()
	groups := slices.Clone(p.groups)
	err := e.env.Store.View(ctx, func(v storage.View) error {
		user, err := getMapping(v, rowsUsers+r.known(name))
		if err != nil {
			return fmt.Errorf("reading the user's policies: %w", err)
		}
		if user != nil {
			groups = append(groups, user.Groups...)
			a.Policies = append(a.Policies, user.Policies...)
		}
		for _, g := range groups {
			m, err := getMapping(v, rowsGroups+r.known(g))
			if err != nil {
				return fmt.Errorf("reading a group's policies: %w", err)
			}
			if m != nil {
				a.Policies = append(a.Policies, m.Policies...)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(groups)
	a.Groups = slices.Compact(groups)
	a.DisplayName = name
	a.Metadata = map[string]string{"username": name}
	a.Alias = &route.Alias{Name: p.alias, Metadata: map[string]string{"name": name}}
	k := kept{V: 1, Name: name, DN: p.dn}
	a.Internal = wire.Object(wire.Marshal(&k))
	return a, nil
}

// RenewLogin looks the user up again, as the bind account or as nobody, and
// gives what they would be granted now. Who is gone, locked or somebody else by
// now is refused, and so is everybody where the directory does not say.
func (e *Engine) RenewLogin(ctx context.Context, renewal engine.Renewal) (*route.Auth, error) {
	var k kept
	if err := wire.Unmarshal([]byte(renewal.Internal), &k); err != nil || k.V != 1 {
		return nil, errors.Join(err, errors.New("ldap: what the token keeps of its login cannot be read"))
	}
	r, err := e.ready(ctx)
	if err != nil {
		return nil, err
	}
	end, err := e.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	d, err := e.open(ctx, r)
	if err != nil {
		return nil, err
	}
	defer d.close()
	if err := d.bindAccount(); err != nil {
		return nil, e.answer(err)
	}
	found, err := d.find(k.Name)
	switch {
	case err != nil:
		return nil, e.answer(err)
	case found == nil && !r.account():
		return nil, errs.New(errs.Invalid, "the directory does not show the user without a password: log in again, or have the operator set binddn and bindpass, by which renewals look users up")
	case found == nil || found.disabled || k.DN != "" && !sameDN(found.dn, k.DN):
		return nil, errs.New(errs.Invalid, "the user is gone from the directory, locked, or another entry by now: log in again")
	}
	p := &person{dn: found.dn, alias: found.name}
	if p.groups, err = e.groupsOf(ctx, d, found.dn, k.Name); err != nil {
		return nil, e.answer(err)
	}
	return e.grant(ctx, r, k.Name, p)
}
