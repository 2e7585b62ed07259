package wire

import (
	"encoding"
	"encoding/base64"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"
)

func planTTL(p *plan) {
	p.text = func(q unsafe.Pointer, s string) error {
		d, err := ParseTTL(s)
		*(*TTL)(q) = TTL(d)
		return err
	}
	p.json = func(q unsafe.Pointer, v Value) error {
		if v.Kind() != Number {
			return wrong("a duration", v)
		}
		n, err := whole(v)
		if err != nil {
			return err
		}
		d, err := seconds(n)
		*(*TTL)(q) = TTL(d)
		return err
	}
	p.null = func(q unsafe.Pointer) { *(*TTL)(q) = 0 }
	p.app = func(dst []byte, q unsafe.Pointer, _ *hashing) []byte {
		return strconv.AppendInt(dst, int64(time.Duration(*(*TTL)(q))/time.Second), 10)
	}
	p.empty = func(q unsafe.Pointer) bool { return *(*TTL)(q) == 0 }
}

func planStrings(p *plan, split func(string) []string, trim bool) {
	p.schema = "array"
	p.text = func(q unsafe.Pointer, s string) error { *(*[]string)(q) = split(s); return nil }
	p.json = func(q unsafe.Pointer, v Value) error {
		if v.Kind() != Array {
			s, ok := v.Text()
			if !ok {
				return wrong("a list of strings", v)
			}
			return p.text(q, s)
		}
		out := []string{}
		for e := range v.Elements() {
			s, ok := e.Text()
			if !ok {
				return wrong("a string in the list", e)
			}
			if trim {
				s = strings.TrimSpace(s)
			}
			out = append(out, s)
		}
		*(*[]string)(q) = out
		return nil
	}
	p.null = func(q unsafe.Pointer) { *(*[]string)(q) = nil }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte {
		dst = append(dst, '[')
		for i, s := range *(*[]string)(q) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = h.text(dst, s, false)
		}
		return append(dst, ']')
	}
	p.empty = func(q unsafe.Pointer) bool { return len(*(*[]string)(q)) == 0 }
}

func planKV(p *plan) {
	p.schema = "object"
	p.text = func(q unsafe.Pointer, s string) error {
		out := KV{}
		if s != "" {
			if err := out.pair(s); err != nil {
				return err
			}
		}
		*(*KV)(q) = out
		return nil
	}
	p.json = func(q unsafe.Pointer, v Value) error {
		out := KV{}
		switch v.Kind() {
		case Array:
			for e := range v.Elements() {
				s, ok := e.Text()
				if !ok {
					return wrong("a text key=value in the list", e)
				}
				if err := out.pair(s); err != nil {
					return err
				}
			}
		case Obj:
			for k, e := range Object(v).All() {
				s, ok := e.Text()
				if !ok && e.Kind() != Null {
					return wrong("a string for each key", e)
				}
				out[k] = s
			}
		default:
			return wrong("an object of strings", v)
		}
		*(*KV)(q) = out
		return nil
	}
	p.null = func(q unsafe.Pointer) { *(*KV)(q) = nil }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte { return appendStringMap(dst, *(*KV)(q), h) }
	p.empty = func(q unsafe.Pointer) bool { return len(*(*KV)(q)) == 0 }
}

func (m KV) pair(s string) error {
	k, v, ok := strings.Cut(s, "=")
	if !ok {
		return errors.New("expected key=value")
	}
	m[k] = v
	return nil
}

func appendStringMap(dst []byte, m map[string]string, h *hashing) []byte {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	dst = append(dst, '{')
	top := h.enter()
	for i, k := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, k), ':')
		h.at(top, k)
		dst = h.text(dst, m[k], false)
	}
	h.leave(top)
	return append(dst, '}')
}

func planValue(p *plan) {
	p.schema = ""
	p.json = func(q unsafe.Pointer, v Value) error {
		*(*Value)(q) = compact(make([]byte, 0, len(v)), v)
		return nil
	}
	p.text = func(q unsafe.Pointer, s string) error { *(*Value)(q) = Quote(s); return nil }
	p.null = func(q unsafe.Pointer) { *(*Value)(q) = Value("null") }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte { return h.value(dst, *(*Value)(q)) }
	p.empty = func(q unsafe.Pointer) bool { return len(*(*Value)(q)) == 0 }
}

func planObject(p *plan) {
	p.schema = "object"
	p.json = func(q unsafe.Pointer, v Value) error {
		o, err := v.object()
		if err != nil {
			return wrong("an object", v)
		}
		*(*Object)(q) = o
		return nil
	}
	p.null = func(q unsafe.Pointer) { *(*Object)(q) = nil }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte { return h.value(dst, *(*Value)(q)) }
	p.empty = func(q unsafe.Pointer) bool { return len(*(*Object)(q)) == 0 }
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, errors.New("expected a time such as 2006-01-02T15:04:05Z")
	}
	return t.UTC(), nil
}

