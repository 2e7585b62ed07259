package killtest

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/httpapi"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/token"
)

// gate is a store that does something just before an Update.
type gate struct {
	storage.Backend
	before atomic.Pointer[func()]
}

func (g *gate) Update(ctx context.Context, fn func(storage.Tx) error) (storage.Revision, error) {
	if f := g.before.Swap(nil); f != nil {
		(*f)()
	}
	return g.Backend.Update(ctx, fn)
}

// A token that is revoked between its authorisation and the commit of a lease
// gets none, and so does its child.
func TestTokenRevokedBeforeCommit(t *testing.T) {
	l := newLab(t)
	g := &gate{Backend: l.store}
	l.core.Stop(time.Second)
	l.core = l.newCoreOn(g)
	l.unseal()
	for _, who := range []string{"the token", "its parent"} {
		parent := l.newToken()
		child, err := l.core.CreateToken(t.Context(), &token.Entry{
			Policies: []string{"root"}, Parent: parent.Key, Expires: l.clock.now().Add(time.Hour), TTL: time.Hour,
		}, secret.String{})
		if err != nil {
			t.Fatal(err)
		}
		l.mustIssue("group", child.Text) // its way is known and cached
		ends := map[string]*token.Token{"the token": child, "its parent": parent}[who]
		revoke := func() {
			if err := l.revokeToken(ends); err != nil {
				t.Errorf("revoking = %v", err)
			}
		}
		g.before.Store(&revoke)
		if _, err := l.issue("own", child.Text); !errs.Is(err, errs.Denied) {
			t.Errorf("issuing after %s was revoked = %v, want Denied", who, err)
		}
		l.noLogin(who + " was revoked")
	}
	l.settled("in the end")
}

// Sealing does not wait for ever for what is being made: the rest is due at
// once, and gone soon after unsealing.
func TestSealWhileMaking(t *testing.T) {
	l := newLab(t)
	release := l.block()
	asked := l.issueAside("group", l.root)
	l.blocked()
	stopped := make(chan struct{})
	old := l.core
	go func() {
		defer close(stopped)
		old.Stop(50 * time.Millisecond)
	}()
	if !l.within(10*time.Second, nil, func() bool {
		_, err := old.Leases()
		return err != nil && l.dueNow() == 1
	}) {
		t.Error("what was being made is not due")
	}
	release()
	if err := <-asked; err == nil {
		t.Error("a sealed server has given a credential")
	}
	<-stopped
	l.core = l.newCore()
	l.unseal()
	l.noLogin("it was made while sealing")
	l.promises("once unsealed", seen{})
	l.quiet()
	l.settled("in the end")
}

// dueNow counts the leases whose time has come.
func (l *lab) dueNow() (n int) {
	for _, key := range l.rows("due/") {
		if w, err := lane.ParseKey(key); err == nil && w.Kind == lease.DueKind && !w.Due.After(l.clock.now()) {
			n++
		}
	}
	return n
}

// A client that goes away before the first byte of the answer leaves nothing.
func TestClientWentAway(t *testing.T) {
	l := newLab(t)
	served := make(chan struct{})
	api := httpapi.New(httpapi.Config{Core: l.core})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(served)
		api.ServeHTTP(w, r)
	}))
	defer srv.Close()
	release := l.block()
	ctx, hangUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/v1/database/creds/own", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", l.root.Reveal())
	answered := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			err = resp.Body.Close()
		}
		answered <- err
	}()
	l.blocked()
	hangUp()
	if err := <-answered; err == nil {
		t.Error("the client was answered after it had gone")
	}
	// The server hears of it by the connection's end, while it makes.
	l.within(200*time.Millisecond, nil, func() bool { return false })
	release()
	<-served
	l.promises("once served", seen{})
	l.noLogin("its client went away")
	l.quiet()
	l.settled("in the end")
}

// The disk is full in the middle: what stands goes on, what writes is refused
// with that reason, nothing that was said is lost, and it heals by itself.
func TestDiskFull(t *testing.T) {
	l := newLab(t)
	s := l.begin()
	kept, gone := s.get("own", s.tok), s.get("group", s.tok)
	release := l.block()
	asked := l.issueAside("own", s.tok.Text)
	l.blocked()
	l.store.Set(func(c fault.Call) error {
		if c.Op == fault.Begin {
			return storage.ErrReadOnly
		}
		return nil
	})
	release()
	if err := <-asked; err != nil {
		t.Errorf("what was committed before = %v, want its credential", err)
	}
	if _, err := l.issue("own", s.tok.Text); !errs.Is(err, errs.Unavailable) {
		t.Errorf("issuing on a full disk = %v, want Unavailable", err)
	}
	if err := l.revoke(gone.id); !errors.Is(err, storage.ErrReadOnly) {
		t.Errorf("revoking on a full disk = %v, want ErrReadOnly", err)
	}
	if err := l.renew(kept.id); !errors.Is(err, storage.ErrReadOnly) {
		t.Errorf("renewing on a full disk = %v, want ErrReadOnly", err)
	}
	l.promises("while the disk is full", s.seen)
	l.store.Set(nil)
	l.promises("once there is room", s.seen)
	s.ended(gone, l.revoke(gone.id))
	if len(s.revoked) != 1 {
		t.Error("revoking once there is room failed")
	}
	l.settled("in the end")
}
