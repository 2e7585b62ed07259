package engine_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/engine"
)

func TestParseShown(t *testing.T) {
	for _, tc := range []struct {
		header []string
		want   string // of fmt; "" is refused
	}{
		{nil, "map[]"},
		{[]string{"phone:123456"}, "map[phone:[123456]]"},
		{[]string{"phone:passcode=1"}, "map[phone:[passcode=1]]"},
		{[]string{"a:1, b:2", "c"}, "map[a:[1] b:[2] c:[]]"},
		{[]string{"a:1:2"}, "map[a:[1:2]]"},
		{[]string{""}, ""},
		{[]string{":1"}, ""},
		{[]string{"a:1", "a:2"}, ""},
		{[]string{strings.Repeat("a,", 40)}, ""},
	} {
		got, err := engine.ParseShown(tc.header)
		if text := fmt.Sprint(got); (err != nil) != (tc.want == "") || err == nil && text != tc.want {
			t.Errorf("ParseShown(%q) = %v, %v, want %q", tc.header, got, err, tc.want)
		}
	}
}

// FuzzParseShown: each method that is read stands in the header, once and with
// one passcode at most.
func FuzzParseShown(f *testing.F) {
	for _, s := range []string{"", "a", "a:1", "a:1,b:2", "a:1,a:2", ",", "a:,b::", " a : 1 "} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		got, err := engine.ParseShown([]string{one, two})
		if err != nil {
			return
		}
		if len(got) > strings.Count(one, ",")+strings.Count(two, ",")+2 {
			t.Fatalf("ParseShown(%q, %q) = %v", one, two, got)
		}
		for method, codes := range got {
			if method == "" || len(codes) > 1 || !strings.Contains(one+","+two, method) {
				t.Fatalf("ParseShown(%q, %q) = %v", one, two, got)
			}
		}
	})
}
