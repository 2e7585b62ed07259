package transit

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"strconv"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// This file is what needs no key.

type hashIn struct {
	Input        wire.Opt[wire.Text] `json:"input" doc:"What to hash, base64."`
	URLAlgorithm string              `json:"urlalgorithm" doc:"Hash algorithm, in the path."`
	Algorithm    string              `json:"algorithm" doc:"Hash algorithm: sha2-256 (if nothing is said), sha1, sha2-224, sha2-384, sha2-512, sha3-224 to sha3-512."`
	Format       string              `json:"format" doc:"Form of the result: hex (if nothing is said) or base64."`
}

type hashOut struct {
	Sum string `json:"sum"`
}

func (e *Engine) hash(_ context.Context, _ *route.Request, in hashIn) (hashOut, error) {
	if !in.Input.Set {
		return hashOut{}, errs.New(errs.Invalid, "missing input")
	}
	b, err := base64.StdEncoding.AppendDecode(nil, in.Input.Value)
	if err != nil {
		return hashOut{}, errs.New(errs.Invalid, "unable to decode input as base64: %v", err)
	}
	h, err := hashNamed(in.URLAlgorithm, in.Algorithm)
	if err != nil {
		return hashOut{}, err
	}
	text, err := inFormat(h.Sum(b), in.Format, "hex")
	return hashOut{text}, err
}

func inFormat(b []byte, format, usual string) (string, error) {
	if format == "" {
		format = usual
	}
	switch format {
	case "hex":
		return hex.EncodeToString(b), nil
	case "base64":
		return base64.StdEncoding.EncodeToString(b), nil
	}
	return "", errs.New(errs.Invalid, "unsupported encoding format %q; must be \"hex\" or \"base64\"", format)
}

type randomIn struct {
	Source   string        `json:"source" doc:"Source of the bytes: platform (if nothing is said), seal or all, which are the same here; or how many."`
	URLBytes string        `json:"urlbytes" doc:"How many bytes, in the path."`
	Bytes    wire.Opt[int] `json:"bytes" doc:"How many bytes; if nothing is said, 32."`
	Format   string        `json:"format" doc:"Form of the result: base64 (if nothing is said) or hex."`
}

type randomOut struct {
	Bytes string `json:"random_bytes"`
}

// mostRandom bounds one request.
const mostRandom = 128 << 10

func (e *Engine) random(_ context.Context, _ *route.Request, in randomIn) (randomOut, error) {
	n := in.Bytes.Or(32)
	text := in.URLBytes
	switch in.Source {
	case "", "platform", "seal", "all":
	default: // random/12
		if text != "" {
			return randomOut{}, errs.New(errs.Invalid, "unsupported entropy source %q; must be \"platform\", \"seal\" or \"all\"", in.Source)
		}
		text = in.Source
	}
	if text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			return randomOut{}, errs.New(errs.Invalid, "error parsing url-set byte count: %q is no number", text)
		}
	}
	switch {
	case n < 1:
		return randomOut{}, errs.New(errs.Invalid, `"bytes" cannot be less than 1`)
	case n > mostRandom:
		return randomOut{}, errs.New(errs.Invalid, `"bytes" should be less than %d`, mostRandom)
	}
	s, err := inFormat(primitive.Random(n), in.Format, "base64")
	return randomOut{s}, err
}
