package approle

import (
	"context"
	"maps"
	"net/netip"
	"strings"

	"github.com/leasehold/leasehold/internal/auth/tokenparams"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

type loginIn struct {
	RoleID   string        `json:"role_id" doc:"The role id."`
	SecretID secret.String `json:"secret_id" doc:"A secret id of the role, where it is bound to one."`
}

func (in loginIn) alias() string { return strings.TrimSpace(in.RoleID) }

// loginRole names the role of a role id, before anything is proved: quotas on a
// role ask for it.
func (e *Engine) loginRole(ctx context.Context, _ *route.Request, in loginIn) (name string, err error) {
	id := in.alias()
	if id == "" || len(id) > mostID {
		return "", nil
	}
	at := e.roleAt(id)
	err = e.env.Store.View(ctx, func(v storage.View) error {
		b, err := v.Get(rolePrefix + at)
		if err != nil || b == nil {
			return err
		}
		r, err := e.roles.of(at, b, newRole)
		if err == nil {
			name = r.Name
		}
		return err
	})
	return name, err
}

// internal is kept with a token. Version 1 by the lack of another.
type internal struct {
	Name string `json:"role_name"`
	Key  string `json:"key"`
}

// errWrong is the one answer to a role id that there is not, to a secret id
// that is wrong, missing, expired or used up, and to one of another role.
var errWrong = errs.Wrap(errs.Invalid, route.ErrCredentials, "invalid role or secret ID")

func (e *Engine) login(ctx context.Context, req *route.Request, in loginIn) (*route.Auth, error) {
	roleID := in.alias()
	if roleID == "" {
		return nil, errs.New(errs.Invalid, "missing role_id")
	}
	id := strings.TrimSpace(in.SecretID.Reveal())
	if len(roleID) > mostID || len(id) > mostSecret {
		return nil, errWrong // nothing that long was ever stored
	}
	r, hash, s, err := e.credentials(ctx, roleID, id)
	if err != nil {
		return nil, err
	}
	if r == nil || r.BindSecretID && (s == nil || s.expired(e.env.Now())) {
		return nil, errWrong
	}
	auth := r.auth
	if r.BindSecretID {
		if s.NumUses > 0 {
			if err := e.use(ctx, r, hash); err != nil {
				return nil, err
			}
		}
		if err := s.narrow(&auth, req); err != nil {
			return nil, err
		}
	}
	if !tokenparams.Within(r.cidrs, req.Remote) {
		return nil, errs.New(errs.Invalid, "source address %q unauthorized by CIDR restrictions on the role", req.Remote)
	}
	if !tokenparams.Within(auth.BoundCIDRs, req.Remote) {
		return nil, errAddress(req.Remote)
	}
	return &auth, nil
}

// credentials reads both halves from one snapshot. A role that there is not
// costs what one does: its secret id is looked for all the same.
func (e *Engine) credentials(ctx context.Context, roleID, id string) (r *role, hash string, s *secretRow, err error) {
	at := e.roleAt(roleID)
	err = e.env.Store.View(ctx, func(v storage.View) error {
		b, err := v.Get(rolePrefix + at)
		if err != nil {
			return err
		}
		key := "none"
		if b != nil {
			if r, err = e.roles.of(at, b, newRole); err != nil {
				return err
			}
			key = r.Key
		}
		if id == "" {
			return nil
		}
		hash = e.secretHash(key, id)
		at := secretKey(key, hash)
		if b, err = v.Get(at); err == nil && b != nil {
			s, err = e.secrets.of(at, b, readSecret)
		}
		return err
	})
	return r, hash, s, err
}

// use takes one of a secret id's limited uses. Its last one deletes it.
func (e *Engine) use(ctx context.Context, r *role, hash string) error {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		s, err := secretAt(tx, r.Key, hash)
		switch {
		case err != nil:
			return err
		case s == nil:
			return errWrong // somebody else had the last one
		case s.NumUses == 0:
			return nil // made anew meanwhile, without a limit
		case s.NumUses == 1:
			return e.dropSecret(tx, r.Key, hash, s)
		}
		s.NumUses--
		s.Updated = e.env.Now().Round(0).UTC()
		return tx.Put(secretKey(r.Key, hash), wire.Marshal(s))
	})
	return err
}

func errAddress(from netip.Addr) error {
	return errs.New(errs.Denied, "permission denied: the role's tokens cannot be used from %s", from)
}

// common are the networks that are in some of a and in some of b; no networks
// are every one.
func common(a, b []netip.Prefix) (out []netip.Prefix) {
	if len(a) == 0 {
		return b
	}
	for _, x := range a {
		for _, y := range b {
			switch { // of two that overlap one is in the other
			case !x.Overlaps(y):
			case x.Bits() > y.Bits():
				out = append(out, x)
			default:
				out = append(out, y)
			}
		}
	}
	return out
}

// narrow adds to a login what its secret id says.
func (s *secretRow) narrow(auth *route.Auth, req *route.Request) error {
	if len(s.CIDRs) > 0 {
		nets, err := tokenparams.CIDRs("cidr_list", s.CIDRs)
		if err != nil {
			return err
		}
		if !tokenparams.Within(nets, req.Remote) {
			return errs.New(errs.Invalid, "source address %q unauthorized through CIDR restrictions on the secret ID", req.Remote)
		}
	}
	if len(s.TokenCIDRs) > 0 {
		nets, err := tokenparams.CIDRs("token_bound_cidrs", s.TokenCIDRs)
		if err != nil {
			return err
		}
		// They were within the role's when it was made; the role may have
		// been narrowed since.
		if !tokenparams.Within(nets, req.Remote) || !tokenparams.Within(auth.BoundCIDRs, req.Remote) {
			return errAddress(req.Remote)
		}
		auth.BoundCIDRs = common(auth.BoundCIDRs, nets)
	}
	if len(s.Metadata) > 0 {
		both := maps.Clone(s.Metadata)
		maps.Copy(both, auth.Metadata) // the role's name cannot be forged
		auth.Metadata = both
	}
	return nil
}

// RenewLogin lets a token live on as its role says now. It keeps the policies
// that it has, as with Vault, whatever the role's are by now; a role that was
// deleted, also one that was made again, refuses.
func (e *Engine) RenewLogin(ctx context.Context, n engine.Renewal) (*route.Auth, error) {
	var in internal
	if err := wire.Unmarshal(n.Internal, &in); err != nil {
		return nil, err
	}
	r, err := e.lookFor(ctx, roleIn{in.Name})
	if err != nil {
		return nil, err
	}
	if r == nil || r.Key != in.Key {
		return nil, errs.New(errs.Invalid, "role %q does not exist during renewal: log in with another", in.Name)
	}
	auth := r.auth
	auth.Policies, auth.NoDefaultPolicy = n.Policies, true
	return &auth, nil
}
