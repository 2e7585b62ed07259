package wiretest

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// The typed placeholders that may stand inside an expected string.
var placeholders = map[string]string{
	"uuid":      `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`,
	"rfc3339":   `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`,
	"time":      `\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[^"]*`,
	"httpdate":  `[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT`,
	"token":     `[A-Za-z0-9][A-Za-z0-9._-]{20,}`,
	"accessor":  `[A-Za-z0-9][A-Za-z0-9._-]{10,}`,
	"rand":      `[A-Za-z0-9._-]+`,
	"word":      `\S+`,
	"b64":       `[A-Za-z0-9+/_-]+={0,2}`,
	"hex":       `[0-9a-fA-F]+`,
	"serial":    `[0-9a-f]{2}([:-][0-9a-f]{2}){3,24}`,
	"digits":    `\d+`,
	"string":    `(?s:.*)`,
	"text":      `(?s:.+)`,
	"version":   `\d+\.\d+\.\d+\S*`,
	"addr":      `[^\s/]+:\d+`,
	"url":       `https?://\S+`,
	"pem-cert":  pemRE("CERTIFICATE"),
	"pem-csr":   pemRE("CERTIFICATE REQUEST"),
	"pem-crl":   pemRE("X509 CRL"),
	"pem-key":   pemRE("((RSA|EC) )?PRIVATE KEY"),
	"pem-pub":   pemRE("(RSA )?PUBLIC KEY"),
	"pem-chain": `(?s:-----BEGIN CERTIFICATE-----.*-----END CERTIFICATE-----\s*)`,
	"jwt":       `[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*`,
}

func pemRE(kind string) string {
	return `-----BEGIN ` + kind + `-----\s[A-Za-z0-9+/=\s]+-----END ` + kind + `-----\s*`
}

var (
	phRE           = regexp.MustCompile(`<([a-z0-9-]+)(~-?\d+)?>`)
	varRE          = regexp.MustCompile(`\{\{(?:(now:)([0-9a-z+-]+)|([a-z0-9]+:)?([A-Za-z0-9_]+))\}\}`)
	serverTemplate = regexp.MustCompile(`^(name|username|password|expiration)\d?$`)
	reCache        = map[string]*regexp.Regexp{}
)

// expand substitutes {{variables}} in every string of a JSON value.
func (r *runner) expand(v any) (any, error) {
	switch t := v.(type) {
	case string:
		if m := varRE.FindStringSubmatch(t); m != nil && m[0] == t && m[1] == "" && m[3] == "" {
			if v, ok := r.vars[m[4]]; ok {
				return v, nil
			}
		}
		return r.expandString(t)
	case []any:
		out := make([]any, len(t))
		for i, e := range t {
			x, err := r.expand(e)
			if err != nil {
				return nil, err
			}
			out[i] = x
		}
		return out, nil
	case map[string]any:
		out := make(map[string]any, len(t))
		for k, e := range t {
			k2, err := r.expandString(k)
			if err != nil {
				return nil, err
			}
			x, err := r.expand(e)
			if err != nil {
				return nil, err
			}
			out[k2] = x
		}
		return out, nil
	}
	return v, nil
}

func (r *runner) expandString(s string) (string, error) {
	var bad error
	out := varRE.ReplaceAllStringFunc(s, func(m string) string {
		g := varRE.FindStringSubmatch(m)
		if g[1] == "now:" {
			d, err := time.ParseDuration(g[2])
			if err != nil {
				bad = err
			}
			return time.Now().UTC().Add(d).Format(time.RFC3339)
		}
		v, ok := r.vars[g[4]]
		if !ok {
			if serverTemplate.MatchString(g[4]) {
				return m // for the server to fill in
			}
			bad = fmt.Errorf("blocked: variable %q was never captured", g[4])
			return m
		}
		str := scalar(v)
		switch g[3] {
		case "b64:":
			return base64.StdEncoding.EncodeToString([]byte(str))
		case "b64d:":
			b, _ := base64.StdEncoding.DecodeString(str)
			return string(b)
		case "url:":
			return url.PathEscape(str)
		case "query:":
			return url.QueryEscape(str)
		case "dash:":
			return strings.ReplaceAll(str, ":", "-")
		case "trim:":
			return strings.TrimSpace(str)
		}
		return str
	})
	return out, bad
}

