package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/leasehold/leasehold/api"
)

type format uint8

const (
	formatTable format = iota // for people
	formatJSON
	formatYAML
	formatRaw // the server's bytes
)

// print writes v for programs, or calls people for tables.
func (c *call) print(v any, people func()) error {
	if c.format == formatTable {
		people()
		return nil
	}
	b, err := marshal(v)
	if err != nil {
		return err
	}
	switch c.format {
	case formatYAML:
		val, err := parseValue(b)
		if err != nil {
			return err
		}
		c.printf("%s", appendYAML(nil, val, 0))
	case formatRaw:
		c.printf("%s\n", b)
	default:
		var out bytes.Buffer
		if err := json.Indent(&out, b, "", "  "); err != nil {
			return fmt.Errorf("indenting: %w", err)
		}
		c.printf("%s\n", out.Bytes())
	}
	return nil
}

// printTable writes a table with heads; v is what programs get.
func (c *call) printTable(t *table, v any) error {
	return c.print(v, func() { t.write(c.cfg.Stdout, true) })
}

// printSecret writes a whole reply, or one field of it.
func (c *call) printSecret(s *api.Secret, fieldName string) error {
	data, err := parseValue(s.Data)
	if err != nil {
		return err
	}
	if fieldName != "" {
		return c.printField(s, data, fieldName)
	}
	sorted := *s
	if sorted.Data, err = data.MarshalJSON(); err != nil {
		return err
	}
	return c.print(&sorted, func() { secretTable(s, data).write(c.cfg.Stdout, true) })
}

// secretTable is the Key/Value table of a reply.
func secretTable(s *api.Secret, data value) *table {
	t := newTable("Key", "Value")
	switch {
	case s.LeaseDuration > 0 && s.LeaseID != "":
		t.row("lease_id", s.LeaseID)
		t.row("lease_duration", shortSeconds(s.LeaseDuration))
		t.row("lease_renewable", s.Renewable)
	case s.LeaseDuration > 0:
		// A version 1 secret has no lease; the duration says how often to look again.
		t.row("refresh_interval", shortSeconds(s.LeaseDuration))
	}
	if r := mfaOf(s.Auth); r != nil {
		r.addTo(t)
	} else if a := s.Auth; a != nil {
		t.row("token", a.ClientToken)
		t.row("token_accessor", a.Accessor)
		t.row("token_duration", tokenDuration(a))
		t.row("token_renewable", a.Renewable)
		t.row("token_policies", fmt.Sprintf("%q", a.TokenPolicies))
		t.row("identity_policies", fmt.Sprintf("%q", a.IdentityPolicies))
		t.row("policies", fmt.Sprintf("%q", a.Policies))
		for _, k := range sortedKeys(a.Metadata) {
			t.row("token_meta_"+k, a.Metadata[k])
		}
	}
	if w := s.WrapInfo; w != nil {
		t.row("wrapping_token:", w.Token)
		t.row("wrapping_accessor:", w.Accessor)
		t.row("wrapping_token_ttl:", shortSeconds(w.TTL))
		t.row("wrapping_token_creation_time:", w.CreationTime)
		t.row("wrapping_token_creation_path:", w.CreationPath)
		if w.WrappedAccessor != "" {
			t.row("wrapped_accessor:", w.WrappedAccessor)
		}
	}
	addFields(t, data)
	return t
}

func tokenDuration(a *api.Auth) string {
	if a.LeaseDuration == 0 {
		return "∞"
	}
	return shortSeconds(a.LeaseDuration)
}

// addFields adds the fields of an object; times to live read as durations.
func addFields(t *table, data value) {
	for _, f := range data.fields {
		t.add(f.name, tableText(f.name, f.value))
	}
}

func tableText(name string, v value) string {
	if v.kind == kindNumber && isDuration(name) {
		if n, err := strconv.ParseInt(v.text, 10, 64); err == nil {
			return shortDuration(time.Duration(n) * time.Second)
		}
	}
	return v.String()
}

func isDuration(name string) bool {
	switch name {
	case "ttl", "period", "duration", "lease_max", "ttl_max":
		return true
	}
	return strings.HasSuffix(name, "_ttl") || strings.HasSuffix(name, "_period") || strings.HasSuffix(name, "_duration")
}

// printField writes one field bare: what scripts put into variables. A newline
// follows only on a terminal, as Vault does.
func (c *call) printField(s *api.Secret, data value, name string) error {
	v, ok := envelopeField(s, name)
	if !ok {
		v, ok = data.get(name)
	}
	if !ok && name == "data" {
		v, ok = data, data.kind != kindNull
	}
	if !ok {
		return localf("Field %q not present in secret", name)
	}
	return c.printBare(name, v)
}

func (c *call) printBare(name string, v value) error {
	if c.format == formatJSON || c.format == formatYAML {
		return c.print(v, nil)
	}
	text := v.text
	switch v.kind {
	case kindNull:
		text = "<nil>"
	case kindList, kindObject:
		text = v.String()
	case kindNumber:
		text = tableText(name, v)
	}
	c.printf("%s", text)
	if c.terminal() {
		c.printf("\n")
	}
	return nil
}

// envelopeField finds what the tables show of a reply beside its data.
func envelopeField(s *api.Secret, name string) (value, bool) {
	text := func(v any) (value, bool) { return value{kind: kindString, text: fmt.Sprint(v)}, true }
	list := func(l []string) (value, bool) {
		v := value{kind: kindList}
		for _, p := range l {
			v.items = append(v.items, value{kind: kindString, text: p})
		}
		return v, true
	}
	if r := mfaOf(s.Auth); r != nil && name == "mfa_request_id" {
		return text(r.ID)
	}
	if a := s.Auth; a != nil {
		switch name {
		case "token":
			return text(a.ClientToken)
		case "token_accessor":
			return text(a.Accessor)
		case "token_duration":
			return text(a.LeaseDuration)
		case "token_renewable":
			return text(a.Renewable)
		case "token_policies":
			return list(a.TokenPolicies)
		case "identity_policies":
			return list(a.IdentityPolicies)
		case "policies":
			return list(a.Policies)
		}
		if k, ok := strings.CutPrefix(name, "token_meta_"); ok {
			v, ok := a.Metadata[k]
			return value{kind: kindString, text: v}, ok
		}
	}
	if w := s.WrapInfo; w != nil {
		switch name {
		case "wrapping_token":
			return text(w.Token)
		case "wrapping_accessor":
			return text(w.Accessor)
		case "wrapping_token_ttl":
			return text(w.TTL)
		case "wrapping_token_creation_time":
			return text(w.CreationTime.Format(time.RFC3339Nano))
		case "wrapping_token_creation_path":
			return text(w.CreationPath)
		case "wrapped_accessor":
			return text(w.WrappedAccessor)
		}
	}
	switch name {
	case "lease_id":
		return text(s.LeaseID)
	case "lease_duration", "refresh_interval":
		if s.LeaseDuration > 0 {
			return text(s.LeaseDuration)
		}
	case "lease_renewable":
		return text(s.Renewable)
	}
	return value{}, false
}
