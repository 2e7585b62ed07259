package wire

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// TTL is a duration as Vault's clients write it: 3600, "3600", "1h", "7d". It
// refuses negative ones and answers, and is stored as, whole seconds.
type TTL time.Duration

// Duration is the TTL as Go's type.
func (t TTL) Duration() time.Duration { return time.Duration(t) }

// String is for messages: "1h0m0s".
func (t TTL) String() string { return time.Duration(t).String() }

// CSV is a list that may come as one text with commas: "a,b" or ["a","b"].
// Elements are trimmed.
type CSV []string

// Strings is a list that may come as one text, which is then its only element:
// SQL has commas of its own.
type Strings []string

// Text is a text that is looked at while the request is answered and not kept:
// one that came in the body without escapes is that part of the body, and was
// not copied. A number or boolean is taken as it was written.
type Text []byte

// KV is a map of texts that may come as an object, or as one or a list of "k=v".
type KV map[string]string

// Opt knows a field that was not sent from one that was sent empty, for
// updates that leave alone what they do not name. JSON null is a field that
// was sent with the zero value. One that is not set is left out of answers and
// rows.
type Opt[T any] struct {
	Value T
	Set   bool
}

// Some is an Opt that was sent.
func Some[T any](v T) Opt[T] { return Opt[T]{Value: v, Set: true} }

// Get returns the value and whether it was sent.
func (o Opt[T]) Get() (T, bool) { return o.Value, o.Set }

// Or returns the value, or def if none was sent.
func (o Opt[T]) Or(def T) T {
	if o.Set {
		return o.Value
	}
	return def
}

// Apply stores the value in *p if one was sent.
func (o Opt[T]) Apply(p *T) {
	if o.Set {
		*p = o.Value
	}
}

func (o Opt[T]) isOpt() {}

// Time is a moment that answers in UTC, with nanoseconds; the zero Time
// answers "", as KV's deletion_time does. A plain time.Time answers null then.
type Time struct{ time.Time }

const maxSeconds = math.MaxInt64 / int64(time.Second)

var errNegative = errors.New("must not be negative")

// ParseTTL reads a duration: "" is zero, a plain number counts seconds, and to
// Go's units come days ("7d", "1d12h").
func ParseTTL(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return 0, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return seconds(n)
	}
	var days time.Duration
	rest := s
	if head, tail, ok := strings.Cut(s, "d"); ok {
		n, err := strconv.ParseInt(head, 10, 64)
		if err != nil || n > maxSeconds/86400 {
			return 0, fmt.Errorf("%q is not a duration; write seconds or a text like \"1h30m\" or \"7d\"", s)
		}
		days, rest = time.Duration(n)*24*time.Hour, tail
	}
	var d time.Duration
	if rest != "" {
		var err error
		if d, err = time.ParseDuration(rest); err != nil {
			return 0, fmt.Errorf("%q is not a duration; write seconds or a text like \"1h30m\" or \"7d\"", s)
		}
	}
	if days < 0 || d < 0 {
		return 0, errNegative
	}
	if d > math.MaxInt64-days {
		return 0, fmt.Errorf("%q is too long", s)
	}
	return days + d, nil
}

func seconds(n int64) (time.Duration, error) {
	switch {
	case n < 0:
		return 0, errNegative
	case n > maxSeconds:
		return 0, fmt.Errorf("%d seconds are too long", n)
	}
	return time.Duration(n) * time.Second, nil
}

func splitCSV(s string) []string {
	if s = strings.TrimSpace(s); s == "" {
		return []string{}
	}
	out := strings.Split(s, ",")
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return out
}

// whole reads a JSON number that stands for an integer; 3.0 and 1e3 do.
func whole(v Value) (int64, error) {
	if n, err := strconv.ParseInt(string(v), 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(string(v), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, fmt.Errorf("%s is not a whole number", clip(string(v)))
	}
	return int64(f), nil
}

// clip keeps what a client sent from filling an error message.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
