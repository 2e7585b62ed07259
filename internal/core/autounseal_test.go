package core_test

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
)

// farKey is a seal's key that another server has. Asking it takes a while, in
// which things happen.
type farKey struct {
	kind  string
	while func() // while it is asked to unwrap; nil: nothing happens
	wraps func() // while it is asked to wrap; nil: nothing happens
}

func (k *farKey) Kind() string { return k.kind }

func (k *farKey) Wrap(ctx context.Context, key []byte) ([]byte, string, error) {
	if k.wraps != nil {
		k.wraps()
	}
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	b := slices.Clone(key)
	slices.Reverse(b)
	return append([]byte(k.kind), b...), "1", nil
}

func (k *farKey) Unwrap(_ context.Context, wrapped []byte, _ string) ([]byte, error) {
	if k.while != nil {
		k.while()
	}
	b, ok := bytes.CutPrefix(slices.Clone(wrapped), []byte(k.kind))
	if !ok {
		return nil, errs.New(errs.Upstream, "it is another key's")
	}
	slices.Reverse(b)
	return b, nil
}

// farSealed is a store that was initialised with a key, and its shares, of
// which two open it.
func farSealed(t *testing.T, k seal.Wrapper) (db storage.Backend, shares [][]byte) {
	t.Helper()
	db = mem.New()
	c := farCore(t, db, k)
	in, err := c.Init(t.Context(), seal.Params{Shares: 3, Threshold: 2}, secret.String{})
	if err != nil {
		t.Fatal(err)
	}
	c.Stop(time.Second)
	return db, in.Shares
}

func farCore(t *testing.T, db storage.Backend, keys ...seal.Wrapper) *core.Core {
	c := newCore(db, nil, func(conf *core.Config) { conf.Seal.Wrappers = keys })
	t.Cleanup(func() { c.Stop(time.Second) })
	return c
}

func isSealed(t *testing.T, c *core.Core) bool {
	t.Helper()
	_, sealed, err := c.Health(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// TestSealedByPeopleStays: what people have sealed is not opened again by the
// seal's key, which was still being waited for.
func TestSealedByPeopleStays(t *testing.T) {
	k := &farKey{kind: "far"}
	db, shares := farSealed(t, k)
	c := farCore(t, db, k)
	k.while = func() {
		k.while = nil
		for _, s := range shares[:2] {
			if err := c.Unseal(t.Context(), s); err != nil {
				t.Error(err)
			}
		}
		if isSealed(t, c) {
			t.Error("after the shares it is sealed")
		}
		if err := c.Seal(); err != nil {
			t.Error(err)
		}
	}
	for _, when := range []string{"in the middle", "once more"} {
		_, err := c.AutoUnseal(t.Context())
		if err != nil || !isSealed(t, c) {
			t.Errorf("asked %s: sealed is %v, %v, want it sealed as people left it", when, isSealed(t, c), err)
		}
	}
	for _, s := range shares[:2] {
		if err := c.Unseal(t.Context(), s); err != nil {
			t.Error(err)
		}
	}
	if isSealed(t, c) {
		t.Error("the shares do not open it again")
	}
}

// TestSharesOfNoUse: a share that was given before the seal's key came does not
// wait for the next unsealing.
func TestSharesOfNoUse(t *testing.T) {
	k := &farKey{kind: "far"}
	db, shares := farSealed(t, k)
	c := farCore(t, db, k)
	if err := c.Unseal(t.Context(), shares[0]); err != nil {
		t.Fatal(err)
	}
	if opened, err := c.AutoUnseal(t.Context()); err != nil || !opened {
		t.Fatalf("AutoUnseal = %v, %v", opened, err)
	}
	if err := c.Seal(); err != nil {
		t.Fatal(err)
	}
	if st, err := c.SealStatus(t.Context()); err != nil || st.Progress != 0 || st.Nonce != "" {
		t.Errorf("after sealing the status has %d shares, %v, want none", st.Progress, err)
	}
}

// TestTypeOfSeal is that of the configuration: the slot of a seal that it names
// no more opens nothing.
func TestTypeOfSeal(t *testing.T) {
	one, two := &farKey{kind: "one"}, &farKey{kind: "two"}
	db, shares := farSealed(t, one)
	for _, tt := range []struct {
		keys         []seal.Wrapper
		before, then string
	}{
		{[]seal.Wrapper{one}, "one", "one"},
		{[]seal.Wrapper{two}, seal.Shamir, "two"}, // the shares open it, once
		{nil, seal.Shamir, seal.Shamir},
	} {
		c := farCore(t, db, tt.keys...)
		typed := func(when, want string) {
			t.Helper()
			if st, err := c.SealStatus(t.Context()); err != nil || st.Type != want {
				t.Errorf("with %d keys the type is %q %s, %v, want %q", len(tt.keys), st.Type, when, err, want)
			}
		}
		typed("while sealed", tt.before)
		for _, s := range shares[:2] {
			if err := c.Unseal(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
		typed("when open", tt.then)
		c.Stop(time.Second)
	}
}

// TestGivenAndGone: who gives the last share and does not wait for the answer
// has opened the server, and with it the way of its new seal.
func TestGivenAndGone(t *testing.T) {
	one, two := &farKey{kind: "one"}, &farKey{kind: "two"}
	db, shares := farSealed(t, one)
	c := farCore(t, db, two)
	ctx, leave := context.WithCancel(t.Context())
	two.wraps = leave
	for _, s := range shares[:2] {
		if err := c.Unseal(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	c.Stop(time.Second)
	c = farCore(t, db, two)
	if opened, err := c.AutoUnseal(t.Context()); err != nil || !opened {
		t.Errorf("AutoUnseal by the new seal = %v, %v", opened, err)
	}
}

// TestStoppedStays: nothing opens a server that has stopped, as its store is
// being closed.
func TestStoppedStays(t *testing.T) {
	k := &farKey{kind: "far"}
	db, shares := farSealed(t, k)
	c := farCore(t, db, k)
	k.while = func() { c.Stop(time.Second) }
	if opened, _ := c.AutoUnseal(t.Context()); opened || !isSealed(t, c) {
		t.Error("the seal's key has opened a server that has stopped")
	}
	var err error
	for _, s := range shares[:2] {
		err = c.Unseal(t.Context(), s)
	}
	if !errs.Is(err, errs.Unavailable) || !isSealed(t, c) {
		t.Errorf("Unseal after Stop = %v, want Unavailable", err)
	}
}
