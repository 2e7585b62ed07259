package transit

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"time"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/wire"
)

// This file reads the backups that Vault and OpenBao make of a key, so that
// keys can move here with all their versions. What is not understood for
// certain is refused: a key that is another one in some detail loses data.

// foreignBackup is such a backup, which is the row that they store: a policy
// is what they call a key.
type foreignBackup struct {
	Policy   *foreignKey `json:"policy"`
	Archived struct {
		Keys []foreignVersion `json:"keys"` // by version, the first is that of archive_min_version
	} `json:"archived_keys"`
}

type foreignKey struct {
	Name              string                    `json:"name"`
	Type              int                       `json:"type"`
	KeySize           int                       `json:"key_size"`
	Keys              map[string]foreignVersion `json:"keys"` // the versions that decrypt
	Latest            int                       `json:"latest_version"`
	MinDecryption     int                       `json:"min_decryption_version"`
	MinEncryption     int                       `json:"min_encryption_version"`
	MinAvailable      int                       `json:"min_available_version"`
	ArchiveMin        int                       `json:"archive_min_version"`
	Derived           bool                      `json:"derived"`
	KDF               int                       `json:"kdf"`
	Convergent        bool                      `json:"convergent_encryption"`
	ConvergentVersion int                       `json:"convergent_version"` // of versions that do not say
	Exportable        bool                      `json:"exportable"`
	PlaintextBackup   bool                      `json:"allow_plaintext_backup"`
	DeletionAllowed   bool                      `json:"deletion_allowed"`
	SoftDeleted       bool                      `json:"soft_deleted"` // of OpenBao's
	RotatePeriod      time.Duration             `json:"auto_rotate_period"`
	Imported          bool                      `json:"imported"`
	AllowRotation     bool                      `json:"allowImportedKeyRotation"`
	VersionTemplate   string                    `json:"version_template"`
}

type foreignVersion struct {
	Key        []byte      `json:"key"` // symmetric, or the private key of Ed25519 as Go has it
	MAC        []byte      `json:"hmac_key"`
	Time       time.Time   `json:"time"`
	X          *bigNumber  `json:"ec_x"`
	Y          *bigNumber  `json:"ec_y"`
	D          *bigNumber  `json:"ec_d"`
	RSA        *foreignRSA `json:"rsa_key"`
	RSAPublic  *foreignRSA `json:"rsa_public_key"`
	Public     string      `json:"public_key"`
	Convergent int         `json:"convergent_version"`
	Chain      [][]byte    `json:"certificate_chain"`
}

type foreignRSA struct {
	N, D   *bigNumber
	E      int
	Primes []*bigNumber
}

// bigNumber is an integer of any size up to that of an RSA key.
type bigNumber struct{ big.Int }

// UnmarshalJSON implements json.Unmarshaler.
func (n *bigNumber) UnmarshalJSON(b []byte) error {
	if len(b) > 1300 { // 4,096 bits have 1,234 digits; long ones take long to read
		return errors.New("a number is too long for a key")
	}
	return n.Int.UnmarshalJSON(b)
}

// foreignTypes are the types of keys by their numbers. Vault and OpenBao agree
// on these; later ones differ, or are not ours.
var foreignTypes = map[int]primitive.Type{
	0: primitive.AES256GCM, 1: primitive.ECDSAP256, 2: primitive.Ed25519, 3: primitive.RSA2048, 4: primitive.RSA4096, 5: primitive.ChaCha20Poly1305,
	6: primitive.ECDSAP384, 7: primitive.ECDSAP521, 8: primitive.AES128GCM, 9: primitive.RSA3072, 11: primitive.HMAC,
}

// Numbers of theirs that ours is the same as.
const (
	foreignHKDF       = 1 // the key derivation: HKDF-SHA256 of the context
	foreignConvergent = 3 // how nonces are made: of the plaintext, by a key that is derived with the key
)

