package userpass

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"github.com/leasehold/leasehold/internal/auth/tokenparams"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// What is stored, and under which keys:
//
//	user/<name>   userRow, JSON
//	cost          the greatest bcrypt cost that a hash here ever had, if above the usual
const (
	userPrefix = "user/"
	costKey    = "cost"
	rowVersion = 1
)

// userRow is a user. Version 1.
type userRow struct {
	V     int                `json:"v"`
	Key   string             `json:"key"` // drawn when it is made: one of the same name is another
	Hash  secret.String      `json:"hash"`
	Token tokenparams.Params `json:"token"`
	// Written, and so answered, by their older names too.
	OldPolicies   bool `json:"old_policies,omitempty"`
	OldTTL        bool `json:"old_ttl,omitempty"`
	OldMaxTTL     bool `json:"old_max_ttl,omitempty"`
	OldBoundCIDRs bool `json:"old_cidrs,omitempty"`
}

func readUser(b []byte) (*userRow, error) {
	u := new(userRow)
	if err := wire.Unmarshal(b, u); err != nil {
		return nil, fmt.Errorf("userpass: the row of a user cannot be read: %w", err)
	}
	if u.V != rowVersion {
		return nil, fmt.Errorf("userpass: the row of a user has version %d, which this server does not know: a newer one wrote it", u.V)
	}
	return u, nil
}

// userOut is a user as it is read. Fields of older names tell what was written
// under them.
type userOut struct {
	tokenparams.Params
	OldPolicies   wire.Opt[[]string]       `json:"policies"`
	OldTTL        wire.Opt[wire.TTL]       `json:"ttl"`
	OldMaxTTL     wire.Opt[wire.TTL]       `json:"max_ttl"`
	OldBoundCIDRs wire.Opt[[]netip.Prefix] `json:"bound_cidrs"`
}

func (u *userRow) out() userOut {
	t := u.Token
	return userOut{
		Params:        t,
		OldPolicies:   wire.Opt[[]string]{Value: t.Policies, Set: u.OldPolicies && len(t.Policies) > 0},
		OldTTL:        wire.Opt[wire.TTL]{Value: t.TTL, Set: u.OldTTL && t.TTL > 0},
		OldMaxTTL:     wire.Opt[wire.TTL]{Value: t.MaxTTL, Set: u.OldMaxTTL && t.MaxTTL > 0},
		OldBoundCIDRs: wire.Opt[[]netip.Prefix]{Value: t.BoundCIDRs, Set: u.OldBoundCIDRs && len(t.BoundCIDRs) > 0},
	}
}

// passwords are the two forms that a password to be can have.
type passwords struct {
	Password     secret.String `json:"password" doc:"The password; at most 72 bytes."`
	PasswordHash secret.String `json:"password_hash" doc:"A bcrypt hash of the password, made elsewhere."`
}

type writeIn struct {
	userIn
	passwords
	tokenparams.Change
	OldPolicies   wire.Opt[wire.CSV] `json:"policies" doc:"Older name of token_policies."`
	OldTTL        wire.Opt[wire.TTL] `json:"ttl" doc:"Older name of token_ttl."`
	OldMaxTTL     wire.Opt[wire.TTL] `json:"max_ttl" doc:"Older name of token_max_ttl."`
	OldBoundCIDRs wire.Opt[wire.CSV] `json:"bound_cidrs" doc:"Older name of token_bound_cidrs."`
}

type passwordIn struct {
	userIn
	passwords
}

type policiesIn struct {
	userIn
	Policies    wire.Opt[wire.CSV] `json:"token_policies" doc:"Policies of the tokens."`
	OldPolicies wire.Opt[wire.CSV] `json:"policies" doc:"Older name of token_policies."`
}

func (in writeIn) apply(u *userRow) error {
	c := in.Change
	older(&c.Policies, in.OldPolicies, &u.OldPolicies)
	older(&c.TTL, in.OldTTL, &u.OldTTL)
	older(&c.MaxTTL, in.OldMaxTTL, &u.OldMaxTTL)
	older(&c.BoundCIDRs, in.OldBoundCIDRs, &u.OldBoundCIDRs)
	return u.Token.Apply(c)
}

