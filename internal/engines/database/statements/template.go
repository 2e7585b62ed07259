// Package statements turns the SQL that an operator configures into the SQL
// that is sent: it splits it, finds the placeholders ({{name}}, {{username}},
// {{password}}, {{expiration}}) and fills them in.
//
// A value never changes what the SQL means. For each placeholder the package
// knows in what it stands — a literal, a quoted identifier, a dollar-quoted
// body, nothing at all — and escapes the value for that, or refuses it where
// there is no escaping. As a second line, the result is taken apart again and
// must have exactly the template's structure.
package statements

import (
	"fmt"
	"sort"
	"strings"
	"unicode/utf8"
)

// Values fill the placeholders.
type Values struct {
	Name       string // {{name}} and {{username}}
	Password   string // {{password}}: the password, or its SCRAM verifier
	Expiration string // {{expiration}}
}

type field byte

const (
	name field = iota
	password
	expiration
)

func (v Values) of(f field) string {
	switch f {
	case name:
		return v.Name
	case password:
		return v.Password
	}
	return v.Expiration
}

var placeholders = []struct {
	text  string
	field field
}{{"{{name}}", name}, {"{{username}}", name}, {"{{password}}", password}, {"{{expiration}}", expiration}}

// placeholder is the field that s begins with and its length, or 0.
func placeholder(s string) (field, int) {
	if strings.HasPrefix(s, "{{") {
		for _, p := range placeholders {
			if strings.HasPrefix(s, p.text) {
				return p.field, len(p.text)
			}
		}
	}
	return 0, 0
}

// place is where a placeholder stands.
type place byte

const (
	inWord          place = iota // outside any quotes
	inIdent                      // "..."
	inLiteral                    // '...'
	inEscape                     // E'...'
	inOpaque                     // a comment, U&'...', or a body that we cannot read
	inNestedQuotes               // quotes inside a dollar-quoted body, where text may be SQL once more
	inNestedLiteral              // the same, and plainly a literal
	inQuoting                    // a literal that has quotes in it: SQL for whom it is handed to
)

type hole struct {
	start, end int
	field      field
	place      place
	// scram is set when the hole is all of a literal that follows PASSWORD.
	scram bool
}

// Statement is one statement with placeholders.
type statement struct {
	sql    string
	tokens []token
	holes  []hole
}

// Set is a list of statements, ready to be filled in. It is not changed after
// Compile and safe for concurrent use. The nil set is empty.
type Set struct{ list []statement }

// Compile reads statements in any of the forms clients give them.
func Compile(given []string) (*Set, error) {
	texts, err := expand(given)
	if err != nil {
		return nil, err
	}
	s := &Set{}
	for _, text := range texts {
		parts, err := split(text)
		if err != nil {
			return nil, err
		}
		for _, p := range parts {
			st, err := compile(p)
			if err != nil {
				return nil, fmt.Errorf("statement %d: %w", len(s.list)+1, err)
			}
			s.list = append(s.list, st)
		}
	}
	return s, nil
}

func compile(sql string) (statement, error) {
	st := statement{sql: sql}
	tokens, err := lex(sql, 0, len(sql))
	if err != nil {
		return st, err
	}
	st.tokens = tokens
	if err := transactionControl(sql, tokens); err != nil {
		return st, err
	}
	if err := wantsData(sql, tokens); err != nil {
		return st, err
	}
	if err := st.find(tokens, false); err != nil {
		return st, err
	}
	return st, nil
}

// find adds the holes of tokens. nested says that they are the content of a
// dollar quote.
func (st *statement) find(tokens []token, nested bool) error {
	for i, t := range tokens {
		if t.kind == dollar && !t.opaque {
			if err := st.find(t.body, true); err != nil {
				return err
			}
			continue
		}
		for at := t.start; at < t.end; {
			f, n := placeholder(st.sql[at:t.end])
			if n == 0 {
				at++
				continue
			}
			h := hole{start: at, end: at + n, field: f}
			switch {
			case t.kind == word:
				h.place = inWord
			case t.kind == comment || t.kind == unicode || t.kind == dollar:
				h.place = inOpaque
			case t.kind == literal && nested:
				h.place = inNestedLiteral
			case nested:
				h.place = inNestedQuotes
			case t.kind == ident:
				h.place = inIdent
			case strings.ContainsAny(st.sql[t.open:t.close], `'"`):
				h.place = inQuoting
			case t.kind == literal:
				h.place = inLiteral
			default:
				h.place = inEscape
			}
			if t.kind == escape && !nested && escaped(st.sql[t.open:at]) {
				return fmt.Errorf("a backslash stands before %s", st.sql[h.start:h.end])
			}
			whole := h.start == t.open && h.end == t.close
			h.scram = f == password && t.kind == literal && whole && follows(st.sql, tokens[:i], "PASSWORD")
			st.holes = append(st.holes, h)
			at = h.end
		}
	}
	return nil
}

