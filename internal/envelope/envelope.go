// Package envelope is the format of the files that "leasehold transit
// encrypt-file" writes: a key of Transit protects a data key, and the data key
// the file.
//
// The key idea: a file is a header in the clear, which names the key of Transit
// and holds the data key as that key has wrapped it, and behind it the content
// in chunks of 64 KiB, each encrypted and authenticated by itself. A chunk's
// nonce is its number and whether it is the last one (the STREAM construction
// of Hoang, Reyhanitabar, Rogaway and Vizár, which age uses too), so that
// chunks that were left out, put elsewhere, repeated, or taken from another
// file do not open. The key for the chunks is derived from the data key and
// the header, so neither can be exchanged.
//
// Reading, encryption and writing run side by side over a few blocks of
// chunks; the memory that takes does not grow with the file.
//
// docs/transit-file-format.md has the format for those who want to read such
// files with other programs.
package envelope

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// DataKeySize is the length of a data key: what Transit draws when 256 bits are
// asked for.
const DataKeySize = 32

const (
	magic       = "leasehold-transit-file/"
	version     = "1"
	keyField    = "key: "
	dataField   = "datakey: "
	checkSize   = 32
	mostInAHead = 16 << 10 // a data key that ML-KEM or RSA has wrapped has some 2 KiB
)

// Header is what stands in front, in the clear.
type Header struct {
	Key     string // name of the key in Transit
	DataKey string // as the key has wrapped it: "vault:v3:…"
}

// Names of keys are Transit's. They go into the path of a request, and the
// file that they come from may be anybody's.
var (
	keyRule     = regexp.MustCompile(`^[0-9A-Za-z_]([0-9A-Za-z_.-]{0,254}[0-9A-Za-z_])?$`)
	dataKeyRule = regexp.MustCompile(`^vault:v[0-9]{1,10}:[0-9A-Za-z+/=_-]+$`)
)

// Errors of files that are not, or no longer, what Seal wrote.
var (
	ErrFormat    = errors.New("this is no file that `leasehold transit encrypt-file` has written")
	ErrKey       = errors.New("the header was changed, or the data key is not this file's")
	ErrTruncated = errors.New("the file is cut off: its end is missing")
	ErrTrailing  = errors.New("the file goes on behind its end")
)

func (h Header) text() ([]byte, error) {
	switch {
	case !keyRule.MatchString(h.Key):
		return nil, fmt.Errorf("%q is no name of a key", h.Key)
	case !dataKeyRule.MatchString(h.DataKey):
		return nil, errors.New("the wrapped data key does not look like vault:v1:…")
	}
	b := []byte(magic + version + "\n" + keyField + h.Key + "\n" + dataField + h.DataKey + "\n")
	if len(b) > mostInAHead {
		return nil, fmt.Errorf("the header would have %d bytes, more than the %d that it may", len(b), mostInAHead)
	}
	return b, nil
}

// keys derives what encrypts the chunks, and what proves that header and data
// key belong together: AES-GCM alone would let one file be made that opens by
// two keys.
func keys(dataKey, header []byte) (chunks cipher.AEAD, check []byte, err error) {
	if len(dataKey) != DataKeySize {
		return nil, nil, fmt.Errorf("the data key has %d bytes, want %d", len(dataKey), DataKeySize)
	}
	k, err := hkdf.Key(sha256.New, dataKey, nil, string(header), 32+checkSize)
	if err != nil {
		return nil, nil, err
	}
	defer clear(k[:32])
	block, err := aes.NewCipher(k[:32])
	if err != nil {
		return nil, nil, err
	}
	chunks, err = cipher.NewGCM(block)
	return chunks, k[32:], err
}

// Seal encrypts src to its end. A data key is for one file: what was encrypted
// under it twice is no longer secret.
func Seal(ctx context.Context, dst io.Writer, src io.Reader, h Header, dataKey []byte) error {
	text, err := h.text()
	if err != nil {
		return err
	}
	chunks, check, err := keys(dataKey, text)
	if err != nil {
		return err
	}
	if _, err := dst.Write(append(text, check...)); err != nil {
		return err
	}
	return run(ctx, dst, src, chunkSize, func(b *block) { b.seal(chunks) })
}

// Sealed is an encrypted file whose header has been read.
type Sealed struct {
	Header Header

	text  []byte // the header as it stands there
	check []byte
	src   *bufio.Reader
}

// Open reads the header. Nothing in it is proven until Decrypt.
func Open(src io.Reader) (*Sealed, error) {
	s := &Sealed{src: bufio.NewReaderSize(src, mostInAHead+checkSize)}
	first, err := s.line(magic)
	if err != nil {
		return nil, err
	}
	if first != version {
		return nil, fmt.Errorf("the file has version %.20q of the format, this leasehold knows %s: a newer one reads it", first, version)
	}
	if s.Header.Key, err = s.line(keyField); err != nil {
		return nil, err
	}
	if s.Header.DataKey, err = s.line(dataField); err != nil {
		return nil, err
	}
	// What is written otherwise than Seal does is refused, not put right.
	if text, err := s.Header.text(); err != nil || !bytes.Equal(text, s.text) {
		return nil, ErrFormat
	}
	s.check = make([]byte, checkSize)
	if _, err := io.ReadFull(s.src, s.check); err != nil {
		return nil, missing(err, ErrTruncated)
	}
	return s, nil
}

// line reads one line of the header, which begins with field.
func (s *Sealed) line(field string) (string, error) {
	b, err := s.src.ReadSlice('\n')
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) && !errors.Is(err, io.EOF) {
		return "", err
	}
	value, ok := strings.CutPrefix(string(b), field)
	if !ok {
		return "", ErrFormat
	}
	if err != nil {
		return "", missing(err, ErrTruncated)
	}
	s.text = append(s.text, b...)
	return strings.TrimSuffix(value, "\n"), nil
}

// missing puts a sentence in place of an end that came too early.
func missing(err, sentence error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return sentence
	case errors.Is(err, bufio.ErrBufferFull):
		return ErrFormat
	}
	return err
}

// Decrypt writes what is in the file. Whatever it writes is authentic, but only
// when it returns nil is it all there: until then it must not be taken for the
// file.
func (s *Sealed) Decrypt(ctx context.Context, dst io.Writer, dataKey []byte) error {
	chunks, check, err := keys(dataKey, s.text)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(check, s.check) != 1 {
		return ErrKey
	}
	return run(ctx, dst, s.src, sealedSize, func(b *block) { b.open(chunks) })
}
