package password_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/policy/password"
)

func count(s, chars string) int {
	n := 0
	for _, c := range s {
		if strings.ContainsRune(chars, c) {
			n++
		}
	}
	return n
}

func generate(t testing.TB, p *password.Policy, r io.Reader) string {
	t.Helper()
	s, err := p.Generate(r)
	if err != nil {
		t.Fatalf("Generate: %v", err)
	}
	return s.Reveal()
}

func TestDefault(t *testing.T) {
	const lower, upper, digits = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"
	seen := map[string]bool{}
	for range 1000 {
		s := generate(t, password.Default(), nil)
		if len(s) != 20 || count(s, lower+upper+digits+"-") != 20 ||
			count(s, lower) < 1 || count(s, upper) < 1 || count(s, digits) < 1 || count(s, "-") < 1 {
			t.Fatalf("Generate = %q, want 20 letters, digits and dashes with one of each kind", s)
		}
		if seen[s] {
			t.Fatalf("Generate gave %q twice", s)
		}
		seen[s] = true
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, text, chars string }{
		{"HCL", "length = 14\nrule \"charset\" { charset = \"abcdef\" min-chars = 2 }\nrule \"charset\" { charset = \"0123456789\" min-chars = 3 }", "abcdef0123456789"},
		{"JSON", `{"length":14,"rule":[{"charset":{"charset":"abcdef","min-chars":2}},{"charset":{"charset":"0123456789","min-chars":3}}]}`, "abcdef0123456789"},
		{"number in a string", `length = "14" rule "charset" { charset = "ab" }`, "ab"},
		{"beyond ASCII", `length = 14 rule "charset" { charset = "äöü€" min-chars = 14 }`, "äöü€"},
		{"more than 256 characters", `length = 14 rule "charset" { charset = "` + manyRunes(1000) + `" }`, manyRunes(1000)},
		{"one of a kind", `length = 14 rule "charset" { charset = "aaaa" min-chars = 1 }`, "a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := password.Parse(c.text)
			if err != nil {
				t.Fatal(err)
			}
			s := generate(t, p, nil)
			if got := count(s, c.chars); got != 14 || utf8.RuneCountInString(s) != 14 {
				t.Errorf("Generate = %q, want 14 of %q", s, c.chars)
			}
		})
	}
}

func manyRunes(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteRune(rune(0x4e00 + i))
	}
	return b.String()
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"too many required", `length = 10 rule "charset" { charset = "ab" min-chars = 11 }`, "specified rules require at least 11 characters but 10 is specified"},
		{"required by several", `length = 4 rule "charset" { charset = "ab" min-chars = 3 } rule "charset" { charset = "cd" min-chars = 2 }`, "at least 5 characters but 4"},
		{"no length", `rule "charset" { charset = "ab" }`, "length must be > 0"},
		{"no rule", `length = 10`, "no charset specified"},
		{"empty", ``, "length must be > 0"},
		{"negative", `length = -1`, "length must be from 0 to 4096, not -1"},
		{"far too long", `length = 1000000 rule "charset" { charset = "ab" }`, "length must be from 0 to 4096"},
		{"length of another kind", `length = [1]`, "expected a number"},
		{"length in words", `length = "long"`, "expected a whole number"},
		{"length twice", `{"length":1,"length":2}`, "already set"},
		{"empty charset", `length = 10 rule "charset" { charset = "" }`, "no charset specified"},
		{"no charset", `length = 10 rule "charset" { min-chars = 1 }`, "no charset specified"},
		{"unprintable", `length = 10 rule "charset" { charset = "a\n" }`, "non-printable character U+000A in charset"},
		{"negative minimum", `length = 10 rule "charset" { charset = "a" min-chars = -1 }`, "min-chars must be from 0"},
		{"another kind of rule", `length = 10 rule "words" { list = "a" }`, `unrecognized rule type "words"`},
		{"unknown key", `length = 10 size = 3`, `invalid key "size"`},
		{"unknown key in a rule", `length = 10 rule "charset" { charset = "a" min = 1 }`, `At 1:44: invalid key "min"`},
		{"broken", `length = `, "invalid password policy: "},
		{"nesting bomb", strings.Repeat("a={", 80_000), "nested deeper"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := password.Parse(c.text)
			if !errs.Is(err, errs.Invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Parse(%.60q) = %v, want errs.Invalid with %q", c.text, err, c.want)
			}
		})
	}
}

