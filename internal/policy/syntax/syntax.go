// Package syntax reads the text of a policy, ACL or password, into a tree of
// nodes with positions. HCL (version 1) and JSON make the same tree, so what
// stands above it knows one language.
//
// The text comes from whoever may write policies, and the HCL parser recurses
// without a limit: a megabyte of "a={" would end the process, past any recover.
// So the size is capped and the nesting measured, with the parser's own
// scanner, before the parser sees the text. JSON is read here and not by the
// HCL library, which silently merges duplicate keys.
package syntax

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

const (
	// MaxBytes is the longest text that Parse reads.
	MaxBytes = 256 << 10
	// MaxDepth is how deep braces and brackets may nest. Policies need four.
	MaxDepth = 32
)

// Kind tells what a Node holds.
type Kind uint8

// The kinds of node.
const (
	Null   Kind = iota
	String      // Text is the string, unquoted
	Number      // Text is a JSON number
	Bool        // Text is "true" or "false"
	List        // Items
	Object      // Members
)

// String names the kind for an error message.
func (k Kind) String() string {
	return [...]string{"null", "a string", "a number", "a boolean", "a list", "an object"}[k]
}

// Node is one value of the text.
type Node struct {
	Kind    Kind
	Pos     Pos
	Text    string
	Items   []*Node
	Members []Member
}

// Member is a named value of an object. A block with a label, `path "a" {…}`,
// is a member "path" whose value is an object with the member "a"; JSON says
// the same with nested objects. Only blocks without "=" can repeat a name.
type Member struct {
	Name  string
	Pos   Pos
	Value *Node
}

// Pos is a place in the text; lines and columns start at 1.
type Pos struct{ Line, Column int }

func (p Pos) String() string { return fmt.Sprintf("%d:%d", p.Line, p.Column) }

// Error is a fault with its place.
type Error struct {
	Pos Pos
	Msg string
}

func (e *Error) Error() string {
	if e.Pos.Line == 0 {
		return e.Msg
	}
	return "At " + e.Pos.String() + ": " + e.Msg
}

// Errorf makes an *Error.
func Errorf(at Pos, format string, args ...any) error {
	return &Error{Pos: at, Msg: fmt.Sprintf(format, args...)}
}

// Parse reads HCL, or JSON where the text starts with "{". The result is an
// object. Errors are *Error.
func Parse(text string) (*Node, error) {
	if len(text) > MaxBytes {
		return nil, &Error{Msg: fmt.Sprintf("the text has %d bytes; at most %d are taken", len(text), MaxBytes)}
	}
	if i := invalidUTF8(text); i >= 0 {
		return nil, Errorf(posAt(text, i), "the text is not UTF-8")
	}
	if strings.HasPrefix(strings.TrimLeft(text, " \t\r\n"), "{") {
		return parseJSON(text)
	}
	return parseHCL(text)
}

// Objects are the objects that a value stands for: itself, or the elements of
// a list of objects, which is how JSON repeats a block.
func (n *Node) Objects() ([]*Node, error) {
	switch n.Kind {
	case Object:
		return []*Node{n}, nil
	case List:
		for _, item := range n.Items {
			if item.Kind != Object {
				return nil, Errorf(item.Pos, "expected an object, got %s", item.Kind)
			}
		}
		return n.Items, nil
	}
	return nil, Errorf(n.Pos, "expected an object, got %s", n.Kind)
}

// Elements are the elements of a list; any other value counts as a list of
// itself, as HCL has it.
func (n *Node) Elements() []*Node {
	if n.Kind == List {
		return n.Items
	}
	return []*Node{n}
}

// Unique refuses an object that names a member twice.
func (n *Node) Unique() error {
	seen := make(map[string]Pos, len(n.Members))
	for _, m := range n.Members {
		if first, ok := seen[m.Name]; ok {
			return Errorf(m.Pos, "key %q was already set at %s", m.Name, first)
		}
		seen[m.Name] = m.Pos
	}
	return nil
}

func invalidUTF8(s string) int {
	if utf8.ValidString(s) {
		return -1
	}
	for i, r := range s {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return i
			}
		}
	}
	return -1
}

func posAt(text string, offset int) Pos {
	before := text[:min(offset, len(text))]
	return Pos{
		Line:   1 + strings.Count(before, "\n"),
		Column: 1 + utf8.RuneCountInString(before[strings.LastIndexByte(before, '\n')+1:]),
	}
}
