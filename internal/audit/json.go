package audit

import (
	"maps"
	"net/url"
	"slices"
	"unicode/utf8"

	"github.com/leasehold/leasehold/internal/wire"
)

// Query is the data of query parameters: one value is a string, several are a
// list. secret, which may be nil, says whether a parameter of that name is of
// a secret type.
func Query(values url.Values, secret func(name string) bool) Data {
	return func(dst []byte, hash wire.Hasher) []byte {
		dst = append(dst, '{')
		for i, k := range slices.Sorted(maps.Keys(values)) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, k)
			dst = append(dst, ':')
			isSecret := secret != nil && secret(k)
			vs := values[k]
			if len(vs) == 1 {
				dst = appendString(dst, hash(k, isSecret, vs[0]))
				continue
			}
			dst = append(dst, '[')
			for j, v := range vs {
				if j > 0 {
					dst = append(dst, ',')
				}
				dst = appendString(dst, hash(k, isSecret, v))
			}
			dst = append(dst, ']')
		}
		return append(dst, '}')
	}
}

// elide replaces, in the JSON object that buf[start:] is, the list "keys" of a
// listing and the object "key_info" that goes with it by the numbers of their
// members, which keeps long listings out of the log. The object was written by
// our own encoder: it is well-formed and holds no white space.
func elide(buf []byte, start int) []byte {
	var (
		to      = start // buf[start:to] is done
		depth   = 0
		member  = ""    // of the outermost object, the one we are in
		name    = false // a name, not a value, comes next at depth 1
		skipped = -1    // members counted so far of a value that is left out
	)
	for from := start; from < len(buf); {
		c := buf[from]
		n := 1
		switch c {
		case '{', '[':
			if depth == 1 && (member == "keys" && c == '[' || member == "key_info" && c == '{') {
				skipped = 0
				if next := buf[from+1]; next != ']' && next != '}' {
					skipped = 1
				}
			}
			depth++
			name = depth == 1
		case '}', ']':
			depth--
			if depth == 1 && skipped >= 0 {
				rest := buf[from+1:]
				count := appendInt(nil, int64(skipped)) // never longer than what it stands for
				to += copy(buf[to:], count)
				skipped = -1
				from = len(buf) - len(rest)
				continue
			}
		case ',':
			if depth == 2 && skipped >= 0 {
				skipped++
			}
			name = depth == 1
		case '"':
			n = stringLen(buf[from:])
			if name {
				member, name = string(buf[from+1:from+n-1]), false
			}
		}
		if skipped < 0 {
			to += copy(buf[to:], buf[from:from+n])
		}
		from += n
	}
	return buf[:to]
}

// stringLen is the length of the JSON string that b begins with.
func stringLen(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(b)
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
