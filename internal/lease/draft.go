package lease

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
)

// idAlphabet has 62 characters; 24 of them are 142 bits.
const (
	idAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	idLength   = 24
)

// Draft is the identity of a lease that is about to be: its id, the mark that
// its credential will carry and randomness derived from it one way.
type Draft struct {
	path   string // of the request, with the mount: "database/creds/app"
	random string // the secret part of the id, and the namespace's suffix
	hash   string // keyed, one way; what the row's key and the mark show
	mark   string
	key    [sha256.Size]byte
}

// NewDraft draws a fresh identity. path is the mount's path and the request's
// path in it. suffix is "." and the id of a namespace that is not the root, by
// which the lease is found from outside of it too. hash is the store's keyed
// one-way function for lease ids.
func NewDraft(path, suffix string, origin Origin, hash func(string) [32]byte) *Draft {
	d := &Draft{path: strings.Trim(path, "/"), random: randomID() + suffix}
	d.key = hash("lease-draft:" + d.random)
	d.hash = hashOf(hash, d.random)
	d.mark = origin.mark(d.hash)
	return d
}

func hashOf(hash func(string) [32]byte, random string) string {
	h := hash("lease-id:" + random)
	return hex.EncodeToString(h[:16])
}

// other draws another lease at the same path: the id of one that shares the
// credential whose identity d is.
func (d *Draft) other(hash func(string) [32]byte) (random, hashed string) {
	random = randomID() + d.random[idLength:]
	return random, hashOf(hash, random)
}

// ID is what the holder of the lease is given.
func (d *Draft) ID() ID { return ID(d.path + "/" + d.random) }

// Mark is the text that the credential carries at its target: this store's
// instance, its boot epoch and the hash of the credential's id.
func (d *Draft) Mark() string { return d.mark }

// Random gives n bytes for a purpose ("username"): a keyed one-way function of
// the lease's id, never a piece of it, and the same for the same draft.
func (d *Draft) Random(purpose string, n int) []byte {
	var out []byte
	for i := 0; len(out) < n; i++ {
		m := hmac.New(sha256.New, d.key[:])
		m.Write([]byte(purpose + "\x00" + strconv.Itoa(i)))
		out = m.Sum(out)
	}
	return out[:n]
}

// Origin says whose mark it is: which store, and which start of it.
type Origin struct {
	Instance string // random, made when the store was initialised
	Epoch    uint64 // grows with each unsealing
}

func (o Origin) mark(hash string) string {
	return "leasehold:" + o.Instance + ":" + strconv.FormatUint(o.Epoch, 10) + ":" + hash
}

// IsID reports whether a text has the form of a lease's id: a path, and what was
// drawn for it.
func IsID(s string) bool {
	i := strings.LastIndexByte(s, '/')
	random, _, _ := strings.Cut(s[i+1:], ".") // without its namespace
	if i < 1 || len(random) != idLength {
		return false
	}
	return strings.Trim(random, idAlphabet) == ""
}

func randomID() string {
	var out [idLength]byte
	var buf [2 * idLength]byte
	for n := 0; n < idLength; {
		rand.Read(buf[:])
		for _, b := range buf {
			// 248 is the largest multiple of 62 in a byte: no bias.
			if b < 248 && n < idLength {
				out[n] = idAlphabet[b%62]
				n++
			}
		}
	}
	return string(out[:])
}
