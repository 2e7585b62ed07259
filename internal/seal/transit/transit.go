// Package transit opens a store by a key of the Transit engine of another
// server: the root key is encrypted by it, and only that server can tell what
// is in it.
//
// The other server is asked when this one opens, is initialised or is rekeyed,
// and at no other time: while it is away, a server that is open stays open. Run
// keeps the token alive in between.
package transit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/leasehold/leasehold/api"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
)

// timeout of a request. A server that is away is asked again by who needs it.
const timeout = 10 * time.Second

// Config says where the key is.
type Config struct {
	Client api.Config                    // the other server; its Token is not looked at
	Token  func() (secret.String, error) // read for each request, so that a new one can be put in place
	Mount  string                        // of the Transit engine; "" is transit
	Key    string                        // must be set
	Log    *slog.Logger                  // nil logs nothing
}

// Seal is a Wrapper whose key another server has.
type Seal struct {
	cfg    Config
	client *api.Client
}

var _ seal.Wrapper = (*Seal)(nil)

// New makes the wrapper. The other server is not asked yet.
func New(cfg Config) (*Seal, error) {
	cfg.Mount = strings.Trim(cfg.Mount, "/")
	if cfg.Mount == "" {
		cfg.Mount = "transit"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	switch {
	case cfg.Client.Address == "":
		return nil, errors.New(`seal "transit" needs address, the URL of the server that has the key`)
	case cfg.Key == "":
		return nil, errors.New(`seal "transit" needs key_name, a key of the Transit engine there`)
	case strings.Contains(cfg.Key, "/"):
		return nil, fmt.Errorf(`seal "transit": key_name is a name and %q a path; mount_path says where the engine is`, cfg.Key)
	}
	cfg.Client.Token, cfg.Client.WrapTTL, cfg.Client.Timeout = "", "", timeout
	c, err := api.New(cfg.Client)
	if err != nil {
		return nil, fmt.Errorf(`seal "transit": %w`, err)
	}
	return &Seal{cfg, c}, nil
}

// Kind is "transit".
func (s *Seal) Kind() string { return "transit" }

// What is sent and answered; JSON has the bytes in base64.
type plaintext struct {
	Plaintext []byte `json:"plaintext"`
}

type ciphertext struct {
	Ciphertext string `json:"ciphertext"`
}

// Wrap has key encrypted by the newest version. keyID names mount, key and
// version, so that the slot is made anew after a rotation.
func (s *Seal) Wrap(ctx context.Context, key []byte) (wrapped []byte, keyID string, err error) {
	var out ciphertext
	if err := s.ask(ctx, "encrypt", plaintext{key}, &out); err != nil {
		return nil, "", err
	}
	parts := strings.SplitN(out.Ciphertext, ":", 3) // vault:v3:…
	if len(parts) < 3 {
		return nil, "", errs.New(errs.Upstream, "%s answered an encryption with something that is no ciphertext", s.client.Address())
	}
	return []byte(out.Ciphertext), fmt.Sprintf("%s/%s:%s", s.cfg.Mount, s.cfg.Key, parts[1]), nil
}

// Unwrap has it decrypted. The ciphertext itself says by which version.
func (s *Seal) Unwrap(ctx context.Context, wrapped []byte, keyID string) ([]byte, error) {
	var out plaintext
	if err := s.ask(ctx, "decrypt", ciphertext{string(wrapped)}, &out); err != nil {
		if errs.Is(err, errs.Upstream) {
			return nil, fmt.Errorf("%w (it was sealed by %s)", err, keyID)
		}
		return nil, err
	}
	if len(out.Plaintext) != seal.KeySize {
		return nil, errs.New(errs.Upstream, "%s decrypted %d bytes, want a key of %d", s.client.Address(), len(out.Plaintext), seal.KeySize)
	}
	return out.Plaintext, nil
}

func (s *Seal) ask(ctx context.Context, operation string, in, out any) error {
	token, err := s.cfg.Token()
	if err != nil {
		return errs.Wrap(errs.Upstream, err, "the token of the transit seal cannot be read")
	}
	path := s.cfg.Mount + "/" + operation + "/" + s.cfg.Key
	reply, err := s.client.WithToken(token.Reveal()).Write(ctx, path, in)
	if err != nil {
		return s.explain(err, path)
	}
	if reply == nil {
		return errs.New(errs.Upstream, "%s answered nothing", s.client.Address())
	}
	return errs.Wrap(errs.Upstream, reply.Decode(out), "%s answered what Transit does not", s.client.Address())
}

// explain says what to look at. Unavailable is what may pass by itself, and
// Upstream what somebody has to see to.
func (s *Seal) explain(err error, path string) error {
	at := s.client.Address()
	refused := (*api.Error)(nil)
	if !errors.As(err, &refused) {
		return errs.Wrap(errs.Unavailable, err, "the server of the transit seal, %s, does not answer", at)
	}
	said := fmt.Errorf("it answered %d: %s", refused.Status, strings.Join(refused.Errors, "; "))
	missing := strings.Contains(said.Error(), "key not found") || strings.Contains(said.Error(), "no key")
	switch status := refused.Status; {
	case status == http.StatusServiceUnavailable:
		return errs.Wrap(errs.Unavailable, said, "the server of the transit seal, %s, is sealed or not ready", at)
	case status == http.StatusTooManyRequests, status >= 500:
		return errs.Wrap(errs.Unavailable, said, "the server of the transit seal, %s, cannot answer now", at)
	case status == http.StatusForbidden:
		return errs.Wrap(errs.Upstream, said, "the server of the transit seal, %s, refuses the token: it must be valid there, and its policies must grant update on %s/encrypt/%s and %[2]s/decrypt/%[3]s",
			at, s.cfg.Mount, s.cfg.Key)
	case status == http.StatusNotFound:
		return errs.Wrap(errs.Upstream, said, "the server of the transit seal, %s, has no Transit engine at %s/: see mount_path and namespace", at, s.cfg.Mount)
	case missing:
		return errs.Wrap(errs.Upstream, said, "the server of the transit seal, %s, has no key %s in %s/: restore it there, or unseal with the recovery keys", at, s.cfg.Key, s.cfg.Mount)
	}
	return errs.Wrap(errs.Upstream, said, "the server of the transit seal, %s, refuses %s: if the key is another one now, unseal with the recovery keys", at, path)
}