// escaped reports whether what follows text is escaped by a backslash.
func escaped(text string) bool {
	n := 0
	for i := len(text) - 1; i >= 0 && text[i] == '\\'; i-- {
		n++
	}
	return n%2 == 1
}

// follows reports whether the last token but comments is the keyword.
func follows(sql string, tokens []token, keyword string) bool {
	for i := len(tokens) - 1; i >= 0; i-- {
		if tokens[i].kind != comment {
			return tokens[i].kind == word && strings.EqualFold(sql[tokens[i].start:tokens[i].end], keyword)
		}
	}
	return false
}

// Len is the number of statements.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return len(s.list)
}

// Render fills the placeholders and gives the statements one by one, without
// semicolons.
func (s *Set) Render(v Values) ([]string, error) {
	if s.Len() == 0 {
		return nil, nil
	}
	out := make([]string, len(s.list))
	for i, st := range s.list {
		text, err := st.render(v)
		if err != nil {
			return nil, fmt.Errorf("statement %d: %w", i+1, err)
		}
		out[i] = text
	}
	return out, nil
}

func (st statement) render(v Values) (string, error) {
	if len(st.holes) == 0 {
		return st.sql, nil
	}
	var b strings.Builder
	at := 0
	moved := make([]int, len(st.holes)) // how far the text after a hole has moved
	for i, h := range st.holes {
		text, err := fill(h.place, h.field, v.of(h.field))
		if err != nil {
			return "", fmt.Errorf("%s %w", st.sql[h.start:h.end], err)
		}
		b.WriteString(st.sql[at:h.start])
		b.WriteString(text)
		at = h.end
		moved[i] = b.Len() - at
	}
	b.WriteString(st.sql[at:])
	out := b.String()
	tokens, err := lex(out, 0, len(out))
	shift := func(pos int) int {
		// The holes are in the order in which they stand.
		i := sort.Search(len(st.holes), func(i int) bool { return st.holes[i].end > pos })
		if i == 0 {
			return pos
		}
		return pos + moved[i-1]
	}
	if err != nil || !sameShape(st.tokens, tokens, shift) {
		return "", fmt.Errorf("a placeholder touches other text so that its value would change the statement; put it in quotes of its own")
	}
	return out, nil
}

// fill is the value of a field as it may stand at a place.
func fill(p place, f field, value string) (string, error) {
	if strings.IndexByte(value, 0) >= 0 || !utf8.ValidString(value) {
		return "", fmt.Errorf("has a value that is not UTF-8 text without NUL characters")
	}
	switch p {
	case inLiteral:
		return strings.ReplaceAll(value, `'`, `''`), nil
	case inIdent:
		return strings.ReplaceAll(value, `"`, `""`), nil
	case inEscape:
		return strings.NewReplacer(`'`, `''`, `\`, `\\`).Replace(value), nil
	case inWord:
		if value == "" || !only(value, "_") || strings.ToLower(value) != value {
			return "", fmt.Errorf("stands outside quotes, where its value would not be read as it is; put it in quotes")
		}
		return value, nil
	case inQuoting:
		// dblink_exec('…', 'CREATE ROLE "…" PASSWORD ''…''') reads it once more.
		if strings.ContainsAny(value, `'"\`) {
			return "", fmt.Errorf("stands in a literal that has quotes in it and has a value that could end one of them")
		}
		if f != name {
			return value, nil
		}
	}
	// The text may be SQL once more (EXECUTE '...'), so no character may be
	// special at any depth. A name can be influenced by whoever asks for the
	// credential; a password is random.
	allowed := "_-.@"
	switch f {
	case password:
		allowed = "_-.@:+/="
		if p == inNestedLiteral {
			allowed += "$"
		}
	case expiration:
		allowed = "_-.:+ "
	}
	if !only(value, allowed) || f == name && strings.Contains(value, "--") {
		return "", fmt.Errorf("stands inside a dollar-quoted body, a comment or a literal with quotes in it and has a value that could end a quote there; put it in plain single or double quotes")
	}
	return value, nil
}

