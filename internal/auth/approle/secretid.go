package approle

import (
	"context"
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/auth/tokenparams"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// mostSecret bounds a secret id of one's own choice.
const mostSecret = 4 << 10

// newSecretIn is what is said of a secret id to be. What it leaves out comes
// from the role, which it may only narrow.
type newSecretIn struct {
	roleIn
	Metadata   wire.Value         `json:"metadata" doc:"Shown with tokens and in the audit log: an object, as JSON text or as \"k=v,k=v\"."`
	CIDRs      wire.CSV           `json:"cidr_list" doc:"Networks that logins with it may come from; within those of the role."`
	TokenCIDRs wire.CSV           `json:"token_bound_cidrs" doc:"Networks that its tokens can be used from; within those of the role."`
	NumUses    wire.Opt[int]      `json:"num_uses" doc:"How many logins it is good for; at most as many as the role says, which it is without."`
	TTL        wire.Opt[wire.TTL] `json:"ttl" doc:"How long it lives; at most as long as the role says, which it is without."`
}

type customSecretIn struct {
	newSecretIn
	SecretID secret.String `json:"secret_id" doc:"The secret id."`
}

type secretOut struct {
	SecretID secret.String `json:"secret_id"`
	Accessor string        `json:"secret_id_accessor"`
	NumUses  int           `json:"secret_id_num_uses"`
	TTL      wire.TTL      `json:"secret_id_ttl"`
}

func (e *Engine) makeSecretID(ctx context.Context, req *route.Request, in newSecretIn) (secretOut, error) {
	id, err := e.uuid()
	if err != nil {
		return secretOut{}, err
	}
	return e.addSecret(ctx, req, in, secret.New(id))
}

func (e *Engine) takeSecretID(ctx context.Context, req *route.Request, in customSecretIn) (secretOut, error) {
	id := strings.TrimSpace(in.SecretID.Reveal())
	switch {
	case id == "":
		return secretOut{}, errs.New(errs.Invalid, "missing secret_id")
	case len(id) > mostSecret:
		return secretOut{}, errs.New(errs.Invalid, "the secret_id is longer than %d bytes", mostSecret)
	}
	return e.addSecret(ctx, req, in.newSecretIn, secret.New(id))
}

func (e *Engine) addSecret(ctx context.Context, req *route.Request, in newSecretIn, id secret.String) (secretOut, error) {
	meta, err := metadata(in.Metadata)
	if err != nil {
		return secretOut{}, err
	}
	accessor, err := e.uuid()
	if err != nil {
		return secretOut{}, err
	}
	now := e.env.Now().Round(0).UTC()
	var s *secretRow
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		// Reading the role here keeps a secret id from being added to one
		// that is deleted at the same time.
		r, err := e.roleNamed(tx, in.name())
		if err != nil {
			return err
		}
		if r == nil {
			return errNoRole(in.Name)
		}
		if s, err = in.plan(r); err != nil {
			return err
		}
		s.V, s.Accessor, s.Metadata, s.Created, s.Updated = rowVersion, accessor, meta, now, now
		s.TTL = min(s.TTL, wire.TTL(req.Mount.MaxTTL))
		hash := e.secretHash(r.Key, id.Reveal())
		switch old, err := tx.Get(secretKey(r.Key, hash)); {
		case err != nil:
			return err
		case old != nil:
			return errs.New(errs.Invalid, "SecretID is already registered; choose another")
		}
		if s.TTL > 0 {
			s.Expires = now.Add(s.TTL.Duration())
			if err := tx.Put(expiryKey(s.Expires, r.Key, hash), nil); err != nil {
				return err
			}
		}
		acc := accessorRow{V: rowVersion, Accessor: accessor, Secret: hash, Expires: s.Expires}
		if err := tx.Put(accessorKey(r.Key, e.accessorHash(accessor)), wire.Marshal(&acc)); err != nil {
			return err
		}
		return tx.Put(secretKey(r.Key, hash), wire.Marshal(s))
	})
	if err != nil {
		return secretOut{}, err
	}
	req.SetWrappedAccessor(accessor)
	return secretOut{SecretID: id, Accessor: accessor, NumUses: s.NumUses, TTL: s.TTL}, nil
}

// plan makes a secret id of what was asked for within what the role allows.
func (in newSecretIn) plan(r *role) (*secretRow, error) {
	s := &secretRow{
		NumUses: in.NumUses.Or(r.SecretNumUses), TTL: in.TTL.Or(r.SecretTTL),
		CIDRs: nonEmpty(in.CIDRs), TokenCIDRs: nonEmpty(in.TokenCIDRs),
	}
	switch {
	case !r.BindSecretID:
		return nil, errs.New(errs.Invalid, "bind_secret_id is not set on the role: logins need no secret id")
	case s.NumUses < 0:
		return nil, errs.New(errs.Invalid, "num_uses cannot be negative")
	case r.SecretNumUses > 0 && (s.NumUses == 0 || s.NumUses > r.SecretNumUses):
		return nil, errs.New(errs.Invalid, "num_uses cannot be higher than the role's secret_id_num_uses")
	case r.SecretTTL > 0 && (s.TTL == 0 || s.TTL > r.SecretTTL):
		return nil, errs.New(errs.Invalid, "ttl cannot be longer than the role's secret_id_ttl")
	}
	if err := within("cidr_list", s.CIDRs, r.cidrs); err != nil {
		return nil, err
	}
	return s, within("token_bound_cidrs", s.TokenCIDRs, r.Token.BoundCIDRs)
}

