package wire

import (
	"errors"
	"iter"
	"unicode/utf8"
	"unsafe"
)

// Value is one JSON value as it was written. It is what a handler takes when
// any JSON will do. The zero Value stands for null.
type Value []byte

// Object is a JSON object kept as text, in its order, with numbers digit for
// digit. One that came through the decoder is compact and names each member
// once: of duplicates the last counted. The zero Object stands for null.
type Object []byte

// Kind is the kind of a JSON value.
type Kind uint8

// The kinds of JSON values.
const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Obj
)

// String names the kind for an error message.
func (k Kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "a list", "an object"}[k]
}

// Kind tells the kind from the first byte.
func (v Value) Kind() Kind {
	if len(v) == 0 {
		return Null
	}
	switch v[0] {
	case '"':
		return String
	case '{':
		return Obj
	case '[':
		return Array
	case 't', 'f':
		return Bool
	case 'n':
		return Null
	}
	return Number
}

// Text is the text of a string, and of a number or boolean as written.
// Of anything else it is not ok.
func (v Value) Text() (s string, ok bool) {
	switch v.Kind() {
	case String:
		return unquote(v[1 : len(v)-1]), true
	case Number, Bool:
		return string(v), true
	}
	return "", false
}

// Elements are the values of a list. Of anything else there are none.
func (v Value) Elements() iter.Seq[Value] {
	return func(yield func(Value) bool) {
		if v.Kind() != Array {
			return
		}
		it := elements{b: v, i: 1}
		for it.next() && yield(it.val) {
		}
	}
}

// MarshalJSON lets encoding/json (tests, tools) write the value as it is.
func (v Value) MarshalJSON() ([]byte, error) {
	if len(v) == 0 {
		return []byte("null"), nil
	}
	return v, nil
}

// MarshalJSON lets encoding/json (tests, tools) write the object as it is.
func (o Object) MarshalJSON() ([]byte, error) { return Value(o).MarshalJSON() }

// All are the members in their order.
func (o Object) All() iter.Seq2[string, Value] {
	return func(yield func(string, Value) bool) {
		if len(o) == 0 || o[0] != '{' {
			return
		}
		it := members{b: o, i: 1}
		for it.next() && yield(unquote(it.key), it.val) {
		}
	}
}

// Get finds a member by name. Of duplicates it is the last.
func (o Object) Get(name string) (v Value, ok bool) {
	if len(o) == 0 || o[0] != '{' {
		return nil, false
	}
	it := members{b: o, i: 1}
	for it.next() {
		if sameKey(it.key, name) {
			v, ok = it.val, true
		}
	}
	return v, ok
}

// Len counts the members.
func (o Object) Len() int {
	n := 0
	for range o.All() {
		n++
	}
	return n
}

func sameKey(written []byte, name string) bool {
	for _, c := range written {
		if c == '\\' {
			return unquote(written) == name
		}
	}
	return string(written) == name
}

// ParseObject checks b and returns it as a compact object. Empty input and
// null are the nil Object.
func ParseObject(b []byte) (Object, error) {
	if skipSpace(b, 0) == len(b) {
		return nil, nil
	}
	v, err := only(b)
	if err != nil {
		return nil, err
	}
	return v.object()
}

var errNotObject = errors.New("expected an object")

// object makes a compact Object of a checked value.
func (v Value) object() (Object, error) {
	switch v.Kind() {
	case Null:
		return nil, nil
	case Obj:
		return Object(compact(make([]byte, 0, len(v)), v)), nil
	}
	return nil, errNotObject
}

// compact appends a checked value without white space, and with every member
// of an object once, in the place of its first appearance and with its last
// value.
func compact(dst []byte, v Value) []byte {
	switch v.Kind() {
	case Obj:
		return compactObject(dst, v)
	case Array:
		dst = append(dst, '[')
		it := elements{b: v, i: 1}
		for n := 0; it.next(); n++ {
			if n > 0 {
				dst = append(dst, ',')
			}
			dst = compact(dst, it.val)
		}
		return append(dst, ']')
	}
	return append(dst, v...)
}

