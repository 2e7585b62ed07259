package cert

import (
	"context"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// config are the mount's settings. Version 1. Without a row it is
// defaultConfig.
type config struct {
	V              int  `json:"v"`
	DisableBinding bool `json:"nobind,omitempty"`
	AliasMetadata  bool `json:"meta,omitempty"`
	OCSPCacheSize  int  `json:"ocsp"`
	RoleCacheSize  int  `json:"roles"`
}

const (
	configVersion = 1
	maxCache      = 100_000 // entries of a cache
)

var defaultConfig = config{V: configVersion, OCSPCacheSize: 100, RoleCacheSize: 200}

type configIn struct {
	DisableBinding wire.Opt[bool] `json:"disable_binding" doc:"Renew tokens without asking for the certificate that they were given for."`
	AliasMetadata  wire.Opt[bool] `json:"enable_identity_alias_metadata" doc:"Keep what is known of the certificate with the identity's alias too."`
	OCSPCacheSize  wire.Opt[int]  `json:"ocsp_cache_size" doc:"How many answers of OCSP responders are remembered, 2 to 100000; 100 unless said otherwise."`
	RoleCacheSize  wire.Opt[int]  `json:"role_cache_size" doc:"Taken for Vault's clients: all roles are kept ready. -1 to 100000."`
}

type configOut struct {
	DisableBinding bool `json:"disable_binding"`
	AliasMetadata  bool `json:"enable_identity_alias_metadata"`
	OCSPCacheSize  int  `json:"ocsp_cache_size"`
	RoleCacheSize  int  `json:"role_cache_size"`
}

func getConfig(r storage.Reader) (config, error) {
	c := defaultConfig
	b, err := r.Get(rowConfig)
	if err != nil || b == nil {
		return c, err
	}
	if err := wire.Unmarshal(b, &c); err != nil {
		return c, err
	}
	if c.V > configVersion {
		return c, errs.New(errs.Internal, "the settings have version %d, written by a newer server", c.V)
	}
	return c, nil
}

func (e *Engine) readConfig(ctx context.Context, _ *route.Request, _ route.None) (out configOut, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		c, err := getConfig(v)
		out = configOut{c.DisableBinding, c.AliasMetadata, c.OCSPCacheSize, c.RoleCacheSize}
		return err
	})
	return out, err
}

func (e *Engine) writeConfig(ctx context.Context, _ *route.Request, in configIn) (route.None, error) {
	if n := in.OCSPCacheSize.Or(defaultConfig.OCSPCacheSize); n < 2 || n > maxCache {
		return route.None{}, errs.New(errs.Invalid, "invalid ocsp_cache_size, must be >= 2 and <= %d", maxCache)
	}
	if n := in.RoleCacheSize.Or(defaultConfig.RoleCacheSize); n < -1 || n > maxCache {
		return route.None{}, errs.New(errs.Invalid, "invalid role_cache_size, must be >= -1 and <= %d", maxCache)
	}
	return route.None{}, e.change(ctx, func(tx storage.Tx) error {
		c, err := getConfig(tx)
		if err != nil {
			return err
		}
		c.V = configVersion
		in.DisableBinding.Apply(&c.DisableBinding)
		in.AliasMetadata.Apply(&c.AliasMetadata)
		in.OCSPCacheSize.Apply(&c.OCSPCacheSize)
		in.RoleCacheSize.Apply(&c.RoleCacheSize)
		return tx.Put(rowConfig, wire.Marshal(&c))
	})
}
