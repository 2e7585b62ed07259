package server

import (
	"context"
	"errors"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
)

// state is the server as sys tells about it, sealed or not.
type state struct{ s *Server }

var _ sys.State = state{}

func (st state) Health(ctx context.Context) (h sys.Health, err error) {
	h.Initialized, h.Sealed, err = st.s.core.Health(ctx)
	if err != nil || h.Sealed {
		return h, err
	}
	h.ClusterID = st.s.core.ClusterID()
	h.ClusterName = st.s.clusterName(h.ClusterID)
	if h.Fence, err = fences(st).Read(ctx); errors.Is(err, core.ErrSealed) {
		return sys.Health{Initialized: true, Sealed: true}, nil // just now
	}
	return h, err
}

func (st state) Status(ctx context.Context) (sys.Status, error) {
	h, err := st.Health(ctx)
	if err != nil {
		return sys.Status{}, err
	}
	is, err := st.s.core.SealStatus(ctx)
	return sys.Status{
		Health: h, SealType: is.Type, StorageType: st.s.conf.Storage.Kind, Shares: is.Shares,
		Threshold: is.Threshold, Progress: is.Progress, Nonce: is.Nonce, RecoverySeal: is.Type != seal.Shamir,
	}, err
}

func (st state) Init(ctx context.Context, p sys.InitParams) (sys.InitResult, error) {
	recovery := st.s.conf.Seal.Kind != seal.Shamir
	params := seal.Params{Shares: p.Shares, Threshold: p.Threshold}
	if recovery {
		params = seal.Params{Shares: p.RecoveryShares, Threshold: p.RecoveryThreshold}
		if params == (seal.Params{}) {
			params = seal.Params{Shares: max(p.Shares, 1), Threshold: max(p.Threshold, 1)}
		}
	}
	made, err := st.s.core.Init(ctx, params, secret.String{})
	if err != nil {
		return sys.InitResult{}, err
	}
	shares := make([]*secret.Bytes, len(made.Shares))
	for i, b := range made.Shares {
		shares[i] = secret.NewBytes(b)
	}
	if recovery {
		return sys.InitResult{Recovery: shares, Root: made.Root}, nil
	}
	return sys.InitResult{Shares: shares, Root: made.Root}, nil
}

func (st state) Unseal(ctx context.Context, share *secret.Bytes) error {
	return st.s.core.Unseal(ctx, share.Reveal())
}

func (st state) ResetUnseal(context.Context) error {
	st.s.core.ResetUnseal()
	return nil
}

// fences tells whether expiry waits.
type fences struct{ s *Server }

func (f fences) Read(context.Context) (sys.Fence, error) {
	is, err := f.s.core.Fence()
	return sys.Fence(is), err
}

func (f fences) Lift(ctx context.Context) error { return f.s.core.LiftFence(ctx) }

// keyring is the barrier's.
type keyring struct{ c *core.Core }

var _ sys.Keyring = keyring{}

func (k keyring) Rotate(ctx context.Context) error {
	_, err := k.c.RotateKey(ctx)
	return err
}

func (k keyring) Newest(context.Context) (sys.Key, error) {
	st, err := k.c.KeyStatus()
	return sys.Key{Term: int(st.Term), Installed: st.InstallTime, Encryptions: int64(st.Encryptions)}, err
}

func (k keyring) Rotation(ctx context.Context) (sys.Rotation, error) {
	r, err := k.c.Rotation(ctx)
	return sys.Rotation{Enabled: !r.Disabled, Interval: r.Interval, MaxOperations: int64(r.MaxOperations)}, err
}

func (k keyring) SetRotation(ctx context.Context, r sys.Rotation) error {
	return k.c.SetRotation(ctx, core.Rotation{Disabled: !r.Enabled, Interval: r.Interval, MaxOperations: uint64(max(r.MaxOperations, 0))})
}

// clusterName is what people call this server: as configured, or made of the
// store's id as Vault makes it, by which dashboards know it.
func (s *Server) clusterName(id string) string {
	if s.conf.ClusterName != "" {
		return s.conf.ClusterName
	}
	return "vault-cluster-" + id[:min(8, len(id))]
}
