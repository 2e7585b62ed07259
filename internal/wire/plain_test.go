package wire

import (
	"bytes"
	"testing"
	"unicode/utf8"
)

// TestPlain puts every byte at every place of a word and compares plain with
// the same asked byte by byte.
func TestPlain(t *testing.T) {
	slow := func(b []byte) int {
		for i, c := range b {
			if c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
				return i
			}
		}
		return len(b)
	}
	for n := range 40 {
		for at := range n {
			for c := range 256 {
				for _, fill := range []byte{'a', '!', '#', '[', ']', 0x7f, ' ', '"', 0, 0x80} {
					b := bytes.Repeat([]byte{'a'}, n)
					b[at] = byte(c)
					if at+1 < n {
						b[at+1] = fill // a borrow must not hide or make up a mark
					}
					if got, want := plain(b), slow(b); got != want {
						t.Fatalf("plain(%q) = %d, want %d", b, got, want)
					}
				}
			}
		}
	}
}

// TestJump compares jumping over a value with checking it.
func TestJump(t *testing.T) {
	for _, text := range []string{
		`1`, `-1.5e3`, `true`, `null`, `""`, `"a"`, `"\""`, `"\\"`, `"\\\""`, `"\\\\"`, `"]"`, `[]`, `[1]`, `[[],[[]]]`, `{}`,
		`{"a":1}`, `{"a":"}"}`, `{"a":["\"]",{"b":[null,"\\"]}]}`, `[ 1 , "x" , { "a" : [ ] } ]`,
	} {
		for _, behind := range []string{"", ",", "]", "}", " ", "\n,"} {
			b := []byte(text + behind)
			want, err := skipValue(b, 0, 0)
			if err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			if got := jump(b, 0); got != want {
				t.Errorf("jump(%s) = %d, want %d", b, got, want)
			}
		}
	}
	for _, garbage := range []string{``, `"`, `"\`, `[`, `{"`, `[[}`, `{"a":"\"`, `,`} {
		if got := jump([]byte(garbage), 0); got < 0 || got > len(garbage) {
			t.Errorf("jump(%s) = %d, outside of the text", garbage, got)
		}
	}
}
