package mfa

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"image/png"
	"io"
	"strings"
	"time"

	"github.com/boombuler/barcode"
	"github.com/boombuler/barcode/qr"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

const secretPrefix = "mfa/secret/"

// secretRow is the secret of one device, and what was tried with it. The device
// was set up once and knows nothing of later changes of its method, so how its
// passcodes look stands here. Version 1.
type secretRow struct {
	row
	Key       secret.String `json:"key"` // base64
	Period    wire.TTL      `json:"per"`
	Algorithm string        `json:"alg"`
	Digits    int           `json:"dig"`
	Last      int64         `json:"last,omitempty"`
	Failed    int           `json:"fail,omitempty"` // in a row
	Until     time.Time     `json:"until,omitzero"` // nothing is tried before
}

func secretKey(entity, method string) string { return secretPrefix + entity + "/" + method }

type secretOut struct {
	Barcode *secret.String `json:"barcode,omitempty"` // shows the URL
	URL     secret.String  `json:"url"`
}

func (e *Engine) generate(ctx context.Context, req *route.Request, in methodIn) (*secretOut, error) {
	// A token of a namespace above is of somebody whom this one does not know.
	who, err := e.people.Identify(ctx, req.Caller.EntityID)
	if err == nil && who == nil {
		err = errs.New(errs.Invalid, "no entity associated with the request's token")
	}
	if err != nil {
		return nil, err
	}
	return e.makeSecret(ctx, req, in.ID, who.ID)
}

type adminIn struct {
	Method string `json:"method_id" doc:"The method's id."`
	Entity string `json:"entity_id" doc:"The entity's id."`
}

func (in *adminIn) Validate() error {
	if in.Method == "" || in.Entity == "" {
		return errs.New(errs.Invalid, "method_id and entity_id are required")
	}
	return nil
}

func (e *Engine) adminGenerate(ctx context.Context, req *route.Request, in adminIn) (*secretOut, error) {
	who, err := e.people.Identify(ctx, in.Entity)
	if err == nil && who == nil {
		err = errs.New(errs.Invalid, "invalid entity ID: there is no entity %q", in.Entity)
	}
	if err != nil {
		return nil, err
	}
	return e.makeSecret(ctx, req, in.Method, who.ID)
}

// makeSecret makes a device's secret and shows it this once. One that is there
// stays: whoever has stolen a token must not replace a person's second factor.
func (e *Engine) makeSecret(ctx context.Context, req *route.Request, method, entity string) (*secretOut, error) {
	m, err := load[methodRow](ctx, e, methodPrefix+method)
	if err == nil && (m == nil || method == "") {
		err = errs.New(errs.Invalid, "configuration for method ID %q does not exist", method)
	}
	if err != nil {
		return nil, err
	}
	key := make([]byte, m.KeySize)
	if _, err := io.ReadFull(e.env.Rand, key); err != nil {
		return nil, fmt.Errorf("drawing a secret: %w", err)
	}
	url := keyURL(m, entity, key)
	picture, err := qrCode(url, m.QRSize)
	if err != nil {
		return nil, err
	}
	there := false
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		s, err := get[secretRow](tx, secretKey(entity, method))
		if there = s != nil; err != nil || there {
			return err
		}
		if m, err := get[methodRow](tx, methodPrefix+method); err != nil || m == nil {
			if err == nil {
				err = errs.New(errs.Invalid, "the method was deleted at this moment")
			}
			return err
		}
		s = &secretRow{
			row: v1, Key: secret.New(base64.StdEncoding.EncodeToString(key)), Period: m.Period, Algorithm: m.Algorithm, Digits: m.Digits,
		}
		return tx.Put(secretKey(entity, method), wire.Marshal(s))
	})
	if err != nil {
		return nil, err
	}
	if there {
		req.Warn("Entity already has a secret for MFA method %q", m.Name)
		return nil, nil
	}
	out := &secretOut{URL: secret.New(url)}
	if picture != "" {
		shown := secret.New(picture)
		out.Barcode = &shown
	}
	return out, nil
}

// qrCode draws a text: a PNG in base64, or nothing for size 0.
func qrCode(text string, size int) (string, error) {
	if size == 0 {
		return "", nil
	}
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return "", fmt.Errorf("making a QR code: %w", err)
	}
	code, err = barcode.Scale(code, size, size)
	if err != nil {
		return "", errs.Wrap(errs.Invalid, err, "the QR code does not fit into %d pixels: raise the method's qr_size, or set it to 0 for none", size)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, code); err != nil {
		return "", fmt.Errorf("encoding a QR code: %w", err)
	}
	return base64.StdEncoding.EncodeToString(b.Bytes()), nil
}

