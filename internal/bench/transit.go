package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/bench/bare"
)

// transitItems is how many items a batch has.
const transitItems = 100

// transitBodies are requests to the keys of bench-transit, ready to send.
type transitBodies struct {
	small, large             []byte // to encrypt 32 bytes, and 4 KiB
	smallSealed, largeSealed []byte // to decrypt these
	batch                    []byte // to encrypt 100 times 32 bytes
	input                    []byte // to sign and authenticate 32 bytes
	verify                   []byte
	rawSmall, rawLarge       []byte // the same without JSON and base64
	rawSealed                []byte
}

func (s *subject) setupTransit(ctx context.Context) error {
	if err := s.call(ctx, "POST", "sys/mounts/bench-transit", s.server.Root, obj{"type": "transit"}, nil); err != nil {
		return err
	}
	for key, typ := range map[string]string{"aes": "aes256-gcm96", "ed": "ed25519"} {
		if err := s.call(ctx, "POST", "bench-transit/keys/"+key, s.server.Root, obj{"type": typ}, nil); err != nil {
			return err
		}
	}
	t := &s.transit
	t.rawSmall, t.rawLarge = bytes.Repeat([]byte{'x'}, 32), bytes.Repeat([]byte{'x'}, 4<<10)
	text := base64.StdEncoding.EncodeToString
	t.small, t.large = []byte(`{"plaintext":"`+text(t.rawSmall)+`"}`), []byte(`{"plaintext":"`+text(t.rawLarge)+`"}`)
	t.batch = []byte(`{"batch_input":[` + strings.TrimSuffix(strings.Repeat(string(t.small)+",", transitItems), ",") + `]}`)
	t.input = []byte(`{"input":"` + text(t.rawSmall) + `"}`)
	var a answer
	for _, c := range []struct{ plain, sealed *[]byte }{{&t.small, &t.smallSealed}, {&t.large, &t.largeSealed}} {
		if err := s.call(ctx, "POST", "bench-transit/encrypt/aes", s.tokens[0], jsonText(*c.plain), &a); err != nil {
			return err
		}
		*c.sealed = []byte(`{"ciphertext":"` + a.Data.Ciphertext + `"}`)
	}
	if err := s.call(ctx, "POST", "bench-transit/sign/ed", s.tokens[0], jsonText(t.input), &a); err != nil {
		return err
	}
	t.verify = []byte(`{"input":"` + text(t.rawSmall) + `","signature":"` + a.Data.Signature + `"}`)
	var err error
	t.rawSealed, err = s.octets(ctx, "bench-transit/encrypt/aes", s.tokens[0], t.rawLarge)
	return err
}

// jsonText is a body that is JSON already.
type jsonText []byte

func (b jsonText) MarshalJSON() ([]byte, error) { return b, nil }

// octets sends bytes and returns those of the answer.
func (c *client) octets(ctx context.Context, path, token string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, "POST", c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Vault-Token", token)
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err == nil && resp.StatusCode != http.StatusOK {
		err = &statusError{resp.StatusCode, string(bytes.TrimSpace(out[:min(len(out), 300)]))}
	}
	return out, err
}

func (s *subject) post(path string, body *[]byte) op {
	return func(ctx context.Context, w int) error {
		_, err := s.raw(ctx, "POST", path, s.tokens[w], *body)
		return err
	}
}

func (s *subject) postOctets(path string, body *[]byte) op {
	return func(ctx context.Context, w int) error {
		_, err := s.octets(ctx, path, s.tokens[w], *body)
		return err
	}
}

