// Package username makes the names of the users that a database engine
// creates, from a template with the functions that Vault's have.
//
// The random part is what keeps two users apart for good, so it is the last
// thing to go when a name is too long: the readable parts are shortened until
// all of it is there.
package username

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"text/template"
	"text/template/parse"
	"time"
)

// Default is the template used where a connection has none of its own.
const Default = `{{ printf "v-%s-%s-%s-%s" (.DisplayName | truncate 8) (.RoleName | truncate 8) (random 20) (unix_time) | truncate 63 }}`

// WantedBits is the randomness below which a name is not safe from clashing.
const WantedBits = 80

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// Template is a compiled template. It is safe for concurrent use.
type Template struct {
	text *template.Template
	max  int
	// makers are those not in use. A template's functions are bound to one
	// maker, and binding costs more than making a name.
	makers sync.Pool
}

// Input is what a name is made of.
type Input struct {
	DisplayName string // of the token that asks
	RoleName    string
	// Random gives n bytes: the same for every call with the same n, and
	// nothing can be told from them about where they came from.
	Random func(n int) []byte
	Now    time.Time
}

// Compile reads a template; names are at most max bytes long. Loops and
// templates within templates are refused: a name needs neither, and they could
// run for ever.
func Compile(text string, max int) (*Template, error) {
	if len(text) > 4096 {
		return nil, errors.New("a username_template is limited to 4096 bytes")
	}
	t := &Template{max: max}
	// The functions that draw are bound anew for each name.
	tree, err := template.New("username_template").Option("missingkey=error").Funcs((&maker{}).funcs()).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("username_template: %w", err)
	}
	if len(tree.Templates()) > 1 {
		return nil, errors.New("username_template: templates within templates are not allowed")
	}
	if tree.Tree == nil || parse.IsEmptyTree(tree.Root) {
		return nil, errors.New("username_template is empty")
	}
	if err := check(tree.Root); err != nil {
		return nil, err
	}
	t.text = tree
	return t, nil
}

func check(n parse.Node) error {
	switch n := n.(type) {
	case nil:
	case *parse.ListNode:
		if n == nil {
			return nil
		}
		for _, c := range n.Nodes {
			if err := check(c); err != nil {
				return err
			}
		}
	case *parse.IfNode:
		return errors.Join(check(n.List), check(n.ElseList))
	case *parse.WithNode:
		return errors.Join(check(n.List), check(n.ElseList))
	case *parse.RangeNode:
		return errors.New("username_template: range is not allowed")
	case *parse.TemplateNode:
		return errors.New("username_template: templates within templates are not allowed")
	}
	return nil
}

// Make gives the name. It fails when the template does, gives nothing, or has
// no room for its own random part.
func (t *Template) Make(in Input) (string, error) {
	name, _, err := t.make(in)
	return name, err
}

// make also gives the random bits in the name.
func (t *Template) make(in Input) (string, float64, error) {
	in.DisplayName, in.RoleName = clean(in.DisplayName), clean(in.RoleName)
	m, err := t.maker()
	if err != nil {
		return "", 0, err
	}
	defer t.makers.Put(m)
	for {
		m.in, m.used, m.drawn = in, 0, m.drawn[:0]
		name, err := m.run()
		if errors.Is(err, errTooLong) && max(len(in.DisplayName), len(in.RoleName)) > t.max {
			// No more of them than that can be in the name.
			in.DisplayName, in.RoleName = head(in.DisplayName, t.max), head(in.RoleName, t.max)
			continue
		}
		if err != nil {
			return "", 0, err
		}
		kept, bits := m.kept(name)
		if len(name) <= t.max && kept {
			if name == "" {
				return "", 0, errors.New("username_template gives an empty name")
			}
			return name, bits, nil
		}
		// Shorten the longer of the readable parts and try again.
		switch {
		case len(in.DisplayName)+len(in.RoleName) == 0:
			if len(name) > t.max {
				return "", 0, fmt.Errorf("username_template gives %d bytes, of which at most %d can be used, even without the readable parts", len(name), t.max)
			}
			return name, bits, nil // the template itself cuts its random part; Bits tells
		case len(in.DisplayName) > len(in.RoleName):
			in.DisplayName = chop(in.DisplayName)
		default:
			in.RoleName = chop(in.RoleName)
		}
	}
}

// clean drops what has no place in a user name: control characters, and dashes
// at the ends or in a row, which SQL would read as a comment outside quotes.
func clean(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == '�' || r == '-' && strings.HasSuffix(b.String(), "-") {
			continue
		}
		b.WriteRune(r)
	}
	return strings.Trim(b.String(), "-")
}

// head is the first n bytes of s, or less to keep a character whole.
func head(s string, n int) string { return strings.ToValidUTF8(s[:min(len(s), n)], "") }

func chop(s string) string {
	r := []rune(s)
	return string(r[:len(r)-1])
}

// Bits is how many random bits the names of the template carry, as far as that
// can be told by making one.
func (t *Template) Bits() (float64, error) {
	_, bits, err := t.make(Input{
		DisplayName: "token-display", RoleName: "some-role", Now: time.Unix(1e9, 0),
		Random: func(n int) []byte { return bytes.Repeat([]byte{7, 91, 33}, n/3+1)[:n] },
	})
	return bits, err
}

// maker makes one name at a time and remembers what was drawn for it.
type maker struct {
	text  *template.Template // its functions are this maker's
	in    Input
	used  int // bytes of the random stream
	drawn []string
}

func (t *Template) maker() (*maker, error) {
	if m, ok := t.makers.Get().(*maker); ok {
		return m, nil
	}
	text, err := t.text.Clone()
	if err != nil {
		return nil, err
	}
	m := &maker{}
	m.text = text.Funcs(m.funcs())
	return m, nil
}

