package transit

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"strconv"

	"github.com/leasehold/leasehold/internal/engines/transit/primitive"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
)

// This file joins keys to certificates.

// versionIn is how a request about certificates names a version.
type versionIn struct {
	Version string `json:"version" doc:"Version of the key, or latest, as if nothing is said."`
}

// number is the version that was named, 0 for the latest.
func (in versionIn) number() (int, error) {
	if in.Version == "" || in.Version == "latest" {
		return 0, nil
	}
	n, err := strconv.Atoi(in.Version)
	if err != nil {
		return 0, errs.New(errs.Invalid, "invalid key version %q: it is a number, or latest", in.Version)
	}
	return n, nil
}

type csrIn struct {
	nameIn
	versionIn
	Template string `json:"csr" doc:"Certificate request (PEM) whose subject and extensions to take; nothing: an empty one."`
}

type csrOut struct {
	CSR     string         `json:"csr"`
	Name    string         `json:"name"`
	Type    primitive.Type `json:"type"`
	Version int            `json:"version"`
}

func (e *Engine) signCSR(ctx context.Context, _ *route.Request, in csrIn) (csrOut, error) {
	k, err := e.usable(ctx, in.Name, "signing")
	if err != nil {
		return csrOut{}, err
	}
	version, err := in.number()
	if err != nil {
		return csrOut{}, err
	}
	if version, err = k.forSigning(version); err != nil {
		return csrOut{}, err
	}
	template := &x509.CertificateRequest{}
	if in.Template != "" {
		block, _ := pem.Decode([]byte(in.Template))
		if block == nil {
			return csrOut{}, errs.New(errs.Invalid, "could not decode PEM certificate request")
		}
		given, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			return csrOut{}, errs.New(errs.Invalid, "could not parse the certificate request: %v", err)
		}
		// What the request was signed by is not what signs this one.
		template = &x509.CertificateRequest{RawSubject: given.RawSubject, Subject: given.Subject, ExtraExtensions: given.Extensions}
	}
	v, err := e.version(ctx, k, version)
	if err != nil {
		return csrOut{}, err
	}
	signer, ok := primitive.CryptoSigner(v.Key)
	if !ok || k.Derived {
		return csrOut{}, errs.New(errs.Invalid, "key type %s does not sign certificate requests here", k.Spec.Type)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, signer)
	if err != nil {
		return csrOut{}, asCallers(err)
	}
	return csrOut{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), k.Name, k.Spec.Type, version}, nil
}

type certificateIn struct {
	nameIn
	versionIn
	Chain string `json:"certificate_chain" doc:"Certificates (PEM), the key's own first, each signed by the next."`
}

type certificateOut struct {
	Chain string         `json:"certificate_chain"`
	Name  string         `json:"name"`
	Type  primitive.Type `json:"type"`
}

func (e *Engine) setCertificate(ctx context.Context, _ *route.Request, in certificateIn) (certificateOut, error) {
	version, err := in.number()
	if err != nil {
		return certificateOut{}, err
	}
	chain, err := parseChain(in.Chain)
	if err != nil {
		return certificateOut{}, err
	}
	public, err := x509.MarshalPKIXPublicKey(chain[0].PublicKey)
	if err != nil {
		return certificateOut{}, errs.New(errs.Invalid, "the certificate's key is of a kind that this server does not know")
	}
	var kept [][]byte
	k, err := e.change(ctx, in.Name, func(tx storage.Tx, k *keyRow) error {
		n := version
		if n == 0 {
			n = k.Latest
		}
		row, err := getVersion(tx, k.ID, n)
		if err != nil {
			return err
		}
		if row == nil {
			return errs.New(errs.Invalid, "there is no version %d of the key", n)
		}
		if string(row.Public) != string(public) {
			return errs.New(errs.Invalid, "the certificate is for another key than version %d of %s", n, k.Name)
		}
		row.Chain = nil
		for _, c := range chain {
			row.Chain = append(row.Chain, c.Raw)
		}
		kept = row.Chain
		return row.put(tx, k.ID, n)
	})
	if err != nil {
		return certificateOut{}, err
	}
	return certificateOut{pemChain(kept), k.Name, k.Spec.Type}, nil
}

// parseChain reads certificates that sign one another in their order.
func parseChain(text string) (chain []*x509.Certificate, err error) {
	const most = 10
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, errs.New(errs.Invalid, "the certificate chain has a PEM block of type %s", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, errs.New(errs.Invalid, "failed to parse certificate chain: %v", err)
		}
		if chain = append(chain, c); len(chain) > most {
			return nil, errs.New(errs.Invalid, "the certificate chain has more than %d certificates", most)
		}
	}
	if len(chain) == 0 {
		return nil, errs.New(errs.Invalid, "certificate_chain has no certificate in PEM")
	}
	if len(chain) > 1 && chain[0].IsCA {
		return nil, errs.New(errs.Invalid, "the first certificate of the chain is to be the key's own, not an authority's")
	}
	for i := 0; i+1 < len(chain); i++ {
		if err := chain[i].CheckSignatureFrom(chain[i+1]); err != nil {
			return nil, errs.New(errs.Invalid, "certificate %d of the chain is not signed by the next: %v", i+1, err)
		}
	}
	return chain, nil
}