// parseForeign makes a backup of ours of one of theirs.
func parseForeign(b []byte) (*backupBlob, error) {
	var from foreignBackup
	if err := json.Unmarshal(b, &from); err != nil {
		return nil, err
	}
	p := from.Policy
	if p == nil {
		return nil, errors.New("it has no key in it")
	}
	t, ok := foreignTypes[p.Type]
	switch {
	case !ok:
		return nil, fmt.Errorf("its key is of the type with the number %d, which cannot be taken over", p.Type)
	case p.VersionTemplate != "":
		return nil, errors.New("its ciphertexts do not begin with vault:v1:, since it has a version_template")
	case p.Derived && p.KDF != foreignHKDF:
		return nil, errors.New("its key derives others in the way of Vault before 0.6.2, which cannot be taken over: rewrap its ciphertexts with a new key")
	}
	k := keyRow{
		V: formatOfRows, Name: p.Name, Spec: primitive.Spec{Type: t}, Latest: p.Latest,
		MinDecryption: max(1, p.MinDecryption), MinEncryption: p.MinEncryption, MinAvailable: p.MinAvailable,
		Derived: p.Derived, Convergent: p.Convergent, Exportable: p.Exportable, PlaintextBackup: p.PlaintextBackup,
		DeletionAllowed: p.DeletionAllowed, SoftDeleted: p.SoftDeleted, Imported: p.Imported, AllowRotation: p.AllowRotation, RotatePeriod: wire.TTL(p.RotatePeriod),
	}
	blob := &backupBlob{V: formatOfRows}
	for n := p.Latest; n >= max(1, p.MinAvailable); n-- {
		v, err := from.version(n)
		if err != nil {
			return nil, fmt.Errorf("version %d: %w", n, err)
		}
		if v == nil {
			if n >= k.MinDecryption {
				return nil, fmt.Errorf("version %d, which is to decrypt, is not in it", n)
			}
			k.MinAvailable = n + 1 // archived, and the backup came without its archive
			break
		}
		if t == primitive.HMAC {
			k.Spec.Size = len(v.Key)
		}
		row, err := v.row(k.Spec)
		if err == nil && p.Convergent && v.convergence(p) != foreignConvergent {
			err = errors.New("its nonces are made in the way of an older Vault, which cannot be taken over: rewrap its ciphertexts with a new key")
		}
		if err != nil {
			return nil, fmt.Errorf("version %d: %w", n, err)
		}
		blob.Versions = append(blob.Versions, backupVersion{n, *row})
	}
	for i, j := 0, len(blob.Versions)-1; i < j; i, j = i+1, j-1 {
		blob.Versions[i], blob.Versions[j] = blob.Versions[j], blob.Versions[i]
	}
	blob.Key = k
	return blob, nil
}

// version finds a version among those in use and in the archive, nil when it is
// in neither. Where it is in both, it must be the same: that the archive is
// counted as we think shows only there.
func (b *foreignBackup) version(n int) (*foreignVersion, error) {
	var out *foreignVersion
	if v, ok := b.Policy.Keys[strconv.Itoa(n)]; ok {
		out = &v
	}
	if i := n - b.Policy.ArchiveMin; i >= 0 && i < len(b.Archived.Keys) {
		v := &b.Archived.Keys[i]
		if out != nil && !out.same(v) {
			return nil, errors.New("it is another one in the archive")
		}
		out = v
	}
	return out, nil
}

func (v *foreignVersion) same(w *foreignVersion) bool {
	return string(v.Key) == string(w.Key) && string(v.MAC) == string(w.MAC) && v.Public == w.Public &&
		equal(v.D, w.D) && equal(v.X, w.X) && (v.RSA == nil) == (w.RSA == nil) && (v.RSA == nil || equal(v.RSA.N, w.RSA.N))
}

func equal(a, b *bigNumber) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Cmp(&b.Int) == 0
}

func (v *foreignVersion) convergence(p *foreignKey) int {
	if v.Convergent != 0 {
		return v.Convergent
	}
	return p.ConvergentVersion
}

// row is a version as we store it.
func (v *foreignVersion) row(s primitive.Spec) (*versionRow, error) {
	m, err := v.material(s)
	if err != nil {
		return nil, err
	}
	row := &versionRow{V: formatOfRows, Created: v.Time, Secret: m.Secret, Public: m.Public, Chain: v.Chain}
	if !s.Type.Abilities().MAC {
		if row.MAC = v.MAC; len(row.MAC) == 0 { // of a key from before there was hmac/: it gets one, as in Vault
			row.MAC = make([]byte, 32)
			rand.Read(row.MAC)
		}
	}
	return row, nil
}

