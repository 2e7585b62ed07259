package jwt_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/testenv/oidcprovider"
	"github.com/leasehold/leasehold/internal/wire"
)

// loginWithin is a login that waits no longer than d.
func (n *node) loginWithin(d time.Duration, token string) error {
	ctx, cancel := context.WithTimeout(n.t.Context(), d)
	defer cancel()
	req := &route.Request{Op: wire.OpUpdate, Path: "login", Body: []byte(`{"role":"web","jwt":"` + token + `"}`), Mount: route.MountInfo{MaxTTL: time.Hour}}
	ep, err := n.table.Route(req)
	if err != nil {
		n.t.Fatal(err)
	}
	_, err = ep.Call(ctx, req)
	return err
}

// fetching is a node whose keys are a provider's.
func fetching(t *testing.T, config func(p *oidcprovider.Provider) body) (*node, *oidcprovider.Provider) {
	t.Helper()
	p := oidcprovider.Start(t, oidcprovider.Config{TLS: true})
	n := start(t, newStore(t))
	n.write("config", config(p))
	n.write("role/web", body{"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault"})
	return n, p
}

func byAddress(p *oidcprovider.Provider) body {
	return body{"jwks_url": p.URL + "/keys", "jwks_ca_pem": p.CA}
}

func byDiscovery(p *oidcprovider.Provider) body {
	return body{"oidc_discovery_url": p.URL, "oidc_discovery_ca_pem": p.CA}
}

func TestKeysAreFetchedAgain(t *testing.T) {
	for name, config := range map[string]func(*oidcprovider.Provider) body{
		"jwks_url": byAddress, "oidc_discovery_url": byDiscovery,
		"jwks_pairs": func(p *oidcprovider.Provider) body {
			other := oidcprovider.Start(t, oidcprovider.Config{})
			return body{"jwks_pairs": []body{{"jwks_url": other.URL + "/keys"}, {"jwks_url": p.URL + "/keys", "jwks_ca_pem": p.CA}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, p := fetching(t, config)
			for range 5 {
				if _, err := n.login("web", p.Token(claims(n.clock.now()))); err != nil {
					t.Fatal(err)
				}
			}
			if got := p.Fetched(); got != 2 {
				t.Errorf("the keys were fetched %d times, want 2: as the configuration was written, and for the first login", got)
			}

			old := p.Token(claims(n.clock.now()))
			p.Rotate()
			n.clock.advance(11 * time.Second)
			if _, err := n.login("web", p.Token(claims(n.clock.now()))); err != nil {
				t.Errorf("with a new key: %v", err)
			}
			for range 20 {
				if _, err := n.login("web", old); !errs.Is(err, errs.Invalid) {
					t.Fatalf("with a key that the issuer has dropped: %v, want errs.Invalid", err)
				}
			}
			if got := p.Fetched(); got != 3 {
				t.Errorf("the keys were fetched %d times, want 3: unknown keys must not make a login cost a request", got)
			}
		})
	}
}

// TestSilentIssuer: one that does not answer stalls only the logins that
// cannot do without it.
func TestSilentIssuer(t *testing.T) {
	n, p := fetching(t, byDiscovery)
	if _, err := n.login("web", p.Token(claims(n.clock.now()))); err != nil {
		t.Fatal(err)
	}
	p.FallSilent()
	n.clock.advance(30 * time.Minute) // the keys are due, and cannot be had
	for range 3 {
		if err := n.loginWithin(5*time.Second, p.Token(claims(n.clock.now()))); err != nil {
			t.Errorf("with keys of half an hour ago: %v", err)
		}
	}
	p.Rotate()
	var wg sync.WaitGroup
	for range 50 { // they wait together, each as long as it likes
		wg.Go(func() {
			if err := n.loginWithin(20*time.Millisecond, p.Token(claims(n.clock.now()))); err == nil {
				t.Error("a login with a key that could not be fetched is taken")
			}
		})
	}
	wg.Wait()
	p.Speak()
	n.clock.advance(11 * time.Second)
	if _, err := n.login("web", p.Token(claims(n.clock.now()))); err != nil {
		t.Errorf("after the issuer speaks again: %v", err)
	}
}

// TestLostIssuer: keys are not believed for ever, and a server that is away is
// not asked at each login.
func TestLostIssuer(t *testing.T) {
	n, p := fetching(t, byAddress)
	token := p.Token(claims(n.clock.now().Add(2 * time.Hour)))
	if _, err := n.login("web", p.Token(claims(n.clock.now()))); err != nil {
		t.Fatal(err)
	}
	p.Close()
	n.clock.advance(2 * time.Hour)
	for range 3 {
		if _, err := n.login("web", token); !errs.Is(err, errs.Upstream) {
			t.Errorf("two hours after the keys were fetched: %v, want errs.Upstream", err)
		}
	}
	got := n.read("config")
	if got["status"] != "invalid" {
		t.Errorf("the configuration's status is %v, want invalid", got["status"])
	}
}
