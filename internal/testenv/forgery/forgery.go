// Package forgery makes signed tokens (JWT), by hand and not by the library
// that the server reads them with: good ones, and every bad one that somebody
// might try.
package forgery

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"time"
)

// Issuer signs tokens.
type Issuer struct {
	Key   crypto.Signer // *ecdsa.PrivateKey, *rsa.PrivateKey or ed25519.PrivateKey
	KeyID string        // "": none in the header
}

// NewECDSA makes an issuer with a key on a curve.
func NewECDSA(curve elliptic.Curve) Issuer {
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	must(err)
	return Issuer{Key: key}
}

// NewRSA makes an issuer with a key of 2048 bits.
func NewRSA() Issuer {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	return Issuer{Key: key}
}

// NewEd25519 makes an issuer with such a key.
func NewEd25519() Issuer {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	return Issuer{Key: key}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// Alg is what the issuer's key is for.
func (is Issuer) Alg() string {
	switch k := is.Key.(type) {
	case *rsa.PrivateKey:
		return "RS256"
	case *ecdsa.PrivateKey:
		return map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[k.Curve.Params().BitSize]
	}
	return "EdDSA"
}

// PEM is the public key.
func (is Issuer) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: is.der()}))
}

func (is Issuer) der() []byte {
	der, err := x509.MarshalPKIXPublicKey(is.Key.Public())
	must(err)
	return der
}

// Claims are what a token says, of any shape: also of one that it must not have.
type Claims map[string]any

// Token is a good token with these claims.
func (is Issuer) Token(claims Claims) string {
	return is.sign(is.header(nil), encode(claims))
}

func (is Issuer) header(more Claims) string {
	h := Claims{"alg": is.Alg(), "typ": "JWT"}
	if is.KeyID != "" {
		h["kid"] = is.KeyID
	}
	maps.Copy(h, more)
	return encode(h)
}

func encode(v any) string {
	b, err := json.Marshal(v)
	must(err)
	return string(b)
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// sign signs whatever the header says.
func (is Issuer) sign(header, payload string) string {
	signed := b64(header) + "." + b64(payload)
	return signed + "." + b64(string(is.Sign([]byte(signed))))
}

// Sign makes the signature that fits the key.
func (is Issuer) Sign(b []byte) []byte {
	switch k := is.Key.(type) {
	case *rsa.PrivateKey:
		sum := sha256.Sum256(b)
		sig, err := rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
		must(err)
		return sig
	case *ecdsa.PrivateKey:
		sum256, sum384, sum512 := sha256.Sum256(b), sha512.Sum384(b), sha512.Sum512(b)
		bits := k.Curve.Params().BitSize
		sum := map[int][]byte{256: sum256[:], 384: sum384[:], 521: sum512[:]}[bits]
		r, s, err := ecdsa.Sign(rand.Reader, k, sum)
		must(err)
		size := (bits + 7) / 8
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	case ed25519.PrivateKey:
		return ed25519.Sign(k, b)
	}
	panic("forgery: unknown key")
}

// Verify reports whether the issuer's key made a signature.
func (is Issuer) Verify(b, sig []byte) bool {
	sum := sha256.Sum256(b)
	switch k := is.Key.Public().(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], sig) == nil
	case *ecdsa.PublicKey: // P-256 is all that is needed
		return len(sig) == 64 && ecdsa.Verify(k, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
	case ed25519.PublicKey:
		return ed25519.Verify(k, b, sig)
	}
	return false
}

// Case is a bad token.
type Case struct {
	Name  string
	Token string
	// Signed says that the signature is good: what is wrong stands in the
	// claims.
	Signed bool
}

// Cases are all bad tokens that can be made around good claims, which must be
// valid at now, have an audience, and be refused when one of them is wrong.
func (is Issuer) Cases(claims Claims, now time.Time) []Case {
	return append(is.signatures(claims), is.claims(claims, now)...)
}

