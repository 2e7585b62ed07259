package oidc_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/wire"
)

func TestTokensOfEveryAlgorithmVerify(t *testing.T) {
	r := newRig(t)
	for _, alg := range every {
		name := "k-" + string(alg)
		r.must(204, wire.OpUpdate, "oidc/key/"+name, obj{"algorithm": alg, "allowed_client_ids": "*"})
		r.must(204, wire.OpUpdate, "oidc/role/"+name, obj{"key": name, "ttl": "10m", "template": `{"team": {{identity.entity.metadata.team}}}`})
		a := r.must(200, wire.OpRead, "oidc/token/"+name, nil, call{entity: "ann"})
		claims, got := r.verify(r.keys("oidc/.well-known/keys"), a.str("token"))
		if got != string(alg) {
			t.Errorf("the token of a key for %s is signed by %s", alg, got)
		}
		now := r.clock().Unix()
		want := obj{
			"iss": address + "/v1/identity/oidc", "sub": "ann", "aud": a.str("client_id"), "namespace": "root",
			"iat": float64(now), "exp": float64(now + 600), "team": "core",
		}
		if diff := cmp.Diff(want, claims); diff != "" {
			t.Errorf("%s: claims differ (-want +got):\n%s", alg, diff)
		}
		if a := r.must(200, wire.OpUpdate, "oidc/introspect", obj{"token": a.str("token")}); a.body["active"] != true {
			t.Errorf("%s: introspect says %s", alg, a.text)
		}
	}
}

// TestKeysRotate goes through the life of a key: the one that signs next is
// published before, and the one before verifies until its tokens are over.
func TestKeysRotate(t *testing.T) {
	r := newRig(t)
	r.must(204, wire.OpUpdate, "oidc/key/k", obj{"algorithm": "ES256", "rotation_period": "1h", "verification_ttl": "90m", "allowed_client_ids": "*"})
	r.must(204, wire.OpUpdate, "oidc/role/r", obj{"key": "k", "ttl": "1h"})
	issue := func() string {
		t.Helper()
		return r.must(200, wire.OpRead, "oidc/token/r", nil, call{entity: "ann"}).str("token")
	}
	kid := func(token string) string {
		t.Helper()
		jws, err := jose.ParseSignedCompact(token, every)
		if err != nil {
			t.Fatal(err)
		}
		return jws.Signatures[0].Protected.KeyID
	}
	first := issue()
	before := r.keys("oidc/.well-known/keys")
	if n := len(before.Keys); n != 2 {
		t.Fatalf("a new key publishes %d keys, want the one that signs and the next", n)
	}

	r.pass(61 * time.Minute)
	second := issue()
	if kid(second) == kid(first) {
		t.Fatal("the key still signs after its rotation period")
	}
	r.verify(before, second) // who kept the keys from before knows it
	if n := len(r.keys("oidc/.well-known/keys").Keys); n != 3 {
		t.Errorf("after a rotation %d keys are published, want 3", n)
	}
	// The token is over, its key is still published: 90 minutes from then on.
	r.pass(31 * time.Minute)
	r.verify(r.keys("oidc/.well-known/keys"), first)

	// Rotation by hand, and a verification TTL of its own.
	r.must(204, wire.OpUpdate, "oidc/key/k/rotate", obj{"verification_ttl": "10m"})
	third := issue()
	if kid(third) == kid(second) {
		t.Error("rotate did not change the key that signs")
	}
	r.verify(r.keys("oidc/.well-known/keys"), second)
	r.pass(11 * time.Minute)
	if got := r.keys("oidc/.well-known/keys"); len(got.Key(kid(second))) != 0 {
		t.Error("a key is published past the verification TTL that rotate was given")
	}
	a := r.must(200, wire.OpUpdate, "oidc/introspect", obj{"token": second})
	if a.body["active"] != false {
		t.Error("a token whose key is gone is active")
	}
	r.must(400, wire.OpUpdate, "oidc/key/none/rotate", obj{})
	r.must(400, wire.OpUpdate, "oidc/key/k/rotate", obj{"verification_ttl": "11h"})
}

