package b64_test

import (
	"bytes"
	"encoding/base64"
	"testing"

	"github.com/leasehold/leasehold/internal/engines/transit/b64"
)

// FuzzAgainstStandard holds the fast package to encoding/base64: what either
// takes, the other takes, and they agree about it.
func FuzzAgainstStandard(f *testing.F) {
	for _, s := range []string{"", "A", "AA==", "AAA=", "AAAA", "AB==", "A\nA==", "AA=\r\n=", "AA==AA==", "AA", "****", "=AAA"} {
		f.Add([]byte(s))
	}
	f.Add(bytes.Repeat([]byte("QUJD"), 40))
	f.Add(append(bytes.Repeat([]byte("QUJD"), 40), '\n'))
	f.Add(append(bytes.Repeat([]byte("QUJD"), 40), "QQ=="...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, want := b64.Append([]byte("x"), b), "x"+base64.StdEncoding.EncodeToString(b); string(got) != want {
			t.Errorf("Append(%q) = %q, want %q", b, got, want)
		}
		want, wantErr := base64.StdEncoding.DecodeString(string(b))
		got, err := b64.AppendDecoded([]byte("x"), b)
		if (err == nil) != (wantErr == nil) || err == nil && string(got) != "x"+string(want) {
			t.Errorf("AppendDecoded(%q) = %q, %v, want %q, %v", b, got, err, want, wantErr)
		}
	})
}
