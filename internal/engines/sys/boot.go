package sys

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// State is the server as those see it who have no keys yet.
type State interface {
	// Health is cheap: it is asked for many times a second.
	Health(ctx context.Context) (Health, error)
	Status(ctx context.Context) (Status, error)
	// Init makes the keys and the first root token, once. What it refuses is
	// errs.Invalid.
	Init(ctx context.Context, p InitParams) (InitResult, error)
	// Unseal gives one share. Shares that do not fit together are errs.Invalid
	// once there are enough of them.
	Unseal(ctx context.Context, share *secret.Bytes) error
	// ResetUnseal forgets the shares given so far.
	ResetUnseal(ctx context.Context) error
}

// Health is whether the server answers.
type Health struct {
	Initialized bool
	Sealed      bool
	ClusterName string // "" while sealed
	ClusterID   string
	Fence       Fence
}

// Status is what seal-status tells.
type Status struct {
	Health
	SealType     string // "shamir", "static"
	StorageType  string
	Shares       int // how many there are
	Threshold    int // how many open the server
	Progress     int // how many were given
	Nonce        string
	RecoverySeal bool // the shares are recovery keys: the server opens itself
}

// InitParams are the shares to make. Of a seal that opens itself they are
// recovery keys.
type InitParams struct {
	Shares, Threshold                 int
	RecoveryShares, RecoveryThreshold int
}

// InitResult is shown once.
type InitResult struct {
	Shares   []*secret.Bytes
	Recovery []*secret.Bytes
	Root     secret.String
}

// BootConfig is what BootRoutes asks the rest of the server.
type BootConfig struct {
	Version Version
	State   State
	Now     func() time.Time // nil: time.Now
}

// BootRoutes declares what works whatever state the server is in.
func BootRoutes(t *route.Table, cfg BootConfig) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	b := boot{cfg}
	always, bare := route.WhileSealed(), route.InForm(route.Bare)
	route.Read(t, "health", b.health, always, bare, route.Doc("Tell by the status whether the server is active."))
	route.Read(t, "seal-status", b.sealStatus, always, bare, route.Doc("Tell whether the server is sealed."))
	route.Read(t, "leader", b.leader, always, bare, route.Doc("Tell which server of a cluster is active."))
	route.Read(t, "init", b.initialized, always, bare, route.Doc("Tell whether the server has been initialized."))
	route.Write(t, "init", b.init, always, bare, route.RootOnly(), route.Doc("Initialize the server: make its keys and its first root token."))
	route.Write(t, "unseal", b.unseal, always, bare, route.RootOnly(), route.Doc("Give one share of the key."))
}

type boot struct{ cfg BootConfig }

type healthIn struct {
	ActiveCode  int `json:"activecode" doc:"Status of an active server in place of 200."`
	SealedCode  int `json:"sealedcode" doc:"Status of a sealed server in place of 503."`
	UninitCode  int `json:"uninitcode" doc:"Status before initialization in place of 501."`
	StandbyCode int `json:"standbycode" doc:"Status of a standby in place of 429."`

	// One server has no standbys; what clients say about them is taken.
	StandbyOK       string `json:"standbyok"`
	PerfStandbyOK   string `json:"perfstandbyok"`
	DRSecondaryCode int    `json:"drsecondarycode"`
	PerfStandbyCode int    `json:"performancestandbycode"`
	RemovedCode     int    `json:"removedcode"`
	UnhealthyCode   int    `json:"haunhealthycode"`
}

// Validate refuses what is no status of an answer.
func (in healthIn) Validate() error {
	for _, code := range []int{in.ActiveCode, in.SealedCode, in.UninitCode, in.StandbyCode} {
		if code != 0 && (code < 200 || code > 599) {
			return errs.New(errs.Invalid, "%d is no status that can be answered", code)
		}
	}
	return nil
}

type healthOut struct {
	Initialized     bool   `json:"initialized"`
	Sealed          bool   `json:"sealed"`
	Standby         bool   `json:"standby"`
	PerfStandby     bool   `json:"performance_standby"`
	PerfMode        string `json:"replication_performance_mode"`
	DRMode          string `json:"replication_dr_mode"`
	ServerTime      int64  `json:"server_time_utc"`
	Version         string `json:"version"`
	Own             string `json:"leasehold_version"`
	Enterprise      bool   `json:"enterprise"`
	ClusterName     string `json:"cluster_name,omitempty"`
	ClusterID       string `json:"cluster_id,omitempty"`
	EchoDuration    int64  `json:"echo_duration_ms"`
	ClockSkew       int64  `json:"clock_skew_ms"`
	PrimaryCanary   int64  `json:"replication_primary_canary_age_ms"`
	ExpiryFenced    string `json:"expiry_fenced,omitempty"`
	ExpiryFenceNext string `json:"expiry_fence_next,omitempty"`
}

