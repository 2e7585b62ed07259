package primitive_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
)

// wycheproof is the module of Project Wycheproof's vectors, at the commit that
// Go's own tests use.
const wycheproof = "github.com/C2SP/wycheproof@v0.0.0-20250901140545-b51abcfb8daf"

// vectors fetches the module, once.
var vectors = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("go", "mod", "download", "-json", wycheproof)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return "", err
	}
	var m struct{ Dir string }
	err = json.Unmarshal(out, &m)
	return filepath.Join(m.Dir, "testvectors_v1"), err
})

// octets is a text in hexadecimal.
type octets []byte

func (o *octets) UnmarshalText(b []byte) (err error) {
	*o, err = hex.DecodeString(string(b))
	return err
}

type vectorGroup struct {
	IVSize, KeySize, TagSize int
	SHA, MGF, MGFSha         string
	SLen                     int
	PublicKeyDer             octets
	PublicKey                json.RawMessage
	PrivateKeyPkcs8          octets
	PrivateKey               json.RawMessage
	PrivateSeed              octets
	ParameterSet             string
	Tests                    []vector
}

type vector struct {
	TcID                          int
	Comment, Result               string
	Flags                         []string
	Key, IV, AAD, Msg, CT, Tag    octets
	Sig, IKM, Salt, Info, OKM     octets
	Label, Ctx, Seed, EK, C, K, M octets
	Public, Private               string
	Shared                        octets
	Size                          int
}

// each runs fn over the vectors of a file. Those that do not say clearly what
// must be ("acceptable") are left to the library.
func each(t *testing.T, file string, fn func(t *testing.T, g *vectorGroup, v *vector, valid bool)) {
	t.Run(file, func(t *testing.T) {
		dir, err := vectors()
		if err != nil {
			t.Fatalf("fetching %s: %v", wycheproof, err)
		}
		b, err := os.ReadFile(filepath.Join(dir, file+"_test.json"))
		if err != nil {
			t.Fatal(err)
		}
		var all struct {
			NumberOfTests int
			TestGroups    []vectorGroup
		}
		if err := json.Unmarshal(b, &all); err != nil {
			t.Fatal(err)
		}
		ran := 0
		for i := range all.TestGroups {
			g := &all.TestGroups[i]
			for j := range g.Tests {
				if v := &g.Tests[j]; v.Result != "acceptable" {
					fn(t, g, v, v.Result == "valid")
					ran++
				}
			}
		}
		if ran < all.NumberOfTests/2 {
			t.Errorf("%d of %d vectors ran", ran, all.NumberOfTests)
		}
	})
}

func load(t *testing.T, s primitive.Spec, m primitive.Material) primitive.Key {
	t.Helper()
	k, err := primitive.Load(s, m)
	if err != nil {
		t.Fatalf("Load(%v) = %v", s, err)
	}
	return k
}

func TestWycheproofCiphers(t *testing.T) {
	types := map[string]map[int]primitive.Type{
		"aes_gcm":            {128: primitive.AES128GCM, 256: primitive.AES256GCM},
		"chacha20_poly1305":  {256: primitive.ChaCha20Poly1305},
		"xchacha20_poly1305": {256: primitive.XChaCha20Poly1305},
	}
	for file, bySize := range types {
		each(t, file, func(t *testing.T, g *vectorGroup, v *vector, valid bool) {
			typ, ok := bySize[g.KeySize]
			want := 96
			if typ == primitive.XChaCha20Poly1305 {
				want = 192
			}
			if !ok || g.IVSize != want || g.TagSize != 128 {
				return // not of our kind
			}
			c := load(t, primitive.Spec{Type: typ}, primitive.Material{Secret: v.Key}).(primitive.Cipher)
			sealed := bytes.Join([][]byte{v.IV, v.CT, v.Tag}, nil)
			got, err := c.Decrypt(bytes.Clone(sealed), primitive.CipherOptions{AssociatedData: v.AAD})
			if (err == nil) != valid || valid && !bytes.Equal(got, v.Msg) {
				t.Errorf("%d %s: Decrypt = %x, %v, want valid %v", v.TcID, v.Comment, got, err, valid)
			}
			if !valid {
				return
			}
			if got, err := c.Encrypt(nil, v.Msg, primitive.CipherOptions{Nonce: v.IV, AssociatedData: v.AAD}); err != nil || !bytes.Equal(got, sealed) {
				t.Errorf("%d %s: Encrypt = %x, %v, want %x", v.TcID, v.Comment, got, err, sealed)
			}
		})
	}
	for _, file := range []string{"rsa_oaep_2048_sha256_mgf1sha256", "rsa_oaep_3072_sha256_mgf1sha256", "rsa_oaep_4096_sha256_mgf1sha256"} {
		each(t, file, func(t *testing.T, g *vectorGroup, v *vector, valid bool) {
			s := primitive.Spec{Type: primitive.Type("rsa-" + strings.Split(file, "_")[2])}
			m, err := primitive.Imported(s, g.PrivateKeyPkcs8)
			if err != nil {
				t.Fatal(err)
			}
			got, err := load(t, s, m).(primitive.Cipher).Decrypt(v.CT, primitive.CipherOptions{AssociatedData: v.Label})
			if (err == nil) != valid || valid && !bytes.Equal(got, v.Msg) {
				t.Errorf("%d %s: Decrypt = %x, %v, want valid %v", v.TcID, v.Comment, got, err, valid)
			}
		})
	}
}

