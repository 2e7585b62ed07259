package wire

import (
	"reflect"
	"unsafe"
)

// Data is a value that knows how to be written: in an answer or a row with
// its secrets in the clear, in an audit record with every string hashed.
type Data interface {
	AppendJSON(dst []byte) []byte
	AppendHashed(dst []byte, hash Hasher) []byte
}

// Hasher gives what the audit log shows in place of a string. field is the
// member of the outermost object under which the string stands, at whatever
// depth; secret says that the string's type is one (such a string is hashed
// even where the mount lists its field as plain).
type Hasher func(field string, secret bool, s string) string

type typed[T any] struct {
	plan *plan
	v    T
}

// Of makes Data of a value by its type: json tags with omitempty, secrets
// revealed, times in RFC 3339 with nanoseconds and Z, keys of maps in order,
// nothing escaped for HTML. A nil list is [], a nil map {}, unless the field
// is tagged `wire:"null"`; a nil pointer and a zero time.Time are null.
func Of[T any](v T) Data { return &typed[T]{planOf(reflect.TypeFor[T]()), v} }

func (t *typed[T]) AppendJSON(dst []byte) []byte {
	return t.plan.app(dst, unsafe.Pointer(&t.v), nil)
}

func (t *typed[T]) AppendHashed(dst []byte, hash Hasher) []byte {
	return t.plan.app(dst, unsafe.Pointer(&t.v), &hashing{hash: hash})
}

// OfAny is Of for a value whose type is only known when it comes. Data is
// taken as it is; nil is nil.
func OfAny(v any) Data {
	switch v := v.(type) {
	case nil:
		return nil
	case Data:
		return v
	}
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		box := reflect.New(rv.Type())
		box.Elem().Set(rv)
		rv = box
	}
	return &boxed{planOf(rv.Type().Elem()), rv.UnsafePointer()}
}

type boxed struct {
	plan *plan
	p    unsafe.Pointer
}

func (b *boxed) AppendJSON(dst []byte) []byte { return b.plan.app(dst, b.p, nil) }

func (b *boxed) AppendHashed(dst []byte, hash Hasher) []byte {
	return b.plan.app(dst, b.p, &hashing{hash: hash})
}

// Append appends any value's JSON, secrets revealed.
func Append(dst []byte, v any) []byte {
	d := OfAny(v)
	if d == nil {
		return append(dst, "null"...)
	}
	return d.AppendJSON(dst)
}

// AppendHashed appends any value's JSON for the audit log.
func AppendHashed(dst []byte, v any, hash Hasher) []byte {
	d := OfAny(v)
	if d == nil {
		return append(dst, "null"...)
	}
	return d.AppendHashed(dst, hash)
}

// Marshal writes a row. Secrets are in the clear: the barrier encrypts rows.
func Marshal[T any](v *T) []byte {
	return planOf(reflect.TypeFor[T]()).app(make([]byte, 0, 256), unsafe.Pointer(v), nil)
}

// AppendJSON appends the object as it is.
func (o Object) AppendJSON(dst []byte) []byte { return (*hashing)(nil).value(dst, Value(o)) }

// AppendHashed appends the object with its strings hashed.
func (o Object) AppendHashed(dst []byte, hash Hasher) []byte {
	return (&hashing{hash: hash}).value(dst, Value(o))
}

// AppendJSON appends the value as it is.
func (v Value) AppendJSON(dst []byte) []byte { return (*hashing)(nil).value(dst, v) }

// AppendHashed appends the value with its strings hashed.
func (v Value) AppendHashed(dst []byte, hash Hasher) []byte {
	return (&hashing{hash: hash}).value(dst, v)
}

var (
	_ Data = Object(nil)
	_ Data = Value(nil)
)

// hashing is the state of a walk for the audit log. A nil one writes plainly.
type hashing struct {
	hash   Hasher
	fields *plan  // what is known of a raw body's members, or nil
	field  string // the member of the outermost object we are in
	secret bool   // that member's type is a secret
	inside bool   // within the outermost object
}

// enter reports whether the object that begins is the outermost.
func (h *hashing) enter() bool {
	if h == nil || h.inside {
		return false
	}
	h.inside = true
	return true
}

func (h *hashing) at(top bool, name string) {
	if top {
		h.field = name
	}
}

func (h *hashing) leave(top bool) {
	if top {
		h.inside, h.field, h.secret = false, "", false
	}
}

func (h *hashing) text(dst []byte, s string, secret bool) []byte {
	if h != nil {
		s = h.hash(h.field, secret || h.secret, s)
	}
	return AppendString(dst, s)
}

func (h *hashing) data(dst []byte, d Data) []byte {
	switch {
	case d == nil:
		return append(dst, "null"...)
	case h == nil:
		return d.AppendJSON(dst)
	}
	return d.AppendHashed(dst, func(field string, secret bool, s string) string {
		if h.inside {
			field = h.field
		}
		return h.hash(field, secret || h.secret, s)
	})
}

// value appends checked raw JSON.
func (h *hashing) value(dst []byte, v Value) []byte {
	switch {
	case len(v) == 0:
		return append(dst, "null"...)
	case h == nil:
		return append(dst, v...)
	}
	switch v.Kind() {
	case String:
		return h.text(dst, unquote(v[1:len(v)-1]), false)
	case Array:
		dst = append(dst, '[')
		it := elements{b: v, i: 1}
		for n := 0; it.next(); n++ {
			if n > 0 {
				dst = append(dst, ',')
			}
			dst = h.value(dst, it.val)
		}
		return append(dst, ']')
	case Obj:
		dst = append(dst, '{')
		top := h.enter()
		it := members{b: v, i: 1}
		for n := 0; it.next(); n++ {
			if n > 0 {
				dst = append(dst, ',')
			}
			dst = append(append(append(dst, '"'), it.key...), '"', ':')
			if top {
				h.at(top, unquote(it.key))
				h.secret = false
				if h.fields != nil {
					f := h.fields.find(it.key)
					h.secret = f != nil && f.plan.secret
				}
			}
			dst = h.value(dst, it.val)
		}
		h.leave(top)
		return append(dst, '}')
	}
	return append(dst, v...)
}
