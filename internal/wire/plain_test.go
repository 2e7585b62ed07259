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

// TestPlainLong does the same at the seams of long texts.
func TestPlainLong(t *testing.T) {
	for _, n := range []int{63, 64, 65, 71, 72, 95, 96, 97, 127, 128, 64 + 1023, 64 + 1024, 64 + 1025, 64 + 2048, 3000} {
		for at := range n + 1 {
			for _, c := range []byte{'"', '\\', 0, 0x1f, '\n', 0x80, 0xff, 0x7f, 'a'} {
				b := bytes.Repeat([]byte{'a'}, n)
				want := n
				if at < n {
					b[at] = c
					if c != 'a' && c != 0x7f {
						want = at
					}
				}
				if got := plain(b); got != want {
					t.Fatalf("plain of %d bytes with %q at %d = %d, want %d", n, c, at, got, want)
				}
				// What follows a text's end is not looked at.
				if at+9 < n && want == at {
					copy(b[at+1:], "\x00\"\\\x80")
					if got := plain(b); got != at {
						t.Fatalf("plain of %d bytes with %q and more at %d = %d", n, c, at, got)
					}
				}
			}
		}
	}
}

// BenchmarkPlain is a text of 5,000 bytes, and one of as many that is all
// short pieces.
func BenchmarkPlain(b *testing.B) {
	long := bytes.Repeat([]byte{'a'}, 5000)
	escapes := bytes.Repeat([]byte(string(bytes.Repeat([]byte{'a'}, 70))+`\n`), 5000/72)
	b.Run("long", func(b *testing.B) {
		b.SetBytes(int64(len(long)))
		for b.Loop() {
			plain(long)
		}
	})
	b.Run("escapes", func(b *testing.B) {
		b.SetBytes(int64(len(escapes)))
		for b.Loop() {
			for i := 0; i < len(escapes); {
				i += plain(escapes[i:]) + 2
			}
		}
	})
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
