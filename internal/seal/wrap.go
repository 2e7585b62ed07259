package seal

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/leasehold/leasehold/internal/secret"
)

// A wrapped key, version 1:
//
//	1 byte    version
//	16 bytes  salt: key = HKDF-SHA256(wrapping key, salt, infoWrap)
//	12 bytes  nonce, random
//	n bytes   AES-256-GCM(key, nonce, root key), associated data: the version, then the slot's kind
//	16 bytes  tag
const (
	saltSize, nonceSize = 16, 12
	wrapHeader          = 1 + saltSize + nonceSize
	infoWrap            = "leasehold/seal/1/wrap"
)

func wrap(kek, key []byte, kind string) ([]byte, error) {
	out := append([]byte{version}, random(saltSize+nonceSize)...)
	aead, err := wrapAEAD(kek, out[1:1+saltSize])
	if err != nil {
		return nil, err
	}
	return aead.Seal(out, out[1+saltSize:], key, wrapAAD(kind)), nil
}

func unwrap(kek, wrapped []byte, kind string) ([]byte, error) {
	if len(wrapped) < wrapHeader || wrapped[0] != version {
		return nil, errors.New("the wrapped key is damaged")
	}
	aead, err := wrapAEAD(kek, wrapped[1:1+saltSize])
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, wrapped[1+saltSize:wrapHeader], wrapped[wrapHeader:], wrapAAD(kind))
}

func wrapAAD(kind string) []byte { return append([]byte{version}, kind...) }

func wrapAEAD(kek, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, kek, salt, infoWrap, KeySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// StaticConfig names the keys of a static seal, as the configuration file
// does: a key is 32 bytes, as they are or as hex or base64 text, and stands in
// a file ("file:///path"), in an environment variable ("env://NAME"), or right
// there.
type StaticConfig struct {
	CurrentKeyID  string
	CurrentKey    string
	PreviousKeyID string // optional: what opens a store that the current key has not sealed yet
	PreviousKey   string
}

// Static is a Wrapper with a key that lies beside the server.
type Static struct {
	current, previous staticKey
}

type staticKey struct {
	id  string
	key *secret.Bytes
}

var _ Wrapper = (*Static)(nil)

// NewStatic reads the keys. The error is a sentence for the operator and does
// not show a key.
func NewStatic(c StaticConfig) (*Static, error) {
	if c.CurrentKey == "" || c.CurrentKeyID == "" {
		return nil, errors.New(`seal "static" needs current_key and current_key_id`)
	}
	if (c.PreviousKey == "") != (c.PreviousKeyID == "") {
		return nil, errors.New(`seal "static" needs previous_key and previous_key_id together, or neither`)
	}
	if c.PreviousKeyID == c.CurrentKeyID {
		return nil, errors.New(`seal "static": current_key_id and previous_key_id must differ`)
	}
	s := &Static{}
	for _, k := range []struct {
		into           *staticKey
		name, id, from string
	}{{&s.current, "current_key", c.CurrentKeyID, c.CurrentKey}, {&s.previous, "previous_key", c.PreviousKeyID, c.PreviousKey}} {
		if k.from == "" {
			continue
		}
		key, err := readKey(k.from)
		if err != nil {
			return nil, fmt.Errorf(`seal "static": %s: %w`, k.name, err)
		}
		*k.into = staticKey{k.id, secret.NewBytes(key)}
	}
	return s, nil
}

func readKey(from string) ([]byte, error) {
	text := []byte(from)
	if path, ok := strings.CutPrefix(from, "file://"); ok {
		var err error
		if text, err = os.ReadFile(path); err != nil {
			return nil, err
		}
	} else if name, ok := strings.CutPrefix(from, "env://"); ok {
		value, set := os.LookupEnv(name)
		if !set {
			return nil, fmt.Errorf("the environment variable %s is not set", name)
		}
		text = []byte(value)
	}
	if len(text) == KeySize {
		return text, nil
	}
	trimmed := string(bytes.TrimSpace(text))
	for _, decode := range []func(string) ([]byte, error){
		hex.DecodeString, base64.StdEncoding.DecodeString, base64.RawStdEncoding.DecodeString,
		base64.URLEncoding.DecodeString, base64.RawURLEncoding.DecodeString,
	} {
		if key, err := decode(trimmed); err == nil && len(key) == KeySize {
			return key, nil
		}
	}
	return nil, errors.New("it must be 32 bytes, raw or as hex or base64; make one with `openssl rand -base64 32`")
}

// Kind is "static".
func (s *Static) Kind() string { return "static" }

// Wrap wraps with the current key.
func (s *Static) Wrap(_ context.Context, key []byte) (wrapped []byte, keyID string, err error) {
	wrapped, err = wrap(s.current.key.Reveal(), key, s.Kind())
	return wrapped, s.current.id, err
}

// Unwrap unwraps with the key of that id, and otherwise with any: an id may
// have been given another name.
func (s *Static) Unwrap(_ context.Context, wrapped []byte, keyID string) ([]byte, error) {
	for _, k := range []staticKey{s.current, s.previous} {
		if k.key == nil {
			continue
		}
		if key, err := unwrap(k.key.Reveal(), wrapped, s.Kind()); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("the key given does not open it; it was sealed with the key %q. "+
		"Give that key as current_key, or as previous_key beside a new one, or unseal with shares", keyID)
}