// Rules that drawing at random would not meet in the age of the universe.
func TestNarrowRulesAreMet(t *testing.T) {
	p, err := password.Parse(`length = 64
rule "charset" { charset = "a" min-chars = 31 }
rule "charset" { charset = "b" min-chars = 32 }
rule "charset" { charset = "` + manyRunes(900) + `" }`)
	if err != nil {
		t.Fatal(err)
	}
	firsts := map[rune]int{}
	for range 200 {
		s := generate(t, p, nil)
		if count(s, "a") < 31 || count(s, "b") < 32 || utf8.RuneCountInString(s) != 64 {
			t.Fatalf("Generate = %q, want at least 31 a and 32 b of 64", s)
		}
		first, _ := utf8.DecodeRuneInString(s)
		firsts[first]++
	}
	if firsts['a'] < 50 || firsts['b'] < 50 {
		t.Errorf("first characters %v: the required ones are not shuffled", firsts)
	}
}

func TestNoCharacterIsFavoured(t *testing.T) {
	p, err := password.Parse(`length = 4096 rule "charset" { charset = "abcdefghijk" }`)
	if err != nil {
		t.Fatal(err)
	}
	// A fixed stream: the test is the same each time it runs.
	stream := rand.NewChaCha8([32]byte{1})
	counts := map[rune]int{}
	const rounds = 50
	for range rounds {
		for _, c := range generate(t, p, stream) {
			counts[c]++
		}
	}
	chi, want := 0.0, float64(rounds*4096)/11
	for _, n := range counts {
		chi += (float64(n) - want) * (float64(n) - want) / want
	}
	if len(counts) != 11 || chi > 29.6 { // 1 in 1,000 with 10 degrees of freedom
		t.Errorf("counts %v: chi squared %.1f, want at most 29.6", counts, chi)
	}
}

func TestGenerateFailsWithItsReader(t *testing.T) {
	for _, r := range []io.Reader{bytes.NewReader(nil), bytes.NewReader(make([]byte, 300))} {
		s, err := password.Default().Generate(r)
		if err == nil || !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) || !s.IsZero() {
			t.Errorf("Generate with a reader that ends = %q, %v, want its error", s.Reveal(), err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("length = 14\nrule \"charset\" { charset = \"abcdef\" min-chars = 2 }")
	f.Add(`{"length":14,"rule":[{"charset":{"charset":"abcdef","min-chars":2}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := password.Parse(text)
		if (p == nil) == (err == nil) {
			t.Fatalf("Parse = %v, %v", p, err)
		}
		if err == nil && generate(t, p, nil) == "" {
			t.Fatal("Generate gave nothing")
		}
	})
}

// Whatever the rules, a policy that is accepted is kept.
func TestRulesAreKept(t *testing.T) {
	sets := []string{"abc", "xyz", "0123456789", "-", "cx0"}
	rapid.Check(t, func(t *rapid.T) {
		var text strings.Builder
		type want struct {
			chars string
			least int
		}
		var wants []want
		length := rapid.IntRange(1, 40).Draw(t, "length")
		text.WriteString("length = " + strconv.Itoa(length) + "\n")
		for range rapid.IntRange(1, 4).Draw(t, "rules") {
			w := want{rapid.SampledFrom(sets).Draw(t, "chars"), rapid.IntRange(0, 12).Draw(t, "least")}
			text.WriteString(`rule "charset" { charset = "` + w.chars + `" min-chars = ` + strconv.Itoa(w.least) + " }\n")
			wants = append(wants, w)
		}
		least := 0
		for _, w := range wants {
			least += w.least
		}
		p, err := password.Parse(text.String())
		if (err == nil) != (least <= length) {
			t.Fatalf("Parse(%s) = %v with %d required", text.String(), err, least)
		}
		if err != nil {
			return
		}
		s, err := p.Generate(nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range wants {
			if got := count(s.Reveal(), w.chars); got < w.least {
				t.Fatalf("%q has %d of %q, want %d", s.Reveal(), got, w.chars, w.least)
			}
		}
	})
}

func BenchmarkDefault(b *testing.B) {
	for b.Loop() {
		if _, err := password.Default().Generate(nil); err != nil {
			b.Fatal(err)
		}
	}
}
