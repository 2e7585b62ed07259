package config

import (
	"fmt"
	"path/filepath"
)

// Pos is a place in a file. The zero Pos is no place.
type Pos struct {
	File      string
	Line, Col int
}

func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col) }

// kind is the kind of a value.
type kind uint8

const (
	text   kind = iota // a string
	number             // a number as it was written
	boolean
	null
	list
	object
)

var kindNames = [...]string{"a string", "a number", "true or false", "null", "a list", "a block"}

func (k kind) String() string { return kindNames[k] }

// value is a value of either syntax.
type value struct {
	pos     Pos
	kind    kind
	text    string // of a scalar
	list    []value
	members []member // of an object, in the order of the file
}

// member is a name and its value. An HCL block may have labels between the two.
type member struct {
	pos    Pos
	name   string
	labels []string
	value  value
}

// maxDepth is how deep values may nest. What we read has at most five levels.
const maxDepth = 32

// syntaxError is what a parser has to say, with a place.
type syntaxError struct {
	pos Pos
	msg string
}

func (e *syntaxError) Error() string { return e.pos.String() + ": " + e.msg }

// parse reads src. Which syntax it is in its name says, or else its first
// character: an HCL file never begins with a brace.
func parse(name string, src []byte) (value, *syntaxError) {
	if len(src) > maxBytes {
		return value{}, &syntaxError{Pos{name, 1, 1}, fmt.Sprintf("the file is larger than %d KiB", maxBytes>>10)}
	}
	isJSON := filepath.Ext(name) == ".json"
	if filepath.Ext(name) != ".hcl" {
		for _, c := range src {
			if c == ' ' || c == '\t' || c == '\r' || c == '\n' {
				continue
			}
			isJSON = isJSON || c == '{'
			break
		}
	}
	if isJSON {
		return parseJSON(name, src)
	}
	return parseHCL(name, src)
}
