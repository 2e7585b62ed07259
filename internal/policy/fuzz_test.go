package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/policy"
	"github.com/leasehold/leasehold/internal/policy/syntax"
)

// The bombs among the seeds are small, so that the fuzzer is quick; the large
// ones are in TestParseRefuses.

func FuzzParseHCL(f *testing.F) {
	for _, s := range []string{
		policy.DefaultText, `path "a/+/*" { policy = "write" allowed_parameters = { "k" = ["x*", 1, [true]] } max_wrapping_ttl = "1h" }`,
		`path "a/{{identity.entity.id}}" {}`, strings.Repeat("a={", 1000), strings.Repeat("path \"a\" {", 40), `path = [[[[`,
	} {
		f.Add(s)
	}
	f.Fuzz(fuzzParse)
}

func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{
		`{"path":{"c/*":{"capabilities":["list"]}}}`, `{"path":[{"a":[{"policy":"read","denied_parameters":{"x":[{"y":1e3}]}}]}]}`,
		strings.Repeat(`{"path":`, 1000), `{"path":{"a":` + strings.Repeat("[", 1000),
	} {
		f.Add(s)
	}
	f.Fuzz(fuzzParse)
}

func fuzzParse(t *testing.T, text string) {
	p, err := policy.Parse("p", text)
	if (p == nil) == (err == nil) || err != nil && !errs.Is(err, errs.Invalid) {
		t.Fatalf("Parse = %v, %v", p, err)
	}
	if err != nil {
		return
	}
	if len(text) > syntax.MaxBytes {
		t.Fatalf("Parse took %d bytes", len(text))
	}
	s := policy.NewSet(p).Bind(entity{{Field: policy.ID}: "e"})
	acl := s.ResultantACL()
	for path, want := range acl.ExactPaths {
		// A path that only a list would have, or with a slash before it,
		// cannot be asked for.
		if got := s.Capabilities(path); !strings.HasPrefix(path, "/") && !slices.Equal(got, want.Capabilities) {
			t.Fatalf("Capabilities(%q) = %v, want %v", path, got, want.Capabilities)
		}
	}
}
