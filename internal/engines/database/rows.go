package database

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/leasehold/leasehold/internal/engines/database/postgres"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// What is stored, in this mount's slice:
//
//	name/<name>            the id of the connection of that name
//	conn/<id>              connection, JSON: its newest generation; a deleted one's last
//	old/<id>-<generation>  connection, JSON: a generation before
//	live/<id>-<generation> lease.Alive while leases may be issued through it
//	role/<name>            role, JSON
const (
	rowName = "name/"
	rowConn = "conn/"
	rowOld  = "old/"
	rowLive = "live/"
	rowRole = "role/"
)

const (
	connVersion = 1
	roleVersion = 1
	refVersion  = 1
)

// connection is a way to a database server. Version 1.
type connection struct {
	V          int       `json:"v"`
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Generation int       `json:"generation"`
	Rev        int       `json:"rev"`     // counts changes, for pools opened from an older one
	Deleted    time.Time `json:"deleted"` // zero while it is there

	Plugin    string        `json:"plugin"`
	URL       string        `json:"url"`
	Username  string        `json:"username"`
	Password  secret.String `json:"password"`
	Candidate secret.String `json:"candidate"` // may have replaced Password: a rotation in progress
	Since     time.Time     `json:"since"`     // of Candidate
	CA        string        `json:"ca"`
	Cert      string        `json:"cert"`
	Key       secret.String `json:"key"`

	AllowedRoles     []string   `json:"allowed_roles"`
	Verify           bool       `json:"verify"`
	MaxOpen          int        `json:"max_open"`
	MaxIdle          int        `json:"max_idle"`
	MaxLifetime      wire.Value `json:"max_lifetime"` // as it was given
	UsernameTemplate string     `json:"username_template"`
	PasswordPolicy   string     `json:"password_policy"`
	PasswordAuth     string     `json:"password_auth"` // "", "password" or "scram-sha-256"
	Iterations       int        `json:"iterations"`    // of SCRAM; 0: PostgreSQL's own
	RootRotation     []string   `json:"root_rotation"`

	// Identity is what the server calls itself; "" until it was asked.
	Identity string `json:"identity"`
	// Succeeds are identities that an operator said this server took over.
	Succeeds []string `json:"succeeds"`
}

// generation is the connection's name among lanes.
func (c *connection) generation() string { return generation(c.ID, c.Generation) }

func generation(id string, n int) string { return id + "-" + strconv.Itoa(n) }

const defaultMaxOpen = 4

func (c *connection) config(e *Engine) postgres.Config {
	n := c.MaxOpen
	if n <= 0 {
		n = defaultMaxOpen
	}
	life, _ := lifetime(c.MaxLifetime) // checked when it was written
	return postgres.Config{
		URL: c.URL, Username: c.Username, Password: c.Password, Candidate: c.Candidate,
		CA: c.CA, Certificate: c.Cert, Key: c.Key, MaxOpen: n, MaxLifetime: life,
		Now: e.env.Now, Log: e.env.Log.With("connection", c.Name),
	}
}

func lifetime(v wire.Value) (time.Duration, error) {
	if len(v) == 0 || string(v) == "null" {
		return 0, nil
	}
	var ttl struct {
		TTL wire.TTL `json:"v"`
	}
	if err := wire.Unmarshal([]byte(`{"v":`+string(v)+`}`), &ttl); err != nil {
		return 0, err
	}
	return ttl.TTL.Duration(), nil
}

// stored is a connection with its row as it was read, for comparing.
type stored struct {
	connection
	raw string
}

func decodeConnection(raw []byte) (*stored, error) {
	c := &stored{raw: string(raw)}
	if err := wire.Unmarshal(raw, &c.connection); err != nil {
		return nil, fmt.Errorf("reading a connection: %w", err)
	}
	if c.V > connVersion {
		return nil, fmt.Errorf("connection %q has version %d, written by a newer server", c.Name, c.V)
	}
	return c, nil
}

func getConnection(r storage.Reader, key string) (*stored, error) {
	b, err := r.Get(key)
	if err != nil || b == nil {
		return nil, err
	}
	return decodeConnection(b)
}