func scalar(v any) string {
	switch t := v.(type) {
	case string:
		return t
	case json.Number:
		return t.String()
	}
	b, _ := json.Marshal(v)
	return string(b)
}

// lookup follows a dotted path; "#" joins a path component that holds dots.
func lookup(v any, path string) (any, bool) {
	for _, p := range strings.Split(path, ".") {
		p = strings.ReplaceAll(p, "#", ".")
		switch t := v.(type) {
		case map[string]any:
			x, ok := t[p]
			if !ok && p == "*" && len(t) > 0 { // the first key's value, in order
				keys := make([]string, 0, len(t))
				for k := range t {
					keys = append(keys, k)
				}
				sort.Strings(keys)
				x, ok = t[keys[0]], true
			}
			if !ok {
				return nil, false
			}
			v = x
		case []any:
			i, err := strconv.Atoi(p)
			if i < 0 {
				i += len(t)
			}
			if err != nil || i < 0 || i >= len(t) {
				return nil, false
			}
			v = t[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// classify names what kind of body came back and gives it as a JSON value.
func classify(raw []byte, contentType string) (string, any) {
	if len(raw) == 0 {
		return "empty", nil
	}
	trimmed := bytes.TrimSpace(raw)
	if len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') {
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		var v any
		if dec.Decode(&v) == nil {
			return "json", v
		}
	}
	if b, _ := pem.Decode(raw); b != nil {
		return "pem", string(raw)
	}
	if raw[0] == 0x30 {
		b64 := base64.StdEncoding.EncodeToString(raw)
		if _, err := x509.ParseCertificate(raw); err == nil {
			return "der-cert", b64
		}
		if _, err := x509.ParseRevocationList(raw); err == nil {
			return "der-crl", b64
		}
		return "bytes", b64
	}
	for _, c := range raw {
		if c < 9 {
			return "bytes", base64.StdEncoding.EncodeToString(raw)
		}
	}
	return "text", string(raw)
}

func (r *runner) compare(s *Step, a *Answer) []string {
	e := s.Expect
	var d []string
	if e.Status != 0 && e.Status != a.Status {
		msg := fmt.Sprintf("status: want %d, got %d", e.Status, a.Status)
		if m, ok := a.Body.(map[string]any); ok && m["errors"] != nil {
			msg += " " + scalar(m["errors"])
		}
		return append(d, msg)
	}
	if len(e.StatusAny) > 0 && !slices.Contains(e.StatusAny, a.Status) {
		return append(d, fmt.Sprintf("status: want one of %v, got %d", e.StatusAny, a.Status))
	}
	if e.Format != "" && e.Format != a.Format {
		return append(d, fmt.Sprintf("body format: want %s, got %s", e.Format, a.Format))
	}
	m := &matcher{r: r, optional: map[string]bool{}}
	for _, o := range s.Optional {
		m.optional[o] = true
	}
	for k, v := range e.Headers {
		got := a.Headers[k]
		if k == "Content-Type" { // parameters such as charset are not compared
			v, got = strings.Split(v, ";")[0], strings.Split(got, ";")[0]
		}
		m.match("header:"+k, v, got)
	}
	if e.Body != nil || e.Format == "json" {
		m.match("", e.Body, a.Body)
	}
	return append(d, m.diffs...)
}

type matcher struct {
	r        *runner
	optional map[string]bool
	diffs    []string
}

func (m *matcher) fail(path, format string, args ...any) {
	if m.isOptional(path) {
		return
	}
	if path == "" {
		path = "body"
	}
	m.diffs = append(m.diffs, path+": "+fmt.Sprintf(format, args...))
}

// isOptional says whether a path, or one that it lies under, may differ.
// A component "*" in the list stands for any one.
func (m *matcher) isOptional(path string) bool {
	if m.optional[path] {
		return true
	}
	parts := strings.Split(path, ".")
	for o := range m.optional {
		op := strings.Split(o, ".")
		if len(op) > len(parts) {
			continue
		}
		ok := true
		for i := range op {
			if op[i] != "*" && op[i] != parts[i] {
				ok = false
				break
			}
		}
		if ok {
			return true
		}
	}
	return false
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case string:
		return "string"
	case json.Number, float64, int:
		return "number"
	case bool:
		return "bool"
	case []any:
		return "array"
	case map[string]any:
		return "object"
	}
	return "?"
}

func join(p, k string) string {
	if p == "" {
		return k
	}
	return p + "." + k
}

func (m *matcher) match(path string, want, got any) {
	// Texts for people are not compared, only whether there are any.
	if path == "errors" || path == "warnings" || path == "data.error" || path == "data.warnings" {
		if kindOf(want) != kindOf(got) {
			m.fail(path, "want %s, got %s", short(want), short(got))
		} else if w, ok := want.([]any); ok && (len(w) == 0) != (len(got.([]any)) == 0) {
			m.fail(path, "want %s, got %s", short(want), short(got))
		}
		return
	}
	switch w := want.(type) {
	case string:
		m.matchString(path, w, got)
	case map[string]any:
		if len(w) == 1 {
			for k, v := range w {
				if list, ok := v.([]any); ok && (k == "<unordered>" || k == "<subset>") {
					m.matchSet(path, k, list, got)
					return
				}
				if k == "<each>" {
					m.matchEach(path, v, got)
					return
				}
			}
		}
		g, ok := got.(map[string]any)
		if !ok {
			m.fail(path, "want an object, got %s", short(got))
			return
		}
		known := map[string]bool{}
		for k, v := range w {
			key := k
			if x, err := m.r.expandString(k); err == nil {
				key = x
			}
			if strings.Contains(key, "<") { // a key with a placeholder: one of the others must match it
				re := compile(key)
				found := false
				for gk := range g {
					if !known[gk] && re.MatchString(gk) {
						known[gk], found = true, true
						m.match(join(path, k), v, g[gk])
						break
					}
				}
				if !found {
					m.fail(join(path, k), "no key of that form")
				}
				continue
			}
			known[key] = true
			gv, ok := g[key]
			if !ok {
				m.fail(join(path, key), "missing")
				continue
			}
			m.match(join(path, key), v, gv)
		}
	case []any:
		g, ok := got.([]any)
		if !ok {
			m.fail(path, "want an array, got %s", short(got))
			return
		}
		if len(g) != len(w) {
			m.fail(path, "want %d elements %s, got %d %s", len(w), short(w), len(g), short(g))
			return
		}
		for i := range w {
			m.match(join(path, strconv.Itoa(i)), w[i], g[i])
		}
	default:
		if kindOf(want) != kindOf(got) {
			m.fail(path, "want %s, got %s", short(want), short(got))
			return
		}
		if !sameScalar(want, got) {
			m.fail(path, "want %s, got %s", short(want), short(got))
		}
	}
}

func sameScalar(a, b any) bool {
	an, ok1 := a.(json.Number)
	bn, ok2 := b.(json.Number)
	if ok1 && ok2 {
		if an == bn {
			return true
		}
		x, e1 := an.Float64()
		y, e2 := bn.Float64()
		return e1 == nil && e2 == nil && x == y
	}
	return a == b
}

// matchSet compares without regard to order; a subset may have others beside.
func (m *matcher) matchSet(path, kind string, want []any, got any) {
	g, ok := got.([]any)
	if !ok {
		m.fail(path, "want an array, got %s", short(got))
		return
	}
	if kind == "<unordered>" && len(g) != len(want) {
		m.fail(path, "want %d elements %s, got %d %s", len(want), short(want), len(g), short(g))
		return
	}
	used := make([]bool, len(g))
	for _, w := range want {
		found := false
		for i := range g {
			if used[i] {
				continue
			}
			sub := &matcher{r: m.r, optional: map[string]bool{}}
			sub.match("", w, g[i])
			if len(sub.diffs) == 0 {
				used[i], found = true, true
				break
			}
		}
		if !found {
			m.fail(path, "no element %s in %s", short(w), short(g))
		}
	}
}

// matchEach wants every value of a non-empty object or array to be of one form.
func (m *matcher) matchEach(path string, want, got any) {
	switch g := got.(type) {
	case map[string]any:
		if len(g) == 0 {
			m.fail(path, "want a non-empty object")
		}
		for k, v := range g {
			m.match(join(path, k), want, v)
		}
	case []any:
		if len(g) == 0 {
			m.fail(path, "want a non-empty array")
		}
		for i, v := range g {
			m.match(join(path, strconv.Itoa(i)), want, v)
		}
	default:
		m.fail(path, "want an object or array, got %s", short(got))
	}
}

func (m *matcher) matchString(path, want string, got any) {
	if g := phRE.FindStringSubmatch(want); g != nil && g[0] == want {
		switch g[1] {
		case "any":
			return
		case "bool":
			if kindOf(got) != "bool" {
				m.fail(path, "want a bool, got %s", short(got))
			}
			return
		case "object", "array", "null":
			if kindOf(got) != g[1] {
				m.fail(path, "want %s, got %s", g[1], short(got))
			}
			return
		case "int", "number", "unixtime":
			n, ok := got.(json.Number)
			if !ok {
				m.fail(path, "want a number, got %s", short(got))
				return
			}
			f, _ := n.Float64()
			if g[1] != "number" && f != math.Trunc(f) {
				m.fail(path, "want an integer, got %s", short(got))
			}
			if g[2] != "" {
				w, _ := strconv.ParseFloat(g[2][1:], 64)
				if tol := math.Max(5, math.Abs(w)*0.002); math.Abs(f-w) > tol {
					m.fail(path, "want about %v, got %s", w, short(got))
				}
			}
			if g[1] == "unixtime" && math.Abs(f-float64(time.Now().Unix())) > 20*365*86400 {
				m.fail(path, "want a Unix time, got %s", short(got))
			}
			return
		}
	}
	if v, err := m.r.expand(want); err == nil {
		if _, isString := v.(string); !isString {
			m.match(path, v, got)
			return
		}
		want = v.(string)
	} else {
		m.fail(path, "%v", err)
		return
	}
	g, ok := got.(string)
	if !ok {
		m.fail(path, "want a string %s, got %s", short(want), short(got))
		return
	}
	if g == want {
		return
	}
	if phRE.MatchString(want) && compile(want).MatchString(g) {
		return
	}
	m.fail(path, "want %s, got %s", short(want), short(got))
}

func compile(s string) *regexp.Regexp {
	if re, ok := reCache[s]; ok {
		return re
	}
	var b strings.Builder
	b.WriteString("^(?:")
	last := 0
	for _, loc := range phRE.FindAllStringSubmatchIndex(s, -1) {
		name := s[loc[2]:loc[3]]
		pat, ok := placeholders[name]
		if !ok {
			continue
		}
		b.WriteString(regexp.QuoteMeta(s[last:loc[0]]))
		b.WriteString("(?:" + pat + ")")
		last = loc[1]
	}
	b.WriteString(regexp.QuoteMeta(s[last:]))
	b.WriteString(")$")
	re := regexp.MustCompile(b.String())
	reCache[s] = re
	return re
}

func short(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	s := string(b)
	if len(s) > 160 {
		s = s[:157] + "..."
	}
	return s
}
