package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// parseJSON reads a JSON object, in which no name may occur twice.
func parseJSON(name string, src []byte) (value, *syntaxError) {
	p := &jsonParser{file: name, src: src, dec: json.NewDecoder(bytes.NewReader(src))}
	p.dec.UseNumber()
	v, fault := p.value(0)
	if fault != nil {
		return value{}, fault
	}
	if _, err := p.dec.Token(); !errors.Is(err, io.EOF) {
		return value{}, p.fault("more text after the end of the JSON object")
	}
	if v.kind != object {
		return value{}, &syntaxError{v.pos, "a configuration is a JSON object"}
	}
	return v, nil
}

type jsonParser struct {
	file string
	src  []byte
	dec  *json.Decoder

	counted, lines, lineStart int // what at knows of src[:counted]
}

// here is the place of the next token.
func (p *jsonParser) here() Pos {
	off := int(p.dec.InputOffset())
	for off < len(p.src) && bytes.IndexByte([]byte(" \t\r\n,:"), p.src[off]) >= 0 {
		off++
	}
	return p.at(off)
}

// at is the place of an offset. Offsets are mostly asked for in order, so that
// lines are counted on from the last one.
func (p *jsonParser) at(off int) Pos {
	off = max(0, min(off, len(p.src)))
	if off < p.counted {
		p.counted, p.lines, p.lineStart = 0, 0, 0
	}
	for ; p.counted < off; p.counted++ {
		if p.src[p.counted] == '\n' {
			p.lines++
			p.lineStart = p.counted + 1
		}
	}
	return Pos{p.file, p.lines + 1, off - p.lineStart + 1}
}

func (p *jsonParser) fault(format string, args ...any) *syntaxError {
	return &syntaxError{p.here(), fmt.Sprintf(format, args...)}
}

func (p *jsonParser) token() (json.Token, *syntaxError) {
	t, err := p.dec.Token()
	if err == nil {
		return t, nil
	}
	var se *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, &syntaxError{p.at(len(p.src)), "the JSON text ends too early"}
	case errors.As(err, &se):
		return nil, &syntaxError{p.at(int(se.Offset) - 1), se.Error()}
	}
	return nil, p.fault("%v", err)
}

func (p *jsonParser) value(depth int) (v value, fault *syntaxError) {
	if depth > maxDepth {
		return value{}, p.fault("values nest deeper than %d levels", maxDepth)
	}
	v.pos = p.here()
	t, fault := p.token()
	if fault != nil {
		return value{}, fault
	}
	switch t := t.(type) {
	case string:
		v.kind, v.text = text, t
	case json.Number:
		v.kind, v.text = number, t.String()
	case bool:
		v.kind, v.text = boolean, fmt.Sprint(t)
	case nil:
		v.kind = null
	case json.Delim:
		if t == '[' {
			v.kind = list
		} else {
			v.kind = object
		}
		seen := make(map[string]Pos)
		for p.dec.More() {
			m := member{pos: p.here()}
			if v.kind == object {
				name, fault := p.token()
				if fault != nil {
					return value{}, fault
				}
				m.name, _ = name.(string)
				if first, again := seen[m.name]; again {
					return value{}, &syntaxError{m.pos, fmt.Sprintf("%q is set twice, first at %s", m.name, first)}
				}
				seen[m.name] = m.pos
			}
			if m.value, fault = p.value(depth + 1); fault != nil {
				return value{}, fault
			}
			if v.kind == object {
				v.members = append(v.members, m)
			} else {
				v.list = append(v.list, m.value)
			}
		}
		_, fault = p.token() // the closing one
	}
	return v, fault
}
