package mfa

import (
	"context"
	"slices"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

const (
	methodPrefix = "mfa/method/"
	namePrefix   = "mfa/name/"

	kindTOTP = "totp"
)

// methodRow is how passcodes of a method look. Version 1.
type methodRow struct {
	row
	Kind        string   `json:"kind"` // totp
	Name        string   `json:"name,omitempty"`
	Issuer      string   `json:"iss"`
	Period      wire.TTL `json:"per"`
	Algorithm   string   `json:"alg"`
	Digits      int      `json:"dig"`
	Skew        int      `json:"skew"`
	KeySize     int      `json:"size"`
	QRSize      int      `json:"qr"`
	MaxAttempts int      `json:"max"`
}

// methodOut is a method as it is read, and as it stands in lists.
type methodOut struct {
	Type          string   `json:"type"`
	ID            string   `json:"id"`
	Name          string   `json:"name"`
	NamespaceID   string   `json:"namespace_id"`
	NamespacePath string   `json:"namespace_path"`
	Issuer        string   `json:"issuer"`
	Period        wire.TTL `json:"period"`
	Algorithm     string   `json:"algorithm"`
	Digits        int      `json:"digits"`
	Skew          int      `json:"skew"`
	KeySize       int      `json:"key_size"`
	QRSize        int      `json:"qr_size"`
	MaxAttempts   int      `json:"max_validation_attempts"`
}

func (m *methodRow) out(req *route.Request, id string) methodOut {
	return methodOut{
		Type: m.Kind, ID: id, Name: m.Name, NamespaceID: req.Mount.Namespace, NamespacePath: req.Mount.NamespacePath,
		Issuer: m.Issuer, Period: m.Period, Algorithm: m.Algorithm, Digits: m.Digits, Skew: m.Skew,
		KeySize: m.KeySize, QRSize: m.QRSize, MaxAttempts: m.MaxAttempts,
	}
}

type methodsOut struct {
	Keys []string             `json:"keys"`
	Info map[string]methodOut `json:"key_info"`
}

// listMethods lists the methods of a kind, or of all of them.
func (e *Engine) listMethods(kind string) route.Handler[route.None, methodsOut] {
	return func(ctx context.Context, req *route.Request, _ route.None) (methodsOut, error) {
		out := methodsOut{Info: map[string]methodOut{}}
		err := e.env.Store.View(ctx, func(v storage.View) error {
			return each(v, methodPrefix, func(id string, m *methodRow) {
				if kind == "" || kind == m.Kind {
					out.Keys = append(out.Keys, id)
					out.Info[id] = m.out(req, id)
				}
			})
		})
		if err == nil && len(out.Keys) == 0 {
			err = errs.Gone
		}
		return out, err
	}
}

type methodIn struct {
	ID string `json:"method_id" doc:"The method's id."`
}

// readMethod reads a method of a kind, or of whatever kind it is.
func (e *Engine) readMethod(kind string) route.Handler[methodIn, methodOut] {
	return func(ctx context.Context, req *route.Request, in methodIn) (methodOut, error) {
		m, err := load[methodRow](ctx, e, methodPrefix+in.ID)
		if err == nil && (m == nil || kind != "" && kind != m.Kind) {
			err = errs.Gone
		}
		if err != nil {
			return methodOut{}, err
		}
		return m.out(req, in.ID), nil
	}
}

type writeMethodIn struct {
	ID          string             `json:"method_id" doc:"The method to change; without one another is made."`
	Name        wire.Opt[string]   `json:"method_name" doc:"A name to show passcodes by instead of the id."`
	Issuer      wire.Opt[string]   `json:"issuer" doc:"What apps show beside the passcode: the name of your organisation."`
	Period      wire.Opt[wire.TTL] `json:"period" doc:"How long a passcode stands; 30 s by default."`
	Algorithm   wire.Opt[string]   `json:"algorithm" doc:"SHA1 (the default, and all that some apps know), SHA256 or SHA512."`
	Digits      wire.Opt[int]      `json:"digits" doc:"6 (the default) or 8."`
	Skew        wire.Opt[int]      `json:"skew" doc:"How many passcodes before and after the present one count: 0 or 1, the default."`
	KeySize     wire.Opt[int]      `json:"key_size" doc:"Bytes of a secret; 20 by default."`
	QRSize      wire.Opt[int]      `json:"qr_size" doc:"Pixels of the QR code's edge; 200 by default, 0 makes none."`
	MaxAttempts wire.Opt[int]      `json:"max_validation_attempts" doc:"Wrong passcodes in a row before it has to wait; 5 by default."`
}

// Limits of a method. Larger codes and secrets help nobody.
const (
	maxKeySize  = 128
	minQRSize   = 100 // below, the code of a longer URL has no room
	maxQRSize   = 4096
	maxPeriod   = time.Hour
	maxAttempts = 100
)

func (in *writeMethodIn) apply(m *methodRow) error {
	in.Name.Apply(&m.Name)
	in.Issuer.Apply(&m.Issuer)
	in.Period.Apply(&m.Period)
	in.Algorithm.Apply(&m.Algorithm)
	in.Digits.Apply(&m.Digits)
	in.Skew.Apply(&m.Skew)
	in.KeySize.Apply(&m.KeySize)
	in.QRSize.Apply(&m.QRSize)
	in.MaxAttempts.Apply(&m.MaxAttempts)
	if m.MaxAttempts == 0 {
		m.MaxAttempts = 5
	}
	invalid := func(format string, args ...any) error { return errs.New(errs.Invalid, format, args...) }
	switch {
	case m.Issuer == "" || len(m.Issuer) > 256:
		return invalid("issuer must be set, with at most 256 bytes")
	case len(m.Name) > 256:
		return invalid("method_name must have at most 256 bytes")
	case m.Period.Duration() < time.Second || m.Period.Duration() > maxPeriod:
		return invalid("period must be between a second and %s", maxPeriod)
	case hashes[m.Algorithm] == nil:
		return invalid("unrecognized algorithm %q: want SHA1, SHA256 or SHA512", m.Algorithm)
	case m.Digits != 6 && m.Digits != 8:
		return invalid("digits can only be 6 or 8")
	case m.Skew != 0 && m.Skew != 1:
		return invalid("skew must be 0 or 1")
	case m.KeySize < 10 || m.KeySize > maxKeySize:
		return invalid("key_size must be between 10 and %d bytes", maxKeySize)
	case m.QRSize != 0 && (m.QRSize < minQRSize || m.QRSize > maxQRSize):
		return invalid("qr_size must be 0 or between %d and %d pixels", minQRSize, maxQRSize)
	case m.MaxAttempts < 1 || m.MaxAttempts > maxAttempts:
		return invalid("max_validation_attempts must be between 1 and %d", maxAttempts)
	}
	return nil
}

type madeMethod struct {
	ID string `json:"method_id"`
}

// writeMethod makes a method, and answers its id, or changes one.
func (e *Engine) writeMethod(ctx context.Context, _ *route.Request, in writeMethodIn) (*madeMethod, error) {
	id := in.ID
	if id == "" {
		var err error
		if id, err = e.uuid(); err != nil {
			return nil, err
		}
	}
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		m, err := get[methodRow](tx, methodPrefix+id)
		if err != nil {
			return err
		}
		if m == nil {
			if in.ID != "" {
				return errs.New(errs.Invalid, "there is no method with the id %q; leave the id out to make one", in.ID)
			}
			m = &methodRow{
				row: v1, Kind: kindTOTP, Period: wire.TTL(30 * time.Second), Algorithm: "SHA1", Digits: 6, Skew: 1,
				KeySize: 20, QRSize: 200,
			}
		}
		old := m.Name
		if err := in.apply(m); err != nil {
			return err
		}
		if err := rename(tx, id, old, m.Name); err != nil {
			return err
		}
		return tx.Put(methodPrefix+id, wire.Marshal(m))
	})
	if err != nil || in.ID != "" {
		return nil, err
	}
	return &madeMethod{id}, nil
}

