package token

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// An Entry is stored in a compact binary form, since there may be millions and
// one is decoded and encoded at each renewal. Version 1 is, in this order:
//
//	byte      version
//	byte      flags: 1 batch, 2 renewable
//	string    namespace, accessor, path, display name, parent, role, entity id
//	list      policies
//	list      meta, as name, value, name, value, in the order of names
//	list      bound CIDRs, as text
//	uvarint   uses
//	time      created, expires, renewed, due
//	varint    TTL, explicit max TTL, period, mount's max TTL, last given, in nanoseconds
//	string    internal, JSON
//	string    mount id, login role
//
// A string is a uvarint length and bytes; a list is a uvarint count and
// strings; a time is a varint of nanoseconds since 1970, the smallest int64
// for none. Later versions add at the end.
const (
	flagBatch     = 1
	flagRenewable = 2
	noTime        = -1 << 63
)

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendList(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendString(b, s)
	}
	return b
}

func appendTime(b []byte, t time.Time) []byte {
	switch {
	case t.IsZero():
		return binary.AppendVarint(b, noTime)
	case t.After(lastTime):
		t = lastTime // a TTL of centuries must not come round to the past
	}
	return binary.AppendVarint(b, t.UnixNano())
}

// lastTime is the last time that a row can hold.
var lastTime = time.Unix(0, 1<<63-1)

// encode is the stored form of e.
func encode(e *Entry) []byte {
	b := make([]byte, 0, 256)
	flags := byte(0)
	if e.Type == Batch {
		flags |= flagBatch
	}
	if e.Renewable {
		flags |= flagRenewable
	}
	b = append(b, rowVersion, flags)
	for _, s := range []string{e.Namespace, e.Accessor, e.Path, e.DisplayName, e.Parent, e.Role, e.EntityID} {
		b = appendString(b, s)
	}
	b = appendList(b, e.Policies)
	b = binary.AppendUvarint(b, uint64(2*len(e.Meta)))
	for _, k := range slices.Sorted(maps.Keys(e.Meta)) {
		b = appendString(appendString(b, k), e.Meta[k])
	}
	b = binary.AppendUvarint(b, uint64(len(e.BoundCIDRs)))
	for _, p := range e.BoundCIDRs {
		b = appendString(b, p.String())
	}
	b = binary.AppendUvarint(b, uint64(max(e.NumUses, 0)))
	for _, t := range []time.Time{e.Created, e.Expires, e.Renewed, e.Due} {
		b = appendTime(b, t)
	}
	for _, d := range []time.Duration{e.TTL, e.ExplicitMaxTTL, e.Period, e.MountMaxTTL, e.Given} {
		b = binary.AppendVarint(b, int64(d))
	}
	for _, s := range []string{string(e.Internal), e.MountID, e.LoginRole} {
		b = appendString(b, s)
	}
	return b
}

// Encode is e as a row holds it, for who keeps the entry of a token that is
// not made yet.
func Encode(e *Entry) []byte { return encode(e) }

// Decode reads what Encode wrote.
func Decode(b []byte) (*Entry, error) { return decode("of a token to be", b) }

// decode reads a stored Entry. key names the row in errors.
func decode(key string, b []byte) (*Entry, error) {
	if len(b) < 2 {
		return nil, fmt.Errorf("token row %s: %w", key, errShort)
	}
	if b[0] != rowVersion {
		return nil, fmt.Errorf("token row %s has version %d, which this server does not know: a newer one wrote it", key, b[0])
	}
	// One string holds all texts of the row: one allocation instead of many.
	r := reader{text: string(b), at: 2}
	e := &Entry{Type: Service, Renewable: b[1]&flagRenewable != 0}
	if b[1]&flagBatch != 0 {
		e.Type = Batch
	}
	for _, s := range []*string{&e.Namespace, &e.Accessor, &e.Path, &e.DisplayName, &e.Parent, &e.Role, &e.EntityID} {
		*s = r.str()
	}
	e.Policies = r.list()
	if meta := r.list(); len(meta)%2 != 0 {
		r.bad = true
	} else if len(meta) > 0 {
		e.Meta = make(map[string]string, len(meta)/2)
		for i := 0; i+1 < len(meta); i += 2 {
			e.Meta[meta[i]] = meta[i+1]
		}
	}
	for _, s := range r.list() {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("token row %s: %w", key, err)
		}
		e.BoundCIDRs = append(e.BoundCIDRs, p)
	}
	if uses := r.uvarint(); uses <= math.MaxInt {
		e.NumUses = int(uses)
	} else {
		r.bad = true
	}
	for _, t := range []*time.Time{&e.Created, &e.Expires, &e.Renewed, &e.Due} {
		if n := r.varint(); n != noTime {
			*t = time.Unix(0, n).UTC()
		}
	}
	for _, d := range []*time.Duration{&e.TTL, &e.ExplicitMaxTTL, &e.Period, &e.MountMaxTTL, &e.Given} {
		*d = time.Duration(r.varint())
	}
	if s := r.str(); s != "" {
		e.Internal = []byte(s)
	}
	e.MountID, e.LoginRole = r.str(), r.str()
	if r.bad {
		return nil, fmt.Errorf("token row %s: %w", key, errShort)
	}
	e.policyKey = policyKey(e)
	return e, nil
}

var errShort = errors.New("it ends too soon")

// reader takes a row apart. Once bad it gives zero values.
type reader struct {
	text string
	at   int
	bad  bool
}

func (r *reader) uvarint() uint64 {
	var n uint64
	for shift := 0; shift < 64 && r.at < len(r.text); shift += 7 {
		c := r.text[r.at]
		r.at++
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return n
		}
	}
	r.bad = true
	return 0
}

func (r *reader) varint() int64 {
	n := r.uvarint()
	return int64(n>>1) ^ -int64(n&1)
}

func (r *reader) str() string {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.text)-r.at) {
		r.bad = true
		return ""
	}
	s := r.text[r.at : r.at+int(n)]
	r.at += int(n)
	return s
}

func (r *reader) list() []string {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.text)-r.at) {
		r.bad = true
		return nil
	}
	if n == 0 {
		return nil
	}
	out := make([]string, n)
	for i := range out {
		out[i] = r.str()
	}
	return out
}

func policyKey(e *Entry) string { return PolicyKeyOf(e.Namespace, e.Policies) }

// PolicyKeyOf is the PolicyKey of a token with these policies.
func PolicyKeyOf(ns string, policies []string) string {
	return ns + "\x00" + strings.Join(policies, "\x00")
}
