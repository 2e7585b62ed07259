package audit

import (
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"slices"
	"unicode/utf8"
)

// maxDepth is how deep JSON from a client may nest before it is logged as
// unreadable. Requests are held to a smaller limit before they come here.
const maxDepth = 1000

var errNotJSON = errors.New("audit: not JSON")

// JSON is the data of a raw JSON text, such as a request's body. secret, which
// may be nil, says whether a field of that name is of a secret type; at any
// depth, and then for all that stands below it. A text that is not JSON is
// logged as one hashed string, so that nothing of it leaks and the record
// stays parseable.
func JSON(raw []byte, secret func(field string) bool) Data {
	return func(dst []byte, hash HashFunc) []byte {
		start := len(dst)
		w := rewriter{src: raw, dst: dst, hash: hash, secret: secret}
		if w.document() == nil {
			return w.dst
		}
		dst = append(w.dst[:start], `{"unreadable":`...)
		dst = appendString(dst, hash("unreadable", true, string(raw)))
		return append(dst, '}')
	}
}

// Query is the data of query parameters: one value is a string, several are a
// list. secret is as in JSON.
func Query(values url.Values, secret func(field string) bool) Data {
	return func(dst []byte, hash HashFunc) []byte {
		dst = append(dst, '{')
		for i, k := range slices.Sorted(maps.Keys(values)) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, k)
			dst = append(dst, ':')
			isSecret := secret != nil && secret(k)
			if vs := values[k]; len(vs) == 1 {
				dst = appendString(dst, hash(k, isSecret, vs[0]))
			} else {
				dst = append(dst, '[')
				for j, v := range vs {
					if j > 0 {
						dst = append(dst, ',')
					}
					dst = appendString(dst, hash(k, isSecret, v))
				}
				dst = append(dst, ']')
			}
		}
		return append(dst, '}')
	}
}

// rewriter copies one JSON text to dst without its white space and passes the
// string values through hash. It holds the text to JSON's grammar: what it
// accepts is one well-formed line.
type rewriter struct {
	src    []byte
	pos    int
	depth  int
	dst    []byte
	hash   HashFunc // nil: strings are copied
	secret func(string) bool
	elide  bool // write the sizes of the outer object's keys and key_info instead of them
}

func (w *rewriter) document() error {
	if err := w.value("", false); err != nil {
		return err
	}
	w.space()
	if w.pos != len(w.src) {
		return errNotJSON
	}
	return nil
}

func (w *rewriter) space() {
	for w.pos < len(w.src) {
		switch w.src[w.pos] {
		case ' ', '\t', '\r', '\n':
			w.pos++
		default:
			return
		}
	}
}

// peek is the next byte that is not white space, or 0.
func (w *rewriter) peek() byte {
	w.space()
	if w.pos == len(w.src) {
		return 0
	}
	return w.src[w.pos]
}

// take copies c if it is next.
func (w *rewriter) take(c byte) bool {
	if w.peek() != c {
		return false
	}
	w.pos++
	w.dst = append(w.dst, c)
	return true
}

// value copies a value that stands below field; isSecret tells whether that
// field or one above it is secret.
func (w *rewriter) value(field string, isSecret bool) error {
	w.depth++
	defer func() { w.depth-- }()
	if w.depth > maxDepth {
		return errNotJSON
	}
	switch c := w.peek(); {
	case c == '{':
		return w.object(isSecret)
	case c == '[':
		return w.array(field, isSecret)
	case c == '"':
		s, err := w.text()
		if err != nil {
			return err
		}
		if w.hash != nil {
			s = w.hash(field, isSecret, s)
		}
		w.dst = appendString(w.dst, s)
		return nil
	case c == '-' || '0' <= c && c <= '9':
		return w.number()
	}
	for _, lit := range []string{"true", "false", "null"} {
		if len(w.src)-w.pos >= len(lit) && string(w.src[w.pos:w.pos+len(lit)]) == lit {
			w.pos += len(lit)
			w.dst = append(w.dst, lit...)
			return nil
		}
	}
	return errNotJSON
}