// rename moves the row by which a method is found by its name.
func rename(tx storage.Tx, id, old, name string) error {
	if name == old {
		return nil
	}
	if old != "" {
		if err := tx.Delete(namePrefix + old); err != nil {
			return err
		}
	}
	if name == "" {
		return nil
	}
	b, err := tx.Get(namePrefix + name)
	if err == nil && b != nil {
		err = errs.New(errs.Invalid, "there is another method with the name %q", name)
	}
	if err != nil {
		return err
	}
	return tx.Put(namePrefix+name, []byte(id))
}

func (e *Engine) deleteMethod(ctx context.Context, _ *route.Request, in methodIn) (route.None, error) {
	for {
		var seen string
		used := ""
		err := e.env.Store.View(ctx, func(v storage.View) (err error) {
			if seen, err = generation(v); err != nil {
				return err
			}
			return each(v, enforcementPrefix, func(name string, r *enforcementRow) {
				if slices.Contains(r.Methods, in.ID) {
					used = name
				}
			})
		})
		if err == nil && used != "" {
			err = errs.New(errs.Invalid, "methodID is still used by an enforcement configuration: %q", used)
		}
		if err != nil {
			return route.None{}, err
		}
		same := false
		_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
			now, err := generation(tx)
			if same = now == seen; err != nil || !same {
				return err
			}
			m, err := get[methodRow](tx, methodPrefix+in.ID)
			if err != nil || m == nil {
				return err
			}
			if err := rename(tx, in.ID, m.Name, ""); err != nil {
				return err
			}
			return tx.Delete(methodPrefix + in.ID)
		})
		if err != nil || same {
			return route.None{}, err
		}
	}
}
