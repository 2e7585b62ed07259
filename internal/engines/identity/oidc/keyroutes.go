package oidc

import (
	"bytes"
	"context"
	"slices"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

type keyOut struct {
	Algorithm    string   `json:"algorithm"`
	Allowed      []string `json:"allowed_client_ids"`
	Rotation     wire.TTL `json:"rotation_period"`
	Verification wire.TTL `json:"verification_ttl"`
}

func (e *Engine) keyExists(ctx context.Context, _ *route.Request, in nameIn) (bool, error) {
	k, err := e.settings(ctx, in.Name)
	return k != nil, err
}

func (e *Engine) readKey(ctx context.Context, _ *route.Request, in nameIn) (keyOut, error) {
	k, err := e.settings(ctx, in.Name)
	if err == nil && k == nil {
		err = errs.Gone
	}
	if err != nil {
		return keyOut{}, err
	}
	return keyOut{Algorithm: k.Algorithm, Allowed: k.Allowed, Rotation: k.Rotation, Verification: k.Verification}, nil
}

type writeKeyIn struct {
	Name         string             `json:"name" doc:"Name of the key."`
	Algorithm    wire.Opt[string]   `json:"algorithm" doc:"RS256 (the default), RS384, RS512, ES256, ES384, ES512 or EdDSA."`
	Rotation     wire.Opt[wire.TTL] `json:"rotation_period" doc:"How often another key signs; 24h by default."`
	Verification wire.Opt[wire.TTL] `json:"verification_ttl" doc:"How long a key verifies after it has signed last; 24h by default, at most ten rotation periods."`
	Allowed      wire.Opt[wire.CSV] `json:"allowed_client_ids" doc:"Client ids of the roles and clients that may use the key; * is any."`
}

// minRotation keeps a typo from rotating at every request.
const minRotation = time.Minute

// maxKeep is how many rotation periods a key verifies at most, so that a row
// holds a bounded number of keys.
const maxKeep = 10

func (in *writeKeyIn) apply(k *keyRow) error {
	in.Algorithm.Apply(&k.Algorithm)
	in.Rotation.Apply(&k.Rotation)
	in.Verification.Apply(&k.Verification)
	if v, ok := in.Allowed.Get(); ok {
		k.Allowed = unique(v)
	}
	switch {
	case !slices.Contains(algorithmNames(), k.Algorithm):
		return errs.New(errs.Invalid, "unknown signing algorithm %q; there are %v", k.Algorithm, algorithmNames())
	case k.Rotation.Duration() < minRotation:
		return errs.New(errs.Invalid, "rotation_period must be at least one minute")
	case k.Verification.Duration() <= 0:
		return errs.New(errs.Invalid, "verification_ttl must be greater than zero")
	case k.Verification.Duration()/maxKeep > k.Rotation.Duration():
		return errs.New(errs.Invalid, "verification_ttl cannot be longer than 10x rotation_period")
	}
	return nil
}

// unique sorts names and leaves out doubles and empty ones.
func unique(names []string) []string {
	out := slices.DeleteFunc(slices.Clone(names), func(s string) bool { return s == "" })
	slices.Sort(out)
	return slices.Compact(out)
}

// writeKey makes key pairs before the transaction, because that takes long,
// and begins again if what it saw has changed meanwhile.
func (e *Engine) writeKey(ctx context.Context, _ *route.Request, in writeKeyIn) (route.None, error) {
	for {
		seen, refs, err := e.seenKey(ctx, in.Name)
		if err != nil {
			return route.None{}, err
		}
		k, err := e.changeKey(seen, in)
		if err != nil {
			return route.None{}, err
		}
		if err := e.checkTTLs(ctx, in.Name, k.Verification.Duration()); err != nil {
			return route.None{}, err
		}
		same := false
		_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
			now, err := generation(tx)
			if err != nil {
				return err
			}
			old, err := get[keyRow](tx, keyPrefix+in.Name)
			if same = err == nil && now == refs && (old == nil) == (seen == nil) && (old == nil || bytes.Equal(wire.Marshal(old), wire.Marshal(seen))); !same {
				return err
			}
			if err := touch(tx); err != nil {
				return err
			}
			return k.put(tx, in.Name, old)
		})
		if err != nil || same {
			return route.None{}, err
		}
	}
}

func (e *Engine) seenKey(ctx context.Context, name string) (k *keyRow, refs string, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		if refs, err = generation(v); err != nil {
			return err
		}
		k, err = get[keyRow](v, keyPrefix+name)
		return err
	})
	return k, refs, err
}