func transitWorkloads(s *subject, c *control) []workload {
	sign, verify, ours := bareEd25519()
	t := &s.transit
	out := []workload{
		{name: "transit encrypt 32 B", op: s.post("bench-transit/encrypt/aes", &t.small), bar: 1.6},
		{name: "transit decrypt 32 B", op: s.post("bench-transit/decrypt/aes", &t.smallSealed), bar: 1.6},
		{name: "transit encrypt 4 KiB", op: s.post("bench-transit/encrypt/aes", &t.large), bar: 2},
		{name: "transit decrypt 4 KiB", op: s.post("bench-transit/decrypt/aes", &t.largeSealed), bar: 2},
		{name: "transit hmac 32 B", op: s.post("bench-transit/hmac/aes", &t.input), bar: 1.6},
		{name: "transit sign Ed25519", op: s.post("bench-transit/sign/ed", &t.input), bar: 1.6, beside: sign, besideName: "a bare signature"},
		{name: "transit verify Ed25519", op: s.post("bench-transit/verify/ed", &t.verify), bar: 1.6, beside: verify, besideName: fmt.Sprintf("crypto/ed25519's bare verification (ours takes %.0f)", ours())},
		{name: fmt.Sprintf("transit encrypt %d × 32 B", transitItems), op: s.post("bench-transit/encrypt/aes", &t.batch), bar: 5},
		{name: "transit encrypt 32 B, as bytes", op: s.postOctets("bench-transit/encrypt/aes", &t.rawSmall)},
		{name: "transit encrypt 4 KiB, as bytes", op: s.postOctets("bench-transit/encrypt/aes", &t.rawLarge)},
		{name: "transit decrypt 4 KiB, as bytes", op: s.postOctets("bench-transit/decrypt/aes", &t.rawSealed)},
	}
	for i := range out {
		out[i].pid, out[i].unit = s.server.PID(), "sys/health"
	}
	for _, w := range []workload{
		{name: "encrypt 32 B", op: c.post("bench-transit/encrypt/aes", &t.small)},
		{name: "encrypt 4 KiB", op: c.post("bench-transit/encrypt/aes", &t.large)},
		{name: "sign Ed25519", op: c.post("bench-transit/sign/ed", &t.input)},
		{name: "verify Ed25519", op: c.post("bench-transit/verify/ed", &c.verify)},
		{name: fmt.Sprintf("encrypt %d × 32 B", transitItems), op: c.post("bench-transit/encrypt/aes", &t.batch)},
	} {
		w.name = "bare handler, " + w.name
		w.pid, w.unit = c.cmd.Process.Pid, "sys/health"
		out = append(out, w)
	}
	return out
}

func (c *control) post(path string, body *[]byte) op {
	return func(ctx context.Context, _ int) error {
		_, err := c.raw(ctx, "POST", path, "", *body)
		return err
	}
}

// setupTransit makes a signature of the control's own for it to verify.
func (c *control) setupTransit(ctx context.Context, t transitBodies) error {
	var a answer
	if err := c.call(ctx, "POST", "bench-transit/sign/ed", "", jsonText(t.input), &a); err != nil {
		return err
	}
	c.verify = []byte(strings.TrimSuffix(string(t.input), "}") + `,"signature":"` + a.Data.Signature + `"}`)
	return nil
}

// bareEd25519 gives what measures a signature and a verification alone by the
// standard library, and a verification by what Transit verifies with.
func bareEd25519() (sign, verify, ours func() float64) {
	pub, priv, err := ed25519.GenerateKey(nil)
	if err != nil {
		panic(err) // no randomness
	}
	v, err := bare.NewVerifier(pub)
	if err != nil {
		panic(err) // a key that was just made
	}
	input := make([]byte, 32)
	sig := ed25519.Sign(priv, input)
	cost := func(f func()) func() float64 { return func() float64 { return bareCost(f) } }
	return cost(func() { ed25519.Sign(priv, input) }), cost(func() { ed25519.Verify(pub, input, sig) }), cost(func() { v.Verify(input, sig) })
}

// bareCost is the CPU time of a call, in µs.
func bareCost(f func()) float64 {
	n, before := 0, selfCPU()
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); n++ {
		f()
	}
	return us(selfCPU()-before) / float64(n)
}
