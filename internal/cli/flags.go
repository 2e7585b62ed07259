package cli

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v3"
)

// flag is one flag of a command. It is written -name, --name, with "=value"
// or the value as the next argument, before or after the arguments.
type flag struct {
	names []string // the first is the one that help shows
	arg   string   // what the value is, for help; "" for a switch
	usage string
	set   func(string) error
	bool  bool
	shy   bool // accepted but not shown in help
}

func (f *flag) alias(names ...string) *flag { f.names = append(f.names, names...); return f }

// hide keeps a flag that only exists for Vault's scripts out of the help.
func (f *flag) hide() *flag { f.shy = true; return f }

// parser is the flag in the form that the parsing library takes.
func (f *flag) parser() ucli.Flag {
	return &ucli.GenericFlag{Name: f.names[0], Aliases: f.names[1:], Value: flagValue{f}, Local: true}
}

type flagValue struct{ f *flag }

func (v flagValue) Set(s string) error { return v.f.set(s) }
func (v flagValue) String() string     { return "" }
func (v flagValue) Get() any           { return nil }
func (v flagValue) IsBoolFlag() bool   { return v.f != nil && v.f.bool }

func stringFlag(to *string, name, arg, usage string) *flag {
	return &flag{names: []string{name}, arg: arg, usage: usage, set: func(s string) error { *to = s; return nil }}
}

func boolFlag(to *bool, name, usage string) *flag {
	return &flag{names: []string{name}, usage: usage, bool: true, set: func(s string) error {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("want true or false")
		}
		*to = b
		return nil
	}}
}

// optBoolFlag knows "not given" (nil) from false.
func optBoolFlag(to **bool, name, usage string) *flag {
	f := boolFlag(new(bool), name, usage)
	f.set = func(s string) error {
		b, err := strconv.ParseBool(s)
		if err != nil {
			return errors.New("want true or false")
		}
		*to = &b
		return nil
	}
	return f
}

// optStringFlag knows "not given" (nil) from empty.
func optStringFlag(to **string, name, arg, usage string) *flag {
	return &flag{names: []string{name}, arg: arg, usage: usage, set: func(s string) error { *to = &s; return nil }}
}

// optIntFlag leaves nil when not given.
func optIntFlag(to **int, name, usage string) *flag {
	return &flag{names: []string{name}, arg: "N", usage: usage, set: func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil {
			return errors.New("want a number")
		}
		*to = &n
		return nil
	}}
}

// listFlag may be given several times.
func listFlag(to *[]string, name, arg, usage string) *flag {
	return &flag{names: []string{name}, arg: arg, usage: usage, set: func(s string) error {
		*to = append(*to, s)
		return nil
	}}
}

// pairsFlag takes key=value and may be given several times.
func pairsFlag(to *map[string]string, name, usage string) *flag {
	return &flag{names: []string{name}, arg: "KEY=VALUE", usage: usage, set: func(s string) error {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return errors.New("want key=value")
		}
		if *to == nil {
			*to = map[string]string{}
		}
		(*to)[k] = v
		return nil
	}}
}

// durationFlag takes 90, 90s, 1h30m or 7d, and hands on what the server
// understands: a Go duration. "" means not given.
func durationFlag(to *string, name, usage string) *flag {
	return &flag{names: []string{name}, arg: "DURATION", usage: usage, set: func(s string) error {
		d, err := parseDuration(s)
		if err != nil {
			return err
		}
		*to = d.String()
		return nil
	}}
}

// ttlFlag is durationFlag for the TTLs of a mount, where "system" (or 0, or
// -1) goes back to the server's own.
func ttlFlag(to *string, name, usage string) *flag {
	f := durationFlag(to, name, usage)
	inner := f.set
	f.set = func(s string) error {
		if s == "system" || s == "0" || s == "0s" || s == "-1" {
			*to = "system"
			return nil
		}
		return inner(s)
	}
	return f
}

var errNoDuration = errors.New("want a duration such as 90s, 1h30m or 7d")

func parseDuration(s string) (time.Duration, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n < 0 || n > math.MaxInt64/int64(time.Second) {
			return 0, errNoDuration
		}
		return time.Duration(n) * time.Second, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseInt(days, 10, 32)
		if err != nil || n < 0 || n > 100_000 {
			return 0, errNoDuration
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, errNoDuration
	}
	return d, nil
}
