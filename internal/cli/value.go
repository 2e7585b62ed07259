package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// value is one JSON value of a reply whose shape the command does not know.
// Numbers keep their digits; the fields of objects are sorted by name, as
// Vault's commands print them.
type value struct {
	kind   valueKind
	text   string // of a string; the digits of a number; true or false
	items  []value
	fields []field
}

type valueKind uint8

const (
	kindNull valueKind = iota
	kindString
	kindNumber
	kindBool
	kindList
	kindObject
)

type field struct {
	name  string
	value value
}

// parseValue reads one JSON value. Nothing at all is null.
func parseValue(b []byte) (value, error) {
	if len(bytes.TrimSpace(b)) == 0 {
		return value{}, nil
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	v, err := decodeValue(dec)
	if err != nil {
		return value{}, fmt.Errorf("reading JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return value{}, fmt.Errorf("reading JSON: text after the value")
	}
	return v, nil
}

func decodeValue(dec *json.Decoder) (value, error) {
	tok, err := dec.Token()
	if err != nil {
		return value{}, err
	}
	switch t := tok.(type) {
	case string:
		return value{kind: kindString, text: t}, nil
	case json.Number:
		return value{kind: kindNumber, text: t.String()}, nil
	case bool:
		return value{kind: kindBool, text: strconv.FormatBool(t)}, nil
	case json.Delim:
		if t == '[' {
			return decodeList(dec)
		}
		return decodeObject(dec)
	}
	return value{}, nil
}

func decodeList(dec *json.Decoder) (value, error) {
	v := value{kind: kindList}
	for dec.More() {
		item, err := decodeValue(dec)
		if err != nil {
			return value{}, err
		}
		v.items = append(v.items, item)
	}
	_, err := dec.Token()
	return v, err
}

func decodeObject(dec *json.Decoder) (value, error) {
	v := value{kind: kindObject}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return value{}, err
		}
		item, err := decodeValue(dec)
		if err != nil {
			return value{}, err
		}
		v.set(name.(string), item)
	}
	slices.SortFunc(v.fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	_, err := dec.Token()
	return v, err
}

// set adds a field; the last of two with one name counts.
func (v *value) set(name string, item value) {
	for i := range v.fields {
		if v.fields[i].name == name {
			v.fields[i].value = item
			return
		}
	}
	v.fields = append(v.fields, field{name, item})
}

// get is a field of an object.
func (v value) get(name string) (value, bool) {
	for _, f := range v.fields {
		if f.name == name {
			return f.value, true
		}
	}
	return value{}, false
}

// without is the object less one field.
func (v value) without(name string) value {
	v.fields = slices.DeleteFunc(slices.Clone(v.fields), func(f field) bool { return f.name == name })
	return v
}

// String is the form that tables show: Go's own for lists and maps, which is
// what people who read Vault's tables know.
func (v value) String() string {
	switch v.kind {
	case kindNull:
		return "<nil>"
	case kindList:
		parts := make([]string, len(v.items))
		for i, item := range v.items {
			parts[i] = item.String()
		}
		return "[" + strings.Join(parts, " ") + "]"
	case kindObject:
		parts := make([]string, len(v.fields))
		for i, f := range v.fields {
			parts[i] = f.name + ":" + f.value.String()
		}
		return "map[" + strings.Join(parts, " ") + "]"
	}
	return v.text
}

var _ json.Marshaler = value{}

// MarshalJSON writes the value back, fields sorted.
func (v value) MarshalJSON() ([]byte, error) { return v.appendJSON(nil), nil }

func (v value) appendJSON(b []byte) []byte {
	switch v.kind {
	case kindNull:
		return append(b, "null"...)
	case kindString:
		return appendJSONString(b, v.text)
	case kindList:
		b = append(b, '[')
		for i, item := range v.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.appendJSON(b)
		}
		return append(b, ']')
	case kindObject:
		b = append(b, '{')
		for i, f := range v.fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(appendJSONString(b, f.name), ':')
			b = f.value.appendJSON(b)
		}
		return append(b, '}')
	}
	return append(b, v.text...)
}

func appendJSONString(b []byte, s string) []byte {
	j, err := marshal(s)
	if err != nil { // strings always marshal
		panic(err)
	}
	return append(b, j...)
}

// marshal is json.Marshal that leaves <, > and & alone.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding JSON: %w", err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}
