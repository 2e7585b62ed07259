package config

import (
	"fmt"
	"os"
	"strings"

	"github.com/leasehold/leasehold/internal/secret"
)

// SealTransit says where the key of the transit seal is. What is empty is
// taken from the environment that Vault's clients know.
type SealTransit struct {
	Address        string        // URL of the server that has the key
	Token          secret.String // or where it is: "file:///path" or "env://NAME"
	Key            string        // name of the key
	Mount          string        // of the Transit engine; "" is transit
	Namespace      string
	DisableRenewal bool

	CACert, ClientCert, ClientKey string // PEM files
	ServerName                    string
	SkipVerify                    bool
}

// LoadToken reads the token from where the configuration says it is.
func (t SealTransit) LoadToken() (secret.String, error) {
	src := t.Token.Reveal()
	if path, ok := strings.CutPrefix(src, "file://"); ok {
		text, err := os.ReadFile(path)
		if err != nil {
			return secret.String{}, err
		}
		return secret.New(strings.TrimSpace(string(text))), nil
	}
	if name, ok := strings.CutPrefix(src, "env://"); ok {
		v := os.Getenv(name)
		if v == "" {
			return secret.String{}, fmt.Errorf("the environment has no %s", name)
		}
		return secret.New(v), nil
	}
	return t.Token, nil
}

var sealTransitFields = fields[Seal]{
	"address":         str(func(s *Seal) *string { return &s.Transit.Address }),
	"token":           readToken,
	"key_name":        str(func(s *Seal) *string { return &s.Transit.Key }),
	"mount_path":      str(func(s *Seal) *string { return &s.Transit.Mount }),
	"namespace":       str(func(s *Seal) *string { return &s.Transit.Namespace }),
	"disable_renewal": flag(func(s *Seal) *bool { return &s.Transit.DisableRenewal }),
	"tls_ca_cert":     str(func(s *Seal) *string { return &s.Transit.CACert }),
	"tls_client_cert": str(func(s *Seal) *string { return &s.Transit.ClientCert }),
	"tls_client_key":  str(func(s *Seal) *string { return &s.Transit.ClientKey }),
	"tls_server_name": str(func(s *Seal) *string { return &s.Transit.ServerName }),
	"tls_skip_verify": flag(func(s *Seal) *bool { return &s.Transit.SkipVerify }),
	"key_id_prefix":   unused[Seal]("the key is known by its mount, name and version"),
	"name":            unused[Seal]("there is one seal"),
	"priority":        unused[Seal]("there is one seal"),
	"disabled":        readDisabled,
}

func readToken(d *decoder, m member, to *Seal) {
	s, ok := scalar(d, m)
	if !ok {
		return
	}
	if s != "" && !strings.HasPrefix(s, "file://") && !strings.HasPrefix(s, "env://") {
		d.warn(m.pos, "%s stands in the configuration itself, for all to read who may read that; better: \"file:///path\" or \"env://NAME\"", m.name)
	}
	to.Transit.Token = secret.New(s)
}
