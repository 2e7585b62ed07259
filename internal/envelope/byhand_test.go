package envelope_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"regexp"
)

// decryptByHand reads a file as docs/transit-file-format.md says, in the
// plainest way: it shares no line with the package, which is to write what the
// page describes.
func decryptByHand(file, dataKey []byte) ([]byte, error) {
	head := regexp.MustCompile(`^leasehold-transit-file/1\nkey: [0-9A-Za-z_][0-9A-Za-z_.-]*\ndatakey: vault:v[0-9]+:[0-9A-Za-z+/=_-]+\n`).Find(file)
	if head == nil || len(file) < len(head)+32 {
		return nil, errors.New("no header")
	}
	check, rest := file[len(head):len(head)+32], file[len(head)+32:]

	// HKDF-SHA256 (RFC 5869) without a salt, to 64 bytes.
	mac := func(key []byte, parts ...[]byte) []byte {
		m := hmac.New(sha256.New, key)
		for _, p := range parts {
			m.Write(p)
		}
		return m.Sum(nil)
	}
	prk := mac(make([]byte, 32), dataKey)
	key := mac(prk, head, []byte{1})
	if !bytes.Equal(check, mac(prk, key, head, []byte{2})) {
		return nil, errors.New("not the data key")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	var out []byte
	for i := uint64(0); ; i++ {
		chunk := rest[:min(65552, len(rest))]
		rest = rest[len(chunk):]
		nonce := make([]byte, 12)
		binary.BigEndian.PutUint64(nonce[3:11], i)
		if len(rest) == 0 {
			nonce[11] = 1
		}
		if out, err = gcm.Open(out, nonce, chunk, nil); err != nil {
			return nil, err
		}
		if len(rest) > 0 {
			continue
		}
		if i > 0 && len(chunk) == 16 {
			return nil, errors.New("an empty chunk at the end")
		}
		return out, nil
	}
}
