package server

import (
	"context"
	"encoding/hex"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"github.com/leasehold/leasehold/api"
	"github.com/leasehold/leasehold/internal/config"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/seal/transit"
	"github.com/leasehold/leasehold/internal/secret"
)

// wrappersOf are the keys that open the store without people.
func wrappersOf(conf config.Seal, log *slog.Logger) ([]seal.Wrapper, error) {
	var w seal.Wrapper
	var err error
	switch conf.Kind {
	case "static":
		w, err = staticSeal(conf)
	case "transit":
		w, err = transitSeal(conf.Transit, log)
	default:
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []seal.Wrapper{w}, nil
}

func staticSeal(conf config.Seal) (*seal.Static, error) {
	sc := seal.StaticConfig{CurrentKeyID: conf.Current.ID, PreviousKeyID: conf.Previous.ID}
	for _, k := range []struct {
		key  config.Key
		into *string
	}{{conf.Current, &sc.CurrentKey}, {conf.Previous, &sc.PreviousKey}} {
		if k.key.IsZero() {
			continue
		}
		b, err := k.key.Load()
		if err != nil {
			return nil, err
		}
		*k.into = hex.EncodeToString(b.Reveal())
		b.Wipe()
	}
	return seal.NewStatic(sc)
}

// transitSeal takes what the configuration leaves out from the environment, as
// Vault does.
func transitSeal(conf config.SealTransit, log *slog.Logger) (seal.Wrapper, error) {
	client, err := api.ConfigFromEnv(os.Getenv)
	if err != nil {
		return nil, err
	}
	env := func(name string) string { return api.LookupEnv(os.Getenv, "TRANSIT_SEAL_"+name) }
	key, mount := env("KEY_NAME"), env("MOUNT_PATH")
	for _, o := range []struct {
		to   *string
		from string
	}{
		{&client.Address, conf.Address}, {&client.Namespace, conf.Namespace}, {&key, conf.Key}, {&mount, conf.Mount},
		{&client.TLS.CACert, conf.CACert}, {&client.TLS.ClientCert, conf.ClientCert}, {&client.TLS.ClientKey, conf.ClientKey},
		{&client.TLS.ServerName, conf.ServerName},
	} {
		if o.from != "" {
			*o.to = o.from
		}
	}
	client.TLS.SkipVerify = client.TLS.SkipVerify || conf.SkipVerify
	token := conf.LoadToken
	if conf.Token.IsZero() {
		given := secret.New(client.Token)
		token = func() (secret.String, error) { return given, nil }
	}
	w, err := transit.New(transit.Config{Client: client, Token: token, Mount: mount, Key: key, Log: log})
	if err != nil {
		return nil, err
	}
	if conf.DisableRenewal || env("DISABLE_RENEWAL") == "true" {
		return struct{ seal.Wrapper }{w}, nil // without Run
	}
	return w, nil
}

// Another server that has the seal's key is asked again after some time, which
// doubles from the first to the last of these.
const (
	askAgainFirst = time.Second
	askAgainLast  = 30 * time.Second
)

// unseal opens the server where it has a key of its own. It reports whether to
// try again: the key is another server's, which does not give it now.
func (s *Server) unseal(ctx context.Context) (waits bool) {
	opened, err := s.core.AutoUnseal(ctx)
	if err != nil {
		waits = errs.Is(err, errs.Unavailable) || errs.Is(err, errs.Upstream)
		// Not fatal: people's shares still open it, and health says sealed.
		if waits {
			s.cfg.Log.Warn("the server stays sealed until its seal's server opens it; it is asked again and again", "error", err)
		} else {
			s.cfg.Log.Error("the server stays sealed", "error", err)
		}
		return waits
	}
	initialized, sealed, err := s.core.Health(ctx)
	switch {
	case opened || err != nil || !sealed:
	case !initialized:
		s.cfg.Log.Info("the store is new: run `leasehold operator init`")
	case s.conf.Seal.Kind == seal.Shamir:
		s.cfg.Log.Info("the server is sealed: open it with `leasehold operator unseal`")
	default:
		s.cfg.Log.Warn("the server stays sealed: its store was not sealed with this seal's key yet; unseal it with shares once")
	}
	return false
}

// unsealLater tries until the server is open, by its key or by people's shares.
func (s *Server) unsealLater(ctx context.Context) {
	said, when := "", time.Time{}
	for wait := askAgainFirst; ; wait = min(2*wait, askAgainLast) {
		select {
		case <-time.After(wait/2 + rand.N(wait/2)):
		case <-ctx.Done():
			return
		}
		opened, err := s.core.AutoUnseal(ctx)
		switch {
		case opened && err == nil, ctx.Err() != nil:
			return
		case opened:
			s.cfg.Log.Error("the server is open, but its seal's slot could not be written anew", "error", err)
			return
		case err != nil && (err.Error() != said || time.Since(when) > 5*time.Minute):
			s.cfg.Log.Warn("the server is still sealed and waits for its seal's server", "error", err)
			said, when = err.Error(), time.Now()
		}
	}
}
