package claims_test

import (
	"crypto/elliptic"
	"encoding/base64"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/auth/claims"
	"github.com/leasehold/leasehold/internal/testenv/forgery"
	"github.com/leasehold/leasehold/internal/wire"
)

var now = time.Unix(1_800_000_000, 0)

func good() map[string]any {
	return map[string]any{
		"iss": "https://issuer.example", "sub": "svc", "aud": []string{"others", "vault"},
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
}

// judge is what both methods do with a token.
func judge(text string, keys []claims.Key) (claims.Set, error) {
	t, err := claims.Parse(text)
	if err != nil {
		return claims.Set{}, err
	}
	set, err := t.Verify(keys)
	if err != nil {
		return set, err
	}
	if err := set.CheckAudience([]string{"vault"}); err != nil {
		return set, err
	}
	return set, set.CheckTimes(now, claims.Leeway{})
}

func TestVerify(t *testing.T) {
	for name, is := range map[string]forgery.Issuer{
		"RSA": forgery.NewRSA(), "P-256": forgery.NewECDSA(elliptic.P256()), "P-384": forgery.NewECDSA(elliptic.P384()),
		"P-521": forgery.NewECDSA(elliptic.P521()), "Ed25519": forgery.NewEd25519(),
	} {
		t.Run(name, func(t *testing.T) {
			key, err := claims.ParsePEM(is.PEM())
			if err != nil {
				t.Fatalf("ParsePEM: %v", err)
			}
			keys := []claims.Key{{Public: "no key at all"}, key}
			set, err := judge(is.Token(good()), keys)
			if err != nil || set.Text("sub") != "svc" {
				t.Fatalf("a good token: subject %q, %v", set.Text("sub"), err)
			}
			for _, c := range is.Cases(good(), now) {
				if set, err := judge(c.Token, keys); err == nil {
					t.Errorf("%s: taken, with claims %s", c.Name, set.Object())
				}
			}
		})
	}
}

// TestKeysChoose: a key says which tokens it is for.
func TestKeysChoose(t *testing.T) {
	is := forgery.NewRSA()
	is.KeyID = "one"
	key, err := claims.ParsePEM(is.PEM())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		id, alg string
		ok      bool
	}{{"", "", true}, {"one", "", true}, {"one", "RS256", true}, {"two", "", false}, {"one", "RS384", false}, {"", "PS256", false}} {
		key.ID, key.Alg = tt.id, tt.alg
		if _, err := judge(is.Token(good()), []claims.Key{key}); (err == nil) != tt.ok {
			t.Errorf("key %q of algorithm %q: %v, want success %v", tt.id, tt.alg, err, tt.ok)
		}
	}
}

func TestParseKeySet(t *testing.T) {
	for _, tt := range []struct {
		name, doc string
		keys      int
		ok        bool
	}{
		{"empty", `{"keys":[]}`, 0, true},
		{"secret, private, unknown and broken ones are left out", `{"keys":[
			{"kty":"oct","k":"c2VjcmV0"}, {"kty":"new","x":"?"}, {"kty":"EC","crv":"P-256","x":"AA","y":"AA"}, {},
			{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
			{"kty":"OKP","crv":"Ed25519","use":"enc","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
			{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`, 1, true},
		{"no set", `{"key":1}`, 0, false},
		{"a page", `<html>`, 0, false},
		{"a list", `[]`, 0, false},
	} {
		keys, err := claims.ParseKeySet([]byte(tt.doc))
		if len(keys) != tt.keys || (err == nil) != tt.ok {
			t.Errorf("%s: %d keys, %v; want %d, success %v", tt.name, len(keys), err, tt.keys, tt.ok)
		}
	}
}

func set(t *testing.T, text string) claims.Set {
	t.Helper()
	s, err := claims.NewSet([]byte(text))
	if err != nil {
		t.Fatalf("NewSet(%s): %v", text, err)
	}
	return s
}

func TestFind(t *testing.T) {
	s := set(t, `{"a":{"b":[10,{"c/d":"x","e~f":"y"}],"n":null},"/a":"slash","":"empty","n":null}`)
	for _, tt := range []struct{ name, want string }{
		{"a", `{"b":[10,{"c/d":"x","e~f":"y"}],"n":null}`}, {"/a/b/0", `10`}, {"/a/b/1/c~1d", `"x"`}, {"/a/b/1/e~0f", `"y"`},
		{"/a/b/2", ""}, {"/a/b/01", ""}, {"/a/b/-1", ""}, {"/a/b/x", ""}, {"/a/n", ""}, {"/a/b/0/x", ""}, {"n", ""}, {"b", ""},
		{"/", `"empty"`}, {"//a", ""}, {"/a/b/99999999999999999999", ""},
	} {
		v, ok := s.Find(tt.name)
		if ok != (tt.want != "") || ok && string(v) != tt.want {
			t.Errorf("Find(%q) = %s, %v, want %s", tt.name, v, ok, tt.want)
		}
	}
	if v, ok := s.Claim("/a"); !ok || string(v) != `"slash"` {
		t.Errorf(`Claim("/a") = %s, %v, want "slash": it is no pointer there`, v, ok)
	}
}

