package cert

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

const (
	// A list is stored in pieces, so that each write stays within the store's
	// bound, and under an id of its own, so that it appears at once with its
	// head. The id begins with the time, by which strays are known.
	maxCRL    = 16 << 20
	crlPart   = 512 << 10
	strayAge  = time.Hour
	idTime    = "20060102150405"
	headVer   = 1
	mostParts = 50 // deleted in one transaction

	fetchLimit = 15 * time.Second
	retryAfter = 5 * time.Minute // at least, after an address failed
	noNext     = time.Hour       // when to fetch a list again that does not say
)

// refreshEvery is how often the lists are looked at for ones that run out.
var refreshEvery = time.Minute

// crlHead is a list as it is stored, without its pieces. Version 1.
type crlHead struct {
	V      int       `json:"v"`
	ID     string    `json:"id"`
	Parts  int       `json:"parts"`
	URL    string    `json:"url,omitempty"`
	Issued time.Time `json:"issued,omitzero"` // the list's thisUpdate
	Next   time.Time `json:"next,omitzero"`   // when it is to be fetched again
}

type crlIn struct {
	Name string           `json:"name" doc:"Name of the list. Its case does not matter."`
	CRL  wire.Opt[string] `json:"crl" doc:"The list, as PEM or as DER in base64."`
	URL  wire.Opt[string] `json:"url" doc:"Where the list is fetched from (http or https), now and whenever it runs out."`
}

type crlOut struct {
	CDP     *cdpOut               `json:"cdp"`
	Serials map[string]route.None `json:"serials"`
}

type cdpOut struct {
	URL        string    `json:"url"`
	ValidUntil time.Time `json:"valid_until"`
}

func (e *Engine) listCRLs(ctx context.Context, _ *route.Request, _ route.None) (route.Keys, error) {
	return e.list(ctx, rowsCRLs)
}

// noCRL is what Vault answers for a list that is not there: 400.
func noCRL(name string) error { return errs.New(errs.Invalid, "no such CRL %s", name) }

func (e *Engine) readCRL(ctx context.Context, _ *route.Request, in nameIn) (out crlOut, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		head, err := getHead(v, roleName(in.Name))
		if err == nil && head == nil {
			err = noCRL(in.Name)
		}
		if err != nil {
			return err
		}
		list, err := getCRL(v, head)
		if err != nil {
			return err
		}
		out.Serials = make(map[string]route.None, len(list.RevokedCertificateEntries))
		for _, r := range list.RevokedCertificateEntries {
			out.Serials[r.SerialNumber.String()] = route.None{}
		}
		if head.URL != "" {
			out.CDP = &cdpOut{head.URL, head.Next}
		}
		return nil
	})
	return out, err
}

func (e *Engine) writeCRL(ctx context.Context, req *route.Request, in crlIn) (route.None, error) {
	name := roleName(in.Name)
	if err := checkName(name); err != nil {
		return route.None{}, err
	}
	if text, ok := in.CRL.Get(); ok {
		list, err := e.acceptable([]byte(text))
		if err != nil {
			return route.None{}, err
		}
		if t, err := e.trusting(ctx); err == nil && !t.signs(list) {
			req.Warn("the list names an issuer that a role trusts but is not signed with its key; it is taken as it is")
		}
		if isDelta(list) {
			req.Warn("this is a delta list; it revokes what it names and does not stand for a complete one")
		}
		return route.None{}, e.putCRL(ctx, name, list, "", nil)
	}
	address, ok := in.URL.Get()
	switch {
	case !ok:
		return route.None{}, errs.New(errs.Invalid, "one of 'crl' or 'url' must be provided")
	case address == "":
		return route.None{}, errs.New(errs.Invalid, "empty CRL url")
	case !isHTTP(address):
		return route.None{}, errs.New(errs.Invalid, "invalid CRL url: it is an address such as http://ca.example.com/ca.crl")
	}
	list, err := e.fetchCRL(ctx, address)
	if err != nil {
		return route.None{}, errs.Wrap(errs.Invalid, err, "failed to fetch CRL: %v", err)
	}
	if err := e.putCRL(ctx, name, list, address, nil); err != nil {
		return route.None{}, err
	}
	e.keepCRLs()
	return route.None{}, nil
}

