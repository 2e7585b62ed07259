// Package token keeps the tokens that callers show: service tokens as rows,
// batch tokens as ciphertexts that only this store can have made.
//
// A token lives only if it and every ancestor do, by row and by clock. That is
// judged at each use, from a cache that the store's Watch keeps true; due work
// only cleans up. Ending a token writes one mark on its liveness key, a key
// that renewals and use counts do not touch; from then on nothing can be
// issued under it, and everything under it reads as ended.
//
// Rows are found by a keyed hash of the token's text. The text itself is
// stored nowhere.
package token

import (
	"net/netip"
	"time"

	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/secret"
)

// Type is the kind of a token.
type Type uint8

// The kinds. The zero value is a service token.
const (
	Service Type = iota
	Batch
)

func (t Type) String() string {
	if t == Batch {
		return "batch"
	}
	return "service"
}

// What tokens look like, so that the tools of people who scan for leaked
// secrets know them.
const (
	ServicePrefix  = "hvs."
	BatchPrefix    = "hvb."
	RecoveryPrefix = "hvr."
)

// Target is the lane of tokens, and DueKind their kind of due work.
const (
	Target  = "tokens"
	DueKind = "t"
)

// What is stored, and under which keys. <key> is <namespace>/<hash of the text>.
//
//	tok/<key>                      Entry, see codec.go
//	alive/t/<key>                  lease.Alive, or a word for its ending
//	uses/<key>                     uses left, where they are limited
//	acc/<ns>/<hash of accessor>    the accessor, a space, and the token's key
//	kid/<parent's key>/<key>       empty: the index of children
//	due/tokens/<time>/t/<key>      empty: see package lane
//	count/t/<ns>/<mount>/<role>/<part>  how many there are, by where they came in
const (
	rowPrefix   = "tok/"
	alivePrefix = "alive/t/"
	usesPrefix  = "uses/"
	accPrefix   = "acc/"
	kidPrefix   = "kid/"
	countPrefix = "count/t/"
	rowVersion  = 1
)

// orphaning is the word on the liveness key of a token that ends while its
// children live on.
const orphaning = "orphaning"

// lapsed is the word of a token whose time ran out, or that of one above it:
// nobody has revoked it.
const lapsed = "lapsed"

// LiveKey is the liveness key of a token, by its Key.
func LiveKey(key string) string { return alivePrefix + key }

// Entry is a token. codec.go has its stored form.
type Entry struct {
	Namespace      string
	Accessor       string
	Type           Type
	Policies       []string
	Path           string // where it was made, "auth/token/create"
	DisplayName    string
	Meta           map[string]string
	Parent         string // its Key; "" is an orphan
	Role           string
	EntityID       string
	BoundCIDRs     []netip.Prefix
	NumUses        int // as made; 0 is no limit
	Created        time.Time
	TTL            time.Duration // as made
	ExplicitMaxTTL time.Duration
	Period         time.Duration
	MountMaxTTL    time.Duration // the maximum that held when it was made
	Expires        time.Time     // zero: never
	Renewed        time.Time
	Given          time.Duration // by the last renewal
	Renewable      bool
	Internal       []byte    // of the auth method, for its renewal check
	Due            time.Time // the time in the due key
	// MountID is the auth mount that gave it, and LoginRole the role of the
	// method that it was given for, where it has roles: quotas count by them.
	MountID, LoginRole string

	policyKey string
}

// PolicyKey names the set of its policies: tokens with equal keys may share a
// compiled set.
func (e *Entry) PolicyKey() string {
	if e.policyKey == "" {
		return policyKey(e)
	}
	return e.policyKey
}

// Token is a token that was shown and found alive.
type Token struct {
	*Entry
	Key  string // keyed hash of its text with the namespace; a batch token has one too
	Text secret.String
}

// Root reports whether the root policy is among its policies.
func (e *Entry) Root() bool {
	for _, p := range e.Policies {
		if p == "root" {
			return true
		}
	}
	return false
}

// TTLLeft is the rest of its life in whole seconds, zero for one that never
// expires.
func (e *Entry) TTLLeft(now time.Time) time.Duration {
	if e.Expires.IsZero() {
		return 0
	}
	return max(e.Expires.Sub(now).Round(time.Second), 0)
}

func (e *Entry) dueKey(key string) string { return lane.Key(Target, e.Due, DueKind, key) }
