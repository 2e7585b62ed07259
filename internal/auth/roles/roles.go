// Package roles keeps the roles of an auth method whose callers show a token of
// somebody else's and name the role that they want: how they are stored, found,
// listed and deleted, and how a token that one of them granted is renewed.
//
// A method embeds Head in its row and adds what its roles ask for.
package roles

import (
	"context"
	"fmt"
	"strings"

	"github.com/leasehold/leasehold/internal/auth/tokenparams"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// Head is what the rows of all such roles have.
type Head struct {
	V     int                `json:"v"`
	ID    string             `json:"id"` // drawn when it was made: a role that was deleted and made again is another one
	Token tokenparams.Params `json:"token"`
}

func (h *Head) head() *Head { return h }

// Row is a pointer to a row that begins with a Head.
type Row[T any] interface {
	*T
	head() *Head
}

// Store keeps the roles of one mount under role/<name>.
type Store[T any, R Row[T]] struct {
	Slice   storage.Backend
	Version int // of rows that this server writes
}

const prefix = "role/"

// kept is what is kept with a token that a role has granted. Version 1.
type kept struct {
	V      int    `json:"v"`
	Role   string `json:"role"`
	RoleID string `json:"role_id"`
}

// Keep is what a login as a role keeps with its token, for Renew.
func (h *Head) Keep(name string) wire.Object {
	return wire.Marshal(&kept{V: 1, Role: name, RoleID: h.ID})
}

// NameIn names a role.
type NameIn struct {
	Name string `json:"name" doc:"Name of the role; upper case counts as lower."`
}

// Known is a role's name as rows have it.
func Known(name string) string { return strings.ToLower(name) }

// Key of a role's row.
func Key(name string) string { return prefix + Known(name) }

// At reads a role; nil when there is none.
func (s Store[T, R]) At(r storage.Reader, name string) (R, error) {
	b, err := r.Get(Key(name))
	if err != nil || b == nil {
		return nil, err
	}
	row := R(new(T))
	if err := wire.Unmarshal(b, row); err != nil {
		return nil, err
	}
	if v := row.head().V; v > s.Version {
		return nil, errs.New(errs.Internal, "role %q has version %d, written by a newer server", name, v)
	}
	return row, nil
}

// Find is At on the newest snapshot.
func (s Store[T, R]) Find(ctx context.Context, name string) (row R, err error) {
	err = s.Slice.View(ctx, func(v storage.View) (err error) {
		row, err = s.At(v, name)
		return err
	})
	return row, err
}

// Must is Find for reading: a role that is not there is errs.Gone.
func (s Store[T, R]) Must(ctx context.Context, name string) (R, error) {
	row, err := s.Find(ctx, name)
	if err == nil && row == nil {
		err = errs.Gone
	}
	return row, err
}

// Exists tells an update of a role from a creation.
func (s Store[T, R]) Exists(ctx context.Context, _ *route.Request, in NameIn) (bool, error) {
	row, err := s.Find(ctx, in.Name)
	return row != nil, err
}

// List answers the names of the roles.
func (s Store[T, R]) List(ctx context.Context, _ *route.Request, _ route.None) (route.Keys, error) {
	names, err := storage.Folder(ctx, s.Slice, prefix)
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(names)
}

// Delete deletes a role. What is not there is no error.
func (s Store[T, R]) Delete(ctx context.Context, _ *route.Request, in NameIn) (route.None, error) {
	_, err := s.Slice.Update(ctx, func(tx storage.Tx) error { return tx.Delete(Key(in.Name)) })
	return route.None{}, err
}

// Renew is the method's part of engine.Renewer: the role must still be there,
// and its parameters count as they are now.
func (s Store[T, R]) Renew(ctx context.Context, r engine.Renewal) (*route.Auth, error) {
	var in kept
	if err := wire.Unmarshal(r.Internal, &in); err != nil {
		return nil, fmt.Errorf("reading what was kept with the token: %w", err)
	}
	row, err := s.Find(ctx, in.Role)
	if err != nil {
		return nil, err
	}
	if row == nil || row.head().ID != in.RoleID {
		return nil, errs.New(errs.Invalid, "role %q does not exist any more, so its tokens cannot be renewed", in.Role)
	}
	a := row.head().Token.Auth()
	a.DisplayName, a.Metadata, a.Internal = r.DisplayName, r.Metadata, r.Internal
	// What the role's policies are now holds for new logins, as in Vault.
	a.Policies, a.NoDefaultPolicy = r.Policies, true
	return a, nil
}