func compactObject(dst []byte, v Value) []byte {
	dst = append(dst, '{')
	if dup := duplicates(v); dup != nil {
		it := members{b: v, i: 1}
		first := true
		for it.next() {
			last, ok := dup[unquote(it.key)]
			if !ok {
				continue // written already
			}
			delete(dup, unquote(it.key))
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = appendMember(dst, it.key, last)
		}
		return append(dst, '}')
	}
	it := members{b: v, i: 1}
	for n := 0; it.next(); n++ {
		if n > 0 {
			dst = append(dst, ',')
		}
		dst = appendMember(dst, it.key, it.val)
	}
	return append(dst, '}')
}

func appendMember(dst, key []byte, v Value) []byte {
	dst = append(dst, '"')
	dst = append(dst, key...)
	dst = append(dst, '"', ':')
	return compact(dst, v)
}

// duplicates is nil when every name stands once, as nearly always; else it
// gives the last value of each name.
func duplicates(v Value) map[string]Value {
	const few = 12 // below, comparing each with each is cheaper than a map
	var seen [few][]byte
	it, n, plain := members{b: v, i: 1}, 0, true
	for it.next() && plain {
		if n == few {
			plain = false
			break
		}
		for _, c := range it.key {
			plain = plain && c != '\\'
		}
		for _, k := range seen[:n] {
			plain = plain && string(k) != string(it.key)
		}
		seen[n] = it.key
		n++
	}
	if plain {
		return nil
	}
	last, total := map[string]Value{}, 0
	for it = (members{b: v, i: 1}); it.next(); total++ {
		last[unquote(it.key)] = it.val
	}
	if len(last) == total {
		return nil
	}
	return last
}

// Merge applies an RFC 7396 merge patch: a member that is null is removed, an
// object is merged, anything else replaces.
func (o Object) Merge(patch Object) Object {
	return Object(merge(make([]byte, 0, len(o)+len(patch)), Value(o), Value(patch)))
}

func merge(dst []byte, target, patch Value) []byte {
	if patch.Kind() != Obj {
		return append(dst, patch...)
	}
	dst = append(dst, '{')
	first := true
	comma := func() {
		if !first {
			dst = append(dst, ',')
		}
		first = false
	}
	if target.Kind() == Obj {
		for it := (members{b: target, i: 1}); it.next(); {
			p, ok := Object(patch).Get(unquote(it.key))
			if ok && p.Kind() == Null {
				continue
			}
			comma()
			dst = append(append(append(dst, '"'), it.key...), '"', ':')
			if !ok {
				dst = append(dst, it.val...)
			} else {
				dst = merge(dst, it.val, p)
			}
		}
	}
	for it := (members{b: patch, i: 1}); it.next(); {
		if it.val.Kind() == Null {
			continue
		}
		if target.Kind() == Obj {
			if _, ok := Object(target).Get(unquote(it.key)); ok {
				continue
			}
		}
		comma()
		dst = append(append(append(dst, '"'), it.key...), '"', ':')
		dst = merge(dst, nil, it.val)
	}
	return append(dst, '}')
}

const hexDigits = "0123456789abcdef"

// AppendString appends s as a JSON string. Nothing is escaped that need not
// be: an answer is JSON, never a page.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	b := unsafe.Slice(unsafe.StringData(s), len(s)) // read only
	for i := 0; i < len(s); {
		if i += plain(b[i:]); i == len(s) {
			break
		}
		c := s[i]
		if c >= utf8.RuneSelf {
			if _, size := utf8.DecodeRuneInString(s[i:]); size > 1 {
				i += size
				continue
			}
		}
		dst = append(dst, s[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			if c >= utf8.RuneSelf {
				dst = append(dst, "\ufffd"...) // not UTF-8
			} else {
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
		}
		i++
		start = i
	}
	return append(append(dst, s[start:]...), '"')
}

// Quote makes a JSON value of a text.
func Quote(s string) Value { return AppendString(nil, s) }