// within refuses networks that are not inside of those that the role is bound
// to, if it is.
func within(field string, list []string, outer []netip.Prefix) error {
	nets, err := tokenparams.CIDRs(field, list)
	if err != nil || len(outer) == 0 {
		return err
	}
	for _, n := range nets {
		if !slices.ContainsFunc(outer, func(o netip.Prefix) bool { return o.Bits() <= n.Bits() && o.Contains(n.Addr()) }) {
			return errs.New(errs.Invalid, "%s: %s is not within the networks of the role", field, n)
		}
	}
	return nil
}

// metadata reads what stands with a secret id, in any of the forms that Vault
// takes: an object; its JSON as a text; "k=v,k=v"; either text in base64.
func metadata(v wire.Value) (map[string]string, error) {
	bad := errs.New(errs.Invalid, "metadata is neither an object nor \"key=value,key=value\"; values are texts")
	var text string
	switch v.Kind() {
	case wire.Null:
		return nil, nil
	case wire.Obj:
		text = string(v)
	case wire.String:
		text, _ = v.Text()
	default:
		return nil, bad
	}
	text = strings.TrimSpace(text)
	if b, err := base64.StdEncoding.DecodeString(text); err == nil && !strings.ContainsAny(strings.TrimRight(text, "="), "={") {
		text = strings.TrimSpace(string(b))
	}
	switch {
	case text == "":
		return nil, nil
	case text[0] != '{':
		return pairs(text, bad)
	}
	obj, err := wire.ParseObject([]byte(text))
	if err != nil {
		return nil, errs.Wrap(errs.Invalid, err, "metadata is no JSON object")
	}
	m := map[string]string{}
	for k, v := range obj.All() {
		s, ok := v.Text()
		if !ok {
			return nil, bad
		}
		m[k] = s
	}
	return m, nil
}

func pairs(text string, bad error) (map[string]string, error) {
	m := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		k, v, ok := strings.Cut(part, "=")
		if !ok {
			return nil, bad
		}
		m[strings.TrimSpace(k)] = strings.TrimSpace(v)
	}
	return m, nil
}

func (e *Engine) listSecretIDs(ctx context.Context, _ *route.Request, in roleIn) (route.Keys, error) {
	var accessors []string
	now := e.env.Now()
	err := e.env.Store.View(ctx, func(v storage.View) error {
		r, err := e.roleNamed(v, in.name())
		if err != nil {
			return err
		}
		if r == nil {
			return errNoRole(in.Name)
		}
		prefix := accessorKey(r.Key, "")
		return storage.ScanEach(v, prefix, storage.PrefixEnd(prefix), 0, func(_ string, b []byte, bad error) bool {
			var a *accessorRow
			if bad == nil {
				a, bad = readAccessor(b)
			}
			if bad != nil {
				e.env.Log.Error("listing the secret ids of a role", "role", r.Name, "error", bad)
			} else if a.Expires.IsZero() || a.Expires.After(now) {
				accessors = append(accessors, a.Accessor)
			}
			return true
		})
	})
	if err != nil {
		return route.Keys{}, err
	}
	slices.Sort(accessors)
	return route.ListOf(accessors)
}

type secretIn struct {
	roleIn
	SecretID secret.String `json:"secret_id" doc:"The secret id."`
}

type accessorIn struct {
	roleIn
	Accessor string `json:"secret_id_accessor" doc:"The accessor of the secret id."`
}

// secretInfo is a secret id without itself.
type secretInfo struct {
	Accessor   string            `json:"secret_id_accessor"`
	CIDRs      []string          `json:"cidr_list"`
	Created    time.Time         `json:"creation_time"`
	Expires    string            `json:"expiration_time"`
	Updated    time.Time         `json:"last_updated_time"`
	Metadata   map[string]string `json:"metadata"`
	NumUses    int               `json:"secret_id_num_uses"`
	TTL        wire.TTL          `json:"secret_id_ttl"`
	TokenCIDRs []string          `json:"token_bound_cidrs"`
}

func (s *secretRow) info() *secretInfo {
	return &secretInfo{
		Accessor: s.Accessor, CIDRs: s.CIDRs, Created: s.Created, Updated: s.Updated, Metadata: s.Metadata,
		// One that does not expire has the year 1 here, as Vault writes it.
		Expires: s.Expires.UTC().Format(time.RFC3339Nano),
		NumUses: s.NumUses, TTL: s.TTL, TokenCIDRs: s.TokenCIDRs,
	}
}