func (e *Engine) adminDestroy(ctx context.Context, _ *route.Request, in adminIn) (route.None, error) {
	entity := in.Entity
	if who, err := e.people.Identify(ctx, in.Entity); err != nil {
		return route.None{}, err
	} else if who != nil {
		entity = who.ID
	}
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(secretKey(entity, in.Method)) })
	return route.None{}, err
}

// longestWait bounds how long wrong passcodes make everybody wait.
const longestWait = time.Hour

// spend uses up a passcode. All of it is one transaction: two requests with
// the same passcode are one after the other, and a failure is counted before
// it is told.
func (e *Engine) spend(ctx context.Context, entity, method, passcode string) error {
	var refused error
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		refused = nil
		m, err := get[methodRow](tx, methodPrefix+method)
		if err != nil {
			return err
		}
		s, err := get[secretRow](tx, secretKey(entity, method))
		if err != nil {
			return err
		}
		if m == nil || s == nil {
			refused = errs.New(errs.Denied, "the entity has no secret of this method; an administrator makes one with identity/mfa/method/totp/admin-generate")
			return nil
		}
		if refused, err = s.try(m, passcode, e.env.Now()); err != nil {
			return err
		}
		return tx.Put(secretKey(entity, method), wire.Marshal(s))
	})
	return errors.Join(err, refused)
}

// try judges a passcode and notes the outcome.
func (s *secretRow) try(m *methodRow, passcode string, now time.Time) (refused, err error) {
	if now.Before(s.Until) {
		return errs.New(errs.Denied, "maximum TOTP validation attempts exceeded; try again in %d seconds", int64(s.Until.Sub(now)/time.Second)+1), nil
	}
	key, err := base64.StdEncoding.DecodeString(s.Key.Reveal())
	if err != nil {
		return nil, fmt.Errorf("decoding a secret: %w", err)
	}
	at, ok := match(key, passcode, s, m.Skew, now)
	if ok && at > s.Last {
		s.Last, s.Failed, s.Until = at, 0, time.Time{}
		return nil, nil
	}
	s.Failed++
	// The first round of wrong passcodes waits until none of them counts any
	// more; each further round twice as long, so that knowing the password
	// does not pay for guessing on.
	if round := s.Failed / m.MaxAttempts; round > 0 && s.Failed%m.MaxAttempts == 0 {
		wait := s.Period.Duration() * time.Duration(2*m.Skew+1)
		for range min(round-1, 16) {
			wait = min(2*wait, longestWait)
		}
		s.Until = now.Add(wait).Round(0)
	}
	if ok {
		return errs.New(errs.Denied, "the passcode was used already; wait for the next one"), nil
	}
	return errs.New(errs.Denied, "failed to validate the TOTP passcode"), nil
}

// Forget deletes the secrets of an entity that is no more.
func (e *Engine) Forget(ctx context.Context, entity string) error {
	methods, err := e.secretsOf(ctx, entity)
	if err != nil {
		return err
	}
	for _, method := range methods {
		if _, err := e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Delete(secretKey(entity, method)) }); err != nil {
			return err
		}
	}
	return nil
}

// Conflict names a method that both of two entities have a secret of; "" if
// there is none.
func (e *Engine) Conflict(ctx context.Context, from, to string) (string, error) {
	methods, err := e.secretsOf(ctx, from)
	if err != nil {
		return "", err
	}
	for _, method := range methods {
		s, err := load[secretRow](ctx, e, secretKey(to, method))
		if err != nil || s != nil {
			return method, err
		}
	}
	return "", nil
}

// Merge hands the secrets of one entity to another that has none of the same
// method, and deletes the others. Enforcements that name the one name both from
// then on.
func (e *Engine) Merge(ctx context.Context, from, to string) error {
	if err := e.enforceToo(ctx, from, to); err != nil {
		return err
	}
	methods, err := e.secretsOf(ctx, from)
	if err != nil {
		return err
	}
	for _, method := range methods {
		_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
			b, err := tx.Get(secretKey(from, method))
			if err != nil || b == nil {
				return err
			}
			moved := bytes.Clone(b)
			have, err := tx.Get(secretKey(to, method))
			if err != nil {
				return err
			}
			if have == nil {
				if err := tx.Put(secretKey(to, method), moved); err != nil {
					return err
				}
			}
			return tx.Delete(secretKey(from, method))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// secretsOf are the methods that an entity has secrets of.
func (e *Engine) secretsOf(ctx context.Context, entity string) (methods []string, err error) {
	prefix := secretKey(entity, "")
	err = e.env.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, prefix, storage.PrefixEnd(prefix), 0, func(key string, _ []byte, _ error) bool {
			methods = append(methods, strings.TrimPrefix(key, prefix))
			return true
		})
	})
	return methods, err
}
