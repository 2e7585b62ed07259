package approle

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/leasehold/leasehold/internal/auth/tokenparams"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// What is stored, and under which keys. <key> is a role's own, drawn when it is
// made and kept over every change; hashes are keyed.
//
//	rid/<hash of the role id>          roleRow, JSON
//	role/<name>                        that hash: where the role lies
//	sid/<key>/<hash of the secret id>  secretRow, JSON
//	acc/<key>/<hash of the accessor>   accessorRow, JSON
//	exp/<time>/<key>/<hash of the secret id>   empty: by when secret ids expire
//	end/<key>                          empty: the role is gone; its secret ids are being deleted
const (
	rolePrefix     = "rid/"
	namePrefix     = "role/"
	secretPrefix   = "sid/"
	accessorPrefix = "acc/"
	expiryPrefix   = "exp/"
	endingPrefix   = "end/"
	rowVersion     = 1
	keyTime        = "20060102T150405Z"
)

// roleRow is a role. Version 1.
type roleRow struct {
	V              int                `json:"v"`
	Key            string             `json:"key"`
	Name           string             `json:"name"`
	RoleID         string             `json:"role_id"`
	BindSecretID   bool               `json:"bind"`
	SecretCIDRs    []string           `json:"cidrs,omitempty"` // networks that logins may come from, as written
	SecretNumUses  int                `json:"uses,omitempty"`  // of a secret id that asks for none
	SecretTTL      wire.TTL           `json:"ttl,omitempty"`
	LocalSecretIDs bool               `json:"local,omitempty"`
	Token          tokenparams.Params `json:"token"`
	OldPolicies    bool               `json:"old_policies,omitempty"` // written, and so answered, by its older name too
	OldPeriod      bool               `json:"old_period,omitempty"`
}

// secretRow is a secret id. Version 1.
type secretRow struct {
	V          int               `json:"v"`
	Accessor   string            `json:"acc"`
	NumUses    int               `json:"uses,omitempty"` // left; 0: any number
	TTL        wire.TTL          `json:"ttl,omitempty"`
	Created    time.Time         `json:"created"`
	Updated    time.Time         `json:"updated"`
	Expires    time.Time         `json:"expires"` // null: never
	Metadata   map[string]string `json:"meta,omitempty"`
	CIDRs      []string          `json:"cidrs,omitempty"`
	TokenCIDRs []string          `json:"tcidrs,omitempty"`
}

func (s *secretRow) expired(now time.Time) bool { return !s.Expires.IsZero() && !s.Expires.After(now) }

// accessorRow finds the secret id of an accessor. Version 1.
type accessorRow struct {
	V        int       `json:"v"`
	Accessor string    `json:"acc"`
	Secret   string    `json:"sid"` // its hash
	Expires  time.Time `json:"expires"`
}

func secretKey(role, hash string) string   { return secretPrefix + role + "/" + hash }
func accessorKey(role, hash string) string { return accessorPrefix + role + "/" + hash }

func expiryKey(at time.Time, role, hash string) string {
	return expiryPrefix + at.UTC().Format(keyTime) + "/" + role + "/" + hash
}

// secretHash is where a secret id of a role lies. Roles may have equal ones.
func (e *Engine) secretHash(role, secret string) string { return e.hash("sid/" + role + "/" + secret) }

func (e *Engine) accessorHash(accessor string) string { return e.hash("acc/" + accessor) }

// roleAt is where the role with a role id lies.
func (e *Engine) roleAt(roleID string) string { return e.hash("rid/" + roleID) }

// decode reads a row into one of the types above.
func decode[T any](b []byte, version func(*T) int) (*T, error) {
	row := new(T)
	if err := wire.Unmarshal(b, row); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadRow, err)
	}
	if v := version(row); v != rowVersion {
		return nil, fmt.Errorf("%w: it has version %d, which this server does not know: a newer one wrote it", errBadRow, v)
	}
	return row, nil
}

var errBadRow = errors.New("approle: a row cannot be read")

// isBadRow reports whether an error is of one row and not of the store.
func isBadRow(err error) bool {
	var damaged *storage.CorruptError
	return errors.Is(err, errBadRow) || errors.As(err, &damaged)
}

func readRole(b []byte) (*roleRow, error) {
	return decode(b, func(r *roleRow) int { return r.V })
}

func readSecret(b []byte) (*secretRow, error) {
	return decode(b, func(r *secretRow) int { return r.V })
}

func readAccessor(b []byte) (*accessorRow, error) {
	return decode(b, func(r *accessorRow) int { return r.V })
}

// role is a role as a login needs it. It is shared and never changed.
type role struct {
	roleRow
	cidrs    []netip.Prefix
	auth     route.Auth // without what a secret id adds
	metadata map[string]string
}

func newRole(row []byte) (*role, error) {
	rr, err := readRole(row)
	if err != nil {
		return nil, err
	}
	r := &role{roleRow: *rr, metadata: map[string]string{"role_name": rr.Name}}
	if r.cidrs, err = tokenparams.CIDRs("secret_id_bound_cidrs", r.SecretCIDRs); err != nil {
		return nil, err
	}
	r.auth = *r.Token.Auth()
	r.auth.Role, r.auth.Metadata = r.Name, r.metadata
	r.auth.Alias = &route.Alias{Name: r.RoleID, Metadata: r.metadata}
	r.auth.Internal = wire.Object(wire.Marshal(&internal{Name: r.Name, Key: r.Key}))
	return r, nil
}

// memo keeps what was made of rows lately, by their keys. It is only given for
// a row of the same bytes, so nothing has to be invalidated.
type memo[T any] struct {
	mu   sync.RWMutex
	made map[string]made[T]
}

type made[T any] struct {
	row []byte
	out *T
}

// What bounds a memo to some megabytes.
const (
	mostMade = 4096
	mostRow  = 2 << 10
)

// of gives what from makes of a row. It is shared and must not be changed.
func (m *memo[T]) of(key string, row []byte, from func([]byte) (*T, error)) (*T, error) {
	m.mu.RLock()
	have := m.made[key]
	m.mu.RUnlock()
	if have.out != nil && bytes.Equal(have.row, row) {
		return have.out, nil
	}
	out, err := from(row)
	if err != nil || len(row) > mostRow {
		return out, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.made == nil || len(m.made) >= mostMade {
		m.made = map[string]made[T]{}
	}
	m.made[key] = made[T]{bytes.Clone(row), out}
	return out, nil
}

// roleNamed reads a role; nil when there is none.
func (e *Engine) roleNamed(v storage.Reader, name string) (*role, error) {
	at, err := v.Get(namePrefix + name)
	if err != nil || at == nil {
		return nil, err
	}
	b, err := v.Get(rolePrefix + string(at))
	if err != nil || b == nil {
		return nil, err
	}
	return e.roles.of(string(at), b, newRole)
}

// errNoRole is what those read who may manage roles; a login never says so.
func errNoRole(name string) error { return errs.New(errs.Invalid, "role %q does not exist", name) }