func TestWith(t *testing.T) {
	got := set(t, `{"sub":"a","n":1,"x":"old","access":{"admin":true,"app":"a"},"gone":"y"}`).With(
		set(t, `{"sub":"a","access":{"app":"b"},"x":"new","gone":null,"more \"":[]}`))
	if err := got.CheckBound(wire.Object(`{"/access/admin":true}`), false); err == nil {
		t.Errorf("%s: what the later object does not have is believed of the earlier", got.Object())
	}
	if want := `{"sub":"a","n":1,"access":{"app":"b"},"x":"new","gone":null,"more \"":[]}`; !equalJSON(t, string(got.Object()), want) {
		t.Errorf("With = %s, want %s", got.Object(), want)
	}
	if _, ok := got.Claim("gone"); ok {
		t.Error("a claim that is null is there")
	}
	for _, tt := range [][2]string{{`{}`, `{"a":1}`}, {`{"a":1}`, `{}`}, {`{"a":2}`, `{"a":1}`}} {
		if got := set(t, tt[0]).With(set(t, tt[1])); !equalJSON(t, string(got.Object()), `{"a":1}`) {
			t.Errorf("%s with %s = %s", tt[0], tt[1], got.Object())
		}
	}
}

func equalJSON(t *testing.T, a, b string) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal([]byte(a), &x), json.Unmarshal([]byte(b), &y)); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

func TestCheckTimes(t *testing.T) {
	for _, tt := range []struct {
		name, claims string // seconds from now: @N@
		leeway       claims.Leeway
		ok           bool
	}{
		{"none", `{}`, claims.Leeway{}, false},
		{"all", `{"iat":@-9@,"nbf":@-9@,"exp":@9@}`, claims.Leeway{}, true},
		{"fractions", `{"iat":@-9@.5,"exp":@9@.5}`, claims.Leeway{}, true},
		{"expired within the skew", `{"exp":@-59@}`, claims.Leeway{}, true},
		{"expired beyond it", `{"exp":@-61@}`, claims.Leeway{}, false},
		{"expired without any skew", `{"exp":@-1@}`, claims.Leeway{ClockSkew: -1}, false},
		{"expired within a longer one", `{"exp":@-300@}`, claims.Leeway{ClockSkew: 5 * time.Minute}, true},
		{"exp alone begins 150 s before", `{"exp":@200@}`, claims.Leeway{}, true},
		{"and no earlier", `{"exp":@220@}`, claims.Leeway{}, false},
		{"unless said otherwise", `{"exp":@220@}`, claims.Leeway{NotBefore: 4 * time.Minute}, true},
		{"iat alone ends 150 s later", `{"iat":@-200@}`, claims.Leeway{}, true},
		{"and no later", `{"iat":@-220@}`, claims.Leeway{}, false},
		{"at once where that is switched off", `{"iat":@-61@}`, claims.Leeway{Expiration: -1}, false},
		{"the later of iat and nbf counts", `{"iat":@-220@,"nbf":@-100@}`, claims.Leeway{}, true},
		{"not yet", `{"nbf":@61@,"exp":@99@}`, claims.Leeway{}, false},
		{"nearly", `{"nbf":@59@,"exp":@99@}`, claims.Leeway{}, true},
		{"issued tomorrow", `{"nbf":@-1@,"iat":@90000@,"exp":@99999@}`, claims.Leeway{}, false},
		{"null is none", `{"exp":null}`, claims.Leeway{}, false},
	} {
		text := tt.claims
		for {
			before, rest, found := strings.Cut(text, "@")
			if !found {
				break
			}
			num, after, _ := strings.Cut(rest, "@")
			d, err := time.ParseDuration(num + "s")
			if err != nil {
				t.Fatal(err)
			}
			text = before + string(wire.Append(nil, now.Add(d).Unix())) + after
		}
		if err := set(t, text).CheckTimes(now, tt.leeway); (err == nil) != tt.ok {
			t.Errorf("%s: CheckTimes(%s) = %v, want success %v", tt.name, tt.claims, err, tt.ok)
		}
	}
}