func (w *rewriter) object(isSecret bool) error {
	w.take('{')
	if w.take('}') {
		return nil
	}
	for {
		if w.peek() != '"' {
			return errNotJSON
		}
		key, err := w.text()
		if err != nil {
			return err
		}
		w.dst = appendString(w.dst, key)
		if !w.take(':') {
			return errNotJSON
		}
		start := len(w.dst)
		if err := w.value(key, isSecret || w.secret != nil && w.secret(key)); err != nil {
			return err
		}
		if w.elide && w.depth == 1 {
			w.dst = elide(w.dst, start, key)
		}
		if w.take(',') {
			continue
		}
		if w.take('}') {
			return nil
		}
		return errNotJSON
	}
}

func (w *rewriter) array(field string, isSecret bool) error {
	w.take('[')
	if w.take(']') {
		return nil
	}
	for {
		if err := w.value(field, isSecret); err != nil {
			return err
		}
		if w.take(',') {
			continue
		}
		if w.take(']') {
			return nil
		}
		return errNotJSON
	}
}

// text reads the string that begins at pos.
func (w *rewriter) text() (string, error) {
	start := w.pos
	plain := true
	for i := start + 1; i < len(w.src); i++ {
		switch c := w.src[i]; {
		case c == '"':
			w.pos = i + 1
			if in := w.src[start+1 : i]; plain && utf8.Valid(in) {
				return string(in), nil
			}
			// The rare forms are left to the decoder whose reading of them
			// the rest of the server shares.
			var s string
			if json.Unmarshal(w.src[start:i+1], &s) != nil {
				return "", errNotJSON
			}
			return s, nil
		case c == '\\':
			plain = false
			i++
		case c < ' ':
			return "", errNotJSON
		}
	}
	return "", errNotJSON
}

// number copies a number digit by digit.
func (w *rewriter) number() error {
	start := w.pos
	digits := func() bool {
		from := w.pos
		for w.pos < len(w.src) && '0' <= w.src[w.pos] && w.src[w.pos] <= '9' {
			w.pos++
		}
		return w.pos > from
	}
	next := func(set string) bool {
		for i := range len(set) {
			if w.pos < len(w.src) && w.src[w.pos] == set[i] {
				w.pos++
				return true
			}
		}
		return false
	}
	next("-")
	if !next("0") && !digits() {
		return errNotJSON
	}
	if next(".") && !digits() {
		return errNotJSON
	}
	if next("eE") {
		next("+-")
		if !digits() {
			return errNotJSON
		}
	}
	w.dst = append(w.dst, w.src[start:w.pos]...)
	return nil
}

// elide replaces the value that begins at dst[start:], a well-formed one, by
// the number of its members if it is the list of a listing or the object that
// goes with it. That keeps long listings out of the log.
func elide(dst []byte, start int, key string) []byte {
	v := dst[start:]
	if !(key == "keys" && v[0] == '[' || key == "key_info" && v[0] == '{') {
		return dst
	}
	n, depth, inString := 0, 0, false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		case c == ',' && depth == 1:
			n++
		}
	}
	if len(v) > 2 { // not [] or {}
		n++
	}
	return appendInt(dst[:start], int64(n))
}

const hexDigits = "0123456789abcdef"

// appendString appends s as a JSON string. Invalid UTF-8 becomes U+FFFD, and
// no control character survives, so that a record is always one line.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' && c != 0x7f {
				i++
				continue
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
				dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\ufffd"...)
			start = i + size
		case r == '\u2028' || r == '\u2029': // line ends to some readers
			dst = append(dst, s[start:i]...)
			dst = append(dst, `\u202`...)
			dst = append(dst, hexDigits[r&15])
			start = i + size
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}
