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
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
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
//	tok/<key>                      Entry, JSON
//	alive/t/<key>                  lease.Alive, or a word for its ending
//	uses/<key>                     uses left, where they are limited
//	acc/<ns>/<hash of accessor>    accessorRow, JSON
//	kid/<parent's key>/<key>       empty: the index of children
//	due/tokens/<time>/t/<key>      empty: see package lane
//	count/t/<ns>/<part>            how many there are
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

// LiveKey is the liveness key of a token, by its Key.
func LiveKey(key string) string { return alivePrefix + key }

// Entry is a token as it is stored. Version 1.
type Entry struct {
	V              int               `json:"v"`
	Namespace      string            `json:"ns"`
	Accessor       string            `json:"acc,omitempty"`
	Type           Type              `json:"ty,omitempty"`
	Policies       []string          `json:"pol"`
	Path           string            `json:"path"` // where it was made, "auth/token/create"
	DisplayName    string            `json:"dn,omitempty"`
	Meta           map[string]string `json:"meta,omitempty"`
	Parent         string            `json:"par,omitempty"` // its Key; "" is an orphan
	Role           string            `json:"role,omitempty"`
	EntityID       string            `json:"ent,omitempty"`
	BoundCIDRs     []netip.Prefix    `json:"cidr,omitempty"`
	NumUses        int               `json:"uses,omitempty"` // as made; 0 is no limit
	Created        time.Time         `json:"c"`
	TTL            time.Duration     `json:"ttl,omitempty"` // as made
	ExplicitMaxTTL time.Duration     `json:"xttl,omitempty"`
	Period         time.Duration     `json:"per,omitempty"`
	MountMaxTTL    time.Duration     `json:"mttl,omitempty"` // the maximum that held when it was made
	Expires        time.Time         `json:"x,omitzero"`     // zero: never
	Renewed        time.Time         `json:"rn,omitzero"`
	Given          time.Duration     `json:"gv,omitempty"` // by the last renewal
	Renewable      bool              `json:"rnw,omitempty"`
	Internal       json.RawMessage   `json:"int,omitempty"` // of the auth method, for its renewal check
	Due            time.Time         `json:"d,omitzero"`    // the time in the due key

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

func policyKey(e *Entry) string { return e.Namespace + "\x00" + strings.Join(e.Policies, "\x00") }

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

func decode(key string, b []byte) (*Entry, error) {
	e := new(Entry)
	if err := json.Unmarshal(b, e); err != nil {
		return nil, fmt.Errorf("token row %s: %w", key, err)
	}
	if e.V > rowVersion {
		return nil, fmt.Errorf("token row %s has version %d, written by a newer server", key, e.V)
	}
	e.policyKey = policyKey(e)
	return e, nil
}

type accessorRow struct {
	Accessor string `json:"a"`
	Key      string `json:"k"`
}