func TestWycheproofMACs(t *testing.T) {
	for file, name := range map[string]string{
		"hmac_sha1": "sha1", "hmac_sha224": "sha2-224", "hmac_sha256": "sha2-256", "hmac_sha384": "sha2-384", "hmac_sha512": "sha2-512",
		"hmac_sha3_224": "sha3-224", "hmac_sha3_256": "sha3-256", "hmac_sha3_384": "sha3-384", "hmac_sha3_512": "sha3-512",
	} {
		h, _ := primitive.HashNamed(name)
		each(t, file, func(t *testing.T, g *vectorGroup, v *vector, valid bool) {
			if got := primitive.HMACSum(h, v.Key, v.Msg)[:g.TagSize/8]; bytes.Equal(got, v.Tag) != valid {
				t.Errorf("%d %s: HMACSum = %x, tag %x, want valid %v", v.TcID, v.Comment, got, v.Tag, valid)
			}
		})
	}
	each(t, "aes_cmac", func(t *testing.T, g *vectorGroup, v *vector, valid bool) {
		typ, ok := map[int]primitive.Type{16: primitive.AES128CMAC, 24: primitive.AES192CMAC, 32: primitive.AES256CMAC}[len(v.Key)]
		if !ok || g.TagSize != 128 {
			return
		}
		k := load(t, primitive.Spec{Type: typ}, primitive.Material{Secret: v.Key}).(primitive.MAC)
		if got := k.Sum(v.Msg); bytes.Equal(got, v.Tag) != valid {
			t.Errorf("%d %s: Sum = %x, tag %x, want valid %v", v.TcID, v.Comment, got, v.Tag, valid)
		}
	})
}

func TestWycheproofKWP(t *testing.T) {
	each(t, "aes_kwp", func(t *testing.T, g *vectorGroup, v *vector, valid bool) {
		if len(v.Key) != 32 {
			return // keys travel under AES-256 only
		}
		got, err := primitive.UnKWP(v.Key, v.CT)
		if valid && len(v.Msg) < 16 {
			return // keys are not that short, and the library refuses it
		}
		if (err == nil) != valid || valid && !bytes.Equal(got, v.Msg) {
			t.Errorf("%d %s: UnKWP = %x, %v, want valid %v", v.TcID, v.Comment, got, err, valid)
		}
		if !valid {
			return
		}
		if got, err := primitive.KWP(v.Key, v.Msg); err != nil || !bytes.Equal(got, v.CT) {
			t.Errorf("%d %s: KWP = %x, %v, want %x", v.TcID, v.Comment, got, err, v.CT)
		}
	})
}

var hashNames = map[string]string{
	"SHA-1": "sha1", "SHA-224": "sha2-224", "SHA-256": "sha2-256", "SHA-384": "sha2-384", "SHA-512": "sha2-512",
	"SHA3-224": "sha3-224", "SHA3-256": "sha3-256", "SHA3-384": "sha3-384", "SHA3-512": "sha3-512",
}

