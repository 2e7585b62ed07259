package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// Format says how a device's records look. Devices with equal formats share
// the encoding of a record. Apart from Salt and HMACAccessor the zero value is
// what a device has by default.
type Format struct {
	Salt          secret.String // keys the HMACs
	Raw           bool          // log_raw: hash nothing
	HMACAccessor  bool          // hash accessors; on by default in ParseFormat
	ElideListings bool          // elide_list_responses: log the sizes of listings only
	Prefix        string        // stands before each record
}

// formatOptions are the options that every kind of device takes.
var formatOptions = []string{"log_raw", "hmac_accessor", "elide_list_responses", "prefix", "format"}

// ParseFormat reads the options that all devices share; the others are the
// device's own.
func ParseFormat(options map[string]string, salt secret.String) (Format, error) {
	f := Format{Salt: salt, HMACAccessor: true, Prefix: options["prefix"]}
	for name, to := range map[string]*bool{
		"log_raw": &f.Raw, "hmac_accessor": &f.HMACAccessor, "elide_list_responses": &f.ElideListings,
	} {
		if err := Bool(options, name, to); err != nil {
			return Format{}, err
		}
	}
	if strings.ContainsFunc(f.Prefix, func(r rune) bool { return r < ' ' }) {
		return Format{}, errs.New(errs.Invalid, "prefix must not hold line ends or other control characters")
	}
	switch options["format"] {
	case "", "json":
	case "jsonx":
		return Format{}, errs.New(errs.Invalid, "the XML format jsonx is not supported: leave format out, or set it to json")
	default:
		return Format{}, errs.New(errs.Invalid, "unknown audit format %q: the only one is json", options["format"])
	}
	return f, nil
}

// Bool reads the option name into to, which keeps its value where the option
// is not set.
func Bool(options map[string]string, name string, to *bool) error {
	s, ok := options[name]
	if !ok || s == "" {
		return nil
	}
	v, err := strconv.ParseBool(s)
	if err != nil {
		return errs.New(errs.Invalid, "%s must be true or false, not %q", name, s)
	}
	*to = v
	return nil
}

// Unknown lists, sorted, the options that neither all devices share nor own
// names.
func Unknown(options map[string]string, own ...string) []string {
	var unknown []string
	for name := range options {
		if !slices.Contains(formatOptions, name) && !slices.Contains(own, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// Hash is what input looks like in the records of a device with this format.
func (f Format) Hash(input string) string {
	m := hmac.New(sha256.New, []byte(f.Salt.Reveal()))
	m.Write([]byte(input))
	return hashPrefix + hex.EncodeToString(m.Sum(nil))
}

const hashPrefix = "hmac-sha256:"

// maxKept is the largest buffer kept for the next record.
const maxKept = 1 << 20

// formatter hands out encoders of one format, which are reused.
type formatter struct {
	Format
	pool sync.Pool
}

func newFormatter(f Format) *formatter {
	fm := &formatter{Format: f}
	fm.pool.New = func() any {
		e := &encoder{f: f, fm: fm, mac: hmac.New(sha256.New, []byte(f.Salt.Reveal()))}
		e.hashField = e.field
		return e
	}
	return fm
}

func (fm *formatter) get() *encoder { return fm.pool.Get().(*encoder) }

// put takes an encoder back; its buf is no longer the caller's.
func (fm *formatter) put(e *encoder) {
	if cap(e.buf) > maxKept || cap(e.plain) > maxKept {
		return
	}
	e.buf = e.buf[:0]
	fm.pool.Put(e)
}

// encoder appends records of one format to buf. It is used by one goroutine at
// a time.
type encoder struct {
	f         Format
	fm        *formatter
	buf       []byte
	mac       hash.Hash
	plain     []byte   // a secret's bytes while it is hashed; wiped after
	sum       []byte   // its HMAC
	nonHMAC   []string // the keys not to hash in the part being written
	eliding   bool
	hashField wire.Hasher // e.field, bound once and not per record
}

// field is the Hasher that data is given.
func (e *encoder) field(field string, isSecret bool, s string) string {
	switch {
	case e.f.Raw:
		return s
	case e.eliding && field == "keys":
		return "" // only counted
	case !isSecret && slices.Contains(e.nonHMAC, field):
		return s
	}
	return string(e.appendHash(nil, s))
}

// appendHash appends the HMAC of s in its readable form.
func (e *encoder) appendHash(dst []byte, s string) []byte {
	if dst == nil {
		dst = make([]byte, 0, len(hashPrefix)+2*sha256.Size)
	}
	e.plain = append(e.plain[:0], s...)
	e.mac.Reset()
	e.mac.Write(e.plain)
	clear(e.plain)
	e.sum = e.mac.Sum(e.sum[:0])
	dst = append(dst, hashPrefix...)
	return hex.AppendEncode(dst, e.sum)
}
