package username_test

import (
	"crypto/sha256"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engines/database/username"
)

func input(display, role string) username.Input {
	return username.Input{
		DisplayName: display, RoleName: role, Now: time.Unix(1700000000, 0),
		Random: func(n int) []byte {
			var out []byte
			for i := byte(0); len(out) < n; i++ {
				h := sha256.Sum256([]byte{i})
				out = append(out, h[:]...)
			}
			return out[:n]
		},
	}
}

func TestMake(t *testing.T) {
	for _, tt := range []struct {
		template, display, role, want string // want is a pattern
	}{
		{username.Default, "token", "ro", `^v-token-ro-[A-Za-z0-9]{20}-1700000000$`},
		{username.Default, "userpass-margaret", "a-very-long-role", `^v-userpass-a-very-l-[A-Za-z0-9]{20}-1700000000$`},
		{username.Default, "token--", "abcdefg--x", `^v-token-abcdefg-[A-Za-z0-9]{20}-1700000000$`},
		{username.Default, "", "", `^v---[A-Za-z0-9]{20}-1700000000$`},
		{`app_{{.RoleName}}_{{random 6 | lowercase}}`, "x", "pol", `^app_pol_[a-z0-9]{6}$`},
		{`{{.RoleName | uppercase | replace "P" "q"}}-{{random 20}}`, "x", "pol", `^qOL-[A-Za-z0-9]{20}$`},
		{`{{uuid}}`, "", "", `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`},
		{`{{timestamp "2006-01-02"}}-{{unix_time_millis}}`, "", "", `^2023-11-14-1700000000000$`},
		{`{{"abc" | sha256 | truncate 8}}-{{"abc" | base64}}`, "", "", `^ba7816bf-YWJj$`},
		{`{{.RoleName | truncate_sha256 12}}`, "", "a-long-role-name", `^a-lo[0-9a-f]{8}$`},
		{`{{if .DisplayName}}y{{else}}n{{end}}{{with .RoleName}}{{.}}{{end}}`, "d", "r", `^yr$`},
		// The random part stays whole: what can be read is shortened.
		{`{{.DisplayName}}-{{.RoleName}}-{{random 24}}`, strings.Repeat("d", 60), strings.Repeat("r", 60), `^d{18,20}-r{18,20}-[A-Za-z0-9]{24}$`},
		{`{{.DisplayName}}-{{.RoleName}}-{{random 24}}`, strings.Repeat("d", 5000), "r", `^d{36}-r-[A-Za-z0-9]{24}$`},
		{`{{printf "%s-%s-%s" .DisplayName .RoleName (random 20) | truncate 30}}`, "display", "role", `^[a-z]{0,4}-[a-z]{0,4}-[A-Za-z0-9]{20}$`},
	} {
		tmpl, err := username.Compile(tt.template, 63)
		if err != nil {
			t.Errorf("Compile(%q): %v", tt.template, err)
			continue
		}
		got, err := tmpl.Make(input(tt.display, tt.role))
		if err != nil || !regexp.MustCompile(tt.want).MatchString(got) {
			t.Errorf("Make(%q, %q, %q) = %q, %v, want %s", tt.template, tt.display, tt.role, got, err, tt.want)
		}
		if again, _ := tmpl.Make(input(tt.display, tt.role)); again != got {
			t.Errorf("Make(%q) gave %q and then %q from the same randomness", tt.template, got, again)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, text := range []string{
		``, `{{`, `{{nothing}}`, `{{range 10}}x{{end}}`, `{{define "x"}}{{end}}a`, `{{if true}}{{range 3}}x{{end}}{{end}}`,
		`{{block "x" .}}{{template "x" .}}{{end}}`,
	} {
		if _, err := username.Compile(text, 63); err == nil {
			t.Errorf("Compile(%q) was taken, want an error", text)
		}
	}
	for _, text := range []string{
		`{{.Nothing}}`, `{{random 0}}`, `{{random 100000}}`, `{{"x" | truncate 0}}`, `{{"x" | truncate_sha256 8}}`,
		`{{printf "%2000d" 1}}`, `{{random 64}}`, `{{if false}}x{{end}}`,
	} {
		tmpl, err := username.Compile(text, 63)
		if err != nil {
			continue
		}
		if got, err := tmpl.Make(input("d", "r")); err == nil {
			t.Errorf("Make(%q) = %q, want an error", text, got)
		}
	}
}

// TestTextsStayShort: a template whose functions make texts longer and longer is
// refused, though what is left of them in the end is short. Those here would
// take some hundred kilobytes; with more of the same it is all there is.
func TestTextsStayShort(t *testing.T) {
	const end = ` | truncate 8}}-{{random 20}}`
	for _, text := range []string{
		`{{"x"` + strings.Repeat(` | base64`, 40) + end,
		`{{"x"` + strings.Repeat(` | replace "" "yyyyyyyyyy"`, 5) + end,
		`{{"'"` + strings.Repeat(` | js`, 20) + end,
		`{{"1"` + strings.Repeat(` | timestamp`, 18) + end,
		`{{printf "%99999d" 1` + end, `{{printf "%-099999s" "x"` + end, `{{printf "%.99999f" 1.5` + end, `{{printf "%*d" 99999 1` + end, `{{printf "%[1]*[2]d" 99999 1` + end,
		`{{$a := printf "%999s" "x"}}{{$b := print $a $a $a $a $a $a $a $a}}{{print $b $b $b $b $b $b $b $b` + end,
		`{{$a := printf "%999s" "x"}}{{printf "` + strings.Repeat(`%[1]s`, 400) + `" $a` + end,
	} {
		tmpl, err := username.Compile(text, 63)
		if err != nil {
			t.Errorf("Compile(%.80q): %v", text, err)
			continue
		}
		in := input("d", "r")
		in.Now = time.Date(2026, time.November, 11, 11, 11, 11, 0, time.UTC)
		if got, err := tmpl.Make(in); err == nil {
			t.Errorf("Make(%.80q) = %q, want an error", text, got)
		}
	}
	tmpl, err := username.Compile(`{{printf "%-3s|%03d|%5.1f|%%1000|%[1]q" .RoleName 7 1.25}}{{print "a" "b" 3}}{{html "<"}}`, 63)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tmpl.Make(input("d", "r")); err != nil || got != `r  |007|  1.2|%1000|"r"ab3&lt;` {
		t.Errorf("Make = %q, %v", got, err)
	}
}

func TestBits(t *testing.T) {
	for text, want := range map[string][2]float64{
		username.Default:                   {119, 120},
		`{{random 6 | lowercase}}`:         {31, 32},
		`{{.RoleName}}`:                    {0, 0},
		`{{random 20 | truncate 10}}`:      {0, 0},
		`{{random 10}}-{{random 10}}`:      {119, 120},
		`{{.DisplayName}}_{{.RoleName}}_x`: {0, 0},
	} {
		tmpl, err := username.Compile(text, 63)
		if err != nil {
			t.Fatalf("Compile(%q): %v", text, err)
		}
		if got, err := tmpl.Bits(); err != nil || got < want[0] || got > want[1] {
			t.Errorf("Bits(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
}