// signatures are the tokens whose signature, header or form is wrong.
func (is Issuer) signatures(claims Claims) []Case {
	payload, good := encode(claims), is.Token(claims)
	head, rest, _ := strings.Cut(good, ".")
	body, sig, _ := strings.Cut(rest, ".")
	signed := head + "." + body
	mac := func(header string, key []byte) string {
		s := b64(header) + "." + body
		m := hmac.New(sha256.New, key)
		m.Write([]byte(s))
		return s + "." + b64(string(m.Sum(nil)))
	}
	other := is.sibling()
	richer := maps.Clone(claims)
	richer["sub"] = "root"
	hs := strings.Replace(is.header(nil), is.Alg(), "HS256", 1)
	out := []Case{
		{Name: "empty", Token: ""},
		{Name: "garbage", Token: "garbage"},
		{Name: "three parts of nothing", Token: ".."},
		{Name: "three parts of garbage", Token: "a.b.c"},
		{Name: "none without a signature", Token: b64(`{"alg":"none"}`) + "." + body + "."},
		{Name: "none with the signature", Token: b64(`{"alg":"none"}`) + "." + body + "." + sig},
		{Name: "None", Token: b64(`{"alg":"None"}`) + "." + body + "."},
		{Name: "NONE", Token: b64(`{"alg":"NONE"}`) + "." + body + "."},
		{Name: "no algorithm", Token: b64(`{"typ":"JWT"}`) + "." + body + "." + sig},
		{Name: "two algorithms", Token: is.sign(`{"alg":"`+is.Alg()+`","alg":"none"}`, payload)},
		{Name: "unknown algorithm", Token: is.sign(`{"alg":"ES999"}`, payload)},
		{Name: "HMAC with the public key as PEM", Token: mac(hs, []byte(is.PEM()))},
		{Name: "HMAC with the public key as trimmed PEM", Token: mac(hs, []byte(strings.TrimSpace(is.PEM())))},
		{Name: "HMAC with the public key as DER", Token: mac(hs, is.der())},
		{Name: "HMAC with nothing", Token: mac(hs, nil)},
		{Name: "another key of the kind", Token: other.sign(is.header(nil), payload)},
		{Name: "an embedded key (jwk)", Token: other.sign(is.header(Claims{"jwk": other.jwk()}), payload)},
		{Name: "an embedded certificate (x5c)", Token: other.sign(is.header(Claims{"x5c": []string{other.certificate()}}), payload)},
		{Name: "an address of keys (jku)", Token: other.sign(is.header(Claims{"jku": "http://127.0.0.1:1/keys"}), payload)},
		{Name: "an address of certificates (x5u)", Token: other.sign(is.header(Claims{"x5u": "http://127.0.0.1:1/cert"}), payload)},
		{Name: "a critical extension", Token: is.sign(is.header(Claims{"crit": []string{"exp2"}, "exp2": 1}), payload)},
		{Name: "other claims under the signature", Token: head + "." + b64(encode(richer)) + "." + sig},
		{Name: "another header over the signature", Token: b64(`{"alg":"`+is.Alg()+`","a":1}`) + "." + body + "." + sig},
		{Name: "no signature", Token: signed + "."},
		{Name: "half a signature", Token: signed + "." + sig[:len(sig)/2]},
		{Name: "a longer signature", Token: signed + "." + sig + "AAAA"},
		{Name: "a signature of zeros", Token: signed + "." + strings.Repeat("A", len(sig))},
		{Name: "one bit of the signature", Token: signed + "." + flip(sig)},
		{Name: "two parts", Token: signed},
		{Name: "one part", Token: head},
		{Name: "four parts", Token: good + "." + sig},
		{Name: "five parts, as if encrypted", Token: good + "." + sig + "." + sig},
		{Name: "cut in the middle", Token: good[:len(good)/2]},
		{Name: "without its end", Token: good[:len(good)-4]},
		{Name: "without its beginning", Token: good[1:]},
		{Name: "as JSON", Token: `{"payload":"` + body + `","protected":"` + head + `","signature":"` + sig + `"}`},
		{Name: "with white space", Token: head + ". " + body + "." + sig},
		{Name: "a byte that is no base64", Token: head + "." + body + "!." + sig},
		{Name: "a zero byte", Token: good + "\x00"},
	}
	for name, wrong := range map[string]Issuer{"P-384": NewECDSA(elliptic.P384()), "Ed25519": NewEd25519(), "RSA": NewRSA()} {
		if wrong.Alg() == is.Alg() {
			continue
		}
		out = append(out,
			Case{Name: "a key of another kind: " + name, Token: wrong.sign(wrong.header(nil), payload)},
			Case{Name: "a key of another kind under our algorithm: " + name, Token: wrong.sign(is.header(nil), payload)},
			Case{Name: "our signature under another algorithm: " + wrong.Alg(), Token: is.sign(strings.Replace(is.header(nil), is.Alg(), wrong.Alg(), 1), payload)})
	}
	if is.Alg() == "RS256" {
		out = append(out, Case{Name: "PKCS#1 v1.5 as PSS", Token: is.sign(strings.Replace(is.header(nil), "RS256", "PS256", 1), payload)})
	}
	return out
}