func TestSweepRotatesKeysThatNobodyUses(t *testing.T) {
	r := newRig(t)
	r.must(204, wire.OpUpdate, "oidc/key/k", obj{"algorithm": "EdDSA", "rotation_period": "1h", "verification_ttl": "10h", "allowed_client_ids": "*"})
	published := func() string { return r.do(wire.OpRead, "oidc/.well-known/keys", nil).text }
	before := published()
	other, _ := r.open() // another server sweeps at the same moment
	r.pass(2 * time.Hour)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := r.engine.Sweep(t.Context()); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := other.Sweep(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	after := published()
	if before == after {
		t.Fatal("the sweep did not rotate a key whose time had come")
	}
	if n := strings.Count(after, `"kid"`); n != 3 {
		t.Errorf("one rotation by several sweepers leaves %d published keys, want 3", n)
	}
	if err := r.engine.Sweep(t.Context()); err != nil || published() != after {
		t.Errorf("a sweep before the next time = %v and changed the keys", err)
	}
	// Shorter periods, another algorithm and deletion leave no work behind.
	r.must(204, wire.OpUpdate, "oidc/key/k", obj{"algorithm": "ES256", "rotation_period": "2h"})
	r.must(204, wire.OpDelete, "oidc/key/k", nil)
	r.pass(5 * time.Hour)
	if err := r.engine.Sweep(t.Context()); err != nil {
		t.Errorf("sweeping a deleted key: %v", err)
	}
	r.must(404, wire.OpRead, "oidc/key/k", nil)
}

func TestKeySettings(t *testing.T) {
	r := newRig(t)
	for _, tc := range []struct {
		body obj
		want int
	}{
		{obj{"algorithm": "HS256"}, 400},
		{obj{"algorithm": "none"}, 400},
		{obj{"rotation_period": "30s"}, 400},
		{obj{"rotation_period": "1m", "verification_ttl": "11m"}, 400},
		{obj{"verification_ttl": 0}, 400},
		{obj{"rotation_period": "1m", "verification_ttl": "30s"}, 204},
		{obj{"algorithm": "ES384", "rotation_period": "1m", "verification_ttl": "10m"}, 204},
	} {
		if a := r.do(wire.OpUpdate, "oidc/key/k", tc.body); a.status != tc.want {
			t.Errorf("writing a key %v = %d %s, want %d", tc.body, a.status, a.text, tc.want)
		}
	}
	a := r.must(200, wire.OpRead, "oidc/key/default", nil)
	want := obj{"algorithm": "RS256", "allowed_client_ids": []any{"*"}, "rotation_period": 86400.0, "verification_ttl": 86400.0}
	if diff := cmp.Diff(want, a.body); diff != "" {
		t.Errorf("the default key differs (-want +got):\n%s", diff)
	}
	r.must(400, wire.OpDelete, "oidc/key/default", nil)
	if a := r.must(200, wire.OpList, "oidc/key", nil); a.text != `{"keys":["default","k"]}` {
		t.Errorf("the keys are %s", a.text)
	}

	// What is there from the beginning stands where its name belongs.
	r.must(204, wire.OpUpdate, "oidc/key/a", nil)
	if a := r.must(200, wire.OpList, "oidc/key", nil); a.text != `{"keys":["a","default","k"]}` {
		t.Errorf("the keys are %s", a.text)
	}
	r.must(204, wire.OpDelete, "oidc/key/a", nil)

	// What refers to a key keeps it, and bounds it.
	r.must(400, wire.OpUpdate, "oidc/role/r", obj{"key": "none"})
	r.must(400, wire.OpUpdate, "oidc/role/r", obj{})
	r.must(400, wire.OpUpdate, "oidc/role/r", obj{"key": "k", "ttl": "11m"})
	r.must(204, wire.OpUpdate, "oidc/role/r", obj{"key": "k", "ttl": "10m"})
	r.must(400, wire.OpDelete, "oidc/key/k", nil)
	r.must(400, wire.OpUpdate, "oidc/key/k", obj{"verification_ttl": "9m"})
	r.must(400, wire.OpRead, "oidc/token/r", nil, call{entity: "ann"}) // it lists no client
	r.must(204, wire.OpUpdate, "oidc/role/r", obj{"client_id": "mine"})
	r.must(204, wire.OpUpdate, "oidc/key/k", obj{"allowed_client_ids": []string{"mine"}})
	a = r.must(200, wire.OpRead, "oidc/token/r", nil, call{entity: "ann"})
	if a.str("client_id") != "mine" || a.body["ttl"] != 600.0 {
		t.Errorf("the token's answer is %s", a.text)
	}
	for _, who := range []string{"", "nobody"} {
		r.must(400, wire.OpRead, "oidc/token/r", nil, call{entity: who})
	}
	r.must(403, wire.OpRead, "oidc/token/r", nil, call{entity: "off"})
	r.must(400, wire.OpRead, "oidc/token/none", nil, call{entity: "ann"})
	r.must(204, wire.OpDelete, "oidc/role/r", nil)
	r.must(204, wire.OpDelete, "oidc/key/k", nil)
	r.must(404, wire.OpList, "oidc/role", nil)
}

// TestRotatingTooOftenIsRefused: each rotation by hand keeps one more key.
func TestRotatingTooOftenIsRefused(t *testing.T) {
	r := newRig(t)
	r.must(204, wire.OpUpdate, "oidc/key/k", obj{"algorithm": "EdDSA"})
	refused := 0
	for range 70 {
		if r.do(wire.OpUpdate, "oidc/key/k/rotate", obj{}).status == 400 {
			refused++
		}
	}
	if refused != 6 {
		t.Errorf("of 70 rotations %d were refused, want those past 64", refused)
	}
	r.must(204, wire.OpUpdate, "oidc/key/k/rotate", obj{"verification_ttl": 0}) // that keeps none
}

func TestIssuer(t *testing.T) {
	r := newRig(t)
	for _, bad := range []string{"leasehold.test", "ftp://x", "https://", "https://x/path", "https://x?q", "https://u:p@x", "https://x#f", "http://x y"} {
		r.must(400, wire.OpUpdate, "oidc/config", obj{"issuer": bad})
	}
	if a := r.must(200, wire.OpRead, "oidc/config", nil); a.text != `{"issuer":""}` {
		t.Errorf("the unset issuer reads as %s", a.text)
	}
	r.must(204, wire.OpUpdate, "oidc/config", obj{"issuer": "https://id.example.org"})
	a := r.must(200, wire.OpRead, "oidc/.well-known/openid-configuration", nil)
	if a.str("issuer") != "https://id.example.org/v1/identity/oidc" || a.str("jwks_uri") != "https://id.example.org/v1/identity/oidc/.well-known/keys" {
		t.Errorf("discovery = %s", a.text)
	}
}

// TestIntrospectRefuses shows introspection every kind of token that is not
// one of ours, or not one any more.
func TestIntrospectRefuses(t *testing.T) {
	r := newRig(t)
	r.must(204, wire.OpUpdate, "oidc/key/k", obj{"algorithm": "ES256", "allowed_client_ids": "*"})
	r.must(204, wire.OpUpdate, "oidc/role/r", obj{"key": "k", "ttl": "10m", "client_id": "mine"})
	good := r.must(200, wire.OpRead, "oidc/token/r", nil, call{entity: "ann"}).str("token")
	set := r.keys("oidc/.well-known/keys")
	jws, err := jose.ParseSignedCompact(good, every)
	if err != nil {
		t.Fatal(err)
	}
	kid := jws.Signatures[0].Protected.KeyID
	payload := string(jws.UnsafePayloadWithoutVerification())
	public, err := x509.MarshalPKIXPublicKey(set.Key(kid)[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(alg jose.SignatureAlgorithm, key any, kid, payload string) string {
		t.Helper()
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		jws, err := s.Sign([]byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		text, err := jws.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	b64 := base64.RawURLEncoding.EncodeToString
	parts := strings.Split(good, ".")
	changed := b64([]byte(strings.Replace(payload, `"sub":"ann"`, `"sub":"bob"`, 1)))
	for name, token := range map[string]string{
		"empty":                    "",
		"junk":                     "junk",
		"no algorithm":             b64([]byte(`{"alg":"none","kid":"`+kid+`"}`)) + "." + parts[1] + ".",
		"HMAC with the public key": sign(jose.HS256, pemKey, kid, payload),
		"a stranger's key":         sign(jose.ES256, stranger, kid, payload),
		"another key id":           sign(jose.ES256, stranger, "other", payload),
		"another subject":          parts[0] + "." + changed + "." + parts[2],
		"truncated signature":      good[:len(good)-4],
		"no signature":             parts[0] + "." + parts[1] + ".",
		"two parts":                parts[0] + "." + parts[1],
		"oversized":                parts[0] + "." + strings.Repeat("A", 1<<20) + "." + parts[2],
		"JSON serialisation":       jws.FullSerialize(),
	} {
		a := r.must(200, wire.OpUpdate, "oidc/introspect", obj{"token": token})
		if a.body["active"] != false || a.str("error") == "" {
			t.Errorf("%s: introspect = %s", name, a.text)
		}
		if strings.Contains(a.text, parts[2]) {
			t.Errorf("%s: the answer repeats the token", name)
		}
	}
	check := func(name string, in obj, want bool) {
		t.Helper()
		in["token"] = good
		if a := r.must(200, wire.OpUpdate, "oidc/introspect", in); a.body["active"] != want {
			t.Errorf("%s: introspect = %s, want active %v", name, a.text, want)
		}
	}
	check("as it is", obj{}, true)
	check("its audience", obj{"client_id": "mine"}, true)
	check("another audience", obj{"client_id": "yours"}, false)
	r.people["ann"].Disabled = true
	check("a disabled entity", obj{}, false)
	r.people["ann"].Disabled = false
	ann := r.people["ann"]
	delete(r.people, "ann")
	check("an entity that is gone", obj{}, false)
	r.people["ann"] = ann
	r.must(204, wire.OpUpdate, "oidc/config", obj{"issuer": "https://elsewhere.test"})
	check("another issuer", obj{}, false)
	r.must(204, wire.OpUpdate, "oidc/config", obj{"issuer": ""})
	r.pass(10 * time.Minute)
	check("expired", obj{}, false)
}

// TestKeyWritersDoNotLoseEachOther: settings that are written at one moment
// are all there afterwards.
func TestKeyWritersDoNotLoseEachOther(t *testing.T) {
	r := newRig(t)
	r.must(204, wire.OpUpdate, "oidc/key/k", obj{"algorithm": "EdDSA"})
	var wg sync.WaitGroup
	for i, body := range []obj{{"rotation_period": "20h"}, {"verification_ttl": "30h"}, {"allowed_client_ids": "a"}} {
		wg.Go(func() {
			if a := r.do(wire.OpUpdate, "oidc/key/k", body); a.status != 204 {
				t.Errorf("writer %d: %d %s", i, a.status, a.text)
			}
		})
		wg.Go(func() { r.do(wire.OpUpdate, "oidc/key/k/rotate", obj{}) })
	}
	wg.Wait()
	got := r.must(200, wire.OpRead, "oidc/key/k", nil).text
	if want := `{"algorithm":"EdDSA","allowed_client_ids":["a"],"rotation_period":72000,"verification_ttl":108000}`; got != want {
		t.Errorf("the key reads as %s, want %s", got, want)
	}
}

func BenchmarkToken(b *testing.B) {
	for _, alg := range []string{"ES256", "RS256", "EdDSA"} {
		b.Run(alg, func(b *testing.B) {
			r := newRig(b)
			r.must(204, wire.OpUpdate, "oidc/key/k", obj{"algorithm": alg, "allowed_client_ids": "*"})
			r.must(204, wire.OpUpdate, "oidc/role/r", obj{"key": "k", "ttl": "10m"})
			for b.Loop() {
				r.must(200, wire.OpRead, "oidc/token/r", nil, call{entity: "ann"})
			}
		})
	}
}
