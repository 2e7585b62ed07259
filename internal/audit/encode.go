package audit

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The functions in this file write records member by member: their shape is
// fixed, and this is the path of every audited request. What is empty is left
// out, as in Vault.

// record appends one request or response record, with its line end.
func (e *encoder) record(kind string, en *Entry) {
	e.open(kind, en.Time)
	e.text("error", e.sentence(en))
	if asked := en.asked.of(e.fm); asked != nil {
		e.buf = append(e.buf, asked...)
	} else {
		from := len(e.buf)
		if en.Auth != nil {
			e.name("auth")
			e.auth(en.Auth)
		}
		e.name("request")
		e.request(&en.Request)
		en.asked.keep(e.fm, e.buf[from:])
	}
	if en.Response != nil && kind == "response" {
		e.name("response")
		e.response(en.Response, &en.Request)
	}
	e.buf = append(e.buf, '}', '\n')
}

// shortest is the length from which on a value is looked for in a sentence.
// Shorter ones would hash parts of other words, and hide nothing by that.
const shortest = 4

// sentence is the error that the client reads, with the values in it that came
// with the request hashed as they are in the request's data. A password that
// was sent in the wrong field is often repeated by what refuses it.
func (e *encoder) sentence(en *Entry) string {
	if en.Error == "" || en.Request.Data == nil || e.f.Raw {
		return en.Error
	}
	return e.withoutValues(en)
}

func (e *encoder) withoutValues(en *Entry) string {
	s := en.Error
	e.nonHMAC = en.Request.NonHMACKeys
	en.Request.Data(nil, func(field string, isSecret bool, v string) string {
		if len(v) < shortest {
			return ""
		}
		quoted := strconv.Quote(v)
		for _, form := range []string{v, quoted[1 : len(quoted)-1]} {
			if strings.Contains(s, form) {
				s = strings.ReplaceAll(s, form, e.field(field, isSecret, v))
			}
		}
		return ""
	})
	e.nonHMAC = nil
	return s
}

// event appends one event record, with its line end.
func (e *encoder) event(s *Stored) {
	e.open("event", s.Time)
	e.name("event")
	e.begin()
	e.text("id", s.ID)
	e.text("kind", s.Kind)
	e.text("operation", s.Operation)
	e.text("cause", s.Cause)
	e.text("outcome", s.Outcome)
	e.namespace(s.Namespace)
	e.mount(s.Mount)
	e.text("path", s.Path)
	e.hashed("lease_id", s.LeaseID.Reveal())
	e.text("target", s.Target)
	e.hashed("credential", s.Credential.Reveal())
	e.accessor("token_accessor", s.TokenAccessor)
	e.text("error", s.Error)
	e.end()
	e.buf = append(e.buf, '}', '\n')
}

func (e *encoder) open(kind string, at time.Time) {
	e.buf = append(e.buf, e.f.Prefix...)
	e.begin()
	if at.IsZero() {
		at = time.Now()
	}
	e.time("time", at, time.RFC3339Nano)
	e.text("type", kind)
}

func (e *encoder) auth(a *Auth) {
	e.begin()
	e.accessor("accessor", a.Accessor)
	e.hashed("client_token", a.ClientToken.Reveal())
	e.text("display_name", a.DisplayName)
	e.text("entity_id", a.EntityID)
	e.list("identity_policies", a.IdentityPolicies)
	if len(a.Metadata) > 0 {
		e.name("metadata")
		e.begin()
		for _, k := range slices.Sorted(maps.Keys(a.Metadata)) {
			e.anyName(k)
			e.buf = appendString(e.buf, a.Metadata[k])
		}
		e.end()
	}
	e.flag("no_default_policy", a.NoDefaultPolicy)
	e.number("num_uses", int64(a.NumUses))
	e.list("policies", a.Policies)
	if a.Results != nil {
		e.name("policy_results")
		e.results(a.Results)
	}
	e.number("remaining_uses", int64(a.RemainingUses))
	if !a.IssueTime.IsZero() {
		e.time("token_issue_time", a.IssueTime, time.RFC3339)
	}
	e.list("token_policies", a.TokenPolicies)
	e.number("token_ttl", int64(a.TTL/time.Second))
	e.text("token_type", a.TokenType)
	e.end()
}