// claims are the tokens whose claims are wrong, with good signatures.
func (is Issuer) claims(good Claims, now time.Time) []Case {
	with := func(name string, change Claims) Case {
		c := maps.Clone(good)
		maps.Copy(c, change)
		return Case{Name: name, Token: is.Token(c), Signed: true}
	}
	raw := func(name, payload string) Case {
		return Case{Name: name, Token: is.sign(is.header(nil), payload), Signed: true}
	}
	at := func(d time.Duration) int64 { return now.Add(d).Unix() }
	text := strings.TrimSuffix(encode(good), "}")
	return []Case{
		with("expired", Claims{"iat": at(-2 * time.Hour), "nbf": at(-2 * time.Hour), "exp": at(-time.Hour)}),
		with("expired a moment beyond the leeway", Claims{"iat": at(-time.Hour), "nbf": at(-time.Hour), "exp": at(-62 * time.Second)}),
		with("expired in 1970", Claims{"exp": 0}),
		with("expired before 1970", Claims{"exp": -5}),
		with("not yet valid", Claims{"nbf": at(time.Hour), "exp": at(2 * time.Hour)}),
		with("issued in the future", Claims{"iat": at(time.Hour), "nbf": at(-time.Hour), "exp": at(2 * time.Hour)}),
		with("an expiry that is text", Claims{"exp": fmt.Sprint(at(time.Hour))}),
		with("an expiry that is a list", Claims{"exp": []int64{at(time.Hour)}}),
		raw("an expiry beyond all numbers", text+`,"exp":1e999}`),
		raw("a beginning beyond all times", text+`,"nbf":-1e300}`),
		with("wrong audience", Claims{"aud": "somebody-else"}),
		with("wrong audiences", Claims{"aud": []string{"somebody-else", "others"}}),
		with("an audience that is an object", Claims{"aud": Claims{"a": 1}}),
		with("an audience that is a number", Claims{"aud": 5}),
		raw("a claim twice", text+`,"sub":"root"}`),
		raw("claims that are no object", `["sub"]`),
		raw("claims that are no JSON", `sub=root`),
		raw("no claims", ``),
		raw("two objects", encode(good)+encode(good)),
		raw("claims that nest too deep", text+`,"x":`+strings.Repeat("[", 4096)+strings.Repeat("]", 4096)+`}`),
		with("longer than anybody needs", Claims{"x": strings.Repeat("x", 70<<10)}),
	}
}

// sibling is another issuer with the same kind of key and the same key id.
func (is Issuer) sibling() Issuer {
	var other Issuer
	switch k := is.Key.(type) {
	case *rsa.PrivateKey:
		other = NewRSA()
	case *ecdsa.PrivateKey:
		other = NewECDSA(k.Curve)
	default:
		other = NewEd25519()
	}
	other.KeyID = is.KeyID
	return other
}

func flip(sig string) string {
	b, err := base64.RawURLEncoding.DecodeString(sig)
	must(err)
	b[len(b)/2] ^= 1
	return b64(string(b))
}

// jwk is a public key as a header may embed it (RFC 7517).
type jwk struct {
	Type  string `json:"kty"`
	Curve string `json:"crv,omitempty"`
	X     string `json:"x,omitempty"`
	Y     string `json:"y,omitempty"`
	N     string `json:"n,omitempty"`
	E     string `json:"e,omitempty"`
}

// jwk is the public key as a header may embed it.
func (is Issuer) jwk() jwk {
	num := func(n *big.Int, size int) string { return b64(string(n.FillBytes(make([]byte, size)))) }
	switch k := is.Key.Public().(type) {
	case *rsa.PublicKey:
		return jwk{Type: "RSA", N: num(k.N, (k.N.BitLen()+7)/8), E: "AQAB"}
	case *ecdsa.PublicKey:
		p := k.Curve.Params()
		size := (p.BitSize + 7) / 8
		raw, err := k.Bytes()
		must(err)
		return jwk{Type: "EC", Curve: p.Name, X: b64(string(raw[1 : 1+size])), Y: b64(string(raw[1+size:]))}
	case ed25519.PublicKey:
		return jwk{Type: "OKP", Curve: "Ed25519", X: b64(string(k))}
	}
	panic("forgery: unknown key")
}

// certificate is a self-signed one, as a header may embed it.
func (is Issuer) certificate() string {
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, is.Key.Public(), is.Key)
	must(err)
	return base64.StdEncoding.EncodeToString(der)
}