var errForeignHalves = errors.New("its private key and its public key do not belong together")

func (v *foreignVersion) material(s primitive.Spec) (m primitive.Material, err error) {
	var private, public any
	switch s.Type {
	case primitive.Ed25519:
		private, public, err = v.ed25519()
	case primitive.ECDSAP256:
		private, public, err = v.ecdsa(elliptic.P256())
	case primitive.ECDSAP384:
		private, public, err = v.ecdsa(elliptic.P384())
	case primitive.ECDSAP521:
		private, public, err = v.ecdsa(elliptic.P521())
	case primitive.RSA2048, primitive.RSA3072, primitive.RSA4096:
		private, public, err = v.rsa()
	default:
		return primitive.Imported(s, v.Key)
	}
	if err != nil {
		return m, err
	}
	if private == nil {
		der, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			return m, err
		}
		return primitive.ImportedPublic(s, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return m, err
	}
	return primitive.Imported(s, der)
}

func (v *foreignVersion) ed25519() (private, public any, err error) {
	pub, err := base64.StdEncoding.DecodeString(v.Public)
	if err != nil {
		return nil, nil, fmt.Errorf("its public key: %w", err)
	}
	if len(v.Key) == 0 {
		if len(pub) != ed25519.PublicKeySize {
			return nil, nil, errors.New("it has no key")
		}
		return nil, ed25519.PublicKey(pub), nil
	}
	if len(v.Key) != ed25519.PrivateKeySize {
		return nil, nil, fmt.Errorf("its private key has %d bytes, not %d", len(v.Key), ed25519.PrivateKeySize)
	}
	k := ed25519.NewKeyFromSeed(v.Key[:ed25519.SeedSize])
	if string(k) != string(v.Key) || len(pub) > 0 && string(pub) != string(k[ed25519.SeedSize:]) {
		return nil, nil, errForeignHalves
	}
	return k, nil, nil
}

func (v *foreignVersion) ecdsa(c elliptic.Curve) (private, public any, err error) {
	size := (c.Params().BitSize + 7) / 8
	for _, n := range []*bigNumber{v.X, v.Y, v.D} {
		if n != nil && (n.Sign() < 0 || n.BitLen() > 8*size) {
			return nil, nil, errors.New("its key is not of its curve")
		}
	}
	var pub *ecdsa.PublicKey
	if v.X != nil && v.Y != nil {
		point := append([]byte{4}, v.X.FillBytes(make([]byte, size))...) // uncompressed (SEC 1, section 2.3.3)
		if pub, err = ecdsa.ParseUncompressedPublicKey(c, append(point, v.Y.FillBytes(make([]byte, size))...)); err != nil {
			return nil, nil, err
		}
	}
	if v.D == nil {
		if pub == nil {
			return nil, nil, errors.New("it has no key")
		}
		return nil, pub, nil
	}
	k, err := ecdsa.ParseRawPrivateKey(c, v.D.FillBytes(make([]byte, size)))
	if err != nil {
		return nil, nil, err
	}
	if pub != nil && !k.PublicKey.Equal(pub) {
		return nil, nil, errForeignHalves
	}
	return k, nil, nil
}

func (v *foreignVersion) rsa() (private, public any, err error) {
	from := v.RSA
	if from == nil {
		from = v.RSAPublic
	}
	if from == nil || from.N == nil {
		return nil, nil, errors.New("it has no key")
	}
	pub := rsa.PublicKey{N: &from.N.Int, E: from.E}
	if v.RSA == nil || from.D == nil {
		return nil, &pub, nil
	}
	k := &rsa.PrivateKey{PublicKey: pub, D: &from.D.Int}
	for _, p := range from.Primes {
		if p == nil {
			return nil, nil, errors.New("its private key is damaged")
		}
		k.Primes = append(k.Primes, &p.Int)
	}
	if err := k.Validate(); err != nil {
		return nil, nil, err
	}
	k.Precompute()
	return k, nil, nil
}
