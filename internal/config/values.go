package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// The functions in this file make fields of the common types. Like Vault's
// they take numbers and booleans as strings too, and durations as seconds.

// scalar reads a string, number or boolean as its text.
func scalar(d *decoder, m member) (string, bool) {
	if len(m.labels) > 0 {
		d.fail(m.pos, "%s is not a block: write %s = ...", m.name, m.name)
		return "", false
	}
	switch m.value.kind {
	case text, number, boolean:
		return m.value.text, true
	}
	d.fail(m.value.pos, "%s must be a single value, not %s", m.name, m.value.kind)
	return "", false
}

func str[T any](at func(*T) *string) field[T] {
	return func(d *decoder, m member, to *T) {
		if s, ok := scalar(d, m); ok {
			*at(to) = s
		}
	}
}

// oneOf reads a string that must be among values, in any case.
func oneOf[T any](at func(*T) *string, values ...string) field[T] {
	return func(d *decoder, m member, to *T) {
		s, ok := scalar(d, m)
		if !ok || s == "" {
			return
		}
		for _, v := range values {
			if strings.EqualFold(s, v) {
				*at(to) = v
				return
			}
		}
		d.fail(m.value.pos, "%s must be one of %s, not %q", m.name, strings.Join(values, ", "), s)
	}
}

func flag[T any](at func(*T) *bool) field[T] {
	return func(d *decoder, m member, to *T) {
		if v, ok := d.boolean(m); ok {
			*at(to) = v
		}
	}
}

// not reads a boolean whose field means the opposite, because its default in
// the file is true.
func not[T any](at func(*T) *bool) field[T] {
	return func(d *decoder, m member, to *T) {
		if v, ok := d.boolean(m); ok {
			*at(to) = !v
		}
	}
}

func (d *decoder) boolean(m member) (v, ok bool) {
	s, ok := scalar(d, m)
	if !ok {
		return false, false
	}
	v, err := strconv.ParseBool(s)
	if err != nil {
		d.fail(m.value.pos, "%s must be true or false, not %q", m.name, s)
		return false, false
	}
	return v, true
}

// integer reads a number between low and high.
func integer[T any](at func(*T) *int, low, high int) field[T] {
	return func(d *decoder, m member, to *T) {
		s, ok := scalar(d, m)
		if !ok {
			return
		}
		n, err := strconv.Atoi(strings.TrimSpace(s))
		if err != nil || n < low || n > high {
			d.fail(m.value.pos, "%s must be a number from %d to %d, not %q", m.name, low, high, s)
			return
		}
		*at(to) = n
	}
}

// duration reads a length of time that is not negative.
func duration[T any](at func(*T) *time.Duration) field[T] {
	return func(d *decoder, m member, to *T) {
		s, ok := scalar(d, m)
		if !ok {
			return
		}
		v, err := parseDuration(s)
		if err == nil && v < 0 {
			err = fmt.Errorf("%q is negative", s)
		}
		if err != nil {
			d.fail(m.value.pos, "%s must be a time such as 90s, 12h or 30d: %v", m.name, err)
			return
		}
		*at(to) = v
	}
}

// orNone reads a duration of which a 0 that was written means none, unlike one
// that was not; it is told as a negative one.
func orNone[T any](at func(*T) *time.Duration) field[T] {
	return func(d *decoder, m member, to *T) {
		duration(at)(d, m, to)
		if *at(to) == 0 {
			*at(to) = -1
		}
	}
}

// limit reads a duration that in Vault can be 0 or less to mean no limit. Here
// the default stays.
func limit[T any](at func(*T) *time.Duration, otherwise string) field[T] {
	return func(d *decoder, m member, to *T) {
		s, ok := scalar(d, m)
		if !ok {
			return
		}
		v, err := parseDuration(s)
		switch {
		case err != nil:
			d.fail(m.value.pos, "%s must be a time such as 90s: %v", m.name, err)
		case v <= 0:
			d.warn(m.pos, "%s = %s does not turn the limit off: it stays at %s", m.name, s, otherwise)
		default:
			*at(to) = v
		}
	}
}

// parseDuration reads 90, "90", "1h30m" or "7d"; a bare number is seconds.
func parseDuration(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return 0, nil
	}
	unit := time.Second
	digits := s
	if days, ok := strings.CutSuffix(s, "d"); ok {
		unit, digits = 24*time.Hour, days
	}
	if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
		if n > int64(math.MaxInt64/unit) || n < -int64(math.MaxInt64/unit) {
			return 0, fmt.Errorf("%q is too long", s)
		}
		return time.Duration(n) * unit, nil
	}
	v, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is none", s)
	}
	return v, nil
}

// size reads a number of bytes, or one with a unit: "64MiB", "1gb".
func size[T any](at func(*T) *int64) field[T] {
	return func(d *decoder, m member, to *T) {
		s, ok := scalar(d, m)
		if !ok {
			return
		}
		n, err := parseSize(s)
		if err != nil || n < 0 {
			d.fail(m.value.pos, "%s must be a number of bytes such as 67108864 or 64MiB, not %q", m.name, s)
			return
		}
		*at(to) = n
	}
}

func parseSize(s string) (int64, error) {
	s = strings.ToLower(strings.TrimSpace(s))
	unit := int64(1)
	for _, u := range []struct {
		suffix string
		bytes  int64
	}{{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}} {
		if n, ok := strings.CutSuffix(s, u.suffix); ok {
			s, unit = strings.TrimSpace(n), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err == nil && (n > math.MaxInt64/unit || n < -math.MaxInt64/unit) {
		err = strconv.ErrRange
	}
	return n * unit, err
}

// words reads a list of strings, which may also be one string with commas.
func (d *decoder) words(m member) (all []string, ok bool) {
	switch m.value.kind {
	case list:
		for _, v := range m.value.list {
			if v.kind != text && v.kind != number {
				d.fail(v.pos, "%s must be a list of strings, not of %s", m.name, v.kind)
				return nil, false
			}
			all = append(all, strings.TrimSpace(v.text))
		}
		return all, true
	case text:
		for w := range strings.SplitSeq(m.value.text, ",") {
			if w = strings.TrimSpace(w); w != "" {
				all = append(all, w)
			}
		}
		return all, true
	}
	d.fail(m.value.pos, "%s must be a list of strings, not %s", m.name, m.value.kind)
	return nil, false
}
