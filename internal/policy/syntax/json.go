package syntax

import (
	"encoding/json"
	"errors"
	"strings"
)

// jsonReader builds nodes from the standard library's token stream, which is
// not recursive; the reader is, and counts.
type jsonReader struct {
	text string
	dec  *json.Decoder

	// Where offset is, in lines and columns. It only moves forward, so that
	// giving every node its place costs one pass over the text.
	offset int
	pos    Pos
}

func parseJSON(text string) (*Node, error) {
	// The whole is checked first: the stream's own errors count bytes from
	// somewhere within the text.
	var bad *json.SyntaxError
	if err := json.Unmarshal([]byte(text), new(json.RawMessage)); errors.As(err, &bad) {
		return nil, Errorf(posAt(text, max(0, int(bad.Offset)-1)), "%v", bad)
	}
	r := &jsonReader{text: text, dec: json.NewDecoder(strings.NewReader(text)), pos: Pos{1, 1}}
	r.dec.UseNumber()
	n, err := r.value(0)
	if err != nil {
		return nil, err
	}
	return n, nil
}

// here is the place of the next token.
func (r *jsonReader) here() Pos {
	at := int(r.dec.InputOffset())
	for at < len(r.text) && strings.IndexByte(" \t\r\n,:", r.text[at]) >= 0 {
		at++
	}
	for _, c := range r.text[r.offset:at] {
		if r.pos.Column++; c == '\n' {
			r.pos = Pos{Line: r.pos.Line + 1, Column: 1}
		}
	}
	r.offset = at
	return r.pos
}

func (r *jsonReader) token() (json.Token, Pos, error) {
	at := r.here()
	tok, err := r.dec.Token()
	if err != nil {
		return nil, at, Errorf(at, "%v", err)
	}
	return tok, at, nil
}

func (r *jsonReader) value(depth int) (*Node, error) {
	tok, at, err := r.token()
	if err != nil {
		return nil, err
	}
	n := &Node{Pos: at}
	switch tok := tok.(type) {
	case nil:
		n.Kind = Null
	case string:
		n.Kind, n.Text = String, tok
	case json.Number:
		n.Kind, n.Text = Number, tok.String()
	case bool:
		n.Kind, n.Text = Bool, "false"
		if tok {
			n.Text = "true"
		}
	case json.Delim:
		if depth++; depth > MaxDepth {
			return nil, Errorf(at, "nested deeper than %d", MaxDepth)
		}
		if tok == '[' {
			return n, r.list(n, depth)
		}
		return n, r.object(n, depth)
	}
	return n, nil
}

func (r *jsonReader) list(n *Node, depth int) error {
	n.Kind = List
	for r.dec.More() {
		item, err := r.value(depth)
		if err != nil {
			return err
		}
		n.Items = append(n.Items, item)
	}
	_, _, err := r.token()
	return err
}

func (r *jsonReader) object(n *Node, depth int) error {
	n.Kind = Object
	for r.dec.More() {
		key, at, err := r.token()
		if err != nil {
			return err
		}
		name, ok := key.(string)
		if !ok {
			return Errorf(at, "expected a key")
		}
		value, err := r.value(depth)
		if err != nil {
			return err
		}
		n.Members = append(n.Members, Member{Name: name, Pos: at, Value: value})
	}
	if _, _, err := r.token(); err != nil {
		return err
	}
	return n.Unique()
}
