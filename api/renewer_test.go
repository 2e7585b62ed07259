package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/api"
)

// wire answers without a network, so that virtual time can pass.
type wire func(*http.Request) (int, string)

func (f wire) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := f(r)
	if status == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func lease(seconds int) *api.Secret {
	return &api.Secret{LeaseID: "db/creds/r/1", LeaseDuration: seconds, Renewable: true}
}

func run(t *testing.T, s *api.Secret, w wire) (took time.Duration, err error) {
	t.Helper()
	c, err := api.New(api.Config{Address: "http://x", Token: "app", HTTPClient: &http.Client{Transport: w}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := api.NewRenewer(c, api.RenewerConfig{Secret: s})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
	defer cancel()
	start := time.Now()
	err = r.Run(ctx)
	return time.Since(start), err
}

func TestRenewerExtendsUntilTheMaximum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, renewals := time.Now(), 0
		took, err := run(t, lease(3600), func(r *http.Request) (int, string) {
			renewals++
			left := min(time.Hour, 4*time.Hour-time.Since(start)) // max_ttl = 4h
			return 200, fmt.Sprintf(`{"request_id":"","lease_id":"db/creds/r/1","lease_duration":%d,"renewable":true}`, int(left.Seconds()))
		})
		if !errors.Is(err, api.ErrReplace) {
			t.Fatalf("Run = %v, want ErrReplace", err)
		}
		if took < 3*time.Hour+30*time.Minute || took >= 4*time.Hour {
			t.Errorf("Run ended after %v, want it shortly before the 4h maximum", took)
		}
		if renewals < 4 || renewals > 12 {
			t.Errorf("%d renewals, want a handful", renewals)
		}
	})
}

func TestRenewerKeepsTryingWhileTheServerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		took, err := run(t, lease(600), func(*http.Request) (int, string) {
			if time.Since(start) < 8*time.Minute {
				return 0, ""
			}
			return 200, `{"request_id":"","lease_id":"db/creds/r/1","lease_duration":600,"renewable":false}`
		})
		if !errors.Is(err, api.ErrReplace) || took < 17*time.Minute {
			t.Errorf("Run = %v after %v, want the lease saved and used to its end", err, took)
		}
	})
}

func TestRenewerGivesUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		took, err := run(t, lease(600), func(*http.Request) (int, string) { return 503, `{"errors":["sealed"]}` })
		if !errors.Is(err, api.ErrReplace) || api.StatusOf(err) != 503 || took >= 600*time.Second {
			t.Errorf("Run = %v after %v, want ErrReplace with the cause before the end", err, took)
		}
	})
}

func TestRenewerStopsWhenRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, err := run(t, lease(600), func(*http.Request) (int, string) { return 400, `{"errors":["lease not found"]}` })
		if errors.Is(err, api.ErrReplace) || api.StatusOf(err) != 400 {
			t.Errorf("Run = %v, want the refusal", err)
		}
	})
}

func TestRenewerRenewsALoginByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &api.Secret{Auth: &api.Auth{ClientToken: "mine", LeaseDuration: 60, Renewable: true}}
		seen := ""
		_, _ = run(t, s, func(r *http.Request) (int, string) {
			seen = r.URL.Path + " " + r.Header.Get("X-Vault-Token")
			return 200, `{"request_id":"","auth":{"client_token":"mine","lease_duration":60,"renewable":false}}`
		})
		if want := "/v1/auth/token/renew-self mine"; seen != want {
			t.Errorf("renewed by %q, want %q", seen, want)
		}
	})
}

func TestRenewerNeedsSomethingToRenew(t *testing.T) {
	c, _ := api.New(api.Config{Address: "http://x"})
	if _, err := api.NewRenewer(c, api.RenewerConfig{Secret: &api.Secret{}}); err == nil {
		t.Error("NewRenewer of a reply without a lease worked, want an error")
	}
}
