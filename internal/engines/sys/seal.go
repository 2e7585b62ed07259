package sys

import (
	"context"
	"encoding/base64"
	"os"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// Keyring is the keys that rows are encrypted under.
type Keyring interface {
	// Rotate adds a key for what is written from now on.
	Rotate(ctx context.Context) error
	Newest(ctx context.Context) (Key, error)
	// Rotation reads when keys are rotated by themselves.
	Rotation(ctx context.Context) (Rotation, error)
	SetRotation(ctx context.Context, r Rotation) error
}

// Key is the newest key of the ring.
type Key struct {
	Term        int
	Installed   time.Time
	Encryptions int64 // made under it, roughly
}

// Rotation says when keys are rotated by themselves.
type Rotation struct {
	Enabled       bool
	Interval      time.Duration // zero: by the number of encryptions alone
	MaxOperations int64
}

// What keeps a typing mistake from filling the keyring, or from never adding
// to it. The numbers are Vault's.
const (
	minInterval   = 24 * time.Hour
	minOperations = 1_000_000
	maxOperations = 3_865_470_566
)

func (e *Engine) sealRoutes(t *route.Table) {
	top := route.InForm(route.TopLevel)
	route.Write(t, "seal", e.seal, route.Sudo(), route.Doc("Seal the server: forget all keys."))
	route.Write(t, "step-down", e.stepDown, route.Sudo(), route.Doc("Give up being the active server of a cluster."))
	route.Read(t, "key-status", e.keyStatus, top, route.Doc("Read about the encryption key."))
	for _, path := range []string{"rotate", "rotate/keyring"} {
		route.Write(t, path, e.rotate, route.Sudo(), route.Doc("Rotate the encryption key."))
		route.Read(t, path+"/config", e.rotation, top, route.Doc("Read when the key is rotated by itself."))
		route.Write(t, path+"/config", e.setRotation, route.Doc("Say when the key is rotated by itself."))
	}
	route.Read(t, "ha-status", e.haStatus, route.Doc("List the servers of the cluster."))
	route.Write(t, "decode-token", decodeToken, route.Unauth(), route.Doc("Decode a root token with its one-time password."))
}

func (e *Engine) seal(ctx context.Context, _ *route.Request, _ route.None) (route.None, error) {
	return route.None{}, e.cfg.Seal(ctx)
}

// stepDown has nothing to give up: one server is no cluster.
func (e *Engine) stepDown(context.Context, *route.Request, route.None) (route.None, error) {
	return route.None{}, nil
}

type keyStatusOut struct {
	Term        int       `json:"term"`
	Installed   time.Time `json:"install_time"`
	Encryptions int64     `json:"encryptions"`
}

func (e *Engine) keyStatus(ctx context.Context, _ *route.Request, _ route.None) (keyStatusOut, error) {
	k, err := e.cfg.Keys.Newest(ctx)
	return keyStatusOut(k), err
}

func (e *Engine) rotate(ctx context.Context, _ *route.Request, _ route.None) (route.None, error) {
	return route.None{}, e.cfg.Keys.Rotate(ctx)
}

type rotationOut struct {
	Enabled       bool     `json:"enabled"`
	Interval      wire.TTL `json:"interval"`
	MaxOperations int64    `json:"max_operations"`
}

func (e *Engine) rotation(ctx context.Context, _ *route.Request, _ route.None) (rotationOut, error) {
	r, err := e.cfg.Keys.Rotation(ctx)
	return rotationOut{r.Enabled, wire.TTL(r.Interval), r.MaxOperations}, err
}

type rotationIn struct {
	Enabled       wire.Opt[bool]     `json:"enabled" doc:"Whether the key is rotated by itself."`
	Interval      wire.Opt[wire.TTL] `json:"interval" doc:"How often, at least a day; 0 is never by time."`
	MaxOperations wire.Opt[int64]    `json:"max_operations" doc:"After how many encryptions."`
}

func (e *Engine) setRotation(ctx context.Context, _ *route.Request, in rotationIn) (route.None, error) {
	r, err := e.cfg.Keys.Rotation(ctx)
	if err != nil {
		return route.None{}, err
	}
	in.Enabled.Apply(&r.Enabled)
	if n, ok := in.MaxOperations.Get(); ok {
		if n < minOperations || n > maxOperations {
			return route.None{}, errs.New(errs.Invalid, "max_operations must be between %d and %d", minOperations, int64(maxOperations))
		}
		r.MaxOperations = n
	}
	if d, ok := in.Interval.Get(); ok {
		if r.Interval = d.Duration(); r.Interval > 0 && r.Interval < minInterval {
			return route.None{}, errs.New(errs.Invalid, "interval must be at least %s", minInterval)
		}
	}
	return route.None{}, e.cfg.Keys.SetRotation(ctx, r)
}

type haStatusOut struct {
	Nodes []haNode `json:"nodes"`
}

type haNode struct {
	Hostname       string     `json:"hostname"`
	APIAddress     string     `json:"api_address"`
	ClusterAddress string     `json:"cluster_address"`
	ActiveNode     bool       `json:"active_node"`
	LastEcho       *time.Time `json:"last_echo"`
	Version        string     `json:"version"`
}

func (e *Engine) haStatus(context.Context, *route.Request, route.None) (haStatusOut, error) {
	name, err := os.Hostname()
	if err != nil {
		e.log.Warn("asking for the host's name", "error", err)
	}
	return haStatusOut{Nodes: []haNode{{
		Hostname: name, APIAddress: e.cfg.Address, ActiveNode: true, Version: e.cfg.Version.API,
	}}}, nil
}

type decodeTokenIn struct {
	Encoded string        `json:"encoded_token" doc:"What generating a root token answered."`
	OTP     secret.String `json:"otp" doc:"The one-time password it was begun with."`
}

type decodeTokenOut struct {
	Token secret.String `json:"token"`
}

func decodeToken(_ context.Context, _ *route.Request, in decodeTokenIn) (decodeTokenOut, error) {
	b, err := base64.RawStdEncoding.DecodeString(in.Encoded)
	if err != nil || len(b) == 0 || len(b) != len(in.OTP.Reveal()) {
		return decodeTokenOut{}, errs.New(errs.Invalid, "encoded_token and otp do not belong together")
	}
	return decodeTokenOut{Token: secret.New(string(xor(b, []byte(in.OTP.Reveal()))))}, nil
}
