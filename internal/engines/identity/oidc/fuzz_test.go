package oidc_test

import (
	"encoding/base64"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/engines/identity/oidc"
	"github.com/leasehold/leasehold/internal/storage"
)

// FuzzBasicAuth: what a client encoded is what is read, and other text is no
// credentials, or empty ones.
func FuzzBasicAuth(f *testing.F) {
	for _, s := range []string{"", "Basic", "Basic YTpi", "basic YTpi", "Bearer x", "Basic ====", "Basic JXp6Ong="} {
		f.Add(s, "a", "b:c")
	}
	f.Fuzz(func(t *testing.T, header, id, sec string) {
		if got, _, ok := oidc.BasicAuth(header); !ok && got != "" {
			t.Fatalf("BasicAuth(%q) = %q beside not ok", header, got)
		}
		sent := "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(sec)))
		if gotID, gotSec, ok := oidc.BasicAuth(sent); !ok || gotID != id || gotSec != sec {
			t.Fatalf("BasicAuth(%q) = %q, %q, %v, want %q, %q", sent, gotID, gotSec, ok, id, sec)
		}
	})
}

// FuzzLoopback: only plain HTTP to a loopback address or to localhost loses its
// port, and nothing else of it changes.
func FuzzLoopback(f *testing.F) {
	for _, s := range []string{
		"http://127.0.0.1:80/cb", "http://[::1]:1/x?y=z", "http://127.0.0.1@evil.test/", "http://evil.test#@127.0.0.1/", "https://127.0.0.1/",
		"http://127.0.0.1:80:90/", "http://[::ffff:127.0.0.1]/", "http://0x7f.1/", "http://127.0.0.1%00.evil.test/",
		"http://localhost:80/cb", "http://localhost.evil.test/", "http://localhost:80@evil.test/",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		got, ok := oidc.Loopback(uri)
		if !ok {
			return
		}
		before, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		host := before.Hostname()
		if host != "localhost" {
			a, err := netip.ParseAddr(host)
			if err != nil || !a.IsLoopback() {
				t.Fatalf("Loopback(%q) = %q", uri, got)
			}
			host = a.String()
		}
		if before.Scheme != "http" || before.User != nil {
			t.Fatalf("Loopback(%q) = %q", uri, got)
		}
		rest := strings.TrimPrefix(got, "http://"+host)
		before.Scheme, before.Host = "", ""
		if want := before.String(); rest != want && rest != strings.TrimPrefix(want, "//") {
			t.Fatalf("Loopback(%q) = %q: the rest %q was %q", uri, got, rest, want)
		}
	})
}

// FuzzCode: whatever is sent as a code, the row that is looked for is one of
// codes.
func FuzzCode(f *testing.F) {
	for _, s := range []string{"", "-", "6553f100-abc", "zz-x", "-1-x", "ffffffffffffffffffff-x", "0-../../key/k"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, code string) {
		key, _, ok := oidc.CodeKey(code)
		if !ok {
			return
		}
		rest, found := strings.CutPrefix(key, "oidc/code/")
		if !found || strings.Count(rest, "/") != 1 || len(rest) != 16+1+64 || !storage.ValidKey(key) {
			t.Fatalf("the key of the code %q is %q", code, key)
		}
	})
}
