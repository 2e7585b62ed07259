package mfa

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // HOTP is defined over it, and a keyed hash needs no collision resistance
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"hash"
	"net/url"
	"strconv"
	"time"
)

// Hashes are the algorithms that a method may name.
var hashes = map[string]func() hash.Hash{"SHA1": sha1.New, "SHA256": sha256.New, "SHA512": sha512.New}

// Code is the passcode of a time step (RFC 4226, 5.3). algorithm is one of
// hashes.
func Code(key []byte, step int64, digits int, algorithm string) string {
	mac := hmac.New(hashes[algorithm], key)
	var counter [8]byte
	binary.BigEndian.PutUint64(counter[:], uint64(step))
	_, _ = mac.Write(counter[:]) // a hash never fails
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 0x0f
	n := binary.BigEndian.Uint32(sum[at:]) & 0x7fffffff
	most := uint32(1)
	for range digits {
		most *= 10
	}
	return fmt.Sprintf("%0*d", digits, n%most)
}

// step is the time step that a moment is in.
func step(t time.Time, period time.Duration) int64 { return t.Unix() / int64(period/time.Second) }

// match finds the step, within skew of the present one, whose passcode a device
// has shown. It looks at all of them, so that the time it takes says nothing.
func match(key []byte, passcode string, device *secretRow, skew int, now time.Time) (found int64, ok bool) {
	present := step(now, device.Period.Duration())
	for s := present - int64(skew); s <= present+int64(skew); s++ {
		if s >= 0 && subtle.ConstantTimeCompare([]byte(Code(key, s, device.Digits, device.Algorithm)), []byte(passcode)) == 1 {
			found, ok = s, true
		}
	}
	return found, ok
}

// keyURL is how an authenticator app takes a secret in.
func keyURL(m *methodRow, account string, key []byte) string {
	q := url.Values{
		"algorithm": {m.Algorithm}, "digits": {strconv.Itoa(m.Digits)}, "issuer": {m.Issuer},
		"period": {strconv.FormatInt(int64(m.Period.Duration()/time.Second), 10)},
		"secret": {base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(key)},
	}
	u := url.URL{Scheme: "otpauth", Host: "totp", Path: "/" + m.Issuer + ":" + account, RawQuery: q.Encode()}
	return u.String()
}