// lookupSecretID answers nothing where there is no such secret id.
func (e *Engine) lookupSecretID(ctx context.Context, _ *route.Request, in secretIn) (*secretInfo, error) {
	if in.SecretID.IsZero() {
		return nil, errs.New(errs.Invalid, "missing secret_id")
	}
	s, err := e.lookup(ctx, in.roleIn, func(_ storage.View, r *role) (string, error) {
		return e.secretHash(r.Key, strings.TrimSpace(in.SecretID.Reveal())), nil
	})
	if err != nil || s == nil {
		return nil, err
	}
	return s.info(), nil
}

func (e *Engine) lookupAccessor(ctx context.Context, _ *route.Request, in accessorIn) (*secretInfo, error) {
	if in.Accessor == "" {
		return nil, errs.New(errs.Invalid, "missing secret_id_accessor")
	}
	s, err := e.lookup(ctx, in.roleIn, func(v storage.View, r *role) (string, error) { return e.hashOf(v, r, in.Accessor) })
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, errNoAccessor(in.Accessor)
	}
	return s.info(), nil
}

// errNoAccessor has its sentence in the data, where Vault's clients look.
func errNoAccessor(accessor string) error {
	type data struct {
		Error string `json:"error"`
	}
	return &errs.Error{Kind: errs.NotFound, Data: data{"failed to find accessor entry for secret_id_accessor: " + string(wire.Quote(accessor))}}
}

// hashOf is the hash of the secret id with an accessor; "" without one.
func (e *Engine) hashOf(v storage.Reader, r *role, accessor string) (string, error) {
	b, err := v.Get(accessorKey(r.Key, e.accessorHash(accessor)))
	if err != nil || b == nil {
		return "", err
	}
	a, err := readAccessor(b)
	if err != nil {
		return "", err
	}
	return a.Secret, nil
}

// lookup reads a live secret id of a role by its hash; nil without one.
func (e *Engine) lookup(ctx context.Context, in roleIn, hash func(storage.View, *role) (string, error)) (s *secretRow, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		r, err := e.roleNamed(v, in.name())
		if err != nil {
			return err
		}
		if r == nil {
			return errNoRole(in.Name)
		}
		h, err := hash(v, r)
		if err != nil || h == "" {
			return err
		}
		if s, err = secretAt(v, r.Key, h); s != nil && s.expired(e.env.Now()) {
			s = nil
		}
		return err
	})
	return s, err
}

func (e *Engine) destroySecretID(ctx context.Context, _ *route.Request, in secretIn) (route.None, error) {
	if in.SecretID.IsZero() {
		return route.None{}, errs.New(errs.Invalid, "missing secret_id")
	}
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		r, err := e.roleNamed(tx, in.name())
		if err != nil {
			return err
		}
		if r == nil {
			return errNoRole(in.Name)
		}
		hash := e.secretHash(r.Key, strings.TrimSpace(in.SecretID.Reveal()))
		s, err := secretAt(tx, r.Key, hash)
		if err != nil || s == nil {
			return err
		}
		return e.dropSecret(tx, r.Key, hash, s)
	})
	return route.None{}, err
}

func (e *Engine) destroyAccessor(ctx context.Context, _ *route.Request, in accessorIn) (route.None, error) {
	if in.Accessor == "" {
		return route.None{}, errs.New(errs.Invalid, "missing secret_id_accessor")
	}
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		r, err := e.roleNamed(tx, in.name())
		if err != nil {
			return err
		}
		if r == nil {
			return errNoRole(in.Name)
		}
		hash, err := e.hashOf(tx, r, in.Accessor)
		if err != nil {
			return err
		}
		s, err := secretAt(tx, r.Key, hash)
		if err != nil {
			return err
		}
		if s == nil {
			return errs.New(errs.Invalid, "failed to find accessor entry for secret_id_accessor: %q", in.Accessor)
		}
		return e.dropSecret(tx, r.Key, hash, s)
	})
	return route.None{}, err
}

// secretAt reads a secret id by its hash; nil without one.
func secretAt(v storage.Reader, role, hash string) (*secretRow, error) {
	b, err := v.Get(secretKey(role, hash))
	if err != nil || b == nil {
		return nil, err
	}
	return readSecret(b)
}

// dropSecret deletes a secret id with all that names it.
func (e *Engine) dropSecret(tx storage.Tx, role, hash string, s *secretRow) error {
	keys := []string{secretKey(role, hash), accessorKey(role, e.accessorHash(s.Accessor))}
	if !s.Expires.IsZero() {
		keys = append(keys, expiryKey(s.Expires, role, hash))
	}
	for _, k := range keys {
		if err := tx.Delete(k); err != nil {
			return err
		}
	}
	return nil
}
