package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/segmentio/asm/ascii"
)

// MaxDepth is how deep arrays and objects of a request may nest. It is what
// Vault allows by default.
const MaxDepth = 300

// SyntaxError says where a text stops being JSON.
type SyntaxError struct {
	Offset int // bytes read before the fault
	What   string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%s at offset %d", e.What, e.Offset) }

func syntax(i int, what string) error { return &SyntaxError{Offset: i, What: what} }

func unexpected(b []byte, i int, want string) error {
	if i >= len(b) {
		return syntax(i, "unexpected end of JSON, expected "+want)
	}
	return syntax(i, fmt.Sprintf("unexpected %q, expected %s", rune(b[i]), want))
}

// Check reports whether b is exactly one JSON value, nested no deeper than
// MaxDepth, with nothing but white space around it. Text that is not UTF-8 is
// refused, because it could not be answered as JSON.
func Check(b []byte) error {
	_, err := only(b)
	return err
}

// CheckDepth is Check for a listener that lets values nest less deep; more
// than MaxDepth is never let in.
func CheckDepth(b []byte, most int) error {
	begin := skipSpace(b, 0)
	end, err := skipValue(b, begin, MaxDepth-min(max(most, 1), MaxDepth))
	if err == nil {
		if i := skipSpace(b, end); i < len(b) {
			err = syntax(i, "unexpected data after the JSON value")
		}
	}
	return err
}

// only gives the one value that b holds, checked and without the white space
// around it.
func only(b []byte) (Value, error) {
	begin := skipSpace(b, 0)
	end, err := skipValue(b, begin, 0)
	if err != nil {
		return nil, err
	}
	if i := skipSpace(b, end); i < len(b) {
		return nil, syntax(i, "unexpected data after the JSON value")
	}
	return b[begin:end], nil
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipValue checks the value that starts at b[i] and returns the index behind it.
func skipValue(b []byte, i, depth int) (int, error) {
	if i >= len(b) {
		return i, unexpected(b, i, "a value")
	}
	switch c := b[i]; {
	case c == '"':
		return skipString(b, i)
	case c == '{' || c == '[':
		if depth >= MaxDepth {
			return i, syntax(i, "nested deeper than is allowed")
		}
		if c == '{' {
			return skipObject(b, i, depth+1)
		}
		return skipArray(b, i, depth+1)
	case c == '-' || c >= '0' && c <= '9':
		return skipNumber(b, i)
	case c == 't':
		return skipWord(b, i, "true")
	case c == 'f':
		return skipWord(b, i, "false")
	case c == 'n':
		return skipWord(b, i, "null")
	}
	return i, unexpected(b, i, "a value")
}

func skipWord(b []byte, i int, word string) (int, error) {
	for n := range len(word) {
		if i+n >= len(b) || b[i+n] != word[n] {
			return i + n, unexpected(b, i+n, word)
		}
	}
	return i + len(word), nil
}

func skipObject(b []byte, i, depth int) (int, error) {
	it := members{b: b, i: i + 1, depth: depth}
	for it.next() {
	}
	return it.i, it.err
}

func skipArray(b []byte, i, depth int) (int, error) {
	it := elements{b: b, i: i + 1, depth: depth}
	for it.next() {
	}
	return it.i, it.err
}

// skipNumber checks RFC 8259's grammar of a number.
func skipNumber(b []byte, i int) (int, error) {
	if b[i] == '-' {
		i++
	}
	digits := func() error {
		if i >= len(b) || b[i] < '0' || b[i] > '9' {
			return unexpected(b, i, "a digit")
		}
		for i < len(b) && b[i] >= '0' && b[i] <= '9' {
			i++
		}
		return nil
	}
	if i < len(b) && b[i] == '0' {
		i++ // a leading zero stands alone
	} else if err := digits(); err != nil {
		return i, err
	}
	if i < len(b) && b[i] == '.' {
		i++
		if err := digits(); err != nil {
			return i, err
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if err := digits(); err != nil {
			return i, err
		}
	}
	return i, nil
}

func skipString(b []byte, i int) (int, error) {
	start, ascii := i+1, true
	for i++; i < len(b); i++ {
		if i += plain(b[i:]); i == len(b) {
			break
		}
		switch c := b[i]; {
		case c == '"':
			if !ascii && !utf8.Valid(b[start:i]) {
				return start, syntax(start, "a string that is not UTF-8")
			}
			return i + 1, nil
		case c == '\\':
			i++
			if i >= len(b) {
				return i, unexpected(b, i, "an escape")
			}
			switch b[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
			case 'u':
				for range 4 {
					if i++; i >= len(b) || hexDigit(b[i]) < 0 {
						return i, unexpected(b, i, "a hexadecimal digit")
					}
				}
			default:
				return i, unexpected(b, i, "an escape")
			}
		case c < ' ':
			return i, syntax(i, "a control character in a string")
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return i, unexpected(b, i, "the end of a string")
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// plain counts the bytes that b begins with and that stand for themselves in a
// JSON text: printable ASCII but for the quote and the backslash.
func plain(b []byte) int {
	const short = 128
	i := 0
	for ; i < short && len(b)-i >= 8; i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		// A byte is marked by its highest bit: it has that already, or a
		// subtraction has borrowed it. The lowest byte that is marked is
		// marked rightly; those above it may be marked for its borrow.
		marks := (((w ^ '"'*ones) - ones) | ((w ^ '\\'*ones) - ones) | (w - ' '*ones) | w) & highs
		if marks != 0 {
			return i + bits.TrailingZeros64(marks)/8
		}
	}
	if i == short {
		return i + plainLong(b[i:])
	}
	for i < len(b) && b[i] >= ' ' && b[i] < utf8.RuneSelf && b[i] != '"' && b[i] != '\\' {
		i++
	}
	return i
}

// plainLong is plain for what is likely to go on: large bodies are made of
// long texts. It looks for the end 32 bytes at a time, and no further ahead
// than a window, lest texts of many escapes be looked through again and again.
func plainLong(b []byte) int {
	const window = 1 << 10
	for i := 0; ; {
		c := b[i:min(i+window, len(b))]
		n := len(c)
		if at := bytes.IndexByte(c, '"'); at >= 0 {
			n = at
		}
		if at := bytes.IndexByte(c[:n], '\\'); at >= 0 {
			n = at
		}
		if !ascii.ValidPrint(c[:n]) {
			n = printable(c[:n])
		}
		if i += n; n < window {
			return i
		}
	}
}

// printable counts the bytes that b begins with and that are ASCII and no
// control characters. DEL is one of them, which
// ascii.ValidPrint refuses.
func printable(b []byte) int {
	i := 0
	for ; len(b)-i >= 8; i += 8 {
		w := binary.LittleEndian.Uint64(b[i:])
		if (w|(w-' '*ones))&highs != 0 {
			break
		}
	}
	for i < len(b) && b[i] >= ' ' && b[i] < utf8.RuneSelf {
		i++
	}
	return i
}

// jump gives the index behind the value that starts at b[i], in a text that was
// checked before. Of one that was not it gives some index within b.
func jump(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			i = jumpString(b, i)
			if depth == 0 {
				return i
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth <= 0 {
				return i + 1 + depth // a number or word ends before the bracket that closes what it stands in
			}
		case ',', ' ', '\n', '\t', '\r':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return len(b)
}

// jumpString is jump for a string.
func jumpString(b []byte, i int) int {
	for start := i; ; {
		n := bytes.IndexByte(b[i+1:], '"')
		if n < 0 {
			return len(b)
		}
		i += n + 1
		slashes := 0
		for i-1-slashes > start && b[i-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i + 1
		}
	}
}

func hexDigit(c byte) rune {
	switch {
	case c >= '0' && c <= '9':
		return rune(c - '0')
	case c >= 'a' && c <= 'f':
		return rune(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return rune(c-'A') + 10
	}
	return -1
}

// unquote gives the text of a checked JSON string, from between its quotes.
func unquote(b []byte) string {
	i := bytes.IndexByte(b, '\\')
	if i < 0 {
		return string(b)
	}
	out := make([]byte, i, len(b))
	copy(out, b)
	for i < len(b) {
		c := b[i]
		if c != '\\' {
			out = append(out, c)
			i++
			continue
		}
		i += 2
		switch c = b[i-1]; c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r := hex4(b[i:])
			i += 4
			if utf16.IsSurrogate(r) {
				low := rune(-1)
				if i+6 <= len(b) && b[i] == '\\' && b[i+1] == 'u' {
					low = hex4(b[i+2:])
				}
				if r = utf16.DecodeRune(r, low); r != utf8.RuneError {
					i += 6
				}
			}
			out = utf8.AppendRune(out, r)
		default:
			out = append(out, c)
		}
	}
	return string(out)
}

func hex4(b []byte) rune {
	return hexDigit(b[0])<<12 | hexDigit(b[1])<<8 | hexDigit(b[2])<<4 | hexDigit(b[3])
}

// members walks an object. i stands behind the opening brace at first, and
// behind the closing one when next has returned false without an error.
type members struct {
	b     []byte
	i     int
	depth int
	begun bool
	valid bool   // b was checked before: values are jumped over
	key   []byte // as written, from between the quotes
	val   Value
	err   error
}

func (m *members) next() bool {
	i := skipSpace(m.b, m.i)
	switch {
	case i < len(m.b) && m.b[i] == '}':
		m.i = i + 1
		return false
	case !m.begun:
		m.begun = true
	case i < len(m.b) && m.b[i] == ',':
		i = skipSpace(m.b, i+1)
	default:
		return m.fail(i, unexpected(m.b, i, "a comma or the end of the object"))
	}
	if i >= len(m.b) || m.b[i] != '"' {
		return m.fail(i, unexpected(m.b, i, "a name in quotes"))
	}
	var end int
	var err error
	if m.valid {
		if end = jumpString(m.b, i); end < i+2 {
			return m.fail(i, unexpected(m.b, i, "the end of a name"))
		}
	} else if end, err = skipString(m.b, i); err != nil {
		return m.fail(end, err)
	}
	m.key = m.b[i+1 : end-1]
	i = skipSpace(m.b, end)
	if i >= len(m.b) || m.b[i] != ':' {
		return m.fail(i, unexpected(m.b, i, "a colon"))
	}
	i = skipSpace(m.b, i+1)
	if m.valid {
		end = jump(m.b, i)
	} else if end, err = skipValue(m.b, i, m.depth); err != nil {
		return m.fail(end, err)
	}
	m.val, m.i = m.b[i:end], end
	return true
}

func (m *members) fail(i int, err error) bool {
	m.i, m.err = i, err
	return false
}

// elements walks an array as members walks an object.
type elements struct {
	b     []byte
	i     int
	depth int
	begun bool
	valid bool // b was checked before: values are jumped over
	val   Value
	err   error
}

// begin goes to where the next element begins.
func (e *elements) begin() bool {
	i := skipSpace(e.b, e.i)
	switch {
	case i < len(e.b) && e.b[i] == ']':
		e.i = i + 1
		return false
	case !e.begun:
		e.begun = true
	case i < len(e.b) && e.b[i] == ',':
		i = skipSpace(e.b, i+1)
	default:
		e.i, e.err = i, unexpected(e.b, i, "a comma or the end of the array")
		return false
	}
	e.i = i
	return true
}

func (e *elements) next() bool {
	if !e.begin() {
		return false
	}
	i, end := e.i, 0
	if e.valid {
		end = jump(e.b, i)
	} else {
		var err error
		if end, err = skipValue(e.b, i, e.depth); err != nil {
			e.i, e.err = end, err
			return false
		}
	}
	e.val, e.i = e.b[i:end], end
	return true
}
