package claims

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/wire"
)

// Set are the claims of a token.
type Set struct{ o wire.Object }

// NewSet takes claims that came from elsewhere than a token, such as the
// provider's userinfo.
func NewSet(body []byte) (Set, error) { return parseSet(body) }

// Object is the claims as JSON.
func (s Set) Object() wire.Object { return s.o }

// With is the claims with those of others added; where both have one, others'
// counts, whole: an object of the one and an object of the other are not made
// into what neither says.
func (s Set) With(others Set) Set {
	theirs := map[string]bool{}
	for name := range others.o.All() {
		theirs[name] = true
	}
	o := []byte{'{'}
	add := func(name string, v wire.Value) {
		if len(o) > 1 {
			o = append(o, ',')
		}
		o = append(append(wire.AppendString(o, name), ':'), v...)
	}
	for name, v := range s.o.All() {
		if !theirs[name] {
			add(name, v)
		}
	}
	for name, v := range others.o.All() {
		add(name, v)
	}
	return Set{append(o, '}')}
}

// Claim is the claim of a name. One that is null is not there.
func (s Set) Claim(name string) (wire.Value, bool) {
	v, ok := s.o.Get(name)
	return v, ok && v.Kind() != wire.Null
}

// Find is Claim, except that a name which begins with a slash is a JSON
// pointer (RFC 6901) into the claims.
func (s Set) Find(name string) (wire.Value, bool) {
	path, isPointer := strings.CutPrefix(name, "/")
	if !isPointer {
		return s.Claim(name)
	}
	at := wire.Value(s.o)
	for _, step := range strings.Split(path, "/") {
		step = strings.ReplaceAll(strings.ReplaceAll(step, "~1", "/"), "~0", "~")
		next, ok := below(at, step)
		if !ok {
			return nil, false
		}
		at = next
	}
	return at, at.Kind() != wire.Null
}

func below(v wire.Value, step string) (wire.Value, bool) {
	switch v.Kind() {
	case wire.Obj:
		return wire.Object(v).Get(step)
	case wire.Array:
		n, err := strconv.ParseUint(step, 10, 16)
		if err != nil || len(step) > 1 && step[0] == '0' {
			return nil, false
		}
		for e := range v.Elements() {
			if n == 0 {
				return e, true
			}
			n--
		}
	}
	return nil, false
}

// Text is a claim that is a text; "" for any other.
func (s Set) Text(name string) string {
	v, _ := s.Claim(name)
	if v.Kind() != wire.String {
		return ""
	}
	text, _ := v.Text()
	return text
}

// Texts are the values of a claim that may be one text or a list of them. Of
// anything else, or with anything else in the list, it is not ok.
func Texts(v wire.Value) (out []string, ok bool) {
	for _, e := range listed(v) {
		if e.Kind() != wire.String {
			return nil, false
		}
		text, _ := e.Text()
		out = append(out, text)
	}
	return out, v.Kind() == wire.String || v.Kind() == wire.Array
}

func listed(v wire.Value) []wire.Value {
	if v.Kind() == wire.Array {
		return slices.Collect(v.Elements())
	}
	return []wire.Value{v}
}

// Audience is whom the token is for: "aud", one text or a list. One that is
// neither is for nobody, which is not the same as none.
func (s Set) Audience() (aud []string, given bool) {
	v, ok := s.Claim("aud")
	if !ok {
		return nil, false
	}
	aud, _ = Texts(v)
	return aud, v.Kind() != wire.Array || len(listed(v)) > 0
}

// CheckAudience refuses claims whose audience is none of bound.
func (s Set) CheckAudience(bound []string) error {
	aud, _ := s.Audience()
	if slices.ContainsFunc(aud, func(a string) bool { return slices.Contains(bound, a) }) {
		return nil
	}
	return errors.New("invalid audience (aud) claim: audience claim does not match any expected audience")
}

// Leeway is how far a token's times may be off. Zero is the default, what is
// negative is none.
type Leeway struct {
	Expiration time.Duration // how long a token without exp is valid after iat or nbf; 150 s
	NotBefore  time.Duration // how long a token without nbf and iat was valid before exp; 150 s
	ClockSkew  time.Duration // for all times; 60 s
}

func orDefault(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return max(d, 0)
}

// ErrNoTimes is the answer to a token that says nothing of when it is valid.
var ErrNoTimes = errors.New("no issued at (iat), not before (nbf), or expiration time (exp) claims in token")

// CheckTimes refuses claims that are not valid now. What a token leaves out of
// exp, nbf and iat follows from the others, as Vault has it; ErrNoTimes if
// there is none of them.
func (s Set) CheckTimes(now time.Time, l Leeway) error {
	exp, hasExp, err := s.date("exp")
	if err != nil {
		return err
	}
	nbf, hasNbf, err := s.date("nbf")
	if err != nil {
		return err
	}
	iat, hasIat, err := s.date("iat")
	if err != nil {
		return err
	}
	if !hasExp && !hasNbf && !hasIat {
		return ErrNoTimes
	}
	if !hasExp {
		latest := nbf
		if !hasNbf || hasIat && iat.After(nbf) {
			latest = iat
		}
		exp = latest.Add(orDefault(l.Expiration, 150*time.Second))
	}
	if !hasNbf {
		if nbf = iat; !hasIat {
			nbf = exp.Add(-orDefault(l.NotBefore, 150*time.Second))
		}
	}
	skew := orDefault(l.ClockSkew, time.Minute)
	switch {
	case now.Add(skew).Before(nbf):
		return errors.New("invalid not before (nbf) claim: token not yet valid")
	case now.Add(-skew).After(exp):
		return errors.New("invalid expiration time (exp) claim: token is expired")
	case hasIat && now.Add(skew).Before(iat):
		return errors.New("invalid issued at (iat) claim: token issued in the future")
	}
	return nil
}

// Date is a claim that counts seconds since 1970, as "auth_time" does.
func (s Set) Date(name string) (time.Time, bool) {
	t, ok, err := s.date(name)
	return t, ok && err == nil
}

func (s Set) date(name string) (time.Time, bool, error) {
	v, ok := s.Claim(name)
	if !ok {
		return time.Time{}, false, nil
	}
	const most = 1 << 40 // the year 36812; what is beyond would overflow
	text, _ := v.Text()
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || v.Kind() != wire.Number || math.Abs(f) > most {
		return time.Time{}, false, fmt.Errorf("the claim %q is no time: it is a number of seconds", name)
	}
	return time.Unix(int64(math.Floor(f)), 0), true, nil
}
