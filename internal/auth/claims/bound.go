package claims

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/leasehold/leasehold/internal/wire"
)

// CheckBound refuses bound claims that could never be judged: each value is a
// text, number or boolean, or a list of them; with globs, texts only.
func CheckBound(bound wire.Object, globs bool) error {
	for name, v := range bound.All() {
		for _, e := range listed(v) {
			switch e.Kind() {
			case wire.String:
			case wire.Number, wire.Bool:
				if globs {
					return fmt.Errorf("claim is not a string: with bound_claims_type \"glob\" the values of %q are texts", name)
				}
			default:
				return fmt.Errorf("bound claim is not a string, bool, int or list: the value of %q is %s", name, e.Kind())
			}
		}
	}
	return nil
}

// CheckBound refuses claims that do not have, for each bound claim, one of its
// values. Claims that are lists have all of their elements.
func (s Set) CheckBound(bound wire.Object, globs bool) error {
	for name, want := range bound.All() {
		have, ok := s.Find(name)
		if !ok {
			return fmt.Errorf("claim %q is missing", name)
		}
		if have.Kind() == wire.Obj {
			return fmt.Errorf("received claim is not a string, bool, int or list: %q is an object", name)
		}
		if !anyMatch(listed(want), listed(have), globs) {
			return fmt.Errorf("claim %q does not match any associated bound claim values", name)
		}
	}
	return nil
}

func anyMatch(want, have []wire.Value, globs bool) bool {
	for _, w := range want {
		for _, h := range have {
			if same(w, h, globs) {
				return true
			}
		}
	}
	return false
}

// same compares values of one kind: the text "5" is not the number 5.
func same(want, have wire.Value, globs bool) bool {
	if want.Kind() != have.Kind() {
		return false
	}
	w, ok1 := want.Text()
	h, ok2 := have.Text()
	switch {
	case !ok1 || !ok2:
		return false
	case want.Kind() == wire.String && globs:
		return Glob(w, h)
	case w == h:
		return true
	case want.Kind() != wire.Number:
		return false
	}
	a, err1 := strconv.ParseFloat(w, 64) // 5 and 5.0; long numbers were compared by their digits
	b, err2 := strconv.ParseFloat(h, 64)
	return err1 == nil && err2 == nil && a == b && len(w) < 16 && len(h) < 16
}

// Glob reports whether a text matches a pattern, in which * stands for any
// text.
func Glob(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	rest, ok := strings.CutPrefix(text, parts[0])
	if !ok {
		return false
	}
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(rest, part)
		if !found {
			return false
		}
		rest = after
	}
	return strings.HasSuffix(rest, parts[len(parts)-1])
}
