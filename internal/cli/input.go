package cli

import (
	"bytes"
	"encoding/json"
	"strings"
)

// input is the object that key=value arguments make, in their order.
type input struct {
	keys   []string
	values map[string]json.RawMessage
}

// parseInput reads arguments as Vault's commands do: key=value, key=@file,
// key=- (standard input), @file or - (a JSON object). A key given twice makes
// a list; a value that begins with a backslash before @ or - is literal.
func (c *call) parseInput(args []string) (*input, error) {
	in := &input{values: map[string]json.RawMessage{}}
	for _, arg := range args {
		if arg == "-" || strings.HasPrefix(arg, "@") {
			b, err := c.file(strings.TrimPrefix(arg, "@"))
			if err != nil {
				return nil, err
			}
			if err := in.addObject(arg, b); err != nil {
				return nil, err
			}
			continue
		}
		key, val, ok := strings.Cut(arg, "=")
		if !ok || key == "" {
			return nil, localf("Argument %q: want key=value, key=@file, key=-, @file or -", arg)
		}
		text, err := c.inputText(val)
		if err != nil {
			return nil, err
		}
		in.addText(key, text)
	}
	return in, nil
}

func (c *call) inputText(val string) (string, error) {
	switch {
	case val == "-":
		b, err := c.all()
		return string(b), err
	case strings.HasPrefix(val, "@"):
		b, err := c.file(val[1:])
		return string(b), err
	case strings.HasPrefix(val, `\@`), val == `\-`:
		return val[1:], nil
	}
	return val, nil
}

func (in *input) addObject(from string, b []byte) error {
	v, err := parseValue(b)
	if err != nil || v.kind != kindObject {
		return localf("%s: want a JSON object such as {\"key\": \"value\"}", from)
	}
	for _, f := range v.fields {
		in.put(f.name, f.value.appendJSON(nil))
	}
	return nil
}

// addText adds a string; to an earlier one of the same key it makes a list.
func (in *input) addText(key, text string) {
	item := json.RawMessage(appendJSONString(nil, text))
	old, ok := in.values[key]
	switch {
	case !ok:
		in.put(key, item)
	case bytes.HasPrefix(old, []byte("[")):
		list := append(bytes.TrimSuffix(old, []byte("]")), ',')
		in.put(key, append(append(list, item...), ']'))
	default:
		in.put(key, json.RawMessage("["+string(old)+","+string(item)+"]"))
	}
}

func (in *input) put(key string, raw json.RawMessage) {
	if _, ok := in.values[key]; !ok {
		in.keys = append(in.keys, key)
	}
	in.values[key] = raw
}

// text takes a string value, or "".
func (in *input) text(key string) string {
	var s string
	if json.Unmarshal(in.values[key], &s) != nil {
		return ""
	}
	return s
}

// drop removes a key.
func (in *input) drop(key string) {
	delete(in.values, key)
	for i, k := range in.keys {
		if k == key {
			in.keys = append(in.keys[:i], in.keys[i+1:]...)
			return
		}
	}
}

// MarshalJSON writes the object.
func (in *input) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, k := range in.keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendJSONString(b, k), ':')
		b = append(b, in.values[k]...)
	}
	return append(b, '}'), nil
}

// query is key=value arguments for a request without a body.
func (c *call) query(args []string) (map[string][]string, error) {
	if len(args) == 0 {
		return nil, nil
	}
	in, err := c.parseInput(args)
	if err != nil {
		return nil, err
	}
	q := map[string][]string{}
	for _, k := range in.keys {
		v, err := parseValue(in.values[k])
		if err != nil {
			return nil, err
		}
		if v.kind != kindList {
			v.items = []value{v}
		}
		for _, item := range v.items {
			q[k] = append(q[k], item.String())
		}
	}
	return q, nil
}