func (in policiesIn) apply(u *userRow) error {
	c := tokenparams.Change{Policies: in.Policies}
	older(&c.Policies, in.OldPolicies, &u.OldPolicies)
	return u.Token.Apply(c)
}

// older takes a field that has an older name, and notes whether that name was
// used last: then it is answered too.
func older[T any](now *wire.Opt[T], old wire.Opt[T], used *bool) {
	switch {
	case old.Set:
		*used = true
		if !now.Set {
			*now = old
		}
	case now.Set:
		*used = false
	}
}

// mostBytes is how much of a password bcrypt looks at, and mostCost bounds the
// hashes that are taken: one of cost 15 takes about two seconds.
const (
	mostBytes = 72
	mostCost  = 15
)

// hash is the hash that was sent or is made of the password that was; empty
// without either.
func (in passwords) hash() (secret.String, error) {
	switch {
	case in.Password.IsZero() && in.PasswordHash.IsZero():
		return secret.String{}, nil
	case !in.Password.IsZero() && !in.PasswordHash.IsZero():
		return secret.String{}, errs.New(errs.Invalid, "password and password_hash cannot both be given")
	case in.Password.IsZero():
		return in.PasswordHash, checkHash(in.PasswordHash.Reveal())
	case len(in.Password.Reveal()) > mostBytes:
		return secret.String{}, errs.New(errs.Invalid, "the password is longer than %d bytes, and bcrypt looks at no more", mostBytes)
	}
	b, err := bcrypt.GenerateFromPassword([]byte(in.Password.Reveal()), bcrypt.DefaultCost)
	return secret.New(string(b)), err
}

// checkHash refuses what bcrypt could not compare with.
func checkHash(hash string) error {
	const form = "$2a$10$"
	const size = 60
	cost, err := bcrypt.Cost([]byte(hash))
	if err != nil || len(hash) != size || hash[:2] != "$2" || !strings.Contains("aby", hash[2:3]) ||
		hash[3] != '$' || hash[6] != '$' || strings.Trim(hash[len(form):], alphabet) != "" {
		return errs.New(errs.Invalid, "password_hash is no bcrypt hash: one has %d characters and begins like %s", size, form)
	}
	if cost > mostCost {
		return errs.New(errs.Invalid, "password_hash has a cost of %d; at most %d are taken", cost, mostCost)
	}
	return nil
}

const alphabet = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// user reads a user; nil when there is none.
func (e *Engine) user(ctx context.Context, name string) (u *userRow, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		u, err = userAt(v, name)
		return err
	})
	return u, err
}

func userAt(v storage.Reader, name string) (*userRow, error) {
	b, err := v.Get(userPrefix + name)
	if err != nil || b == nil {
		return nil, err
	}
	return readUser(b)
}

// change writes what fn makes of a user, nil if there is none.
func (e *Engine) change(ctx context.Context, name string, fn func(*userRow) (*userRow, error)) error {
	if len(name) > mostName {
		return errs.New(errs.Invalid, "the name of a user has at most %d bytes", mostName)
	}
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		u, err := userAt(tx, name)
		if err != nil {
			return err
		}
		if u, err = fn(u); err != nil {
			return err
		}
		most, err := mostCostAt(tx)
		if err != nil {
			return err
		}
		if cost, _ := bcrypt.Cost([]byte(u.Hash.Reveal())); cost > most {
			if err := tx.Put(costKey, strconv.AppendInt(nil, int64(cost), 10)); err != nil {
				return err
			}
		}
		return tx.Put(userPrefix+name, wire.Marshal(u))
	})
	return err
}

// changeOne changes a user that must be there.
func (e *Engine) changeOne(ctx context.Context, name string, fn func(*userRow) error) error {
	return e.change(ctx, name, func(u *userRow) (*userRow, error) {
		if u == nil {
			return nil, errs.New(errs.Invalid, "username does not exist")
		}
		return u, fn(u)
	})
}

// mostCostAt is the cost that every failed login comes to.
func mostCostAt(v storage.Reader) (int, error) {
	b, err := v.Get(costKey)
	if err != nil {
		return 0, err
	}
	cost, _ := strconv.Atoi(string(b))
	return min(max(cost, bcrypt.DefaultCost), mostCost), nil
}