func (e *Engine) deleteCRL(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	name := roleName(in.Name)
	var head *crlHead
	err := e.change(ctx, func(tx storage.Tx) (err error) {
		if head, err = getHead(tx, name); err == nil && head == nil {
			err = noCRL(in.Name)
		}
		if err != nil {
			return err
		}
		return tx.Delete(rowsCRLs + name)
	})
	if err != nil {
		return route.None{}, err
	}
	return route.None{}, e.dropParts(ctx, head)
}

// acceptable reads a list and makes sure that it can be used.
func (e *Engine) acceptable(text []byte) (*x509.RevocationList, error) {
	if len(text) > 2*maxCRL {
		return nil, errs.New(errs.TooLarge, "the CRL is over %d MiB", maxCRL>>20)
	}
	list, err := parseCRL(text)
	if err != nil {
		return nil, err
	}
	if len(list.Raw) > maxCRL {
		return nil, errs.New(errs.TooLarge, "the CRL is over %d MiB", maxCRL>>20)
	}
	return list, revocations{}.add(list)
}

// fetchCRL gets a list from an address. Nobody vouches for what comes over
// http, so a list whose issuer a role trusts must be signed by that issuer.
func (e *Engine) fetchCRL(ctx context.Context, address string) (*x509.RevocationList, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := e.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answered %d", resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 2*maxCRL+1))
	if err != nil {
		return nil, err
	}
	list, err := e.acceptable(body)
	if err != nil {
		return nil, err
	}
	t, err := e.trusting(ctx)
	if err != nil {
		return nil, err
	}
	if !t.signs(list) {
		return nil, fmt.Errorf("the list is not signed by %s, which it names as its issuer", list.Issuer)
	}
	return list, nil
}

// errSuperseded: somebody has written or deleted the list meanwhile.
var errSuperseded = errors.New("cert: the CRL was changed meanwhile")

// putCRL stores a list in place of the one that has its name. With only it
// does so if that is still this one, or else gives errSuperseded.
func (e *Engine) putCRL(ctx context.Context, name string, list *x509.RevocationList, address string, only *crlHead) error {
	id, err := e.newID()
	if err != nil {
		return err
	}
	now := e.env.Now()
	head := &crlHead{V: headVer, ID: now.UTC().Format(idTime) + "-" + id, URL: address, Issued: list.ThisUpdate, Next: list.NextUpdate}
	if address != "" && !head.Next.After(now) {
		// It does not say, or it had run out when it came.
		head.Next = now.Add(noNext)
		if !list.NextUpdate.IsZero() {
			head.Next = now.Add(retryAfter)
		}
	}
	for at := 0; at < len(list.Raw); at += crlPart {
		piece := list.Raw[at:min(at+crlPart, len(list.Raw))]
		_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Put(partKey(head.ID, head.Parts), piece) })
		if err != nil {
			return err
		}
		head.Parts++
	}
	var old *crlHead
	err = e.change(ctx, func(tx storage.Tx) (err error) {
		if old, err = getHead(tx, name); err != nil {
			return err
		}
		if only != nil && (old == nil || old.ID != only.ID) {
			return errSuperseded
		}
		if address != "" && old != nil && old.URL == address && list.ThisUpdate.Before(old.Issued) {
			return errs.New(errs.Invalid, "failed to fetch CRL: the list at the address is older than the one that is known")
		}
		return tx.Put(rowsCRLs+name, wire.Marshal(head))
	})
	if err != nil {
		old = head // not taken
	}
	if old != nil {
		if derr := e.dropParts(ctx, old); derr != nil {
			e.env.Log.Warn("pieces of a replaced CRL are left in the store; they are swept later", "crl", name, "error", derr)
		}
	}
	return err
}

func partKey(id string, n int) string { return fmt.Sprintf("%s%s/%04d", rowsParts, id, n) }

