// Package bare does the cryptography of Transit alone: as anybody would write
// it with net/http and encoding/json, for one key and without a token, a
// policy or a store. It is what Transit is measured beside.
package bare

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	voi "github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
)

// Transit is an http.Handler that answers a mount's encrypt, decrypt, hmac,
// sign and verify, whatever the mount and the key are called.
func Transit() (http.Handler, error) {
	t := &transit{mac: make([]byte, 32)}
	rand.Read(t.mac)
	block, err := aes.NewCipher(t.mac)
	if err != nil {
		return nil, err
	}
	if t.aead, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	if t.pub, t.priv, err = ed25519.GenerateKey(nil); err != nil {
		return nil, err
	}
	if t.verifier, err = NewVerifier(t.pub); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for name, do := range map[string]func(*in) (out, error){
		"encrypt": t.encrypt, "decrypt": t.decrypt, "hmac": t.hmac, "sign": t.sign, "verify": t.verify,
	} {
		mux.HandleFunc("/v1/{mount}/"+name+"/{key}", func(w http.ResponseWriter, r *http.Request) { answer(w, r, do) })
	}
	return mux, nil
}

type transit struct {
	aead cipher.AEAD
	mac  []byte
	pub  ed25519.PublicKey
	priv ed25519.PrivateKey

	verifier *Verifier
}

// Verifier is Transit's own primitive for Ed25519 signatures.
type Verifier struct{ key *voi.ExpandedPublicKey }

// NewVerifier expands a public key.
func NewVerifier(pub ed25519.PublicKey) (*Verifier, error) {
	key, err := voi.NewExpandedPublicKey(voi.PublicKey(pub))
	return &Verifier{key}, err
}

// Verify reports whether a signature is good.
func (v *Verifier) Verify(input, sig []byte) bool {
	return voi.VerifyExpandedWithOptions(v.key, input, sig, &voi.Options{Verify: voi.VerifyOptionsStdLib})
}

type item struct {
	Plaintext  []byte `json:"plaintext,omitempty"`
	Ciphertext string `json:"ciphertext,omitempty"`
	Input      []byte `json:"input,omitempty"`
	Signature  string `json:"signature,omitempty"`
}

type in struct {
	item
	Batch []item `json:"batch_input"`
}

type out struct {
	item
	HMAC  string `json:"hmac,omitempty"`
	Valid bool   `json:"valid,omitempty"`
	Batch []item `json:"batch_results,omitempty"`
}

func answer(w http.ResponseWriter, r *http.Request, do func(*in) (out, error)) {
	var asked in
	err := json.NewDecoder(r.Body).Decode(&asked)
	var reply struct {
		Data out `json:"data"`
	}
	if err == nil {
		reply.Data, err = do(&asked)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(reply)
}

const prefix = "vault:v1:"

func text(b []byte) string { return prefix + base64.StdEncoding.EncodeToString(b) }

func bytesOf(s string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.TrimPrefix(s, prefix))
}

func (t *transit) seal(plain []byte) string {
	b := make([]byte, t.aead.NonceSize(), t.aead.NonceSize()+len(plain)+t.aead.Overhead())
	rand.Read(b)
	return text(t.aead.Seal(b, b, plain, nil))
}

func (t *transit) encrypt(asked *in) (reply out, err error) {
	for _, it := range asked.Batch {
		reply.Batch = append(reply.Batch, item{Ciphertext: t.seal(it.Plaintext)})
	}
	if asked.Batch == nil {
		reply.Ciphertext = t.seal(asked.Plaintext)
	}
	return reply, nil
}

func (t *transit) decrypt(asked *in) (reply out, err error) {
	b, err := bytesOf(asked.Ciphertext)
	if err != nil {
		return reply, err
	}
	n := t.aead.NonceSize()
	if len(b) < n {
		return reply, fmt.Errorf("a ciphertext has %d bytes at least", n)
	}
	reply.Plaintext, err = t.aead.Open(b[n:n], b[:n], b[n:], nil)
	return reply, err
}

func (t *transit) hmac(asked *in) (reply out, err error) {
	h := hmac.New(sha256.New, t.mac)
	h.Write(asked.Input)
	reply.HMAC = text(h.Sum(nil))
	return reply, nil
}

func (t *transit) sign(asked *in) (reply out, err error) {
	reply.Signature = text(ed25519.Sign(t.priv, asked.Input))
	return reply, nil
}

func (t *transit) verify(asked *in) (reply out, err error) {
	sig, err := bytesOf(asked.Signature)
	if err != nil {
		return reply, err
	}
	reply.Valid = t.verifier.Verify(asked.Input, sig)
	return reply, nil
}
