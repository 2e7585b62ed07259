package postgres

import (
	"encoding/base64"
	"testing"
)

// The vector of RFC 7677, whose proof and signature come from these keys.
func TestVerifierOfRFC7677(t *testing.T) {
	salt, err := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	got, err := verifier("pencil", salt, 4096)
	const want = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
	if err != nil || got.Reveal() != want {
		t.Errorf("verifier = %q, %v, want %q", got.Reveal(), err, want)
	}
}
