package mfa_test

import (
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/engines/identity/mfa"
)

// TestCodesOfTheRFCs holds Code to the published values: RFC 4226, appendix D,
// and RFC 6238, appendix B.
func TestCodesOfTheRFCs(t *testing.T) {
	key := func(n int) []byte { return []byte(strings.Repeat("1234567890", 7)[:n]) }
	for i, want := range []string{"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"} {
		if got := mfa.Code(key(20), int64(i), 6, "SHA1"); got != want {
			t.Errorf("HOTP of counter %d = %s, want %s", i, got, want)
		}
	}
	for _, tc := range []struct {
		unix                 int64
		sha1, sha256, sha512 string
	}{
		{59, "94287082", "46119246", "90693936"},
		{1111111109, "07081804", "68084774", "25091201"},
		{1111111111, "14050471", "67062674", "99943326"},
		{1234567890, "89005924", "91819424", "93441116"},
		{2000000000, "69279037", "90698825", "38618901"},
		{20000000000, "65353130", "77737706", "47863826"},
	} {
		for alg, want := range map[string]struct {
			size int
			code string
		}{"SHA1": {20, tc.sha1}, "SHA256": {32, tc.sha256}, "SHA512": {64, tc.sha512}} {
			if got := mfa.Code(key(want.size), tc.unix/30, 8, alg); got != want.code {
				t.Errorf("TOTP by %s at %d = %s, want %s", alg, tc.unix, got, want.code)
			}
		}
	}
}
