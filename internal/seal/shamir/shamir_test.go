package shamir_test

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"github.com/leasehold/leasehold/internal/seal/shamir"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestKnown combines shares worked out by hand: each byte's polynomial at x,
// then x, as Vault's shares are.
func TestKnown(t *testing.T) {
	for _, tt := range []struct{ name, secret, a, b, c string }{
		// 53 + ca x: at 1 53^ca, at 2 53^(ca*2 = 8f), at 53, which is 1/ca, 53^01.
		{"one byte", "53", "9901", "dc02", "5253"},
		// 57 + 83 x and 00 + 01 x: at 57 57^c1 (FIPS 197: 57*83 = c1), at 2 57^(83*2 = 1d).
		{"two bytes", "5700", "d40101", "965757", "4a0202"},
	} {
		secret := unhex(t, tt.secret)
		shares := [][]byte{unhex(t, tt.a), unhex(t, tt.b), unhex(t, tt.c)}
		for _, pick := range [][]int{{0, 1}, {1, 0}, {0, 2}, {2, 1}, {0, 1, 2}, {2, 0, 1}} {
			var some [][]byte
			for _, i := range pick {
				some = append(some, shares[i])
			}
			if got, err := shamir.Combine(some); err != nil || !bytes.Equal(got, secret) {
				t.Errorf("%s: Combine(%x) = %x, %v, want %x", tt.name, some, got, err, secret)
			}
		}
	}
}

// reference evaluates and interpolates with logarithms instead, as the tables
// of other implementations do.
type reference struct{ exp, log [256]int }

func newReference() *reference {
	r := &reference{}
	x := 1
	for i := range 255 {
		r.exp[i], r.log[x] = x, i
		x ^= x << 1 // times 3
		if x > 255 {
			x ^= 0x11b
		}
	}
	return r
}

func (r *reference) mul(a, b int) int {
	if a == 0 || b == 0 {
		return 0
	}
	return r.exp[(r.log[a]+r.log[b])%255]
}

func (r *reference) div(a, b int) int {
	if a == 0 {
		return 0
	}
	return r.exp[(r.log[a]-r.log[b]+255)%255]
}

func (r *reference) combine(shares [][]byte) []byte {
	n := len(shares[0]) - 1
	out := make([]byte, n)
	for k := range out {
		sum := 0
		for i, s := range shares {
			term := int(s[k])
			for j, o := range shares {
				if i != j {
					term = r.div(r.mul(term, int(o[n])), int(o[n]^s[n]))
				}
			}
			sum ^= term
		}
		out[k] = byte(sum)
	}
	return out
}

func TestSplitAndCombine(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	ref := newReference()
	for _, p := range []struct{ n, t int }{{2, 2}, {3, 2}, {5, 3}, {10, 10}, {255, 2}, {255, 128}} {
		secret := make([]byte, 32)
		for i := range secret {
			secret[i] = byte(rnd.Uint32())
		}
		shares, err := shamir.Split(secret, p.n, p.t)
		if err != nil || len(shares) != p.n {
			t.Fatalf("Split(%d, %d) = %d shares, %v", p.n, p.t, len(shares), err)
		}
		for range 5 {
			rnd.Shuffle(len(shares), func(i, j int) { shares[i], shares[j] = shares[j], shares[i] })
			some := shares[:p.t+rnd.IntN(p.n-p.t+1)]
			if got, err := shamir.Combine(some); err != nil || !bytes.Equal(got, secret) {
				t.Errorf("Combine(%d of %d, threshold %d) = %x, %v, want %x", len(some), p.n, p.t, got, err, secret)
			}
			if got := ref.combine(some); !bytes.Equal(got, secret) {
				t.Errorf("another implementation combines %d of %d to %x, want %x", len(some), p.n, got, secret)
			}
		}
		if p.t > 2 {
			if got, err := shamir.Combine(shares[:p.t-1]); err != nil || bytes.Equal(got, secret) {
				t.Errorf("Combine of one too few = %x, %v, want something else", got, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for _, tt := range []struct{ size, n, t int }{{0, 3, 2}, {1, 3, 1}, {1, 2, 3}, {1, 256, 2}, {1, 0, 0}, {1, 3, -1}} {
		if _, err := shamir.Split(make([]byte, tt.size), tt.n, tt.t); err == nil {
			t.Errorf("Split(%d bytes, %d, %d) = nil, want an error", tt.size, tt.n, tt.t)
		}
	}
	for name, shares := range map[string][]string{
		"nothing":           {},
		"one":               {"9901"},
		"the same twice":    {"9901", "9901"},
		"one point twice":   {"9901", "0001"},
		"different lengths": {"9901", "0000dc02"},
		"too short":         {"01", "02"},
		"the point 0":       {"9901", "5300"},
	} {
		var in [][]byte
		for _, s := range shares {
			in = append(in, unhex(t, s))
		}
		if got, err := shamir.Combine(in); err == nil {
			t.Errorf("Combine of %s = %x, want an error", name, got)
		}
	}
}