func planWhen(p *plan) {
	p.text = func(q unsafe.Pointer, s string) (err error) {
		if s == "" {
			*(*Time)(q) = Time{}
			return nil
		}
		(*Time)(q).Time, err = parseTime(s)
		return err
	}
	p.json = func(_ unsafe.Pointer, v Value) error { return wrong("a time", v) }
	p.null = func(q unsafe.Pointer) { *(*Time)(q) = Time{} }
	p.app = func(dst []byte, q unsafe.Pointer, _ *hashing) []byte { return (*Time)(q).append(dst) }
	p.empty = func(q unsafe.Pointer) bool { return (*Time)(q).IsZero() }
}

func (t Time) append(dst []byte) []byte {
	dst = append(dst, '"')
	if !t.IsZero() {
		dst = t.UTC().AppendFormat(dst, time.RFC3339Nano)
	}
	return append(dst, '"')
}

func planTime(p *plan) {
	p.text = func(q unsafe.Pointer, s string) (err error) {
		if s == "" {
			*(*time.Time)(q) = time.Time{}
			return nil
		}
		*(*time.Time)(q), err = parseTime(s)
		return err
	}
	p.json = func(_ unsafe.Pointer, v Value) error { return wrong("a time", v) }
	p.null = func(q unsafe.Pointer) { *(*time.Time)(q) = time.Time{} }
	p.app = func(dst []byte, q unsafe.Pointer, _ *hashing) []byte {
		if (*time.Time)(q).IsZero() {
			return append(dst, "null"...)
		}
		return Time{*(*time.Time)(q)}.append(dst)
	}
	p.empty = func(q unsafe.Pointer) bool { return (*time.Time)(q).IsZero() }
}

func planRaw(p *plan) {
	p.schema = "string"
	p.text = func(q unsafe.Pointer, s string) error {
		*(*Text)(q) = []byte(s)
		return nil
	}
	p.raw = func(q unsafe.Pointer, b []byte) { *(*Text)(q) = b }
	p.json = func(q unsafe.Pointer, v Value) error {
		s, ok := v.Text()
		if !ok {
			return wrong("a string", v)
		}
		*(*Text)(q) = []byte(s)
		return nil
	}
	p.null = func(q unsafe.Pointer) { *(*Text)(q) = nil }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte {
		b := *(*Text)(q)
		s := unsafe.String(unsafe.SliceData(b), len(b)) // for the length of the call
		if h != nil {
			return h.text(dst, strings.Clone(s), false)
		}
		return AppendString(dst, s)
	}
	p.empty = func(q unsafe.Pointer) bool { return len(*(*Text)(q)) == 0 }
}

// planBytes is standard base64, as encoding/json has it.
func planBytes(p *plan) {
	p.text = func(q unsafe.Pointer, s string) error {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return errors.New("expected base64")
		}
		*(*[]byte)(q) = b
		return nil
	}
	p.json = func(_ unsafe.Pointer, v Value) error { return wrong("base64", v) }
	p.null = func(q unsafe.Pointer) { *(*[]byte)(q) = nil }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte {
		b := *(*[]byte)(q)
		if h != nil {
			return h.text(dst, base64.StdEncoding.EncodeToString(b), false)
		}
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, b)
		return append(dst, '"')
	}
	p.empty = func(q unsafe.Pointer) bool { return len(*(*[]byte)(q)) == 0 }
}

// planNet is for networks. One of a single address is that address on Vault's
// wire: "192.0.2.7" stands for, and is answered for, "192.0.2.7/32".
func planNet(p *plan) {
	p.text = func(q unsafe.Pointer, s string) error {
		n, err := netip.ParsePrefix(s)
		if err != nil && s != "" {
			a, aerr := netip.ParseAddr(s)
			if aerr != nil || a.Zone() != "" {
				return errors.New("expected a network such as 10.0.0.0/8, or an address")
			}
			n = netip.PrefixFrom(a, a.BitLen())
		}
		*(*netip.Prefix)(q) = n
		return nil
	}
	p.json = func(_ unsafe.Pointer, v Value) error { return wrong("a network", v) }
	p.null = func(q unsafe.Pointer) { *(*netip.Prefix)(q) = netip.Prefix{} }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte {
		n := *(*netip.Prefix)(q)
		switch {
		case !n.IsValid():
			return h.text(dst, "", false)
		case n.IsSingleIP():
			return h.text(dst, n.Addr().String(), false)
		}
		return h.text(dst, n.String(), false)
	}
	p.empty = func(q unsafe.Pointer) bool { return !(*netip.Prefix)(q).IsValid() }
}

// planText is for types such as netip.Addr, which know their own text. They
// are reached through an interface and cost a little more.
func planText(p *plan) {
	t := p.typ
	p.text = func(q unsafe.Pointer, s string) error {
		return reflect.NewAt(t, q).Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s))
	}
	p.json = func(_ unsafe.Pointer, v Value) error { return wrong("a string", v) }
	p.null = func(q unsafe.Pointer) { reflect.NewAt(t, q).Elem().SetZero() }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte {
		b, err := reflect.NewAt(t, q).Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			return append(dst, "null"...)
		}
		return h.text(dst, string(b), false)
	}
	p.empty = func(q unsafe.Pointer) bool { return reflect.NewAt(t, q).Elem().IsZero() }
}
