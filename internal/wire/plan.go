package wire

import (
	"encoding"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/leasehold/leasehold/internal/secret"
)

// plan is a type as the decoder and the encoder need it. It is made once per
// type, by reflection; afterwards values are reached through pointers alone.
// The pointers stay typed by construction: every func of a plan is only ever
// given a pointer to a value of the plan's own type.
type plan struct {
	typ    reflect.Type
	schema string // OpenAPI's type
	elem   *plan  // of lists, maps, pointers and Opt

	text   func(p unsafe.Pointer, s string) error // a JSON string, a path's or a query's parameter; nil: not possible
	json   func(p unsafe.Pointer, v Value) error  // any checked value except null, and a string if text is set
	null   func(p unsafe.Pointer)                 // nil: null leaves the value alone
	app    func(dst []byte, p unsafe.Pointer, h *hashing) []byte
	empty  func(p unsafe.Pointer) bool // encoding/json's omitempty
	secret bool

	fields []field        // of a struct, embedded ones laid flat
	byName map[string]int // index in fields; nil when there are few
	all    int            // index of the field that takes the whole body, or -1
}

type field struct {
	name    string
	head    []byte // `"name":`; nil for the one that takes the whole body
	offset  uintptr
	plan    *plan
	omit    bool
	nilNull bool // a nil list or map is null
	doc     string
}

var plans sync.Map // reflect.Type → *plan, complete ones only

// planOf is the plan of a type, made at first sight. It panics on a type that
// cannot stand on the wire, which is a mistake in our code.
func planOf(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	c := compiler{}
	p := c.plan(t)
	for t, p := range c {
		plans.LoadOrStore(t, p)
	}
	return p
}

// compiler holds the plans of one compilation, so that a type may contain
// itself.
type compiler map[reflect.Type]*plan

var (
	typeSecret  = reflect.TypeFor[secret.String]()
	typeTTL     = reflect.TypeFor[TTL]()
	typeCSV     = reflect.TypeFor[CSV]()
	typeStrings = reflect.TypeFor[Strings]()
	typeKV      = reflect.TypeFor[KV]()
	typeValue   = reflect.TypeFor[Value]()
	typeObject  = reflect.TypeFor[Object]()
	typeWhen    = reflect.TypeFor[Time]()
	typeTime    = reflect.TypeFor[time.Time]()
	typeBytes   = reflect.TypeFor[[]byte]()
	typeDur     = reflect.TypeFor[time.Duration]()

	implOpt       = reflect.TypeFor[interface{ isOpt() }]()
	implData      = reflect.TypeFor[Data]()
	implMarshal   = reflect.TypeFor[encoding.TextMarshaler]()
	implUnmarshal = reflect.TypeFor[encoding.TextUnmarshaler]()
)

func (c compiler) plan(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	if p, ok := c[t]; ok {
		return p
	}
	p := &plan{typ: t, all: -1, schema: "string"}
	c[t] = p
	switch {
	case t == typeSecret:
		planSecret(p)
	case t == typeTTL:
		planTTL(p)
	case t == typeCSV:
		planStrings(p, splitCSV, true)
	case t == typeStrings:
		planStrings(p, func(s string) []string { return []string{s} }, false)
	case t == typeKV:
		planKV(p)
	case t == typeValue:
		planValue(p)
	case t == typeObject:
		planObject(p)
	case t == typeWhen:
		planWhen(p)
	case t == typeTime:
		planTime(p)
	case t == typeBytes:
		planBytes(p)
	case t.Implements(implOpt):
		c.planOpt(p)
	case t.Kind() == reflect.Interface && t.Implements(implData):
		planData(p)
	case t.Implements(implMarshal) && reflect.PointerTo(t).Implements(implUnmarshal) && t.Kind() != reflect.Pointer:
		planText(p)
	default:
		c.planKind(p)
	}
	return p
}

func (c compiler) planKind(p *plan) {
	t := p.typ
	switch t.Kind() {
	case reflect.String:
		planString(p)
	case reflect.Bool:
		planBool(p)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if t == typeDur {
			panic("wire: a field of type time.Duration: use wire.TTL")
		}
		planInt(p)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		planUint(p)
	case reflect.Float64:
		planFloat(p)
	case reflect.Pointer:
		c.planPointer(p)
	case reflect.Slice:
		c.planSlice(p)
	case reflect.Map:
		c.planMap(p)
	case reflect.Struct:
		c.planStruct(p)
	default:
		panic("wire: no plan for the type " + t.String())
	}
}

// wrong says what kind of value stands where another was expected. It does
// not repeat the value: that may be a secret in the wrong field.
func wrong(want string, v Value) error {
	return fmt.Errorf("expected %s, got %s", want, v.Kind())
}

func planString(p *plan) {
	p.text = func(q unsafe.Pointer, s string) error { *(*string)(q) = s; return nil }
	p.json = func(q unsafe.Pointer, v Value) error {
		s, ok := v.Text()
		if !ok {
			return wrong("a string", v)
		}
		*(*string)(q) = s
		return nil
	}
	p.null = func(q unsafe.Pointer) { *(*string)(q) = "" }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte { return h.text(dst, *(*string)(q), false) }
	p.empty = func(q unsafe.Pointer) bool { return *(*string)(q) == "" }
}

func planSecret(p *plan) {
	p.secret = true
	p.text = func(q unsafe.Pointer, s string) error { *(*secret.String)(q) = secret.New(s); return nil }
	p.json = func(q unsafe.Pointer, v Value) error {
		s, ok := v.Text()
		if !ok {
			return wrong("a string", v)
		}
		*(*secret.String)(q) = secret.New(s)
		return nil
	}
	p.null = func(q unsafe.Pointer) { *(*secret.String)(q) = secret.String{} }
	p.app = func(dst []byte, q unsafe.Pointer, h *hashing) []byte {
		return h.text(dst, (*secret.String)(q).Reveal(), true)
	}
	p.empty = func(q unsafe.Pointer) bool { return (*secret.String)(q).IsZero() }
}