func TestWycheproofSignatures(t *testing.T) {
	verify := func(t *testing.T, s primitive.Spec, m primitive.Material, v *vector, o primitive.SignOptions, valid bool) {
		t.Helper()
		got, err := load(t, s, m).(primitive.Signer).Verify(v.Msg, v.Sig, o)
		if err != nil || got != valid {
			t.Errorf("%d %s: Verify = %v, %v, want %v", v.TcID, v.Comment, got, err, valid)
		}
	}
	each(t, "ed25519", func(t *testing.T, g *vectorGroup, v *vector, valid bool) {
		verify(t, primitive.Spec{Type: primitive.Ed25519}, primitive.Material{Public: g.PublicKeyDer}, v, primitive.SignOptions{}, valid)
	})
	for curve, typ := range map[string]primitive.Type{"secp256r1": primitive.ECDSAP256, "secp384r1": primitive.ECDSAP384, "secp521r1": primitive.ECDSAP521} {
		for _, hash := range []string{"sha256", "sha384", "sha512", "sha3_256", "sha3_384", "sha3_512"} {
			for _, form := range []string{"", "_p1363"} {
				file := "ecdsa_" + curve + "_" + hash + form
				if dir, err := vectors(); err == nil {
					if _, err := os.Stat(filepath.Join(dir, file+"_test.json")); err != nil {
						continue // not every pair has vectors
					}
				}
				each(t, file, func(t *testing.T, g *vectorGroup, v *vector, valid bool) {
					h, ok := primitive.HashNamed(hashNames[g.SHA])
					if !ok {
						t.Fatalf("no hash %q", g.SHA)
					}
					verify(t, primitive.Spec{Type: typ}, primitive.Material{Public: g.PublicKeyDer}, v, primitive.SignOptions{Hash: h, JWS: form != ""}, valid)
				})
			}
		}
	}
	for _, file := range []string{
		"rsa_signature_2048_sha256", "rsa_signature_2048_sha384", "rsa_signature_2048_sha512", "rsa_signature_3072_sha256", "rsa_signature_3072_sha512", "rsa_signature_4096_sha256", "rsa_signature_4096_sha512",
		"rsa_pss_2048_sha256_mgf1_0", "rsa_pss_2048_sha256_mgf1_32", "rsa_pss_2048_sha384_mgf1_48", "rsa_pss_3072_sha256_mgf1_32", "rsa_pss_4096_sha256_mgf1_32", "rsa_pss_4096_sha512_mgf1_64",
	} {
		each(t, file, func(t *testing.T, g *vectorGroup, v *vector, valid bool) {
			h, ok := primitive.HashNamed(hashNames[g.SHA])
			if !ok || g.MGFSha != "" && g.MGFSha != g.SHA {
				return
			}
			o := primitive.SignOptions{Hash: h, Padding: "pkcs1v15"}
			if strings.Contains(file, "pss") {
				o.Padding, o.Salt = "pss", g.SLen
				if g.SLen == 0 {
					return // a salt of no bytes cannot be asked for
				}
			}
			typ := primitive.Type("rsa-" + strings.Split(file, "_")[2])
			verify(t, primitive.Spec{Type: typ}, primitive.Material{Public: publicDer(t, g)}, v, o, valid)
		})
	}
}

// publicDer is a group's public key in PKIX: its place in the file varies.
func publicDer(t *testing.T, g *vectorGroup) []byte {
	t.Helper()
	if len(g.PublicKeyDer) > 0 {
		return g.PublicKeyDer
	}
	t.Fatal("a group without a public key")
	return nil
}

