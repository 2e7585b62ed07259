// Package secret holds values that redact themselves when printed, logged or
// formatted. The one way to the plain text is Reveal, a name one can search
// for; the reply encoder and the code that talks to a target are its callers.
package secret

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// String is a secret text such as a password or a token. The zero value is
// the empty secret. It marshals to its plain text in JSON only through the
// reply and storage encoders, which call Reveal.
type String struct{ v string }

// New makes a secret of s.
func New(s string) String { return String{s} }

// Reveal returns the plain text.
func (s String) Reveal() string { return s.v }

// IsZero reports whether the secret is empty; encoding/json's omitzero uses it.
func (s String) IsZero() bool { return s.v == "" }

// Equal compares in constant time.
func (s String) Equal(o String) bool {
	return subtle.ConstantTimeCompare([]byte(s.v), []byte(o.v)) == 1
}

func (s String) String() string       { return redacted }
func (s String) GoString() string     { return redacted }
func (s String) LogValue() slog.Value { return slog.StringValue(redacted) }

// Format keeps every fmt verb from reaching the text.
func (s String) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText refuses: a secret reaches a wire or a store only where code says
// Reveal.
func (s String) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// UnmarshalText takes the plain text (a request's field).
func (s *String) UnmarshalText(b []byte) error { s.v = string(b); return nil }

// Bytes is secret key material. Wipe overwrites it, as far as Go lets us.
type Bytes struct{ b []byte }

// NewBytes takes ownership of b.
func NewBytes(b []byte) *Bytes { return &Bytes{b} }

// Reveal returns the bytes themselves, not a copy.
func (s *Bytes) Reveal() []byte {
	if s == nil {
		return nil
	}
	return s.b
}

// Wipe overwrites the bytes with zeros. Calling it twice is fine.
func (s *Bytes) Wipe() {
	if s == nil {
		return
	}
	clear(s.b)
	s.b = nil
}

func (s *Bytes) String() string               { return redacted }
func (s *Bytes) GoString() string             { return redacted }
func (s *Bytes) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (s *Bytes) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(redacted)) }
func (s *Bytes) MarshalText() ([]byte, error) { return []byte(redacted), nil }
