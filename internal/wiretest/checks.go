package wiretest

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/big"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"
)

// check computes something from captured values that only a right server gets
// right: certificates that chain, signatures that verify, keys that unwrap.
// What it returns is compared like an answer's body.
func check(kind string, a map[string]string) (map[string]any, error) {
	switch kind {
	case "x509":
		return checkX509(a)
	case "csr":
		return checkCSR(a)
	case "crl":
		return checkCRL(a)
	case "ocsp":
		return checkOCSP(a)
	case "verify":
		return checkVerify(a)
	case "wrapkey":
		return wrapKey(a)
	case "aesgcm":
		return aesGCM(a)
	case "hmac":
		return checkHMAC(a)
	case "totp":
		return totp(a)
	}
	return nil, fmt.Errorf("unknown step kind %q", kind)
}

// der takes PEM or base64 DER and gives the first block's bytes.
func der(s string) ([]byte, error) {
	if b, _ := pem.Decode([]byte(s)); b != nil {
		return b.Bytes, nil
	}
	return base64.StdEncoding.DecodeString(strings.TrimSpace(s))
}

func cert(s string) (*x509.Certificate, error) {
	b, err := der(s)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(b)
}

func keyName(pub any) string {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return "rsa-" + strconv.Itoa(k.N.BitLen())
	case *ecdsa.PublicKey:
		return "ec-" + strconv.Itoa(k.Curve.Params().BitSize)
	case ed25519.PublicKey:
		return "ed25519"
	}
	return fmt.Sprintf("%T", pub)
}

func checkX509(a map[string]string) (map[string]any, error) {
	c, err := cert(a["cert"])
	if err != nil {
		return nil, err
	}
	out := map[string]any{
		"cn": c.Subject.CommonName, "subject": c.Subject.String(), "is_ca": c.IsCA, "key": keyName(c.PublicKey),
		"sig": c.SignatureAlgorithm.String(), "dns": strs(c.DNSNames), "emails": strs(c.EmailAddresses),
		"serial": colonHex(c.SerialNumber.Bytes()), "version": json.Number(strconv.Itoa(c.Version)),
		"key_usage": json.Number(strconv.Itoa(int(c.KeyUsage))), "max_path_len": json.Number(strconv.Itoa(c.MaxPathLen)),
		"not_after_unix": json.Number(strconv.FormatInt(c.NotAfter.Unix(), 10)),
		"lifetime":       json.Number(strconv.FormatInt(int64(time.Until(c.NotAfter).Round(time.Second)/time.Second), 10)),
		"has_ski":        len(c.SubjectKeyId) > 0, "has_aki": len(c.AuthorityKeyId) > 0,
		"issuing_urls": strs(c.IssuingCertificateURL), "crl_urls": strs(c.CRLDistributionPoints), "ocsp_urls": strs(c.OCSPServer),
	}
	var ips, uris, eku, permitted, policies []string
	for _, ip := range c.IPAddresses {
		ips = append(ips, ip.String())
	}
	for _, u := range c.URIs {
		uris = append(uris, u.String())
	}
	for _, e := range c.ExtKeyUsage {
		eku = append(eku, strconv.Itoa(int(e)))
	}
	for _, o := range c.PolicyIdentifiers {
		policies = append(policies, o.String())
	}
	permitted = append(permitted, c.PermittedDNSDomains...)
	out["ips"], out["uris"], out["eku"], out["permitted_dns"], out["policies"] = strs(ips), strs(uris), strs(eku), strs(permitted), strs(policies)
	if s := a["issuer"]; s != "" {
		i, err := cert(s)
		if err != nil {
			return nil, fmt.Errorf("issuer: %w", err)
		}
		out["signed_by_issuer"] = c.CheckSignatureFrom(i) == nil
		out["aki_matches"] = bytes.Equal(c.AuthorityKeyId, i.SubjectKeyId)
		out["not_beyond_issuer"] = !c.NotAfter.After(i.NotAfter)
	}
	if s := a["key"]; s != "" {
		k, err := privateKey(s)
		if err != nil {
			return nil, err
		}
		pub, ok := k.Public().(interface{ Equal(crypto.PublicKey) bool })
		out["key_matches"] = ok && pub.Equal(c.PublicKey)
	}
	if s := a["roots"]; s != "" {
		roots, inter := x509.NewCertPool(), x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(s))
		inter.AppendCertsFromPEM([]byte(a["intermediates"]))
		_, err := c.Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, DNSName: a["host"], KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		out["verifies"] = err == nil
	}
	return out, nil
}

func strs(s []string) []any {
	sort.Strings(s)
	out := []any{}
	for _, e := range s {
		out = append(out, e)
	}
	return out
}

