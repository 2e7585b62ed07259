package server_test

import (
	"strings"
	"testing"
)

// TestOldUnwrap unwraps as clients did it before sys/wrapping/unwrap: once, and
// only by the wrapping token.
func TestOldUnwrap(t *testing.T) {
	l := startLocal(t, "")
	made := l.must("POST", "sys/wrapping/wrap", `{"answer":"forty-two"}`, "X-Vault-Wrap-TTL", "60")
	tok := made.Wrap.Token
	if status, body := l.ask("GET", "cubbyhole/response", l.root, ""); status != 404 {
		t.Errorf("with another token = %d, %s, want 404", status, body)
	}
	if status, body := l.ask("GET", "cubbyhole/response", tok, ""); status != 200 || !strings.Contains(body, `\"answer\":\"forty-two\"`) {
		t.Errorf("with the wrapping token = %d, %s, want the answer as a text", status, body)
	}
	if status, body := l.ask("GET", "cubbyhole/response", tok, ""); status != 403 {
		t.Errorf("a second time = %d, %s, want 403", status, body)
	}
	if status, body := l.ask("POST", "sys/wrapping/unwrap", tok, ""); status == 200 {
		t.Errorf("unwrapping it again = %d, %s", status, body)
	}
}

// TestUnwrappingTakesAUse unwraps by another token, which the request costs one
// of its uses, as any request does that it is shown with.
func TestUnwrappingTakesAUse(t *testing.T) {
	l := startLocal(t, "")
	tok := l.must("POST", "auth/token/create", `{"policies": ["default"], "ttl": "1h", "num_uses": 2}`).Auth.Token
	for i, want := range []int{200, 200, 403} {
		wrapped := l.must("POST", "sys/wrapping/wrap", `{"a": 1}`, "X-Vault-Wrap-TTL", "60").Wrap.Token
		if status, body := l.ask("POST", "sys/wrapping/unwrap", tok, `{"token": "`+wrapped+`"}`); status != want {
			t.Errorf("unwrapping with use %d of 2 = %d, %s, want %d", i+1, status, body, want)
		}
	}
	if status, body := l.ask("GET", "auth/token/lookup-self", tok, ""); status != 403 {
		t.Errorf("the token after its uses = %d, %s, want 403", status, body)
	}
}
