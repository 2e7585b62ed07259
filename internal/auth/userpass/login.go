package userpass

import (
	"context"
	"fmt"

	"golang.org/x/crypto/bcrypt"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

type loginIn struct {
	userIn
	Password secret.String `json:"password" doc:"The user's password."`
}

// internal is kept with a token. Version 1 by the lack of another.
type internal struct {
	Name string `json:"username"`
	Key  string `json:"key"`
}

// errWrong is the one answer to a wrong name and to a wrong password.
var errWrong = errs.Wrap(errs.Invalid, route.ErrCredentials, "invalid username or password")

func (e *Engine) login(ctx context.Context, req *route.Request, in loginIn) (*route.Auth, error) {
	if in.Password.IsZero() {
		return nil, errs.New(errs.Invalid, "missing password")
	}
	select {
	case e.slots <- struct{}{}:
		defer func() { <-e.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	// Only now: while many guess, the wait is long enough for a password to be
	// changed, and the old one must not count any more.
	var u *userRow
	var most int
	name := in.name()
	err := e.env.Store.View(ctx, func(v storage.View) (err error) {
		if u, err = userAt(v, name); err == nil {
			most, err = mostCostAt(v)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if !e.check(u, in.Password, most) {
		return nil, errWrong
	}
	if !u.Token.Admits(req.Remote) {
		return nil, errs.New(errs.Denied, "permission denied: the user cannot log in from %s", req.Remote)
	}
	return u.auth(name), nil
}

// check compares a password with that of a user, or of nobody. Failing takes
// the work of one comparison at cost most, whatever the cost of the hash: after
// one at cost c come others at c, c+1 and so on below most, and
// 2^c + 2^c + 2^(c+1) + … + 2^(most-1) is 2^most.
func (e *Engine) check(u *userRow, password secret.String, most int) bool {
	pw := []byte(password.Reveal())
	long := len(pw) > mostBytes // which no password is
	pw = pw[:min(len(pw), mostBytes)]
	hash := decoy(bcrypt.DefaultCost)
	if u != nil {
		hash = []byte(u.Hash.Reveal())
	}
	if err := e.compare(hash, pw); err == nil && u != nil && !long {
		return true
	}
	cost, _ := bcrypt.Cost(hash)
	for c := cost; c < most; c++ {
		_ = e.compare(decoy(c), pw)
	}
	return false
}

// decoy is a hash of some cost that was made of nothing.
func decoy(cost int) []byte {
	return fmt.Appendf(nil, "$2a$%02d$%s", cost, "leaseholdleaseholdleaseOnobodyhasthispasswordnobodyha")
}

func (u *userRow) auth(name string) *route.Auth {
	a := u.Token.Auth()
	a.DisplayName = name
	a.Metadata = map[string]string{"username": name}
	a.Alias = &route.Alias{Name: name}
	a.Internal = wire.Object(wire.Marshal(&internal{Name: name, Key: u.Key}))
	return a
}

// RenewLogin lets a token live on as its user says now. A user that was
// deleted, also one that was made again, refuses.
func (e *Engine) RenewLogin(ctx context.Context, n engine.Renewal) (*route.Auth, error) {
	var in internal
	if err := wire.Unmarshal(n.Internal, &in); err != nil {
		return nil, err
	}
	u, err := e.user(ctx, in.Name)
	if err != nil {
		return nil, err
	}
	if u == nil || u.Key != in.Key {
		return nil, errs.New(errs.Invalid, "the user no longer exists, not renewing: log in as another")
	}
	return u.auth(in.Name), nil
}
