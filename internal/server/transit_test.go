package server_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/leasehold/leasehold/api"
	"github.com/leasehold/leasehold/internal/leaseholdtest"
)

// TestTransitUnderLoad encrypts and decrypts while the key rotates and while
// the server is killed and started again. Whatever was answered opens, by
// whichever version and whenever; no request is answered wrongly.
func TestTransitUnderLoad(t *testing.T) {
	srv := leaseholdtest.Start(t, leaseholdtest.Config{})
	call := func(ctx context.Context, path string, in, out any) error {
		return srv.Call(ctx, http.MethodPost, path, srv.Root, in, out)
	}
	must := func(path string, in, out any) {
		t.Helper()
		if err := call(t.Context(), path, in, out); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
	}
	must("sys/mounts/transit", map[string]any{"type": "transit"}, nil)
	must("transit/keys/k", nil, nil)

	type sealed struct{ text, plain string }
	type answer struct {
		Data struct {
			Ciphertext, Plaintext string
			Batch                 []struct{ Ciphertext, Error string } `json:"batch_results"`
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	var epoch atomic.Int64 // odd: the server is away; what fails then may
	var mu sync.Mutex
	var all []sealed
	for w := range 6 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				before := epoch.Load()
				plain := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%d of worker %d %s", n, w, strings.Repeat(".", n%50*100)))
				var out answer
				err := call(ctx, "transit/encrypt/k", map[string]any{"batch_input": []map[string]string{{"plaintext": plain}, {"plaintext": plain}}}, &out)
				if err == nil {
					for _, it := range out.Data.Batch {
						mu.Lock()
						all = append(all, sealed{it.Ciphertext, plain})
						mu.Unlock()
					}
					var back answer
					if err = call(ctx, "transit/decrypt/k", map[string]string{"ciphertext": out.Data.Batch[1].Ciphertext}, &back); err == nil && back.Data.Plaintext != plain {
						t.Errorf("%s opens as %q, want %q", out.Data.Batch[1].Ciphertext, back.Data.Plaintext, plain)
						return
					}
				}
				if err != nil && ctx.Err() == nil && before%2 == 0 && epoch.Load() == before {
					t.Errorf("worker %d: %v", w, err)
					return
				}
			}
		})
	}
	for range 3 {
		for range 20 {
			must("transit/keys/k/rotate", nil, nil)
		}
		epoch.Add(1)
		srv.Kill()
		if err := srv.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		must("transit/keys/k/rotate", nil, nil)
		epoch.Add(1)
	}
	for range 20 {
		must("transit/keys/k/rotate", nil, nil)
	}
	stop()
	wg.Wait()
	if len(all) == 0 {
		t.Fatal("nothing was encrypted")
	}
	versions := map[string]bool{}
	for i := 0; i < len(all); i += max(1, len(all)/300) {
		var back answer
		must("transit/decrypt/k", map[string]string{"ciphertext": all[i].text}, &back)
		if back.Data.Plaintext != all[i].plain {
			t.Errorf("%s opens as %q, want %q", all[i].text, back.Data.Plaintext, all[i].plain)
		}
		versions[strings.Split(all[i].text, ":")[1]] = true
	}
	t.Logf("%d ciphertexts; those that were looked at are by %d versions", len(all), len(versions))
	if len(versions) < 10 {
		t.Errorf("only %d versions have encrypted", len(versions))
	}
}

// TestBatchThatFailsInPart is wrapped where that was asked for, and may have to
// be: one bad item does not show the others' plaintexts to whoever is to pass
// them on unseen.
func TestBatchThatFailsInPart(t *testing.T) {
	c := start(t, "")
	write := func(c *api.Client, path string, body fields) *api.Secret {
		t.Helper()
		s, err := c.Write(t.Context(), path, body)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return s
	}
	write(c, "sys/mounts/transit", fields{"type": "transit"})
	write(c, "transit/keys/k", nil)
	write(c, "sys/policies/acl/unseen", fields{"policy": `path "transit/decrypt/k" { capabilities = ["update"] min_wrapping_ttl = "1s" max_wrapping_ttl = "1h" }`})
	courier, _ := newToken(t, c, "auth/token/create", fields{"policies": []string{"unseen"}})
	var sealed struct{ Ciphertext string }
	if err := json.Unmarshal(write(c, "transit/encrypt/k", fields{"plaintext": "c2VjcmV0"}).Data, &sealed); err != nil {
		t.Fatal(err)
	}
	batch := fields{"batch_input": []fields{{"ciphertext": sealed.Ciphertext}, {"ciphertext": "junk"}}}
	s := write(courier.WithWrapTTL("1m"), "transit/decrypt/k", batch)
	if s.WrapInfo == nil || len(s.Data) > 0 && string(s.Data) != "null" {
		t.Fatalf("the batch is answered with %s in the clear", s.Data)
	}
	open, err := c.Unwrap(t.Context(), s.WrapInfo.Token)
	if err != nil {
		t.Fatal(err)
	}
	var out struct {
		Batch []struct{ Plaintext, Error string } `json:"batch_results"`
	}
	if err := json.Unmarshal(open.Data, &out); err != nil || len(out.Batch) != 2 || out.Batch[0].Plaintext != "c2VjcmV0" || out.Batch[1].Error == "" {
		t.Errorf("what was wrapped is %s, %v", open.Data, err)
	}
}