func colonHex(b []byte) string {
	var p []string
	for _, x := range b {
		p = append(p, fmt.Sprintf("%02x", x))
	}
	return strings.Join(p, ":")
}

func privateKey(s string) (crypto.Signer, error) {
	b, err := der(s)
	if err != nil {
		return nil, err
	}
	if k, err := x509.ParsePKCS1PrivateKey(b); err == nil {
		return k, nil
	}
	if k, err := x509.ParseECPrivateKey(b); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKCS8PrivateKey(b)
	if err != nil {
		return nil, err
	}
	sg, ok := k.(crypto.Signer)
	if !ok {
		return nil, errors.New("not a signing key")
	}
	return sg, nil
}

func checkCSR(a map[string]string) (map[string]any, error) {
	b, err := der(a["csr"])
	if err != nil {
		return nil, err
	}
	c, err := x509.ParseCertificateRequest(b)
	if err != nil {
		return nil, err
	}
	return map[string]any{"cn": c.Subject.CommonName, "dns": strs(c.DNSNames), "key": keyName(c.PublicKey), "signature_ok": c.CheckSignature() == nil}, nil
}

func checkCRL(a map[string]string) (map[string]any, error) {
	b, err := der(a["crl"])
	if err != nil {
		return nil, err
	}
	l, err := x509.ParseRevocationList(b)
	if err != nil {
		return nil, err
	}
	out := map[string]any{"has_number": l.Number != nil, "current": l.NextUpdate.After(time.Now()) && l.ThisUpdate.Before(time.Now().Add(time.Minute)),
		"validity": json.Number(strconv.FormatInt(int64(l.NextUpdate.Sub(l.ThisUpdate).Seconds()), 10))}
	if s := a["issuer"]; s != "" {
		i, err := cert(s)
		if err != nil {
			return nil, err
		}
		out["signed_by_issuer"] = l.CheckSignatureFrom(i) == nil
	}
	if s := a["serial"]; s != "" {
		want, _ := new(big.Int).SetString(strings.NewReplacer(":", "", "-", "").Replace(s), 16)
		listed := false
		for _, e := range l.RevokedCertificateEntries {
			if want != nil && e.SerialNumber.Cmp(want) == 0 {
				listed = true
			}
		}
		out["lists_serial"] = listed
	}
	return out, nil
}

