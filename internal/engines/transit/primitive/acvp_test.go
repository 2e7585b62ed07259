package primitive_test

import (
	"bytes"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
)

// TestACVPSLHDSA holds SLH-DSA to NIST's vectors. Wycheproof has none for it.
func TestACVPSLHDSA(t *testing.T) {
	b, err := os.ReadFile("testdata/acvp-slh-dsa.json") // says where they are from
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		KeyGen []struct {
			ParameterSet                  string
			SKSeed, SKPrf, PKSeed, SK, PK octets
		}
		SigVer []struct {
			TcID                            int
			ParameterSet, Reason            string
			PK, Message, Context, Signature octets
			Valid                           bool
		}
	}
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	if len(all.KeyGen) != 12 || len(all.SigVer) != 4 {
		t.Fatalf("%d keys and %d signatures were read", len(all.KeyGen), len(all.SigVer))
	}
	spec := func(set string) primitive.Spec {
		return primitive.Spec{Type: primitive.SLHDSA, ParameterSet: strings.ToLower(set)}
	}
	for _, v := range all.KeyGen {
		if want := slices.Concat(v.SKSeed, v.SKPrf, v.PKSeed); !bytes.HasPrefix(v.SK, want) {
			t.Fatalf("%s: the vector's key is not what its seeds say", v.ParameterSet)
		}
		// Importing makes the public key of the seeds.
		m, err := primitive.Imported(spec(v.ParameterSet), v.SK)
		if err != nil || !bytes.Equal(m.Public, v.PK) {
			t.Errorf("%s: the public key is %x, %v, want %x", v.ParameterSet, m.Public, err, v.PK)
		}
		bad := bytes.Clone(v.SK)
		bad[len(bad)-1] ^= 1
		if _, err := primitive.Imported(spec(v.ParameterSet), bad); err == nil {
			t.Errorf("%s: a key that contradicts itself is taken", v.ParameterSet)
		}
	}
	for _, v := range all.SigVer {
		k, err := primitive.Load(spec(v.ParameterSet), primitive.Material{Public: v.PK})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := k.(primitive.Signer).Verify(v.Message, v.Signature, primitive.SignOptions{Context: v.Context}); got != v.Valid || err != nil {
			t.Errorf("%s, test %d (%s): valid is %v, %v, want %v", v.ParameterSet, v.TcID, v.Reason, got, err, v.Valid)
		}
	}
}