func (m *maker) run() (string, error) {
	var out limited
	data := struct{ DisplayName, RoleName string }{m.in.DisplayName, m.in.RoleName}
	if err := m.text.Execute(&out, data); err != nil {
		return "", fmt.Errorf("username_template: %w", err)
	}
	return out.String(), nil
}

var errTooLong = errors.New("the name is longer than 1024 bytes")

// limited is a buffer that refuses to grow without bound.
type limited struct{ bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if l.Len()+len(p) > 1024 {
		return 0, errTooLong
	}
	return l.Buffer.Write(p)
}

// kept reports whether everything drawn is in the name, in either case of
// letters, and how many bits that is.
func (m *maker) kept(name string) (bool, float64) {
	all, bits := true, 0.0
	for _, d := range m.drawn {
		switch {
		case strings.Contains(name, d):
			bits += float64(len(d)) * math.Log2(62)
		case strings.Contains(name, strings.ToLower(d)), strings.Contains(name, strings.ToUpper(d)):
			bits += float64(len(d)) * math.Log2(36)
		default:
			all = false
		}
	}
	return all, bits
}

func (m *maker) funcs() template.FuncMap {
	return template.FuncMap{
		"random":           m.random,
		"uuid":             m.uuid,
		"unix_time":        func() string { return strconv.FormatInt(m.in.Now.Unix(), 10) },
		"unix_time_millis": func() string { return strconv.FormatInt(m.in.Now.UnixMilli(), 10) },
		"timestamp":        func(layout string) (string, error) { return short(m.in.Now.UTC().Format(layout)) },
		"truncate":         truncate,
		"truncate_sha256":  truncateSHA256,
		"uppercase":        func(s string) (string, error) { return short(strings.ToUpper(s)) },
		"lowercase":        func(s string) (string, error) { return short(strings.ToLower(s)) },
		"replace":          replace,
		"sha256":           sha256Hex,
		"base64":           func(s string) (string, error) { return short(base64.StdEncoding.EncodeToString([]byte(s))) },

		// In place of the language's own, which give any length.
		"print":    bounded(fmt.Sprint),
		"println":  bounded(fmt.Sprintln),
		"html":     bounded(template.HTMLEscaper),
		"js":       bounded(template.JSEscaper),
		"urlquery": bounded(template.URLQueryEscaper),
		"printf":   printf,
	}
}

// longest is the text that a function takes or gives. Each makes it a little
// longer, and a template has room for hundreds of them, one after another: the
// last would take all memory there is.
const longest = 16 << 10

var errLong = fmt.Errorf("a text grows beyond %d bytes", longest)

func short(s string) (string, error) {
	if len(s) > longest {
		return "", errLong
	}
	return s, nil
}

// size is the length of what is to be printed.
func size(args []any) (n int) {
	for _, a := range args {
		if s, ok := a.(string); ok {
			n += len(s)
		} else {
			n += len(fmt.Sprint(a))
		}
	}
	return n
}

func bounded(fn func(...any) string) func(...any) (string, error) {
	return func(args ...any) (string, error) {
		if size(args) > longest {
			return "", errLong
		}
		return short(fn(args...))
	}
}

func replace(find, with, s string) (string, error) {
	if len(s) > longest || len(s)+strings.Count(s, find)*(len(with)-len(find)) > longest {
		return "", errLong
	}
	return strings.ReplaceAll(s, find, with), nil
}

// printf also refuses widths that no name has room for, before they are printed.
func printf(format string, args ...any) (string, error) {
	if len(format)+size(args) > longest || strings.Count(format, "%")*(1000+size(args)) > 64*longest {
		return "", errLong
	}
	digits := 0
	for i, verb := 0, false; i < len(format); i++ {
		switch c := format[i]; {
		case c == '%':
			verb, digits = !verb, 0
		case !verb:
		case c == '*':
			return "", errors.New("printf: * is not allowed, give the width itself")
		case c >= '0' && c <= '9':
			if digits++; digits > 3 {
				return "", errors.New("printf: a width has up to 3 digits")
			}
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			verb = false
		default: // a flag, or the dot before a precision
			digits = 0
		}
	}
	return short(fmt.Sprintf(format, args...))
}

// stream gives the next n bytes of the name's randomness.
func (m *maker) stream(n int) []byte {
	m.used += n
	return m.in.Random(m.used)[m.used-n:]
}

func (m *maker) random(n int) (string, error) {
	if n <= 0 || n > 512 {
		return "", fmt.Errorf("random %d: give a length from 1 to 512", n)
	}
	out := make([]byte, 0, n)
	for len(out) < n {
		for _, b := range m.stream(n) {
			// 248 is the largest multiple of 62 in a byte: no bias.
			if b < 248 && len(out) < n {
				out = append(out, alphabet[b%62])
			}
		}
	}
	m.drawn = append(m.drawn, string(out))
	return string(out), nil
}

func (m *maker) uuid() string {
	b := m.stream(16)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b)
	id := h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
	m.drawn = append(m.drawn, id)
	return id
}

func truncate(n int, s string) (string, error) {
	if n <= 0 {
		return "", fmt.Errorf("truncate %d: give a length above 0", n)
	}
	if len(s) <= n {
		return s, nil
	}
	// A dash at the cut would stand beside the template's own.
	return strings.TrimRight(strings.ToValidUTF8(s[:n], ""), "-"), nil
}

func truncateSHA256(n int, s string) (string, error) {
	if n <= 8 {
		return "", fmt.Errorf("truncate_sha256 %d: give a length above 8", n)
	}
	if len(s) <= n {
		return s, nil
	}
	return strings.ToValidUTF8(s[:n-8], "") + sha256Hex(s)[:8], nil
}

func sha256Hex(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])
}