// checkOCSP asks a responder about a certificate, by POST or GET.
func checkOCSP(a map[string]string) (map[string]any, error) {
	c, err := cert(a["cert"])
	if err != nil {
		return nil, err
	}
	i, err := cert(a["issuer"])
	if err != nil {
		return nil, err
	}
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if _, err := asn1.Unmarshal(i.RawSubjectPublicKeyInfo, &spki); err != nil {
		return nil, err
	}
	type certID struct {
		Alg      pkix.AlgorithmIdentifier
		Name     []byte
		Key      []byte
		SerialNo *big.Int
	}
	type single struct{ ID certID }
	type tbs struct{ List []single }
	type request struct{ TBS tbs }
	nh, kh := sha1.Sum(i.RawSubject), sha1.Sum(spki.Key.RightAlign())
	id := certID{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 14, 3, 2, 26}, Parameters: asn1.RawValue{Tag: 5}}, nh[:], kh[:], c.SerialNumber}
	req, err := asn1.Marshal(request{tbs{[]single{{id}}}})
	if err != nil {
		return nil, err
	}
	var resp *http.Response
	if a["method"] == "GET" {
		resp, err = http.Get(a["url"] + "/" + strings.NewReplacer("+", "%2B", "/", "%2F", "=", "%3D").Replace(base64.StdEncoding.EncodeToString(req)))
	} else {
		resp, err = http.Post(a["url"], "application/ocsp-request", bytes.NewReader(req))
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(resp.Body)
	out := map[string]any{"http_status": json.Number(strconv.Itoa(resp.StatusCode)), "content_type": resp.Header.Get("Content-Type")}
	var or struct {
		Status asn1.Enumerated
		Bytes  struct {
			Type asn1.ObjectIdentifier
			Data []byte
		} `asn1:"explicit,tag:0,optional"`
	}
	if _, err := asn1.Unmarshal(raw, &or); err != nil {
		out["status"] = "unparsable"
		return out, nil
	}
	out["responder_status"] = json.Number(strconv.Itoa(int(or.Status)))
	var basic struct {
		TBS struct {
			Raw         asn1.RawContent
			ResponderID asn1.RawValue
			ProducedAt  time.Time `asn1:"generalized"`
			Responses   []struct {
				ID     certID
				Status asn1.RawValue
				This   time.Time     `asn1:"generalized"`
				Next   time.Time     `asn1:"generalized,explicit,tag:0,optional"`
				Ext    asn1.RawValue `asn1:"explicit,tag:1,optional"`
			}
			Ext asn1.RawValue `asn1:"explicit,tag:1,optional"`
		}
		Alg   pkix.AlgorithmIdentifier
		Sig   asn1.BitString
		Certs asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
	if len(or.Bytes.Data) == 0 {
		return out, nil
	}
	if _, err := asn1.Unmarshal(or.Bytes.Data, &basic); err != nil {
		return nil, fmt.Errorf("OCSP answer: %w", err)
	}
	if len(basic.TBS.Responses) != 1 {
		return nil, fmt.Errorf("OCSP answer about %d certificates", len(basic.TBS.Responses))
	}
	r := basic.TBS.Responses[0]
	out["status"] = map[int]string{0: "good", 1: "revoked", 2: "unknown"}[r.Status.Tag]
	out["same_serial"] = r.ID.SerialNo.Cmp(c.SerialNumber) == 0
	algs := map[string]x509.SignatureAlgorithm{
		"1.2.840.113549.1.1.11": x509.SHA256WithRSA, "1.2.840.113549.1.1.12": x509.SHA384WithRSA, "1.2.840.113549.1.1.13": x509.SHA512WithRSA,
		"1.2.840.10045.4.3.2": x509.ECDSAWithSHA256, "1.2.840.10045.4.3.3": x509.ECDSAWithSHA384, "1.2.840.10045.4.3.4": x509.ECDSAWithSHA512, "1.3.101.112": x509.PureEd25519,
	}
	out["signed_by_issuer"] = i.CheckSignature(algs[basic.Alg.Algorithm.String()], basic.TBS.Raw, basic.Sig.RightAlign()) == nil
	return out, nil
}

func hasher(name string) (func() hash.Hash, crypto.Hash, error) {
	switch name {
	case "sha1":
		return sha1.New, crypto.SHA1, nil
	case "sha2-256", "sha256", "":
		return sha256.New, crypto.SHA256, nil
	case "sha2-384", "sha384":
		return sha512.New384, crypto.SHA384, nil
	case "sha2-512", "sha512":
		return sha512.New, crypto.SHA512, nil
	}
	return nil, 0, fmt.Errorf("unknown hash %q", name)
}

// payload takes the base64 part off "vault:v1:...".
func payload(s string) ([]byte, error) {
	if i := strings.LastIndex(s, ":"); i >= 0 {
		s = s[i+1:]
	}
	if b, err := base64.StdEncoding.DecodeString(s); err == nil {
		return b, nil
	}
	return base64.RawURLEncoding.DecodeString(s)
}

// checkVerify checks a transit signature with the public key, out of the server's hands.
func checkVerify(a map[string]string) (map[string]any, error) {
	sig, err := payload(a["signature"])
	if err != nil {
		return nil, err
	}
	input, err := base64.StdEncoding.DecodeString(a["input"])
	if err != nil {
		return nil, err
	}
	newHash, h, err := hasher(a["hash"])
	if err != nil {
		return nil, err
	}
	sum := newHash()
	sum.Write(input)
	digest := sum.Sum(nil)
	var pub any
	if b, _ := pem.Decode([]byte(a["public_key"])); b != nil {
		if pub, err = x509.ParsePKIXPublicKey(b.Bytes); err != nil {
			return nil, err
		}
	} else {
		raw, err := base64.StdEncoding.DecodeString(a["public_key"])
		if err != nil || len(raw) != ed25519.PublicKeySize {
			return nil, errors.New("neither a PEM key nor a raw ed25519 key")
		}
		pub = ed25519.PublicKey(raw)
	}
	ok := false
	switch k := pub.(type) {
	case ed25519.PublicKey:
		ok = ed25519.Verify(k, input, sig)
	case *ecdsa.PublicKey:
		if a["marshaling"] == "jws" {
			n := len(sig) / 2
			ok = ecdsa.Verify(k, digest, new(big.Int).SetBytes(sig[:n]), new(big.Int).SetBytes(sig[n:]))
		} else {
			ok = ecdsa.VerifyASN1(k, digest, sig)
		}
	case *rsa.PublicKey:
		if a["padding"] == "pkcs1v15" {
			ok = rsa.VerifyPKCS1v15(k, h, digest, sig) == nil
		} else {
			ok = rsa.VerifyPSS(k, h, digest, sig, nil) == nil
		}
	}
	return map[string]any{"valid": ok, "key": keyName(pub)}, nil
}

// wrapKey makes the ciphertext that a transit key import takes: an ephemeral
// AES key under RSA-OAEP, then the key material under AES-KWP (RFC 5649).
func wrapKey(a map[string]string) (map[string]any, error) {
	b, _ := pem.Decode([]byte(a["wrapping_key"]))
	if b == nil {
		return nil, errors.New("wrapping_key is not PEM")
	}
	k, err := x509.ParsePKIXPublicKey(b.Bytes)
	if err != nil {
		return nil, err
	}
	pub, ok := k.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("wrapping_key is not RSA")
	}
	var target []byte
	if p, _ := pem.Decode([]byte(a["key"])); p != nil {
		target = p.Bytes
	} else if target, err = hex.DecodeString(a["key"]); err != nil {
		return nil, err
	}
	newHash, _, err := hasher(a["hash"])
	if err != nil {
		return nil, err
	}
	eph := make([]byte, 32)
	if _, err := rand.Read(eph); err != nil {
		return nil, err
	}
	head, err := rsa.EncryptOAEP(newHash(), rand.Reader, pub, eph, nil)
	if err != nil {
		return nil, err
	}
	tail, err := aesKWP(eph, target)
	if err != nil {
		return nil, err
	}
	return map[string]any{"ciphertext": base64.StdEncoding.EncodeToString(append(head, tail...))}, nil
}