// only reports whether s consists of ASCII letters, digits and those in extra.
func only(s, extra string) bool {
	for i := range len(s) {
		c := s[i]
		if c >= 0x80 || !letter(c) && !digit(c) && strings.IndexByte(extra, c) < 0 {
			return false
		}
	}
	return true
}

// sameShape reports whether two texts consist of the same tokens,
// where offsets of a are those of b after shift.
func sameShape(a, b []token, shift func(int) int) bool {
	if len(a) != len(b) {
		return false
	}
	for i, t := range a {
		u := b[i]
		if t.kind != u.kind || shift(t.start) != u.start || shift(t.end) != u.end {
			return false
		}
		if !t.opaque && (u.opaque || !sameShape(t.body, u.body, shift)) {
			return false
		}
	}
	return true
}

// UsesPassword reports whether {{password}} occurs.
func (s *Set) UsesPassword() bool {
	if s == nil {
		return false
	}
	for _, st := range s.list {
		for _, h := range st.holes {
			if h.field == password {
				return true
			}
		}
	}
	return false
}

// CheckSCRAM says why a SCRAM verifier cannot stand in place of the password:
// only as the whole literal of a PASSWORD clause does PostgreSQL know one.
func (s *Set) CheckSCRAM() error {
	if s == nil {
		return nil
	}
	for i, st := range s.list {
		for _, h := range st.holes {
			if h.field == password && !h.scram {
				return fmt.Errorf("statement %d: with password_authentication=scram-sha-256, {{password}} must be the whole literal after PASSWORD, "+
					"as in CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'", i+1)
			}
		}
	}
	return nil
}

// GrantsOnAll reports whether a statement grants on all tables (sequences,
// routines) of a schema: the recipe that writes into the access list of every
// one of them.
func (s *Set) GrantsOnAll() bool {
	if s == nil {
		return false
	}
	for _, st := range s.list {
		if grantsOnAll(st.sql, st.tokens) {
			return true
		}
	}
	return false
}

func grantsOnAll(sql string, tokens []token) bool {
	var words []string
	for _, t := range tokens {
		if t.kind == dollar && grantsOnAll(sql, t.body) {
			return true
		}
		if t.kind == word {
			words = append(words, strings.ToUpper(sql[t.start:t.end]))
		}
	}
	granting := false
	for i, w := range words {
		switch {
		case w == "GRANT":
			granting = true
		case granting && w == "ON" && i+2 < len(words) && words[i+1] == "ALL":
			switch words[i+2] {
			case "TABLES", "SEQUENCES", "FUNCTIONS", "PROCEDURES", "ROUTINES":
				return true
			}
		}
	}
	return false
}

// TouchesSession reports whether a statement may leave a trace in the session
// that it ran in: a setting, a temporary table, a lock. Of those that make
// roles and grant rights it is known that they do not.
func (s *Set) TouchesSession() bool {
	if s == nil {
		return false
	}
	for _, st := range s.list {
		if touchesSession(st.sql, st.tokens) {
			return true
		}
	}
	return false
}

func touchesSession(sql string, tokens []token) bool {
	var words []string
	for _, t := range tokens {
		if t.kind == comment {
			continue
		}
		if t.kind != word || len(words) == 2 {
			break
		}
		words = append(words, strings.ToUpper(sql[t.start:t.end]))
	}
	switch {
	case len(words) == 0:
		return true
	case words[0] == "GRANT" || words[0] == "REVOKE" || words[0] == "COMMENT":
		return false
	case len(words) == 2 && (words[0] == "CREATE" || words[0] == "ALTER" || words[0] == "DROP"):
		return words[1] != "ROLE" && words[1] != "USER" && words[1] != "GROUP"
	}
	return true
}
