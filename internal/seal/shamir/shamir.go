// Package shamir splits a secret into shares of which some number gives it
// back, and fewer tell nothing (Shamir, "How to share a secret", 1979).
//
// Shares have the form of HashiCorp Vault's: for each byte of the secret one
// value of a polynomial over GF(2^8) with AES's modulus, and at the end the
// point x at which the polynomials were evaluated. The arithmetic takes the
// same time for all values.
package shamir

import (
	"crypto/rand"
	"errors"
	"fmt"
)

// Split makes n shares of which any t give the secret back.
func Split(secret []byte, n, t int) ([][]byte, error) {
	switch {
	case len(secret) == 0:
		return nil, errors.New("shamir: an empty secret cannot be split")
	case t < 2 || n < t || n > 255:
		return nil, fmt.Errorf("shamir: cannot make %d shares with a threshold of %d", n, t)
	}
	xs := points(n)
	shares := make([][]byte, n)
	for i := range shares {
		shares[i] = make([]byte, len(secret)+1)
		shares[i][len(secret)] = xs[i]
	}
	poly := make([]byte, t) // poly[0] is the secret byte
	defer clear(poly)
	for k, b := range secret {
		_, _ = rand.Read(poly) // never fails
		poly[0] = b
		for i, x := range xs {
			shares[i][k] = eval(poly, x)
		}
	}
	return shares, nil
}

// points draws n different points, none of them 0, at which the secret lies.
func points(n int) []byte {
	all := make([]byte, 255)
	for i := range all {
		all[i] = byte(i + 1)
	}
	for i := range n {
		j := i + below(len(all)-i)
		all[i], all[j] = all[j], all[i]
	}
	return all[:n]
}

// below draws a number in [0, n), n at most 256.
func below(n int) int {
	var b [1]byte
	for {
		_, _ = rand.Read(b[:])
		if limit := 256 - 256%n; int(b[0]) < limit {
			return int(b[0]) % n
		}
	}
}

// Combine gives the secret back from enough shares, in any order. It cannot
// know whether they are enough and belong together: then the result is
// another one, and whoever uses it must find out.
func Combine(shares [][]byte) ([]byte, error) {
	if len(shares) < 2 {
		return nil, errors.New("shamir: fewer than two shares")
	}
	size := len(shares[0])
	if size < 2 {
		return nil, errors.New("shamir: a share is too short")
	}
	var seen [256]bool
	xs := make([]byte, len(shares))
	for i, s := range shares {
		if len(s) != size {
			return nil, errors.New("shamir: shares of different lengths")
		}
		x := s[size-1]
		if x == 0 || seen[x] {
			return nil, errors.New("shamir: a share is damaged or given twice")
		}
		seen[x], xs[i] = true, x
	}
	secret := make([]byte, size-1)
	for i, s := range shares {
		w := weight(xs, i)
		for k := range secret {
			secret[k] ^= mul(s[k], w)
		}
	}
	return secret, nil
}

// weight is the value at 0 of the i-th Lagrange polynomial of the points xs.
func weight(xs []byte, i int) byte {
	w := byte(1)
	for j, x := range xs {
		if j != i {
			w = mul(w, mul(x, inverse(x^xs[i])))
		}
	}
	return w
}

// eval is the polynomial's value at x (Horner's scheme).
func eval(poly []byte, x byte) byte {
	var y byte
	for i := len(poly) - 1; i >= 0; i-- {
		y = mul(y, x) ^ poly[i]
	}
	return y
}

// mul multiplies in GF(2^8) modulo x^8+x^4+x^3+x+1, without branches or
// tables that depend on the values.
func mul(a, b byte) byte {
	var p byte
	for range 8 {
		p ^= -(b & 1) & a
		a = a<<1 ^ -(a>>7)&0x1b
		b >>= 1
	}
	return p
}

// inverse is a^254, which is 1/a.
func inverse(a byte) byte {
	r := byte(1)
	for range 7 { // 254 = 2+4+...+128
		a = mul(a, a)
		r = mul(r, a)
	}
	return r
}
