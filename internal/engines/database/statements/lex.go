package statements

import (
	"fmt"
	"strings"
)

// kind is what a token is, as far as it matters to where a value may stand.
type kind byte

const (
	word    kind = 'w' // identifier, keyword, number or a placeholder outside quotes
	ident   kind = 'i' // "..."
	literal kind = 'l' // '...', also N'', B'' and X''
	escape  kind = 'e' // E'...', where a backslash escapes
	unicode kind = 'u' // U&'...' and U&"...", where a backslash escapes
	dollar  kind = 'd' // $tag$...$tag$
	comment kind = 'c'
	symbol  kind = 's' // one character of anything else
)

// token is a piece of SQL. The text between open and close is its content.
type token struct {
	kind        kind
	start, end  int
	open, close int
	// body holds the tokens of a dollar quote's content, at offsets of the
	// whole text, when the content reads as SQL (a DO block, a function).
	// opaque says that it does not, or is nothing but one placeholder.
	body   []token
	opaque bool
}

// lex takes SQL apart as PostgreSQL does with standard_conforming_strings on,
// from offset from to offset to. It fails where a quote or comment is not
// closed.
func lex(sql string, from, to int) ([]token, error) { return lexWithin(sql, from, to, 0) }

// deepest is how many dollar quotes are read within one another. Each is looked
// through for its end, so that the cost would grow with their number times the
// length of the text.
const deepest = 16

// lexWithin is lex of what stands in so many dollar quotes.
func lexWithin(sql string, from, to, depth int) ([]token, error) {
	l := lexer{sql: sql[:to], pos: from, depth: depth}
	var out []token
	for {
		t, ok, err := l.next()
		if err != nil || !ok {
			return out, err
		}
		out = append(out, t)
	}
}

type lexer struct {
	sql   string
	pos   int
	depth int // dollar quotes around it
}

func (l *lexer) peek(i int) byte {
	if l.pos+i < len(l.sql) {
		return l.sql[l.pos+i]
	}
	return 0
}

func (l *lexer) rest() string { return l.sql[l.pos:] }

func space(c byte) bool {
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'
}

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c >= 0x80
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

func (l *lexer) next() (token, bool, error) {
	for l.pos < len(l.sql) && space(l.sql[l.pos]) {
		l.pos++
	}
	if l.pos >= len(l.sql) {
		return token{}, false, nil
	}
	start := l.pos
	c := l.sql[start]
	switch {
	case strings.HasPrefix(l.rest(), "--"):
		for l.pos < len(l.sql) && l.sql[l.pos] != '\n' && l.sql[l.pos] != '\r' {
			l.pos++
		}
		return token{kind: comment, start: start, end: l.pos, open: start, close: l.pos}, true, nil
	case strings.HasPrefix(l.rest(), "/*"):
		return l.block()
	case c == '\'':
		return l.quoted(literal, 1, '\'')
	case c == '"':
		return l.quoted(ident, 1, '"')
	case (c == 'e' || c == 'E') && l.peek(1) == '\'':
		return l.quoted(escape, 2, '\'')
	case strings.IndexByte("nNbBxX", c) >= 0 && l.peek(1) == '\'':
		return l.quoted(literal, 2, '\'')
	case (c == 'u' || c == 'U') && l.peek(1) == '&' && (l.peek(2) == '\'' || l.peek(2) == '"'):
		return l.quoted(unicode, 3, l.peek(2))
	case c == '$':
		return l.dollar()
	case letter(c):
		for l.pos < len(l.sql) && (letter(l.sql[l.pos]) || digit(l.sql[l.pos]) || l.sql[l.pos] == '$') {
			l.pos++
		}
	case digit(c):
		for l.pos < len(l.sql) && (letter(l.sql[l.pos]) || digit(l.sql[l.pos])) {
			l.pos++
		}
	default:
		if _, n := placeholder(l.rest()); n > 0 {
			l.pos += n
			break
		}
		l.pos++
		return token{kind: symbol, start: start, end: l.pos, open: start, close: l.pos}, true, nil
	}
	return token{kind: word, start: start, end: l.pos, open: start, close: l.pos}, true, nil
}

// block is a comment, which may hold others.
func (l *lexer) block() (token, bool, error) {
	start, depth := l.pos, 0
	for l.pos < len(l.sql) {
		switch {
		case strings.HasPrefix(l.rest(), "/*"):
			depth++
			l.pos += 2
		case strings.HasPrefix(l.rest(), "*/"):
			depth--
			l.pos += 2
			if depth == 0 {
				return token{kind: comment, start: start, end: l.pos, open: start + 2, close: l.pos - 2}, true, nil
			}
		default:
			l.pos++
		}
	}
	return token{}, false, fmt.Errorf("the comment at offset %d is not closed", start)
}

// quoted is a token in quotes q that begins with skip characters. A doubled
// quote stands for one. A backslash escapes only in E'...'; in U&'...' it
// begins a code point, which never hides a quote.
func (l *lexer) quoted(k kind, skip int, q byte) (token, bool, error) {
	t := token{kind: k, start: l.pos, open: l.pos + skip}
	l.pos += skip
	for l.pos < len(l.sql) {
		c := l.sql[l.pos]
		switch {
		case c == '\\' && k == escape:
			l.pos += 2
		case c != q:
			l.pos++
		case l.peek(1) == q:
			l.pos += 2
		default:
			t.close = l.pos
			l.pos++
			t.end = l.pos
			if q == '\'' && k != literal && l.continues() {
				// 'a' <newline> 'b' is one literal, and the second part
				// is read by the rules of the first.
				return token{}, false, fmt.Errorf("the literal at offset %d goes on after a line break; write it as one", t.start)
			}
			return t, true, nil
		}
	}
	return token{}, false, fmt.Errorf("the quote at offset %d is not closed", t.start)
}

// continues reports whether a literal goes on after white space with a line
// break in it, of which comments to a line's end are a part.
func (l *lexer) continues() bool {
	broken := false
	for i := l.pos; i < len(l.sql); i++ {
		switch c := l.sql[i]; {
		case c == '\n' || c == '\r':
			broken = true
		case space(c):
		case strings.HasPrefix(l.sql[i:], "--"):
			for i < len(l.sql) && l.sql[i] != '\n' && l.sql[i] != '\r' {
				i++
			}
			broken = true
		default:
			return broken && c == '\''
		}
	}
	return false
}

// dollar is $tag$...$tag$, or a lone dollar sign.
func (l *lexer) dollar() (token, bool, error) {
	start := l.pos
	n := 1
	for c := l.peek(n); letter(c) || n > 1 && digit(c); c = l.peek(n) {
		n++
	}
	if l.peek(n) != '$' {
		l.pos++
		return token{kind: symbol, start: start, end: l.pos, open: start, close: l.pos}, true, nil
	}
	tag := l.sql[start : start+n+1]
	open := start + len(tag)
	i := strings.Index(l.sql[open:], tag)
	if i < 0 {
		return token{}, false, fmt.Errorf("the quote %s at offset %d is not closed", tag, start)
	}
	t := token{kind: dollar, start: start, open: open, close: open + i, end: open + i + len(tag)}
	l.pos = t.end
	if l.depth == deepest {
		t.opaque = true
		return t, true, nil
	}
	body, err := lexWithin(l.sql, t.open, t.close, l.depth+1)
	if _, n := placeholder(l.sql[t.open:t.close]); err != nil || n > 0 && n == t.close-t.open {
		t.opaque, body = true, nil
	}
	t.body = body
	return t, true, nil
}