func TestCheckBound(t *testing.T) {
	s := set(t, `{"team":"core","teams":["core","web"],"n":5,"big":9007199254740993,"yes":true,"deep":{"x":["a"]},"o":{}}`)
	for _, tt := range []struct {
		bound string
		globs bool
		ok    bool
	}{
		{`{}`, false, true},
		{`{"team":"core"}`, false, true},
		{`{"team":["web","core"]}`, false, true},
		{`{"team":"c*"}`, false, false},
		{`{"team":"c*"}`, true, true},
		{`{"team":["x*","*re"]}`, true, true},
		{`{"team":"*w*"}`, true, false},
		{`{"teams":"w*b"}`, true, true},
		{`{"teams":"web"}`, false, true},
		{`{"team":"core","teams":"x"}`, false, false},
		{`{"none":"x"}`, false, false},
		{`{"n":5}`, false, true},
		{`{"n":5.0}`, false, true},
		{`{"n":"5"}`, false, false},
		{`{"big":9007199254740992}`, false, false},
		{`{"yes":true}`, false, true},
		{`{"yes":"true"}`, false, false},
		{`{"/deep/x":"a"}`, false, true},
		{`{"/deep/y":"a"}`, false, false},
		{`{"o":"a"}`, false, false},
		{`{"n":"5"}`, true, false},
	} {
		if err := s.CheckBound(wire.Object(tt.bound), tt.globs); (err == nil) != tt.ok {
			t.Errorf("CheckBound(%s, globs %v) = %v, want success %v", tt.bound, tt.globs, err, tt.ok)
		}
	}
	for bound, ok := range map[string]bool{
		`{"a":"x","b":[1,true]}`: true, `{"a":{}}`: false, `{"a":[[]]}`: false, `{"a":null}`: false,
	} {
		if err := claims.CheckBound(wire.Object(bound), false); (err == nil) != ok {
			t.Errorf("CheckBound(%s) = %v, want success %v", bound, err, ok)
		}
	}
	if claims.CheckBound(wire.Object(`{"a":1}`), true) == nil {
		t.Error("a number is taken for a glob")
	}
}

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"a", "a", true}, {"*", "", true}, {"*", "a/b", true}, {"a*", "ab", true}, {"a*", "ba", false},
		{"*a", "ba", true}, {"a*a", "a", false}, {"a*a", "aa", true}, {"a*b*c", "axbxc", true}, {"a*b*c", "acb", false}, {"*b*", "abc", true},
	} {
		if got := claims.Glob(tt.pattern, tt.text); got != tt.want {
			t.Errorf("Glob(%q, %q) = %v, want %v", tt.pattern, tt.text, got, tt.want)
		}
	}
}

// FuzzToken: whatever is sent, nothing is believed without the signature, and
// looking at claims does not panic.
func FuzzToken(f *testing.F) {
	is := forgery.NewECDSA(elliptic.P256())
	key, err := claims.ParsePEM(is.PEM())
	if err != nil {
		f.Fatal(err)
	}
	token := is.Token(good())
	f.Add(token)
	f.Add(" eyJhbGciOiJFUzI1NiJ9..")
	for _, c := range is.Cases(good(), now) {
		if len(c.Token) < 2048 {
			f.Add(c.Token)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := claims.Parse(text)
		if err != nil {
			return
		}
		signed, _, _ := strings.Cut(strings.TrimSpace(text), ".")
		if _, err := base64.RawURLEncoding.DecodeString(signed); err != nil {
			t.Fatalf("Parse took %q, whose header is no base64", text)
		}
		if set, err := tok.Verify([]claims.Key{key}); err == nil && set.Text("sub") != "svc" {
			t.Fatalf("Verify believed %q: %s", text, set.Object())
		}
		set, err := tok.Unverified()
		if err != nil {
			return
		}
		_ = set.CheckTimes(now, claims.Leeway{})
		set.Audience()
		set.Find("/a/b/0")
		_ = set.CheckBound(wire.Object(`{"sub":["*"],"/a/b":1}`), true)
	})
}

// FuzzKeySet: a server may answer anything.
func FuzzKeySet(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"oct","k":"AA"},{}]}`))
	f.Add([]byte(`{"keys":null}`))
	is := forgery.NewEd25519()
	token := is.Token(good())
	f.Fuzz(func(t *testing.T, body []byte) {
		keys, err := claims.ParseKeySet(body)
		if err != nil {
			return
		}
		tok, err := claims.Parse(token)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tok.Verify(keys); err == nil {
			t.Fatalf("a token of another issuer is believed with the keys %s", body)
		}
	})
}