func TestWycheproofMLDSA(t *testing.T) {
	for _, set := range []string{"44", "65", "87"} {
		s := primitive.Spec{Type: primitive.MLDSA, ParameterSet: set}
		each(t, "mldsa_"+set+"_verify", func(t *testing.T, g *vectorGroup, v *vector, valid bool) {
			var text string
			if err := json.Unmarshal(g.PublicKey, &text); err != nil {
				t.Fatal(err)
			}
			pub, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			k, err := primitive.Load(s, primitive.Material{Public: pub})
			if err != nil {
				if valid {
					t.Errorf("%d %s: Load = %v", v.TcID, v.Comment, err)
				}
				return
			}
			got, err := k.(primitive.Signer).Verify(v.Msg, v.Sig, primitive.SignOptions{Context: v.Ctx})
			if got != valid || err != nil && valid {
				t.Errorf("%d %s: Verify = %v, %v, want %v", v.TcID, v.Comment, got, err, valid)
			}
		})
		each(t, "mldsa_"+set+"_sign_seed", func(t *testing.T, g *vectorGroup, v *vector, valid bool) {
			m, err := primitive.Imported(s, g.PrivateSeed)
			if err != nil {
				if valid {
					t.Errorf("%d %s: Imported = %v", v.TcID, v.Comment, err)
				}
				return
			}
			k := load(t, s, m).(primitive.Signer)
			o := primitive.SignOptions{Context: v.Ctx}
			if valid && len(v.Sig) > 0 {
				if ok, err := k.Verify(v.Msg, v.Sig, o); err != nil || !ok {
					t.Errorf("%d %s: the key of the seed does not verify the vector: %v, %v", v.TcID, v.Comment, ok, err)
				}
			}
			sig, err := k.Sign(v.Msg, o)
			if (err == nil) != valid {
				t.Errorf("%d %s: Sign = %v, want valid %v", v.TcID, v.Comment, err, valid)
				return
			}
			if !valid {
				return
			}
			if ok, err := k.Verify(v.Msg, sig, o); err != nil || !ok {
				t.Errorf("%d %s: our own signature = %v, %v", v.TcID, v.Comment, ok, err)
			}
		})
	}
}

func TestWycheproofMLKEM(t *testing.T) {
	each(t, "mlkem", func(t *testing.T, g *vectorGroup, v *vector, valid bool) {
		typ, ok := map[string]primitive.Type{"ML-KEM-768": primitive.MLKEM768, "ML-KEM-1024": primitive.MLKEM1024}[g.ParameterSet]
		if !ok || len(v.Seed) != 64 || len(v.C) == 0 {
			return
		}
		m, err := primitive.MLKEMFromSeed(typ, v.Seed)
		if err != nil {
			t.Fatal(err)
		}
		got, err := load(t, primitive.Spec{Type: typ}, m).(primitive.KEM).Decapsulate(v.C)
		if valid && (err != nil || !bytes.Equal(got, v.K)) {
			t.Errorf("%d %s: Decapsulate = %x, %v, want %x", v.TcID, v.Comment, got, err, v.K)
		}
		if !valid && err == nil && bytes.Equal(got, v.K) {
			t.Errorf("%d %s: Decapsulate gives the secret of an ill ciphertext", v.TcID, v.Comment)
		}
	})
}

func TestWycheproofECDH(t *testing.T) {
	for file, typ := range map[string]primitive.Type{
		"ecdh_secp256r1_pem": primitive.ECDSAP256, "ecdh_secp384r1_pem": primitive.ECDSAP384, "ecdh_secp521r1_pem": primitive.ECDSAP521,
	} {
		each(t, file, func(t *testing.T, _ *vectorGroup, v *vector, valid bool) {
			private, _ := pem.Decode([]byte(v.Private))
			if private == nil {
				t.Fatalf("%d: the private key is no PEM", v.TcID)
			}
			m, err := primitive.Imported(primitive.Spec{Type: typ}, private.Bytes)
			if err != nil {
				t.Fatalf("%d %s: %v", v.TcID, v.Comment, err)
			}
			got, err := load(t, primitive.Spec{Type: typ}, m).(primitive.Agreer).Agree(v.Public)
			if valid && (err != nil || !bytes.Equal(got, v.Shared)) {
				t.Errorf("%d %s: Agree = %x, %v, want %x", v.TcID, v.Comment, got, err, v.Shared)
			}
			if !valid && err == nil {
				t.Errorf("%d %s: Agree took an ill public key", v.TcID, v.Comment)
			}
		})
	}
}

// TestDerive holds key derivation to HKDF's vectors where these fit: no salt,
// and as many bytes as a key has.
func TestDerive(t *testing.T) {
	ran := 0
	each(t, "hkdf_sha256", func(t *testing.T, g *vectorGroup, v *vector, valid bool) {
		if len(v.Salt) > 0 || !valid || v.Size < 32 {
			return
		}
		m, err := primitive.Derive(primitive.AES256GCM, v.IKM, v.Info)
		if err != nil || !bytes.Equal(m.Secret, v.OKM[:32]) {
			t.Errorf("%d: Derive = %x, %v, want %x", v.TcID, m.Secret, err, v.OKM[:32])
		}
		ran++
	})
	if ran == 0 {
		t.Error("no vector fitted")
	}
}
