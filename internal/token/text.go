package token

import (
	"crypto/rand"
	"strings"
	"time"
)

// The text of a token that expires, and every accessor, begin with the time of
// their making in units of eight seconds, and so do the keys of their rows.
// Rows that were written at the same time lie together: the store appends to
// its end instead of rewriting all of itself for a million random keys, and
// what expires together is deleted together. The 24 characters behind are what
// is secret.
const (
	alphabet  = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	whenSize  = 5 // 62^5 times eight seconds are two centuries from 1970
	whenUnit  = 8 * time.Second
	drawnSize = 24      // 142 bits
	someTime  = "00000" // of texts that do not say: chosen by callers, roots
)

// when is the time part of a text made now.
func when(now time.Time) string {
	n := now.Unix() / int64(whenUnit/time.Second)
	var b [whenSize]byte
	for i := whenSize - 1; i >= 0; i-- {
		b[i] = alphabet[n%62]
		n /= 62
	}
	return string(b[:])
}

// whenOf reads the time part back. Whatever a caller makes up only names
// another row, which is not there.
func whenOf(body string) string {
	if i := strings.IndexByte(body, '.'); i >= 0 {
		body = body[:i] // without its namespace
	}
	if len(body) != whenSize+drawnSize {
		return someTime
	}
	for _, c := range []byte(body[:whenSize]) {
		if strings.IndexByte(alphabet, c) < 0 {
			return someTime
		}
	}
	return body[:whenSize]
}

// appendTokenKey appends the part of a token's Key behind its namespace.
func (s *Store) appendTokenKey(dst []byte, text string) []byte {
	return s.appendHash(append(dst, whenOf(strings.TrimPrefix(text, ServicePrefix))...), "token:"+text)
}

// accessorKey is where a token's accessor stands.
func (s *Store) accessorKey(ns, accessor string) string {
	return string(s.appendHash([]byte(accPrefix+ns+"/"+whenOf(accessor)), "accessor:"+accessor))
}

// randomText draws n characters of 62, without bias.
func randomText(n int) string {
	out := make([]byte, 0, n)
	var buf [48]byte
	for len(out) < n {
		rand.Read(buf[:])
		for _, b := range buf {
			if b < 248 && len(out) < n {
				out = append(out, alphabet[b%62])
			}
		}
	}
	return string(out)
}