// TestParametersOfBytes: what a policy says of a parameter holds for a body of
// bytes that stands for it, as it does for the parameters in the query.
func TestParametersOfBytes(t *testing.T) {
	c := start(t, "")
	write := func(path string, body fields) *api.Secret {
		t.Helper()
		s, err := c.Write(t.Context(), path, body)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		return s
	}
	write("sys/mounts/transit", fields{"type": "transit"})
	write("transit/keys/a", nil)
	write("transit/keys/ed", fields{"type": "ed25519"})
	var sealed struct{ Ciphertext string }
	if err := json.Unmarshal(write("transit/encrypt/a", fields{"plaintext": "QQ=="}).Data, &sealed); err != nil {
		t.Fatal(err)
	}
	head, rest := sealed.Ciphertext[:len("vault:v1:")], sealed.Ciphertext[len("vault:v1:"):]
	raw, err := base64.StdEncoding.DecodeString(rest)
	if err != nil {
		t.Fatal(err)
	}
	text := head + string(raw)
	for i, use := range []struct {
		path, rule, body string
		want             bool
	}{
		{"transit/sign/ed", `allowed_parameters = { input = ["QQ=="] }`, "A", true},
		{"transit/sign/ed", `allowed_parameters = { input = ["QQ=="] }`, "B", false},
		{"transit/sign/ed", `allowed_parameters = { batch_input = [] }`, "A", false},
		{"transit/sign/ed/sha2-256", `denied_parameters = { input = [] }`, "A", false},
		{"transit/hmac/a", `denied_parameters = { input = ["QQ=="] }`, "A", false},
		{"transit/hmac/a", `denied_parameters = { input = ["QQ=="] }`, "B", true},
		{"transit/hmac/a", `required_parameters = ["input"]`, "A", true},
		{"transit/hmac/a", `required_parameters = ["key_version"]`, "A", false},
		{"transit/encrypt/a", `denied_parameters = { "*" = [] }`, "A", false},
		{"transit/encrypt/a", `allowed_parameters = { plaintext = [] }`, "A", true},
		{"transit/encrypt/a?key_version=1", `allowed_parameters = { plaintext = [] }`, "A", false},
		{"transit/decrypt/a", `allowed_parameters = { ciphertext = ["` + sealed.Ciphertext + `"] }`, text, true},
		{"transit/decrypt/a", `denied_parameters = { ciphertext = ["` + sealed.Ciphertext + `"] }`, text, false},
		{"transit/decrypt/a", `allowed_parameters = { ciphertext = ["vault:v1:*"] }`, "junk", false},
	} {
		path, query, _ := strings.Cut(use.path, "?")
		name := fmt.Sprint("p", i)
		write("sys/policies/acl/"+name, fields{"policy": `path "` + path + `" { capabilities = ["update"] ` + use.rule + ` }`})
		as, _ := newToken(t, c, "auth/token/create", fields{"policies": []string{name}})
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		req := &api.Request{Method: http.MethodPost, Path: path, Query: values, Body: json.RawMessage(use.body),
			Header: http.Header{"Content-Type": {"application/octet-stream"}}}
		if _, err := as.Do(t.Context(), req); (api.StatusOf(err) != http.StatusForbidden) != use.want || use.want && err != nil {
			t.Errorf("the bytes %.9q to %s by the rule %s = %v, want them taken: %v", use.body, use.path, use.rule, err, use.want)
		}
	}
}