// changeKey gives the row that a write makes of what was there, if anything.
func (e *Engine) changeKey(seen *keyRow, in writeKeyIn) (*keyRow, error) {
	k := defaultKey()
	if seen != nil {
		copied := *seen
		k = &copied
	} else if in.Name != defaultName {
		k.Allowed = nil
	}
	if err := in.apply(k); err != nil {
		return nil, err
	}
	switch {
	case seen == nil:
		return k, e.fill(k)
	case seen.Algorithm != k.Algorithm:
		// Both pairs are of another kind from now on.
		k.Old = slices.Clone(seen.Old)
		if err := k.retire(e.env.Now(), k.Verification.Duration()); err != nil {
			return nil, err
		}
		return k, e.fill(k)
	case seen.Rotation != k.Rotation:
		k.Due = e.env.Now().Add(k.Rotation.Duration()).Round(0)
	}
	return k, nil
}

// checkTTLs refuses to verify for a shorter time than the tokens live that
// roles and clients make with the key.
func (e *Engine) checkTTLs(ctx context.Context, name string, verification time.Duration) error {
	return e.env.Store.View(ctx, func(v storage.View) error {
		err := each(v, rolePrefix, func(role string, r *roleRow) error {
			if r.Key == name && r.TTL.Duration() > verification {
				return errs.New(errs.Invalid, "unable to update key %q because it is currently referenced by the role %q with a token TTL greater than %d seconds", name, role, int64(verification.Seconds()))
			}
			return nil
		})
		if err != nil {
			return err
		}
		return each(v, clientPrefix, func(client string, r *clientRow) error {
			if r.Key == name && r.IDTokenTTL.Duration() > verification {
				return errs.New(errs.Invalid, "unable to update key %q because it is currently referenced by the client %q with an id_token_ttl greater than %d seconds", name, client, int64(verification.Seconds()))
			}
			return nil
		})
	})
}

func (e *Engine) deleteKey(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	if in.Name == defaultName {
		return route.None{}, errs.New(errs.Invalid, "deletion of key %q not allowed", in.Name)
	}
	refs := func(v storage.View) (kind string, by []string, err error) {
		err = each(v, rolePrefix, func(name string, r *roleRow) error {
			if r.Key == in.Name {
				by = append(by, name)
			}
			return nil
		})
		if err != nil || len(by) > 0 {
			return "roles", by, err
		}
		err = each(v, clientPrefix, func(name string, r *clientRow) error {
			if r.Key == in.Name {
				by = append(by, name)
			}
			return nil
		})
		return "clients", by, err
	}
	drop := func(tx storage.Tx) error {
		k, err := get[keyRow](tx, keyPrefix+in.Name)
		if err != nil || k == nil {
			return err
		}
		return tx.Delete(duePrefix + stamp(k.Due) + "/" + in.Name)
	}
	return route.None{}, e.deleteFree(ctx, keyPrefix+in.Name, "key \""+in.Name+"\"", refs, drop)
}

type rotateIn struct {
	Name         string             `json:"name" doc:"Name of the key."`
	Verification wire.Opt[wire.TTL] `json:"verification_ttl" doc:"How long the key that signed until now still verifies; the key's setting by default."`
}

func (e *Engine) rotateKey(ctx context.Context, _ *route.Request, in rotateIn) (route.None, error) {
	k, err := e.key(ctx, in.Name)
	if err == nil && k == nil {
		err = errs.New(errs.Invalid, "no named key found at %q", in.Name)
	}
	if err != nil {
		return route.None{}, err
	}
	if v, ok := in.Verification.Get(); ok && v.Duration()/maxKeep > k.Rotation.Duration() {
		return route.None{}, errs.New(errs.Invalid, "verification_ttl cannot be longer than 10x rotation_period")
	}
	next, err := e.generate(k.Algorithm)
	if err != nil {
		return route.None{}, err
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		k, err := get[keyRow](tx, keyPrefix+in.Name)
		if err == nil && (k == nil || k.Algorithm != jwkAlgorithm(next)) {
			err = errs.New(errs.Invalid, "the key was changed or deleted meanwhile; rotate it again")
		}
		if err != nil {
			return err
		}
		old := *k
		if err := k.rotate(next, e.env.Now(), in.Verification.Or(k.Verification).Duration()); err != nil {
			return err
		}
		return k.put(tx, in.Name, &old)
	})
	return route.None{}, err
}

// jwkAlgorithm is the algorithm that a key pair was made for.
func jwkAlgorithm(k signingKey) string {
	v, _ := k.Public.Get("alg")
	s, _ := v.Text()
	return s
}
