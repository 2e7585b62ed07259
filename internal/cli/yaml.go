package cli

import (
	"regexp"
	"strings"
	"unicode"
)

// appendYAML writes v in block style: fields sorted, lists at the level of
// their key, texts of several lines as blocks. Only what replies are made of
// is needed (JSON's types), so this is no general encoder.
func appendYAML(b []byte, v value, depth int) []byte {
	pad := strings.Repeat("  ", depth)
	switch {
	case v.kind == kindObject && len(v.fields) > 0:
		for _, f := range v.fields {
			b = append(b, pad...)
			b = append(appendYAMLText(b, f.name, depth), ':')
			b = appendYAMLItem(b, f.value, depth)
		}
		return b
	case v.kind == kindList && len(v.items) > 0:
		for _, item := range v.items {
			b = append(b, pad...)
			b = append(b, '-')
			if nested(item) {
				// The first line of what is nested stands on the dash's line.
				inner := appendYAML(nil, item, depth+1)
				b = append(b, ' ')
				b = append(b, strings.TrimLeft(string(inner), " ")...)
				continue
			}
			b = appendYAMLItem(b, item, depth)
		}
		return b
	}
	return append(appendYAMLScalar(append(b, pad...), v, depth), '\n')
}

// appendYAMLItem writes what follows "key:" or "-".
func appendYAMLItem(b []byte, v value, depth int) []byte {
	if nested(v) {
		b = append(b, '\n')
		if v.kind == kindObject {
			depth++
		}
		return appendYAML(b, v, depth)
	}
	b = append(b, ' ')
	return append(appendYAMLScalar(b, v, depth), '\n')
}

func nested(v value) bool { return len(v.fields) > 0 || len(v.items) > 0 }

func appendYAMLScalar(b []byte, v value, depth int) []byte {
	switch v.kind {
	case kindNull:
		return append(b, "null"...)
	case kindObject:
		return append(b, "{}"...)
	case kindList:
		return append(b, "[]"...)
	case kindString:
		if block, ok := yamlBlock(v.text, depth+1); ok {
			return append(b, block...)
		}
		return appendYAMLText(b, v.text, depth)
	}
	return append(b, v.text...)
}

// yamlPlain are texts that need no quotes: they cannot be taken for another
// type and hold nothing that means something to YAML.
var (
	yamlPlain = regexp.MustCompile(`^[A-Za-z0-9_/.<][A-Za-z0-9_./+=@%^$~()<>;,-]*(:?[A-Za-z0-9_./+=@%^$~()<>;, -]*[A-Za-z0-9_./+=@%^$~()<>;,-])*$`)
	yamlWord  = regexp.MustCompile(`(?i)^(y|yes|n|no|true|false|on|off|null|~|\.nan|[-+]?\.inf|\.[0-9_]+(e[-+]?[0-9]+)?)$`)
	// yamlNumber is what YAML 1.1 takes for a number, or for the beginning of
	// a date.
	yamlNumber = regexp.MustCompile(`(?i)^(0x[0-9a-f_]+|0b[01_]+|0o?[0-7_]+|[0-9][0-9_]*(\.[0-9_]*)?(e[-+]?[0-9]+)?|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([t ].*)?)$`)
)

func appendYAMLText(b []byte, s string, _ int) []byte {
	if yamlPlain.MatchString(s) && !yamlWord.MatchString(s) && !yamlNumber.MatchString(s) && !strings.Contains(s, " #") && !strings.Contains(s, ": ") {
		return append(b, s...)
	}
	return appendJSONString(b, s) // every JSON string is a YAML string
}

// yamlBlock writes a text of several lines as it is, where YAML can hold it so.
func yamlBlock(s string, depth int) (string, bool) {
	if !strings.Contains(s, "\n") || strings.HasPrefix(s, " ") || strings.HasPrefix(s, "\n") || strings.HasSuffix(s, "\n\n") {
		return "", false
	}
	for _, r := range s {
		if r != '\n' && !unicode.IsPrint(r) {
			return "", false
		}
	}
	head := "|-"
	if strings.HasSuffix(s, "\n") {
		head, s = "|", strings.TrimSuffix(s, "\n")
	}
	var out strings.Builder
	out.WriteString(head)
	pad := strings.Repeat("  ", depth)
	for _, line := range strings.Split(s, "\n") {
		out.WriteByte('\n')
		if line != "" {
			out.WriteString(pad + line)
		}
	}
	return out.String(), true
}