func (e *encoder) results(r *PolicyResults) {
	e.begin()
	e.name("allowed")
	e.buf = strconv.AppendBool(e.buf, r.Allowed)
	if len(r.Granting) > 0 {
		e.name("granting_policies")
		e.buf = append(e.buf, '[')
		for _, g := range r.Granting {
			e.comma()
			e.begin()
			e.text("name", g.Name)
			e.text("namespace_id", g.Namespace.ID)
			e.text("namespace_path", g.Namespace.Path)
			e.text("type", g.Type)
			e.end()
		}
		e.buf = append(e.buf, ']')
	}
	e.end()
}

func (e *encoder) request(r *Request) {
	e.begin()
	e.text("client_id", r.ClientID)
	e.hashed("client_token", r.ClientToken.Reveal())
	e.accessor("client_token_accessor", r.ClientTokenAccessor)
	e.data(r.Data, r.NonHMACKeys, false)
	if len(r.Headers) > 0 {
		e.name("headers")
		e.headers(r.Headers)
	}
	e.text("id", r.ID)
	e.mount(r.Mount)
	e.namespace(r.Namespace)
	e.text("operation", r.Operation)
	e.path(r.Path, r.SecretFrom)
	if r.Remote.Addr() != (netip.Addr{}) {
		e.name("remote_address")
		e.address(r.Remote.Addr())
		e.number("remote_port", int64(r.Remote.Port()))
	}
	e.number("wrap_ttl", int64(r.WrapTTL/time.Second))
	e.end()
}

func (e *encoder) response(r *Response, req *Request) {
	e.begin()
	if r.Auth != nil {
		e.name("auth")
		e.auth(r.Auth)
	}
	e.data(r.Data, r.NonHMACKeys, e.f.ElideListings && req.Operation == "list")
	e.mount(req.Mount)
	e.text("redirect", r.Redirect)
	if !r.LeaseID.IsZero() {
		e.name("secret")
		e.begin()
		e.hashed("lease_id", r.LeaseID.Reveal())
		e.end()
	}
	e.list("warnings", r.Warnings)
	if w := r.WrapInfo; w != nil {
		e.name("wrap_info")
		e.begin()
		e.accessor("accessor", w.Accessor)
		e.text("creation_path", w.CreationPath)
		if !w.CreationTime.IsZero() {
			e.time("creation_time", w.CreationTime, time.RFC3339Nano)
		}
		e.hashed("token", w.Token.Reveal())
		e.number("ttl", int64(w.TTL/time.Second))
		e.accessor("wrapped_accessor", w.WrappedAccessor)
		e.end()
	}
	e.end()
}

func (e *encoder) mount(m Mount) {
	e.text("mount_accessor", m.Accessor)
	e.text("mount_class", m.Class)
	e.text("mount_point", m.Point)
	e.text("mount_running_version", m.Version)
	e.text("mount_type", m.Type)
}

func (e *encoder) namespace(n Namespace) {
	if n == (Namespace{}) {
		return
	}
	e.name("namespace")
	e.begin()
	e.text("id", n.ID)
	e.text("path", n.Path)
	e.end()
}

func (e *encoder) headers(hs []Header) {
	e.begin()
	for _, h := range hs {
		e.anyName(h.Name)
		e.buf = append(e.buf, '[')
		for _, v := range h.Values {
			e.comma()
			if h.HMAC && !e.f.Raw {
				e.quotedHash(v)
			} else {
				e.buf = appendString(e.buf, v)
			}
		}
		e.buf = append(e.buf, ']')
	}
	e.end()
}