func (b boot) health(ctx context.Context, req *route.Request, in healthIn) (healthOut, error) {
	s, err := b.cfg.State.Health(ctx)
	if err != nil {
		return healthOut{}, err
	}
	out := healthOut{
		Initialized: s.Initialized, Sealed: s.Sealed, Standby: s.Sealed, PerfMode: "disabled", DRMode: "disabled",
		ServerTime: b.cfg.Now().Unix(), Version: b.cfg.Version.API, Own: b.cfg.Version.Own,
		ClusterName: s.ClusterName, ClusterID: s.ClusterID,
	}
	code := http.StatusOK
	switch {
	case !s.Initialized:
		code = orElse(in.UninitCode, http.StatusNotImplemented)
	case s.Sealed:
		code = orElse(in.SealedCode, http.StatusServiceUnavailable)
	default:
		code = orElse(in.ActiveCode, code)
	}
	if s.Sealed {
		out.PerfMode, out.DRMode = "unknown", "unknown"
	}
	if req.Redact.Version {
		out.Version, out.Own = "", ""
	}
	if req.Redact.ClusterName {
		out.ClusterName = ""
	}
	if s.Fence.Fenced {
		out.ExpiryFenced, out.ExpiryFenceNext = s.Fence.Reason, NextStep
	}
	req.SetStatus(code)
	return out, nil
}

func orElse(n, def int) int {
	if n != 0 {
		return n
	}
	return def
}

type sealStatusOut struct {
	Type         string `json:"type"`
	Initialized  bool   `json:"initialized"`
	Sealed       bool   `json:"sealed"`
	Threshold    int    `json:"t"`
	Shares       int    `json:"n"`
	Progress     int    `json:"progress"`
	Nonce        string `json:"nonce"`
	Version      string `json:"version"`
	Own          string `json:"leasehold_version"`
	BuildDate    string `json:"build_date"`
	Migration    bool   `json:"migration"`
	ClusterName  string `json:"cluster_name,omitempty"`
	ClusterID    string `json:"cluster_id,omitempty"`
	RecoverySeal bool   `json:"recovery_seal"`
	StorageType  string `json:"storage_type,omitempty"`
}

func (b boot) sealStatus(ctx context.Context, req *route.Request, _ route.None) (sealStatusOut, error) {
	s, err := b.cfg.State.Status(ctx)
	if err != nil {
		return sealStatusOut{}, err
	}
	out := sealStatusOut{
		Type: s.SealType, Initialized: s.Initialized, Sealed: s.Sealed, Threshold: s.Threshold, Shares: s.Shares,
		Progress: s.Progress, Nonce: s.Nonce, Version: b.cfg.Version.API, Own: b.cfg.Version.Own,
		BuildDate: b.cfg.Version.built(), ClusterName: s.ClusterName, ClusterID: s.ClusterID,
		RecoverySeal: s.RecoverySeal, StorageType: s.StorageType,
	}
	if req.Redact.Version {
		out.Version, out.Own, out.BuildDate = "", "", ""
	}
	if req.Redact.ClusterName {
		out.ClusterName = ""
	}
	return out, nil
}

func (v Version) built() string {
	if v.Built.IsZero() {
		return ""
	}
	return v.Built.UTC().Format(time.RFC3339)
}

type leaderOut struct {
	HAEnabled      bool   `json:"ha_enabled"`
	IsSelf         bool   `json:"is_self"`
	Address        string `json:"leader_address"`
	ClusterAddress string `json:"leader_cluster_address"`
	PerfStandby    bool   `json:"performance_standby"`
	PerfStandbyWAL int64  `json:"performance_standby_last_remote_wal"`
}

// leader answers what one server alone is: of no cluster. There is no address
// in it that a listener could want left out.
func (boot) leader(context.Context, *route.Request, route.None) (leaderOut, error) {
	return leaderOut{}, nil
}

type initializedOut struct {
	Initialized bool `json:"initialized"`
}

func (b boot) initialized(ctx context.Context, _ *route.Request, _ route.None) (initializedOut, error) {
	s, err := b.cfg.State.Health(ctx)
	return initializedOut{s.Initialized}, err
}

type initIn struct {
	Shares            int      `json:"secret_shares" doc:"How many shares to split the key into."`
	Threshold         int      `json:"secret_threshold" doc:"How many of them open the server."`
	StoredShares      int      `json:"stored_shares"`
	RecoveryShares    int      `json:"recovery_shares" doc:"Of a seal that opens itself: how many recovery keys to make."`
	RecoveryThreshold int      `json:"recovery_threshold" doc:"How many of them allow what needs them."`
	PGPKeys           wire.CSV `json:"pgp_keys"`
	RootPGPKey        string   `json:"root_token_pgp_key"`
	RecoveryPGPKeys   wire.CSV `json:"recovery_pgp_keys"`
}

type initOut struct {
	Keys            []secret.String `json:"keys"`
	KeysBase64      []secret.String `json:"keys_base64"`
	RecoveryKeys    []secret.String `json:"recovery_keys,omitempty"`
	RecoveryKeysB64 []secret.String `json:"recovery_keys_base64,omitempty"`
	Root            secret.String   `json:"root_token"`
}

var errPGP = errs.New(errs.Invalid, "encrypting keys with PGP is not supported: hand each share to its keeper yourself")

