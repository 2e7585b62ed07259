package sys

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"hash"
	"io"
	"strconv"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
)

func (e *Engine) toolRoutes(t *route.Table) {
	route.Write(t, "tools/hash", hashInput, route.Doc("Hash what is sent."))
	route.Write(t, "tools/hash/{urlalgorithm}", hashInput, route.Doc("Hash what is sent."))
	// One segment is a source or a number of bytes.
	route.Write(t, "tools/random", e.random, route.Doc("Draw random bytes."))
	route.Write(t, "tools/random/{source_or_bytes}", e.randomBy, route.Doc("Draw random bytes."))
	route.Write(t, "tools/random/{source}/{urlbytes}", e.random, route.Doc("Draw random bytes."))
}

var hashes = map[string]func() hash.Hash{
	"sha2-224": sha256.New224,
	"sha2-256": sha256.New,
	"sha2-384": sha512.New384,
	"sha2-512": sha512.New,
	"sha3-224": func() hash.Hash { return sha3.New224() },
	"sha3-256": func() hash.Hash { return sha3.New256() },
	"sha3-384": func() hash.Hash { return sha3.New384() },
	"sha3-512": func() hash.Hash { return sha3.New512() },
}

type hashIn struct {
	Input        string `json:"input" doc:"What to hash, in base64."`
	Algorithm    string `json:"algorithm" doc:"sha2-224 to sha2-512, sha3-224 to sha3-512; sha2-256 without."`
	URLAlgorithm string `json:"urlalgorithm"`
	Format       string `json:"format" doc:"hex or base64; hex without."`
}

type hashOut struct {
	Sum string `json:"sum"`
}

func hashInput(_ context.Context, _ *route.Request, in hashIn) (hashOut, error) {
	b, err := base64.StdEncoding.DecodeString(in.Input)
	if err != nil {
		return hashOut{}, errs.New(errs.Invalid, "unable to decode input as base64: %v", err)
	}
	name := cmp.Or(in.URLAlgorithm, in.Algorithm, "sha2-256")
	newHash, ok := hashes[name]
	if !ok {
		return hashOut{}, errs.New(errs.Invalid, "unsupported algorithm %q", name)
	}
	h := newHash()
	h.Write(b)
	sum, err := encode(h.Sum(nil), cmp.Or(in.Format, "hex"))
	return hashOut{Sum: sum}, err
}

func encode(b []byte, format string) (string, error) {
	switch format {
	case "hex":
		return hex.EncodeToString(b), nil
	case "base64":
		return base64.StdEncoding.EncodeToString(b), nil
	}
	return "", errs.New(errs.Invalid, "unsupported encoding format %q; must be \"hex\" or \"base64\"", format)
}

const mostRandom = 128 << 10

type randomIn struct {
	Bytes    string `json:"bytes" doc:"How many bytes, 32 without."`
	URLBytes string `json:"urlbytes" doc:"The same, and over it."`
	Source   string `json:"source" doc:"platform: there is one source."`
	Format   string `json:"format" doc:"hex or base64; base64 without."`
}

type randomOut struct {
	Bytes string `json:"random_bytes"`
}

// sources are the names clients know. All mean the operating system's.
var sources = map[string]bool{"": true, "platform": true, "seal": true, "all": true}

type randomByIn struct {
	What string `json:"source_or_bytes" doc:"A source, or how many bytes."`
	randomIn
}

func (e *Engine) randomBy(ctx context.Context, req *route.Request, in randomByIn) (randomOut, error) {
	if sources[in.What] {
		in.Source = in.What
	} else {
		in.URLBytes = in.What
	}
	return e.random(ctx, req, in.randomIn)
}

func (e *Engine) random(_ context.Context, req *route.Request, in randomIn) (randomOut, error) {
	if !sources[in.Source] {
		return randomOut{}, errs.New(errs.Invalid, "unsupported entropy source %q; must be \"platform\", \"seal\" or \"all\"", in.Source)
	}
	if in.Source == "seal" || in.Source == "all" {
		req.Warn("the seal gives no randomness: the bytes are the platform's")
	}
	n, err := strconv.Atoi(cmp.Or(in.URLBytes, in.Bytes, "32"))
	switch {
	case err != nil:
		return randomOut{}, errs.New(errs.Invalid, "error parsing url-set byte count: expected a number of bytes")
	case n < 1:
		return randomOut{}, errs.New(errs.Invalid, "'bytes' cannot be less than 1")
	case n > mostRandom:
		return randomOut{}, errs.New(errs.Invalid, "'bytes' should be less than %d", mostRandom)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(e.cfg.Rand, b); err != nil {
		return randomOut{}, err
	}
	s, err := encode(b, cmp.Or(in.Format, "base64"))
	return randomOut{Bytes: s}, err
}
