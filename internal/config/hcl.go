package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/parser"
	"github.com/hashicorp/hcl/hcl/scanner"
	"github.com/hashicorp/hcl/hcl/strconv"
	"github.com/hashicorp/hcl/hcl/token"
)

// parseHCL reads HCL 1.
func parseHCL(name string, src []byte) (v value, fault *syntaxError) {
	at := func(p token.Pos) Pos { return Pos{name, p.Line, p.Column} }
	// The scanner, which the parser uses too, panics on a few inputs instead
	// of reporting an error. A broken file must not take the server down with
	// a stack trace, least of all when it is read again on SIGHUP.
	defer func() {
		if r := recover(); r != nil {
			v, fault = value{}, &syntaxError{Pos{name, 1, 1}, fmt.Sprintf("this is not HCL: %v", r)}
		}
	}()
	if p, msg := scan(src); msg != "" {
		return value{}, &syntaxError{at(p), msg}
	}
	f, err := parser.ParseDontErrorOnDuplicateKeys(src) // we find them ourselves, with both places
	if err != nil {
		var pe *parser.PosError
		if errors.As(err, &pe) {
			return value{}, &syntaxError{at(pe.Pos), pe.Err.Error()}
		}
		return value{}, &syntaxError{Pos{name, 1, 1}, err.Error()}
	}
	root, ok := f.Node.(*ast.ObjectList)
	if !ok {
		return value{}, &syntaxError{Pos{name, 1, 1}, "this is not HCL"}
	}
	c := converter{name}
	members, fault := c.members(root)
	return value{pos: Pos{name, 1, 1}, kind: object, members: members}, fault
}

// scan goes over the tokens of src before the parser does, which recurses
// with every brace and cannot be stopped in time.
func scan(src []byte) (at token.Pos, msg string) {
	s := scanner.New(bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n"))) // as the parser does
	s.Error = func(p token.Pos, m string) {
		if msg == "" {
			at, msg = p, m
		}
	}
	var last token.Token
	for depth := 0; ; {
		t := s.Scan()
		switch t.Type {
		case token.LBRACE, token.LBRACK:
			if depth++; depth > maxDepth {
				return t.Pos, fmt.Sprintf("blocks nest deeper than %d levels", maxDepth)
			}
		case token.RBRACE, token.RBRACK:
			depth--
		case token.EOF:
			// The parser overlooks what the file ends in the middle of.
			if msg == "" && (depth != 0 || last.Type == token.ASSIGN) {
				return t.Pos, "the file ends too early: a value or a closing brace is missing"
			}
			return at, msg
		}
		if msg != "" || t.Type == token.ILLEGAL {
			return at, cmp.Or(msg, "this is not HCL")
		}
		if t.Type != token.COMMENT {
			last = t
		}
	}
}

// converter makes our tree of the parser's.
type converter struct{ file string }

func (c converter) pos(p token.Pos) Pos { return Pos{c.file, p.Line, p.Column} }

func (c converter) members(in *ast.ObjectList) ([]member, *syntaxError) {
	var out []member
	for _, item := range in.Items {
		m := member{pos: c.pos(item.Pos())}
		for i, k := range item.Keys {
			s, fault := c.text(k.Token)
			if fault != nil {
				return nil, fault
			}
			if i == 0 {
				m.name = s
			} else {
				m.labels = append(m.labels, s)
			}
		}
		var fault *syntaxError
		if m.value, fault = c.value(item.Val); fault != nil {
			return nil, fault
		}
		out = append(out, m)
	}
	return out, nil
}

func (c converter) value(n ast.Node) (v value, fault *syntaxError) {
	v.pos = c.pos(n.Pos())
	switch n := n.(type) {
	case *ast.ObjectType:
		v.kind = object
		v.members, fault = c.members(n.List)
	case *ast.ListType:
		v.kind = list
		for _, e := range n.List {
			ev, fault := c.value(e)
			if fault != nil {
				return value{}, fault
			}
			v.list = append(v.list, ev)
		}
	case *ast.LiteralType:
		switch n.Token.Type {
		case token.NUMBER, token.FLOAT:
			v.kind = number
		case token.BOOL:
			v.kind = boolean
		case token.STRING, token.HEREDOC:
			v.kind = text
		default:
			return value{}, &syntaxError{v.pos, "unexpected " + n.Token.Text}
		}
		v.text, fault = c.text(n.Token)
	default:
		return value{}, &syntaxError{v.pos, "unexpected syntax"}
	}
	return v, fault
}

// text is what a token stands for.
func (c converter) text(t token.Token) (string, *syntaxError) {
	switch t.Type {
	case token.STRING:
		s, err := strconv.Unquote(t.Text)
		if err != nil {
			return "", &syntaxError{c.pos(t.Pos), "bad string " + t.Text}
		}
		return s, nil
	case token.HEREDOC:
		s, _ := t.Value().(string)
		return strings.TrimSuffix(s, "\n"), nil
	}
	return t.Text, nil
}