func aesKWP(kek, key []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, err
	}
	iv := make([]byte, 8)
	copy(iv, []byte{0xa6, 0x59, 0x59, 0xa6})
	binary.BigEndian.PutUint32(iv[4:], uint32(len(key)))
	padded := append([]byte{}, key...)
	for len(padded)%8 != 0 {
		padded = append(padded, 0)
	}
	if len(padded) == 8 {
		out := append(iv, padded...)
		block.Encrypt(out, out)
		return out, nil
	}
	n := len(padded) / 8
	reg, buf := iv, make([]byte, 16)
	for j := 0; j < 6; j++ {
		for i := 1; i <= n; i++ {
			copy(buf, reg)
			copy(buf[8:], padded[(i-1)*8:i*8])
			block.Encrypt(buf, buf)
			var t [8]byte
			binary.BigEndian.PutUint64(t[:], uint64(n*j+i))
			subtle.XORBytes(reg, buf[:8], t[:])
			copy(padded[(i-1)*8:], buf[8:])
		}
	}
	return append(append([]byte{}, reg...), padded...), nil
}

// aesGCM opens or seals in the wire form of transit's AES keys: nonce, then ciphertext.
func aesGCM(a map[string]string) (map[string]any, error) {
	key, err := hex.DecodeString(a["key"])
	if err != nil {
		if key, err = base64.StdEncoding.DecodeString(a["key"]); err != nil {
			return nil, err
		}
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	g, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	var aad []byte
	if a["aad"] != "" {
		aad, _ = base64.StdEncoding.DecodeString(a["aad"])
	}
	if a["plaintext"] != "" {
		pt, err := base64.StdEncoding.DecodeString(a["plaintext"])
		if err != nil {
			return nil, err
		}
		nonce := make([]byte, 12)
		rand.Read(nonce)
		return map[string]any{"ciphertext": "vault:v1:" + base64.StdEncoding.EncodeToString(g.Seal(nonce, nonce, pt, aad))}, nil
	}
	ct, err := payload(a["ciphertext"])
	if err != nil || len(ct) < 12 {
		return nil, errors.New("ciphertext too short or not base64")
	}
	pt, err := g.Open(nil, ct[:12], ct[12:], aad)
	if err != nil {
		return map[string]any{"opened": false}, nil
	}
	return map[string]any{"opened": true, "plaintext": base64.StdEncoding.EncodeToString(pt)}, nil
}

func checkHMAC(a map[string]string) (map[string]any, error) {
	key, err := base64.StdEncoding.DecodeString(a["key"])
	if err != nil {
		return nil, err
	}
	in, err := base64.StdEncoding.DecodeString(a["input"])
	if err != nil {
		return nil, err
	}
	newHash, _, err := hasher(a["hash"])
	if err != nil {
		return nil, err
	}
	m := hmac.New(newHash, key)
	m.Write(in)
	got, err := payload(a["hmac"])
	return map[string]any{"valid": err == nil && hmac.Equal(got, m.Sum(nil))}, nil
}

// totp computes the code of a base32 secret for now (RFC 6238, SHA-1, 30 s).
func totp(a map[string]string) (map[string]any, error) {
	key, err := hex.DecodeString(a["key"])
	if err != nil {
		return nil, err
	}
	var c [8]byte
	binary.BigEndian.PutUint64(c[:], uint64(time.Now().Unix()/30))
	m := hmac.New(sha1.New, key)
	m.Write(c[:])
	s := m.Sum(nil)
	o := s[19] & 15
	return map[string]any{"code": fmt.Sprintf("%06d", (binary.BigEndian.Uint32(s[o:])&0x7fffffff)%1000000)}, nil
}