func (e *Engine) dropParts(ctx context.Context, h *crlHead) error {
	for at := 0; at < h.Parts; at += mostParts {
		_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
			for n := at; n < min(at+mostParts, h.Parts); n++ {
				if err := tx.Delete(partKey(h.ID, n)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func getHead(r storage.Reader, name string) (*crlHead, error) {
	b, err := r.Get(rowsCRLs + name)
	if err != nil || b == nil {
		return nil, err
	}
	h := new(crlHead)
	if err := wire.Unmarshal(b, h); err != nil {
		return nil, err
	}
	if h.V > headVer {
		return nil, errs.New(errs.Internal, "CRL %q has version %d, written by a newer server", name, h.V)
	}
	return h, nil
}

func getCRL(r storage.Reader, h *crlHead) (*x509.RevocationList, error) {
	var der []byte
	for n := range h.Parts {
		b, err := r.Get(partKey(h.ID, n))
		if err != nil {
			return nil, err
		}
		if b == nil {
			return nil, fmt.Errorf("piece %d of the CRL is missing", n)
		}
		der = append(der, b...)
	}
	return parseDER(der)
}

// heads are the lists by name. One that cannot be read is left out here; what
// logins do then stands in trust.go.
func (e *Engine) heads(ctx context.Context) (map[string]*crlHead, error) {
	out := map[string]*crlHead{}
	err := e.env.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, rowsCRLs, storage.PrefixEnd(rowsCRLs), 0, func(key string, b []byte, bad error) bool {
			h := new(crlHead)
			if bad == nil && wire.Unmarshal(b, h) == nil && h.V <= headVer {
				out[key[len(rowsCRLs):]] = h
			}
			return true
		})
	})
	return out, err
}

// keepCRLs makes sure that lists which came from an address are kept up to
// date from now on.
func (e *Engine) keepCRLs() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.keeps {
		return
	}
	e.keeps = true
	e.wg.Go(func() {
		tick := time.NewTicker(refreshEvery)
		defer tick.Stop()
		retry := map[string]time.Time{} // addresses that failed: when to try again
		for {
			select {
			case <-e.ctx.Done():
				return
			case <-tick.C:
				e.refresh(e.ctx, retry)
			}
		}
	})
}

// refresh fetches the lists that have run out, and sweeps pieces of lists that
// never got their head.
func (e *Engine) refresh(ctx context.Context, retry map[string]time.Time) {
	heads, err := e.heads(ctx)
	if err != nil {
		e.env.Log.Warn("the CRLs cannot be looked at", "error", err)
		return
	}
	now := e.env.Now()
	for name, h := range heads {
		if h.URL == "" || now.Before(h.Next) || now.Before(retry[name]) {
			continue
		}
		list, err := e.fetchCRL(ctx, h.URL)
		if err == nil {
			err = e.putCRL(ctx, name, list, h.URL, h)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, errSuperseded) {
			// The old list goes on revoking what it revoked.
			retry[name] = now.Add(retryAfter)
			e.env.Log.Warn("a CRL has run out and cannot be fetched; the old one stays in use", "crl", name, "error", err)
			continue
		}
		delete(retry, name)
	}
	if err := e.sweep(ctx, heads); err != nil && ctx.Err() == nil {
		e.env.Log.Warn("sweeping pieces of CRLs", "error", err)
	}
}

// sweep deletes the oldest pieces that belong to no list. It steps from id to
// id without reading what the pieces hold.
func (e *Engine) sweep(ctx context.Context, heads map[string]*crlHead) error {
	known := map[string]bool{}
	for _, h := range heads {
		known[h.ID] = true
	}
	before := rowsParts + e.env.Now().Add(-strayAge).UTC().Format(idTime)
	var strays []string
	err := e.env.Store.View(ctx, func(v storage.View) error {
		for from := rowsParts; from != "" && len(strays) < mostParts; {
			at := ""
			if err := v.Scan(from, before, 1, func(key string, _ []byte) bool { at = key; return true }); err != nil || at == "" {
				return err
			}
			if id, _, _ := strings.Cut(at[len(rowsParts):], "/"); known[id] {
				from = storage.PrefixEnd(rowsParts + id + "/")
			} else {
				strays = append(strays, at)
				from = at + "\x01"
			}
		}
		return nil
	})
	if err != nil || len(strays) == 0 {
		return err
	}
	_, err = e.env.Store.Update(ctx, func(tx storage.Tx) error {
		for _, key := range strays {
			if err := tx.Delete(key); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}
