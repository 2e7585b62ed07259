package jwt

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"time"

	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// flowRow is a login by browser that has begun, as it is stored under
// flow/<slot>. Version 1. The slot is the beginning of the state, so that
// there are never more than [slots] of them, whoever asks for how many: one
// that finds its places taken takes that of the oldest. It is deleted as it is
// used. The store's keys and rows do not tell the state itself.
type flowRow struct {
	V         int           `json:"v"`
	State     []byte        `json:"state"` // SHA-256
	Expires   time.Time     `json:"exp"`
	Role      string        `json:"role"`
	Redirect  string        `json:"to"`
	Nonce     string        `json:"nonce"`
	Verifier  secret.String `json:"pkce"` // RFC 7636
	ClientKey secret.String `json:"cn"`   // the client's own nonce
	Code      secret.String `json:"code"` // what a form brought, until the client asks
	IDToken   secret.String `json:"idt"`
}

const (
	flowPrefix  = "flow/"
	flowVersion = 1
	flowLife    = 10 * time.Minute
	slotChars   = 2       // of base64: 4096 slots
	slots       = 1 << 12 // of about 500 bytes each
	flowTries   = 8
)

// newState draws a state: 192 bits, of which the first 12 are the slot.
func newState() string {
	b := make([]byte, 24)
	_, _ = rand.Read(b) // never fails
	return base64.RawURLEncoding.EncodeToString(b)
}

func flowKey(state string) string { return flowPrefix + state[:slotChars] }

func stateHash(state string) []byte {
	h := sha256.Sum256([]byte(state))
	return h[:]
}

// beginFlow stores a flow and gives its state.
func (e *Engine) beginFlow(ctx context.Context, f *flowRow) (state string, err error) {
	f.V, f.Expires = flowVersion, e.env.Now().Add(flowLife).Round(0)
	drawn := make([]string, flowTries)
	for i := range drawn {
		drawn[i] = newState()
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		state = ""
		var oldest time.Time
		for _, s := range drawn {
			there, err := flowAt(tx, s)
			if err != nil {
				return err
			}
			if there == nil || e.env.Now().After(there.Expires) {
				state = s
				break
			}
			if state == "" || there.Expires.Before(oldest) {
				state, oldest = s, there.Expires
			}
		}
		f.State = stateHash(state)
		return tx.Put(flowKey(state), wire.Marshal(f))
	})
	if err == nil {
		e.sweepFlows()
	}
	return state, err
}

// flowAt is the flow in the slot of a state, whichever it is.
func flowAt(r storage.Reader, state string) (*flowRow, error) {
	b, err := r.Get(flowKey(state))
	if err != nil || b == nil {
		return nil, err
	}
	f := new(flowRow)
	if err := wire.Unmarshal(b, f); err != nil || f.V > flowVersion {
		return nil, err // of a newer server: it can wait no longer than its minutes
	}
	return f, nil
}

// changeFlow does something with the flow of a state in a transaction; nil if
// there is none, it has ended, or it was used.
func (e *Engine) changeFlow(ctx context.Context, state string, change func(tx storage.Tx, f *flowRow) error) (f *flowRow, err error) {
	if len(state) <= slotChars || len(state) > 64 || !storage.ValidKey(flowKey(state)) {
		return nil, nil
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		if f, err = flowAt(tx, state); err != nil || f == nil {
			return err
		}
		if string(f.State) != string(stateHash(state)) || e.env.Now().After(f.Expires) {
			f = nil
			return nil
		}
		return change(tx, f)
	})
	return f, err
}

// useFlow takes a flow out of the store: whoever has its state has one try.
func (e *Engine) useFlow(ctx context.Context, state string) (*flowRow, error) {
	return e.changeFlow(ctx, state, func(tx storage.Tx, _ *flowRow) error { return tx.Delete(flowKey(state)) })
}

// sweepFlows deletes flows that nobody ended, beside a request that begins one
// and no more often than they live. There are never many.
func (e *Engine) sweepFlows() {
	last, now := e.swept.Load(), e.env.Now().UnixNano()
	if time.Duration(now-last) < flowLife || !e.swept.CompareAndSwap(last, now) {
		return
	}
	e.wg.Go(func() {
		var dead []string
		err := e.env.Store.View(e.ctx, func(v storage.View) error {
			return storage.ScanEach(v, flowPrefix, storage.PrefixEnd(flowPrefix), slots, func(key string, row []byte, bad error) bool {
				f := new(flowRow)
				if bad != nil || wire.Unmarshal(row, f) != nil || e.env.Now().After(f.Expires) {
					dead = append(dead, key)
				}
				return true
			})
		})
		for ; err == nil && len(dead) > 0; dead = dead[min(len(dead), storage.MaxTxKeys):] {
			err = e.dropFlows(dead[:min(len(dead), storage.MaxTxKeys)])
		}
		if err != nil && e.ctx.Err() == nil {
			e.env.Log.Warn("old logins by browser could not be swept; the next one tries again", "error", err)
		}
	})
}

// dropFlows deletes those whose slots were not taken again meanwhile.
func (e *Engine) dropFlows(keys []string) error {
	_, err := e.env.Store.Update(e.ctx, func(tx storage.Tx) error {
		for _, key := range keys {
			b, err := tx.Get(key)
			if err != nil {
				return err
			}
			f := new(flowRow)
			if b == nil || wire.Unmarshal(b, f) == nil && !e.env.Now().After(f.Expires) {
				continue
			}
			if err := tx.Delete(key); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}