// byName reads the connection of a name, nil without one.
func byName(r storage.Reader, name string) (*stored, error) {
	id, err := r.Get(rowName + name)
	if err != nil || id == nil {
		return nil, err
	}
	return getConnection(r, rowConn+string(id))
}

func (e *Engine) connection(ctx context.Context, name string) (c *stored, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) (err error) {
		c, err = byName(v, name)
		return err
	})
	if err == nil && c == nil {
		err = errNoConnection(name)
	}
	return c, err
}

func errNoConnection(name string) error {
	return errs.New(errs.Invalid, "failed to find entry for connection with name: %q", name)
}

func (e *Engine) connectionNames(ctx context.Context) ([]string, error) {
	return storage.Folder(ctx, e.env.Store, rowName)
}

func newID() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

func put(tx storage.Tx, key string, c *connection) error {
	c.V = connVersion
	return tx.Put(key, wire.Marshal(c))
}

// errChanged is for what another request changed meanwhile.
var errChanged = errs.New(errs.Precondition, "the connection was changed by another request meanwhile; read it and try again")

// replace writes a connection's newest generation, if it is still as it was
// read. old nil means that there was none of its name. A new generation takes
// the liveness from the one before, which is kept for its leases.
func (e *Engine) replace(ctx context.Context, old *stored, c *connection) error {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		now, err := byName(tx, c.Name)
		switch {
		case err != nil:
			return err
		case (now == nil) != (old == nil), now != nil && now.raw != old.raw:
			return errChanged
		}
		c.Rev = 1
		if old != nil {
			c.Rev = old.Rev + 1
		}
		if old == nil || old.Generation != c.Generation {
			if err := tx.Put(rowLive+c.generation(), []byte(lease.Alive)); err != nil {
				return err
			}
			if old != nil {
				if err := errors.Join(tx.Delete(rowLive+old.generation()), put(tx, rowOld+old.generation(), &old.connection)); err != nil {
					return err
				}
			}
		}
		if old == nil {
			if err := tx.Put(rowName+c.Name, []byte(c.ID)); err != nil {
				return err
			}
		}
		return put(tx, rowConn+c.ID, c)
	})
	return err
}

// role is what credentials are made by. Version 1.
type role struct {
	V             int               `json:"v"`
	Connection    string            `json:"connection"`
	Creation      []string          `json:"creation"`
	Revocation    []string          `json:"revocation"`
	Rollback      []string          `json:"rollback"`
	Renewal       []string          `json:"renewal"`
	TTL           wire.TTL          `json:"ttl"`
	MaxTTL        wire.TTL          `json:"max_ttl"`
	MaxCreation   wire.TTL          `json:"max_creation_time"` // 0: lease.DefaultLimit
	Credential    string            `json:"credential"`
	CredentialCfg map[string]string `json:"credential_config"`
	// MemberOf are the groups that users of the role join, in group-role
	// mode; there are no creation statements then.
	MemberOf []string `json:"member_of"`
	// Sessions is "terminate", "leave" or "", which is the default of the
	// role's mode.
	Sessions string `json:"sessions"`
	// MaxLive and MaxLivePerEntity bound how many leases live at once; 0: any
	// number.
	MaxLive          int `json:"max_live"`
	MaxLivePerEntity int `json:"max_live_per_entity"`
	// Coalesce is how long requests of one entity share a user; 0: they do not.
	Coalesce wire.TTL `json:"coalesce"`
}

// ours reports whether the users are made by our own SQL.
func (r *role) ours() bool { return len(r.MemberOf) > 0 }

func getRole(r storage.Reader, name string) (*role, error) {
	b, err := r.Get(rowRole + name)
	if err != nil || b == nil {
		return nil, err
	}
	var out role
	if err := wire.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("reading role %q: %w", name, err)
	}
	if out.V > roleVersion {
		return nil, fmt.Errorf("role %q has version %d, written by a newer server", name, out.V)
	}
	return &out, nil
}
