package config

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/leasehold/leasehold/internal/secret"
)

// Seal says how the server is unsealed.
type Seal struct {
	Pos      Pos
	Kind     string      // "shamir", "static" or "transit"; never empty
	Current  Key         // of the static seal: what everything is sealed with
	Previous Key         // what it was sealed with before, while the key is being changed; zero: none
	Transit  SealTransit // of the transit seal
}

// Key is a key of the static seal, of 32 bytes. The zero Key is none.
type Key struct {
	ID     string        // tells keys apart; not secret
	Source secret.String // where the key is, or the key itself
}

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k.Source.IsZero() }

// keyBytes is the length of a key: AES-256's.
const keyBytes = 32

// Load reads the key from where the configuration says it is: in a file
// ("file:///path"), in the environment ("env://NAME") or in the configuration
// itself. A file holds the 32 bytes as they are, or, like the other two, in
// hex or base64.
func (k Key) Load() (*secret.Bytes, error) {
	src := k.Source.Reveal()
	if path, ok := strings.CutPrefix(src, "file://"); ok {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("reading the seal's key %s: %w", k.ID, err)
		}
		raw, err := io.ReadAll(io.LimitReader(f, 1024))
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("reading the seal's key %s: %w", k.ID, err)
		}
		if len(raw) == keyBytes {
			return secret.NewBytes(raw), nil
		}
		return decodeKey(string(raw), fmt.Sprintf("the file %s", path))
	}
	if name, ok := strings.CutPrefix(src, "env://"); ok {
		v := os.Getenv(name)
		if v == "" {
			return nil, fmt.Errorf("the seal's key %s: the environment has no %s", k.ID, name)
		}
		return decodeKey(v, fmt.Sprintf("the environment's %s", name))
	}
	return decodeKey(src, "the configuration")
}

// decodeKey reads 32 bytes in hex or base64.
func decodeKey(s, where string) (*secret.Bytes, error) {
	s = strings.TrimSpace(s)
	for _, decode := range []func(string) ([]byte, error){
		hex.DecodeString, base64.StdEncoding.DecodeString, base64.RawStdEncoding.DecodeString, base64.URLEncoding.DecodeString,
	} {
		if b, err := decode(s); err == nil && len(b) == keyBytes {
			return secret.NewBytes(b), nil
		}
	}
	return nil, fmt.Errorf("%s does not hold a key of %d bytes, in hex or base64; make one with: openssl rand -hex 32", where, keyBytes)
}

var sealFields = fields[Seal]{
	"current_key":     readKey(func(s *Seal) *Key { return &s.Current }),
	"current_key_id":  str(func(s *Seal) *string { return &s.Current.ID }),
	"previous_key":    readKey(func(s *Seal) *Key { return &s.Previous }),
	"previous_key_id": str(func(s *Seal) *string { return &s.Previous.ID }),
	"key_file":        refused[Seal](`write current_key = "file:///path" and current_key_id`),
	"key_env":         refused[Seal](`write current_key = "env://NAME" and current_key_id`),
	"name":            unused[Seal]("there is one seal"),
	"priority":        unused[Seal]("there is one seal"),
	"disabled":        readDisabled,
}

func readKey(at func(*Seal) *Key) field[Seal] {
	return func(d *decoder, m member, to *Seal) {
		s, ok := scalar(d, m)
		if !ok {
			return
		}
		if s != "" && !strings.HasPrefix(s, "file://") && !strings.HasPrefix(s, "env://") {
			d.warn(m.pos, "%s stands in the configuration itself, for all to read who may read that; better: \"file:///path\" or \"env://NAME\"", m.name)
			if _, err := decodeKey(s, m.name); err != nil {
				d.fail(m.value.pos, "%v", err)
			}
		}
		at(to).Source = secret.New(s)
	}
}

func readDisabled(d *decoder, m member, _ *Seal) {
	if v, ok := d.boolean(m); ok && v {
		d.fail(m.pos, "a disabled seal is not supported: leave its block out, and give enough shares once, which also gives the seal that is configured its key (of seal \"static\" an old key may be named in previous_key)")
	}
}

func readSeal(d *decoder, m member, to *Config) {
	all := d.blocks(m)
	if len(all) > 1 {
		d.fail(all[1].pos, "there is one seal only, and it is at %s", all[0].pos)
	}
	if len(all) != 1 {
		return
	}
	b := all[0]
	s := Seal{Pos: b.pos, Kind: b.label}
	switch b.label {
	case "shamir":
		readMembers(d, "seal shamir", fields[Seal]{"disabled": readDisabled}, b.body, &s)
	case "static":
		readMembers(d, "seal static", sealFields, b.body, &s)
		d.judgeStatic(s)
	case "transit":
		readMembers(d, "seal transit", sealTransitFields, b.body, &s)
	default:
		d.fail(b.pos, `seal %q is not available yet: write seal "static" { current_key_id = "1", current_key = "file:///path" }, or seal "transit", or leave the seal out and unseal with Shamir shares`, b.label)
		return
	}
	to.Seal = s
}

func (d *decoder) judgeStatic(s Seal) {
	switch {
	case s.Current.IsZero() || s.Current.ID == "":
		d.fail(s.Pos, `seal "static" needs current_key_id, any name, and current_key: "file:///path" or "env://NAME"`)
	case s.Previous.IsZero() != (s.Previous.ID == ""):
		d.fail(s.Pos, "previous_key and previous_key_id go together")
	case s.Previous.ID == s.Current.ID:
		d.fail(s.Pos, "current_key_id and previous_key_id are both %q: a new key needs a new id", s.Current.ID)
	}
}