func planBool(p *plan) {
	p.schema = "boolean"
	p.text = func(q unsafe.Pointer, s string) error {
		if s == "" {
			*(*bool)(q) = false
			return nil
		}
		b, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("expected true or false")
		}
		*(*bool)(q) = b
		return nil
	}
	p.json = func(q unsafe.Pointer, v Value) error {
		switch v.Kind() {
		case Bool:
			*(*bool)(q) = v[0] == 't'
		case Number:
			*(*bool)(q) = string(v) != "0"
		default:
			return wrong("true or false", v)
		}
		return nil
	}
	p.null = func(q unsafe.Pointer) { *(*bool)(q) = false }
	p.app = func(dst []byte, q unsafe.Pointer, _ *hashing) []byte { return strconv.AppendBool(dst, *(*bool)(q)) }
	p.empty = func(q unsafe.Pointer) bool { return !*(*bool)(q) }
}

func loadInt(q unsafe.Pointer, size uintptr) int64 {
	switch size {
	case 1:
		return int64(*(*int8)(q))
	case 2:
		return int64(*(*int16)(q))
	case 4:
		return int64(*(*int32)(q))
	}
	return *(*int64)(q)
}

func storeInt(q unsafe.Pointer, size uintptr, n int64) error {
	switch size {
	case 1:
		*(*int8)(q) = int8(n)
	case 2:
		*(*int16)(q) = int16(n)
	case 4:
		*(*int32)(q) = int32(n)
	default:
		*(*int64)(q) = n
	}
	if loadInt(q, size) != n {
		return errors.New("the number is too large")
	}
	return nil
}

func planInt(p *plan) {
	size := p.typ.Size()
	p.schema = "integer"
	p.text = func(q unsafe.Pointer, s string) error {
		if s == "" {
			return storeInt(q, size, 0)
		}
		n, err := strconv.ParseInt(s, 0, 64)
		if err != nil {
			return errors.New("expected a whole number")
		}
		return storeInt(q, size, n)
	}
	p.json = func(q unsafe.Pointer, v Value) error {
		if v.Kind() != Number {
			return wrong("a whole number", v)
		}
		n, err := whole(v)
		if err != nil {
			return err
		}
		return storeInt(q, size, n)
	}
	p.null = func(q unsafe.Pointer) { _ = storeInt(q, size, 0) }
	p.app = func(dst []byte, q unsafe.Pointer, _ *hashing) []byte {
		return strconv.AppendInt(dst, loadInt(q, size), 10)
	}
	p.empty = func(q unsafe.Pointer) bool { return loadInt(q, size) == 0 }
}

func loadUint(q unsafe.Pointer, size uintptr) uint64 {
	switch size {
	case 1:
		return uint64(*(*uint8)(q))
	case 2:
		return uint64(*(*uint16)(q))
	case 4:
		return uint64(*(*uint32)(q))
	}
	return *(*uint64)(q)
}

func storeUint(q unsafe.Pointer, size uintptr, n uint64) error {
	switch size {
	case 1:
		*(*uint8)(q) = uint8(n)
	case 2:
		*(*uint16)(q) = uint16(n)
	case 4:
		*(*uint32)(q) = uint32(n)
	default:
		*(*uint64)(q) = n
	}
	if loadUint(q, size) != n {
		return errors.New("the number is too large")
	}
	return nil
}

func planUint(p *plan) {
	size := p.typ.Size()
	p.schema = "integer"
	p.text = func(q unsafe.Pointer, s string) error {
		if s == "" {
			return storeUint(q, size, 0)
		}
		n, err := strconv.ParseUint(s, 0, 64)
		if err != nil {
			return errors.New("expected a whole number that is not negative")
		}
		return storeUint(q, size, n)
	}
	p.json = func(q unsafe.Pointer, v Value) error {
		if v.Kind() != Number {
			return wrong("a whole number", v)
		}
		if n, err := strconv.ParseUint(string(v), 10, 64); err == nil {
			return storeUint(q, size, n)
		}
		n, err := whole(v)
		if err != nil {
			return err
		}
		if n < 0 {
			return errNegative
		}
		return storeUint(q, size, uint64(n))
	}
	p.null = func(q unsafe.Pointer) { _ = storeUint(q, size, 0) }
	p.app = func(dst []byte, q unsafe.Pointer, _ *hashing) []byte {
		return strconv.AppendUint(dst, loadUint(q, size), 10)
	}
	p.empty = func(q unsafe.Pointer) bool { return loadUint(q, size) == 0 }
}

func planFloat(p *plan) {
	p.schema = "number"
	p.text = func(q unsafe.Pointer, s string) error {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return errors.New("expected a number")
		}
		*(*float64)(q) = f
		return nil
	}
	p.json = func(q unsafe.Pointer, v Value) error {
		if v.Kind() != Number {
			return wrong("a number", v)
		}
		return p.text(q, string(v))
	}
	p.null = func(q unsafe.Pointer) { *(*float64)(q) = 0 }
	p.app = func(dst []byte, q unsafe.Pointer, _ *hashing) []byte {
		f := *(*float64)(q)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return append(dst, "null"...)
		}
		return strconv.AppendFloat(dst, f, 'g', -1, 64)
	}
	p.empty = func(q unsafe.Pointer) bool { return *(*float64)(q) == 0 }
}

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

// planText is for types such as netip.Prefix, which know their own text. They
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
