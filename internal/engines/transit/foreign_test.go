package transit_test

import (
	"crypto"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// published is a backup that a Vault made in 2020 and that the documentation
// of Diem's client shows: an Ed25519 key. (One letter of it is wrong there, as
// the seed and the public key show.)
const published = `{"policy":{"name":"local_owner_key__consensus","keys":{"1":{
"key":"C3R5O8uAfrgv7sJmCMSLEp1R2HmkZtwdfGT/xVvZVvgCGo6TkWga/ojplJFMM+i2805X3CV7IRyNLCSJcr4AqQ==","hmac_key":null,
"time":"2020-05-29T06:27:38.1233515Z","ec_x":null,"ec_y":null,"ec_d":null,"rsa_key":null,
"public_key":"AhqOk5FoGv6I6ZSRTDPotvNOV9wleyEcjSwkiXK+AKk=","convergent_version":0,"creation_time":1590733658}},
"derived":false,"kdf":0,"convergent_encryption":false,"exportable":true,"min_decryption_version":1,"min_encryption_version":0,
"latest_version":1,"archive_version":1,"archive_min_version":0,"min_available_version":0,"deletion_allowed":false,"convergent_version":0,
"type":2,"backup_info":{"time":"2020-05-29T06:28:48.2937047Z","version":1},"restore_info":null,"allow_plaintext_backup":true,
"version_template":"","storage_prefix":""}}`

func (m *mount) restoreForeign(blob string) { m.must("restore", object{"backup": b64(blob)}, nil) }

func TestRestorePublished(t *testing.T) {
	m := newMount(t)
	m.restoreForeign(published)
	var out struct{ Signature string }
	m.must("sign/local_owner_key__consensus", object{"input": b64("x")}, &out)
	if !ed25519.Verify(unb64(t, "AhqOk5FoGv6I6ZSRTDPotvNOV9wleyEcjSwkiXK+AKk="), []byte("x"), raw(t, out.Signature)) {
		t.Error("the restored key's signature is not good under the published public key")
	}
	m.must("hmac/local_owner_key__consensus", object{"input": b64("x")}, nil)
}

// foreignEntry is a version in the form that Vault's Go structs have in JSON.
type foreignEntry struct {
	Key    []byte          `json:"key"`
	MAC    []byte          `json:"hmac_key"`
	Time   time.Time       `json:"time"`
	X      *big.Int        `json:"ec_x"`
	Y      *big.Int        `json:"ec_y"`
	D      *big.Int        `json:"ec_d"`
	RSA    *rsa.PrivateKey `json:"rsa_key"`
	RSAPub *rsa.PublicKey  `json:"rsa_public_key"`
	Public string          `json:"public_key"`
	Conv   int             `json:"convergent_version"`
}

func drawn(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// foreign is a backup of a key with these versions, all of them in the archive.
func foreign(t testing.TB, typ int, more object, versions ...foreignEntry) string {
	t.Helper()
	keys, archive := map[string]foreignEntry{}, []foreignEntry{{}}
	least := 1
	if n, ok := more["min_decryption_version"].(int); ok {
		least = n
	}
	for i, v := range versions {
		if i+1 >= least {
			keys[fmt.Sprint(i+1)] = v
		}
		archive = append(archive, v)
	}
	if n, ok := more["archive_min_version"].(int); ok {
		archive = archive[n:]
	}
	p := object{
		"name": "moved", "type": typ, "keys": keys, "latest_version": len(versions), "archive_version": len(versions), "min_decryption_version": 1,
		"kdf": 0, "exportable": true, "allow_plaintext_backup": true, "restore_info": nil, "auto_rotate_period": int64(2 * time.Hour),
		"Imported": false, "AllowImportedKeyRotation": false, "convergent_version": 0,
	}
	maps.Copy(p, more)
	b, err := json.Marshal(object{"policy": p, "archived_keys": object{"keys": archive}})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sealed(a cipher.AEAD, version int, plain string) string {
	nonce := drawn(a.NonceSize())
	return fmt.Sprintf("vault:v%d:%s", version, base64.StdEncoding.EncodeToString(a.Seal(nonce, nonce, []byte(plain), nil)))
}

// TestRestoreVersions restores keys whose older versions are in the archive
// alone, are trimmed, or are not in the backup at all.
func TestRestoreVersions(t *testing.T) {
	versions := []foreignEntry{{Key: drawn(32), MAC: drawn(32)}, {Key: drawn(32), MAC: drawn(32)}, {Key: drawn(32), MAC: drawn(32)}}
	text := func(n int) string { return sealed(gcm(t, versions[n-1].Key), n, "moved") }
	for name, c := range map[string]struct {
		blob  string
		first int // that is there
	}{
		"archived":        {foreign(t, 0, object{"min_decryption_version": 2}, versions...), 1},
		"trimmed":         {foreign(t, 0, object{"min_decryption_version": 2, "min_available_version": 2, "archive_min_version": 2}, versions...), 2},
		"without archive": {strings.Replace(foreign(t, 0, object{"min_decryption_version": 2}, versions...), "archived_keys", "left_out", 1), 2},
	} {
		m := newMount(t)
		m.restoreForeign(c.blob)
		for n := 2; n <= 3; n++ {
			if got := m.decrypt("moved", text(n), nil); got != "moved" {
				t.Errorf("%s: version %d decrypts %q", name, n, got)
			}
		}
		if got := m.encrypt("moved", "x", nil); !strings.HasPrefix(got, "vault:v3:") {
			t.Errorf("%s: the next ciphertext is %s", name, got)
		}
		if said := m.refused("decrypt/moved", object{"ciphertext": text(1)}); !strings.Contains(said, "too old") {
			t.Errorf("%s: version 1 is refused with %q", name, said)
		}
		if c.first > 1 {
			m.refused("keys/moved/config", object{"min_decryption_version": 1})
			continue
		}
		m.must("keys/moved/config", object{"min_decryption_version": 1}, nil)
		if got := m.decrypt("moved", text(1), nil); got != "moved" {
			t.Errorf("%s: version 1 decrypts %q", name, got)
		}
		var out struct{ HMAC string }
		m.must("hmac/moved", object{"input": b64("x"), "key_version": 2}, &out)
		h := hmac.New(sha256.New, versions[1].MAC)
		h.Write([]byte("x"))
		if want := "vault:v2:" + base64.StdEncoding.EncodeToString(h.Sum(nil)); out.HMAC != want {
			t.Errorf("%s: the HMAC is %s, want %s", name, out.HMAC, want)
		}
	}
}

// TestRestoreTypes restores a key of each type and uses it beside Go's own
// packages.
func TestRestoreTypes(t *testing.T) {
	restored := func(typ int, more object, v foreignEntry) *mount {
		m := newMount(t)
		m.restoreForeign(foreign(t, typ, more, v))
		return m
	}
	key := drawn(32)
	chacha, err := chacha20poly1305.New(key)
	if err != nil {
		t.Fatal(err)
	}
	for typ, a := range map[int]cipher.AEAD{0: gcm(t, key), 8: gcm(t, key[:16]), 5: chacha} {
		v := foreignEntry{Key: key}
		if typ == 8 {
			v.Key = key[:16]
		}
		if got := restored(typ, nil, v).decrypt("moved", sealed(a, 1, "x"), nil); got != "x" {
			t.Errorf("type %d decrypts %q", typ, got)
		}
	}

	for typ, c := range map[int]elliptic.Curve{1: elliptic.P256(), 6: elliptic.P384(), 7: elliptic.P521()} {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		b, err := k.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		d, err := k.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		half := len(b) / 2
		v := foreignEntry{X: new(big.Int).SetBytes(b[1 : 1+half]), Y: new(big.Int).SetBytes(b[1+half:]), D: new(big.Int).SetBytes(d)}
		var out struct{ Signature string }
		restored(typ, nil, v).must("sign/moved", object{"input": b64("x")}, &out)
		sum := sha256.Sum256([]byte("x"))
		if !ecdsa.VerifyASN1(&k.PublicKey, sum[:], raw(t, out.Signature)) {
			t.Errorf("type %d: the signature is bad", typ)
		}
		v.D = nil // imported as a public key alone
		m := restored(typ, object{"Imported": true}, v)
		m.must("verify/moved", object{"input": b64("x"), "signature": out.Signature}, nil)
		if said := m.refused("sign/moved", object{"input": b64("x")}); !strings.Contains(said, "public half only") {
			t.Errorf("type %d: half a key refuses to sign with %q", typ, said)
		}
	}

	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	var out struct{ Signature string }
	restored(3, nil, foreignEntry{RSA: r}).must("sign/moved", object{"input": b64("x"), "signature_algorithm": "pkcs1v15"}, &out)
	sum := sha256.Sum256([]byte("x"))
	if err := rsa.VerifyPKCS1v15(&r.PublicKey, crypto.SHA256, sum[:], raw(t, out.Signature)); err != nil {
		t.Error(err)
	}
	restored(3, object{"Imported": true}, foreignEntry{RSAPub: &r.PublicKey}).encrypt("moved", "x", nil)

	var tag struct{ HMAC string }
	restored(11, object{"key_size": 48}, foreignEntry{Key: append(key, key[:16]...)}).must("hmac/moved", object{"input": b64("x")}, &tag)
	h := hmac.New(sha256.New, append(key, key[:16]...))
	h.Write([]byte("x"))
	if string(raw(t, tag.HMAC)) != string(h.Sum(nil)) {
		t.Error("the restored HMAC key makes another HMAC")
	}

	// Derived, and convergent: HKDF-SHA256 of the context, and behind the key
	// the 32 bytes that nonces are made by.
	both, err := hkdf.Key(sha256.New, key, nil, "c", 64)
	if err != nil {
		t.Fatal(err)
	}
	m := restored(0, object{"derived": true, "kdf": 1, "convergent_encryption": true, "convergent_version": -1}, foreignEntry{Key: key, Conv: 3})
	h = hmac.New(sha256.New, both[32:])
	h.Write([]byte("x"))
	nonce := h.Sum(nil)[:12]
	want := "vault:v1:" + base64.StdEncoding.EncodeToString(gcm(t, both[:32]).Seal(nonce, nonce, []byte("x"), nil))
	if got := m.encrypt("moved", "x", object{"context": b64("c")}); got != want {
		t.Errorf("the convergent ciphertext is %s, want %s", got, want)
	}
}

// TestRestoreRefuses has backups that may be Vault's, but not of a key that we
// could be sure about.
func TestRestoreRefuses(t *testing.T) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	d, err := k.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	r.D = new(big.Int).Add(r.D, big.NewInt(2))
	aes := foreignEntry{Key: drawn(32)}
	m := newMount(t)
	for want, blob := range map[string]string{
		"no key in it":                        `{"some":"json"}`,
		"number 10":                           foreign(t, 10, nil, aes),
		"number 14":                           foreign(t, 14, nil, aes),
		"version_template":                    foreign(t, 0, object{"version_template": "x{{version}}:"}, aes),
		"before 0.6.2":                        foreign(t, 0, object{"derived": true}, aes),
		"of an older Vault":                   foreign(t, 0, object{"derived": true, "kdf": 1, "convergent_encryption": true, "convergent_version": 2}, aes),
		"version 1: it is another one":        strings.Replace(foreign(t, 0, nil, aes, foreignEntry{Key: drawn(32)}), `"kdf":0`, `"kdf":0,"archive_min_version":-1`, 1),
		"version 2, which is to decrypt":      strings.Replace(strings.Replace(foreign(t, 0, nil, aes, aes), "archived_keys", "left_out", 1), `"2":`, `"02":`, 1),
		"version 1: invalid key size":         foreign(t, 0, nil, foreignEntry{Key: drawn(16)}),
		"do not belong together":              strings.Replace(published, "AhqOk5Fo", "BhqOk5Fo", 1),
		"version 1: its private key has":      strings.Replace(published, "C3R5O8uA", "", 1),
		"version 1: it has no key":            foreign(t, 1, nil, foreignEntry{}),
		"version 1: P256 point":               foreign(t, 1, nil, foreignEntry{X: big.NewInt(1), Y: big.NewInt(1), D: new(big.Int).SetBytes(d)}),
		"not of its curve":                    foreign(t, 1, nil, foreignEntry{D: new(big.Int).Lsh(big.NewInt(1), 300)}),
		"version 1: crypto/rsa":               foreign(t, 3, nil, foreignEntry{RSA: r}),
		"too long for a key":                  strings.Replace(foreign(t, 1, nil, foreignEntry{D: big.NewInt(7)}), `"ec_d":7`, `"ec_d":`+strings.Repeat("7", 2000), 1),
		"auto rotate period must be 0":        foreign(t, 0, object{"auto_rotate_period": 5}, aes),
		"versions contradict each other":      foreign(t, 0, object{"min_encryption_version": 7}, aes),
		"it is none, or damaged":              `{"policy":`,
		"format that this server does not kn": `{"leasehold_transit_backup":2}`,
	} {
		if said := m.refused("restore", object{"backup": b64(blob)}); !strings.Contains(said, want) {
			t.Errorf("%.200s is refused with %q, want %q", blob, said, want)
		}
	}
}
