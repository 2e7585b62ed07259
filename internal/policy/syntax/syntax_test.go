package syntax_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/policy/syntax"
)

// show writes a node on one line, as the tests compare it.
func show(n *syntax.Node) string {
	switch n.Kind {
	case syntax.List:
		parts := make([]string, len(n.Items))
		for i, item := range n.Items {
			parts[i] = show(item)
		}
		return "[" + strings.Join(parts, " ") + "]"
	case syntax.Object:
		parts := make([]string, len(n.Members))
		for i, m := range n.Members {
			parts[i] = m.Name + ":" + show(m.Value)
		}
		return "{" + strings.Join(parts, " ") + "}"
	case syntax.String:
		return fmt.Sprintf("%q", n.Text)
	case syntax.Null:
		return "null"
	}
	return n.Text
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", `{}`},
		{"comment only", "# nothing\n// here\n/* at all */", `{}`},
		{"block with a label", `path "a/*" { capabilities = ["read"] }`, `{path:{a/*:{capabilities:["read"]}}}`},
		{"repeated blocks", "path \"a\" {}\npath \"b\" {}", `{path:{a:{}} path:{b:{}}}`},
		{"the same in JSON", `{"path":{"a/*":{"capabilities":["read"]}}}`, `{path:{a/*:{capabilities:["read"]}}}`},
		{"numbers", `a = 0x10
b = -3
c = 1.50
d = true`, `{a:16 b:-3 c:1.5 d:true}`},
		{"JSON values", ` {"a": null, "b": [1, "x", {}], "c": false}`, `{a:null b:[1 "x" {}] c:false}`},
		{"escapes", `a = "x\n\"é"`, `{a:"x\n\"é"}`},
		{"braces in strings and comments", "# {{{{\na = \"{{identity.entity.id}}\"", `{a:"{{identity.entity.id}}"}`},
		{"heredoc", "a = <<EOF\none\n  two\nEOF\n", `{a:"one\n  two\n"}`},
		{"indented heredoc", "a = <<-EOF\n    one\n      two\n    EOF\n", `{a:"one\n  two\n"}`},
		{"carriage returns", "a = 1\r\nb = 2\r\n", `{a:1 b:2}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := syntax.Parse(c.text)
			if err != nil {
				t.Fatalf("Parse(%q): %v", c.text, err)
			}
			if got := show(n); got != c.want {
				t.Errorf("Parse(%q) = %s, want %s", c.text, got, c.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"a number", "5", "At 1:1: expected: IDENT | STRING | ASSIGN | LBRACE got: NUMBER"},
		{"no HCL", "this is { not hcl", "At 1:19: key 'not hcl' expected start of object ('{') or assignment ('=')"},
		{"duplicate argument", "a = 1\na = 2", "already set"},
		{"duplicate JSON key", "{\"path\": {\n  \"a\": {},\n  \"a\": {}\n}}", `At 3:3: key "a" was already set at 2:3`},
		{"deep JSON duplicate", `{"a":[{"b":1,"b":2}]}`, `key "b" was already set`},
		{"text after JSON", `{"a":1} x`, "At 1:9: invalid character 'x'"},
		{"two JSON objects", `{"a":1} {}`, "At 1:9: invalid character '{' after top-level value"},
		{"unfinished JSON", `{"a":`, "unexpected end of JSON"},
		{"broken JSON", "{\n \"a\": flase}", "At 2:8: invalid character 'l'"},
		{"number too large", "a = 99999999999999999999", "not a number that fits"},
		{"float too large", "a = 1.0e999", "not a number that fits"},
		{"unfinished string", "a = \"x", "literal not terminated"},
		{"bad escape", `a = "\q"`, "illegal char escape"},
		{"not UTF-8", "a = 1\nb = \"\xff\"", "At 2:6: the text is not UTF-8"},
		{"NUL", "a = 1\x00", "null character"},
		{"unfinished heredoc", "a = <<EOF\nx", "heredoc not terminated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := syntax.Parse(c.text)
			if err == nil {
				t.Fatalf("Parse(%q) = %s, want an error with %q", c.text, show(n), c.want)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("Parse(%q) = %q, want it to say %q", c.text, err, c.want)
			}
		})
	}
}

// Each of these, unchecked, would exhaust the stack and end the process.
func TestNestingBombsAreRefused(t *testing.T) {
	for name, piece := range map[string]string{
		"HCL objects": "a={", "HCL lists": "[", "HCL blocks": "a {", "HCL lists of objects": "[{a=",
		"JSON objects": `{"a":`, "JSON lists": `{"a":[[`,
	} {
		for _, size := range []int{syntax.MaxBytes, 1 << 20} {
			prefix := ""
			if strings.HasPrefix(piece, "[") {
				prefix = "a="
			}
			text := prefix + strings.Repeat(piece, (size-len(prefix))/len(piece))
			if _, err := syntax.Parse(text); err == nil {
				t.Errorf("%s, %d bytes: accepted", name, size)
			}
		}
	}
}

// The widest texts within the limit. A reader whose time grew with the square
// of the size would be seen here: as minutes.
func TestWideTexts(t *testing.T) {
	var hcl, js strings.Builder
	js.WriteString(`{"path":{`)
	for i := 0; hcl.Len() < syntax.MaxBytes-100; i++ {
		fmt.Fprintf(&hcl, "path \"%d\" {}\n", i)
	}
	for i := 0; js.Len() < syntax.MaxBytes-100; i++ {
		fmt.Fprintf(&js, `"%d":{},`, i)
	}
	js.WriteString(`"x":{}}}`)
	for name, text := range map[string]string{
		"HCL": hcl.String(), "JSON": js.String(),
		"comments": strings.Repeat("#\n", syntax.MaxBytes/2),
		"keys":     strings.Repeat("a ", syntax.MaxBytes/2-4) + "{}",
	} {
		if _, err := syntax.Parse(text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseHCL(f *testing.F) {
	for _, s := range []string{
		"", "5", `path "a" { capabilities = ["read"] }`, "a = <<EOF\nx\nEOF\n", "a = <<-E\n  x\n  E\n", "a={a={a={", "a=[[[[", "a=[{a=",
		strings.Repeat("a={", 1000), strings.Repeat("a {", 100), "a=" + strings.Repeat("[{a=", 100),
		`a = "${x{y}}"`, "a = 0x", "a = 1e", "a = .5", "/*", "a \"b\" \"c\" {}", "a = [1, , 2]", "{{}}",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := syntax.Parse(text)
		if (n == nil) == (err == nil) {
			t.Fatalf("Parse = %v, %v", n, err)
		}
		if err == nil && n.Kind != syntax.Object {
			t.Fatalf("Parse gave %v, want an object", n.Kind)
		}
	})
}

func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{
		"{}", strings.Repeat(`{"a":`, 100), `{"a":` + strings.Repeat("[", 1000), `{"path":{"a":{"capabilities":["read"]}}}`, `{"a":1,"a":2}`, `{"a":[[[[[`, `{"a":{"a":{"a":`, `{"a":"\ud800"}`, `{"a":1e400}`, "{\"a\":1}\n\x00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		text = "{" + text
		n, err := syntax.Parse(text)
		if (n == nil) == (err == nil) {
			t.Fatalf("Parse = %v, %v", n, err)
		}
		// What is read as JSON here is JSON to others as well.
		if err == nil && !json.Valid([]byte(text)) {
			t.Fatalf("Parse accepted %q, which is not JSON", text)
		}
	})
}