func (b boot) init(ctx context.Context, _ *route.Request, in initIn) (initOut, error) {
	if len(in.PGPKeys)+len(in.RecoveryPGPKeys) > 0 || in.RootPGPKey != "" {
		return initOut{}, errPGP
	}
	s, err := b.cfg.State.Status(ctx)
	if err != nil {
		return initOut{}, err
	}
	if s.Initialized {
		return initOut{}, errs.New(errs.Invalid, "Vault is already initialized")
	}
	n, most := in.Shares, in.Threshold
	if s.RecoverySeal {
		if in.Shares > 1 || in.Threshold > 1 {
			return initOut{}, errs.New(errs.Invalid, "parameters secret_shares,secret_threshold not applicable to seal type %s: say recovery_shares and recovery_threshold", s.SealType)
		}
		n, most = in.RecoveryShares, in.RecoveryThreshold
	} else if in.RecoveryShares != 0 || in.RecoveryThreshold != 0 {
		return initOut{}, errs.New(errs.Invalid, "parameters recovery_shares,recovery_threshold not applicable to seal type %s: its unseal keys are all there is", s.SealType)
	}
	if err := checkShares(n, most, s.RecoverySeal); err != nil {
		return initOut{}, errs.New(errs.Invalid, "invalid seal configuration: %v", err)
	}
	made, err := b.cfg.State.Init(ctx, InitParams{
		Shares: in.Shares, Threshold: in.Threshold,
		RecoveryShares: in.RecoveryShares, RecoveryThreshold: in.RecoveryThreshold,
	})
	if err != nil {
		return initOut{}, err
	}
	out := initOut{Root: made.Root}
	out.Keys, out.KeysBase64 = texts(made.Shares)
	out.RecoveryKeys, out.RecoveryKeysB64 = texts(made.Recovery)
	return out, nil
}

// checkShares refuses splits that do not work. A seal that opens itself may
// have no shares at all.
func checkShares(n, threshold int, none bool) error {
	switch {
	case none && n == 0 && threshold == 0:
		return nil
	case n < 1:
		return errs.New(errs.Invalid, "shares must be at least one")
	case threshold < 1:
		return errs.New(errs.Invalid, "threshold must be at least one")
	case n > 255 || threshold > 255:
		return errs.New(errs.Invalid, "shares and threshold must be at most 255")
	case threshold > n:
		return errs.New(errs.Invalid, "threshold cannot be larger than shares")
	case n > 1 && threshold == 1:
		return errs.New(errs.Invalid, "threshold must be greater than one for multiple shares")
	}
	return nil
}

// texts writes shares in both ways that clients read, and wipes them.
func texts(shares []*secret.Bytes) (inHex, inBase64 []secret.String) {
	for _, s := range shares {
		inHex = append(inHex, secret.New(hex.EncodeToString(s.Reveal())))
		inBase64 = append(inBase64, secret.New(base64.StdEncoding.EncodeToString(s.Reveal())))
		s.Wipe()
	}
	return inHex, inBase64
}

type unsealIn struct {
	Key     secret.String `json:"key" doc:"One share, in hex or base64."`
	Reset   bool          `json:"reset" doc:"Forget the shares given so far."`
	Migrate bool          `json:"migrate"`
}

func (b boot) unseal(ctx context.Context, req *route.Request, in unsealIn) (sealStatusOut, error) {
	s, err := b.cfg.State.Status(ctx)
	switch {
	case err != nil:
		return sealStatusOut{}, err
	case !s.Initialized:
		return sealStatusOut{}, errs.New(errs.Invalid, "Vault is not initialized: run `leasehold operator init` first")
	case in.Migrate:
		return sealStatusOut{}, errs.New(errs.Invalid, "there is no seal to migrate to")
	case in.Reset:
		if err := b.cfg.State.ResetUnseal(ctx); err != nil {
			return sealStatusOut{}, err
		}
		return b.sealStatus(ctx, req, route.None{})
	case in.Key.IsZero():
		return sealStatusOut{}, errs.New(errs.Invalid, "'key' must be specified in request body as JSON, or 'reset' set to true")
	}
	share, err := parseShare(in.Key)
	if err != nil {
		return sealStatusOut{}, err
	}
	if s.Sealed {
		if err := b.cfg.State.Unseal(ctx, share); err != nil {
			return sealStatusOut{}, err
		}
	}
	return b.sealStatus(ctx, req, route.None{})
}

// parseShare reads a share in hex or base64.
func parseShare(text secret.String) (*secret.Bytes, error) {
	b, err := hex.DecodeString(text.Reveal())
	if err != nil {
		b, err = base64.StdEncoding.DecodeString(text.Reveal())
	}
	if err != nil {
		return nil, errs.New(errs.Invalid, "'key' must be a valid hex or base64 string")
	}
	const least, most = 16, 256 // a root key is 32 bytes, a share one more
	if len(b) < least || len(b) > most {
		return nil, errs.New(errs.Invalid, "'key' is no share: it has %s bytes", strconv.Itoa(len(b)))
	}
	return secret.NewBytes(b), nil
}