// path writes the request's path, hashed from secretFrom on where that is set.
func (e *encoder) path(p string, secretFrom int) {
	if secretFrom <= 0 || secretFrom >= len(p) || e.f.Raw {
		e.text("path", p)
		return
	}
	e.name("path")
	e.buf = appendString(e.buf, p[:secretFrom])
	e.buf = e.appendHash(e.buf[:len(e.buf)-1], p[secretFrom:])
	e.buf = append(e.buf, '"')
}

// data writes the data member, which is left out where it is empty.
func (e *encoder) data(d Data, nonHMAC []string, elideLists bool) {
	if d == nil {
		return
	}
	before := len(e.buf)
	e.name("data")
	start := len(e.buf)
	e.nonHMAC, e.eliding = nonHMAC, elideLists
	e.buf = d(e.buf, e.hashField)
	e.nonHMAC, e.eliding = nil, false
	if elideLists {
		e.buf = elide(e.buf, start)
	}
	if v := e.buf[start:]; len(v) == 0 || string(v) == "{}" || string(v) == "null" {
		e.buf = e.buf[:before]
	}
}

// address writes an address. A zone may hold any character, as it may come out
// of a forwarding header.
func (e *encoder) address(a netip.Addr) {
	if a.Zone() != "" {
		e.buf = appendString(e.buf, a.String())
		return
	}
	e.buf = append(e.buf, '"')
	e.buf = a.AppendTo(e.buf)
	e.buf = append(e.buf, '"')
}

// comma separates what is written next from what stands before it.
func (e *encoder) comma() {
	switch e.buf[len(e.buf)-1] {
	case '{', '[':
	default:
		e.buf = append(e.buf, ',')
	}
}

func (e *encoder) begin() { e.buf = append(e.buf, '{') }
func (e *encoder) end()   { e.buf = append(e.buf, '}') }

// name begins a member with a name of our own, in which nothing is to escape.
func (e *encoder) name(n string) {
	e.comma()
	e.buf = append(e.buf, '"')
	e.buf = append(e.buf, n...)
	e.buf = append(e.buf, '"', ':')
}

func (e *encoder) anyName(n string) {
	e.comma()
	e.buf = appendString(e.buf, n)
	e.buf = append(e.buf, ':')
}

func (e *encoder) text(name, s string) {
	if s != "" {
		e.name(name)
		e.buf = appendString(e.buf, s)
	}
}

// hashed writes a string that is always hashed, unless the device is raw.
func (e *encoder) hashed(name, s string) {
	switch {
	case s == "":
	case e.f.Raw:
		e.text(name, s)
	default:
		e.name(name)
		e.quotedHash(s)
	}
}

func (e *encoder) quotedHash(s string) {
	e.buf = append(e.buf, '"')
	e.buf = e.appendHash(e.buf, s)
	e.buf = append(e.buf, '"')
}

// accessor writes an accessor, hashed where the format asks for that.
func (e *encoder) accessor(name, s string) {
	if e.f.HMACAccessor {
		e.hashed(name, s)
	} else {
		e.text(name, s)
	}
}

func (e *encoder) list(name string, ss []string) {
	if len(ss) == 0 {
		return
	}
	e.name(name)
	e.buf = append(e.buf, '[')
	for _, s := range ss {
		e.comma()
		e.buf = appendString(e.buf, s)
	}
	e.buf = append(e.buf, ']')
}

func (e *encoder) flag(name string, v bool) {
	if v {
		e.name(name)
		e.buf = append(e.buf, "true"...)
	}
}

func (e *encoder) number(name string, n int64) {
	if n != 0 {
		e.name(name)
		e.buf = appendInt(e.buf, n)
	}
}

func (e *encoder) time(name string, t time.Time, layout string) {
	e.name(name)
	e.buf = append(e.buf, '"')
	e.buf = t.UTC().AppendFormat(e.buf, layout)
	e.buf = append(e.buf, '"')
}

func appendInt(dst []byte, n int64) []byte { return strconv.AppendInt(dst, n, 10) }
