package envelope

import (
	"crypto/cipher"
	"encoding/binary"
	"fmt"
)

const (
	chunkSize  = 64 << 10
	tagSize    = 16
	sealedSize = chunkSize + tagSize
	perBlock   = 16 // chunks that are read and written at once

	// mostChunks is how many a file has at most: 256 TiB, with which AES-GCM is
	// still far from its limits.
	mostChunks = 1 << 32
)

// block is some chunks on their way through.
type block struct {
	number uint64 // of its first chunk
	last   bool   // whether the file ends with it
	in     []byte // as it was read: whole chunks, and in the last block perhaps a part of one
	out    []byte
	err    error
	done   chan struct{} // gets a value when out and err are there
}

func newBlock() *block {
	return &block{
		in:   make([]byte, 0, perBlock*sealedSize),
		out:  make([]byte, 0, perBlock*sealedSize),
		done: make(chan struct{}, 1),
	}
}

// nonce is the chunk's number and, in its last byte, whether it is the last.
func nonce(number uint64, last bool) []byte {
	n := make([]byte, 12)
	binary.BigEndian.PutUint64(n[3:], number)
	if last {
		n[11] = 1
	}
	return n
}

// each calls f with each chunk of a block. An empty file is one empty chunk.
func (b *block) each(size int, f func(chunk []byte, number uint64, last bool) error) {
	b.out, b.err = b.out[:0], nil
	for i, rest := uint64(0), b.in; b.err == nil; i++ {
		chunk := rest[:min(size, len(rest))]
		rest = rest[len(chunk):]
		if b.number+i >= mostChunks {
			b.err = fmt.Errorf("the file is too large: one has at most %d TiB", mostChunks*chunkSize>>40)
			return
		}
		b.err = f(chunk, b.number+i, b.last && len(rest) == 0)
		if len(rest) == 0 {
			return
		}
	}
}

func (b *block) seal(by cipher.AEAD) {
	b.each(chunkSize, func(chunk []byte, number uint64, last bool) error {
		b.out = by.Seal(b.out, nonce(number, last), chunk, nil)
		return nil
	})
}

func (b *block) open(by cipher.AEAD) {
	b.each(sealedSize, func(chunk []byte, number uint64, last bool) (err error) {
		if len(chunk) < tagSize {
			return ErrTruncated
		}
		out, err := by.Open(b.out, nonce(number, last), chunk, nil)
		if err != nil {
			return b.wrong(by, chunk, number, last)
		}
		if len(chunk) == tagSize && number > 0 {
			// Seal ends a file with an empty chunk only if there is no other:
			// there is one way to write a file.
			return ErrFormat
		}
		b.out = out
		return nil
	})
}

// wrong finds out what is wrong with a chunk that does not open.
func (b *block) wrong(by cipher.AEAD, chunk []byte, number uint64, last bool) error {
	if _, err := by.Open(nil, nonce(number, !last), chunk, nil); err == nil {
		if last {
			return ErrTruncated
		}
		return ErrTrailing
	}
	if last && len(chunk) < sealedSize {
		return fmt.Errorf("the file was changed, or is cut off, behind byte %d of its content", number*chunkSize)
	}
	return fmt.Errorf("the file was changed or damaged behind byte %d of its content", number*chunkSize)
}
