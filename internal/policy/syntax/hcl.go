package syntax

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/hcl/ast"
	"github.com/hashicorp/hcl/hcl/parser"
	"github.com/hashicorp/hcl/hcl/scanner"
	hclstrconv "github.com/hashicorp/hcl/hcl/strconv"
	"github.com/hashicorp/hcl/hcl/token"
)

func parseHCL(text string) (*Node, error) {
	// The parser normalizes line ends itself; doing it first keeps the
	// positions of the two passes the same.
	src := []byte(strings.ReplaceAll(text, "\r\n", "\n"))
	if err := checkNesting(src); err != nil {
		return nil, err
	}
	file, err := parser.Parse(src)
	if err != nil {
		if at := (*parser.PosError)(nil); errors.As(err, &at) {
			return nil, Errorf(position(at.Pos), "%v", at.Err)
		}
		return nil, &Error{Msg: err.Error()}
	}
	list, ok := file.Node.(*ast.ObjectList)
	if !ok {
		return nil, &Error{Msg: "does not contain a root object"}
	}
	return convertList(list, Pos{1, 1})
}

// checkNesting scans the text with the parser's own scanner, so that what
// counts as a string or a comment here does so there.
func checkNesting(src []byte) error {
	var fault error
	s := scanner.New(src)
	s.Error = func(at token.Pos, msg string) {
		if fault == nil {
			fault = Errorf(position(at), "%s", msg)
		}
	}
	depth := 0
	for {
		tok := s.Scan()
		switch tok.Type {
		case token.LBRACE, token.LBRACK:
			if depth++; depth > MaxDepth {
				return Errorf(position(tok.Pos), "nested deeper than %d", MaxDepth)
			}
		case token.RBRACE, token.RBRACK:
			depth--
		case token.EOF:
			return fault
		}
		if fault != nil {
			return fault
		}
	}
}

func position(p token.Pos) Pos { return Pos{Line: p.Line, Column: p.Column} }

func convertList(list *ast.ObjectList, at Pos) (*Node, error) {
	n := &Node{Kind: Object, Pos: at}
	for _, item := range list.Items {
		value, err := convert(item.Val)
		if err != nil {
			return nil, err
		}
		// Labels nest from the right: path "a" {…} is {"path": {"a": {…}}}.
		for i := len(item.Keys) - 1; i >= 0; i-- {
			tok := item.Keys[i].Token
			name := tok.Text
			if tok.Type == token.STRING {
				if name, err = unquote(tok); err != nil {
					return nil, err
				}
			}
			m := Member{Name: name, Pos: position(tok.Pos), Value: value}
			if i == 0 {
				n.Members = append(n.Members, m)
				break
			}
			value = &Node{Kind: Object, Pos: m.Pos, Members: []Member{m}}
		}
	}
	return n, nil
}

func convert(v ast.Node) (*Node, error) {
	switch v := v.(type) {
	case *ast.ObjectType:
		return convertList(v.List, position(v.Lbrace))
	case *ast.ListType:
		n := &Node{Kind: List, Pos: position(v.Lbrack)}
		for _, item := range v.List {
			e, err := convert(item)
			if err != nil {
				return nil, err
			}
			n.Items = append(n.Items, e)
		}
		return n, nil
	case *ast.LiteralType:
		return literal(v.Token)
	}
	return nil, &Error{Msg: "a value is missing"}
}

// literal does what the library's Token.Value does, which panics on what a
// writer got wrong.
func literal(tok token.Token) (*Node, error) {
	n := &Node{Pos: position(tok.Pos), Text: tok.Text}
	var err error
	switch tok.Type {
	case token.BOOL:
		n.Kind = Bool
	case token.NUMBER:
		n.Kind = Number
		var i int64
		i, err = strconv.ParseInt(tok.Text, 0, 64)
		n.Text = strconv.FormatInt(i, 10)
	case token.FLOAT:
		n.Kind = Number
		var f float64
		f, err = strconv.ParseFloat(tok.Text, 64)
		if math.IsInf(f, 0) || math.IsNaN(f) {
			err = strconv.ErrRange
		}
		n.Text = strconv.FormatFloat(f, 'g', -1, 64)
	case token.STRING:
		n.Kind = String
		n.Text, err = unquote(tok)
		return n, err
	case token.HEREDOC:
		n.Kind = String
		n.Text = heredoc(tok.Text)
	default:
		return nil, Errorf(n.Pos, "unexpected %s", tok.Type)
	}
	if err != nil {
		return nil, Errorf(n.Pos, "%q is not a number that fits", tok.Text)
	}
	return n, nil
}

func unquote(tok token.Token) (string, error) {
	s, err := hclstrconv.Unquote(tok.Text)
	if err != nil {
		return "", Errorf(position(tok.Pos), "the string %s is not well-formed", tok.Text)
	}
	return s, nil
}

// heredoc takes the lines between "<<MARK" and "MARK". After "<<-" the
// indentation of the last line is taken off the others if all of them have it.
func heredoc(text string) string {
	opening, body, _ := strings.Cut(text, "\n")
	body = strings.TrimSuffix(body, "\n")
	lines := strings.SplitAfter(body, "\n")
	last := lines[len(lines)-1]
	lines = lines[:len(lines)-1]
	if strings.HasPrefix(opening, "<<-") {
		indent := last[:len(last)-len(strings.TrimLeft(last, " \t"))]
		for _, l := range lines {
			if !strings.HasPrefix(l, indent) {
				return strings.Join(lines, "")
			}
		}
		for i := range lines {
			lines[i] = lines[i][len(indent):]
		}
	}
	return strings.Join(lines, "")
}
