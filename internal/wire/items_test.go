package wire_test

import (
	"reflect"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/wire"
)

type entry struct {
	Name  wire.Text         `json:"name"`
	Count int               `json:"count,omitempty"`
	Note  wire.Opt[string]  `json:"note,omitempty"`
	Sub   map[string]string `json:"sub,omitempty"`
}

type listed struct {
	List wire.Items[entry] `json:"list"`
}

func TestItems(t *testing.T) {
	d := wire.NewDecoder[listed]()
	for _, c := range []struct {
		body string
		set  bool
		want string // of names and counts, or of the error
	}{
		{`{}`, false, ""},
		{`{"list":null}`, false, ""},
		{`{"list":[]}`, true, ""},
		{`{"list":[ {"name":"a","count":"3"} , {}, null,{"name":"\u00e9,]","count":1} ]}`, true, "a3 0 0 é,]1 "},
		{`{"list":[{"name":"a","note":"kept?"},{"name":"b"}]}`, true, "a0kept? b0 "},
		{`{"list":[{"name":"a"},7,{"name":"b"}]}`, true, "a0 entry 1 of a list: expected an object, got a number"},
		{`{"list":[{"count":"x"}]}`, true, "entry 0 of a list: count: expected a whole number"},
	} {
		var in listed
		if _, err := d.Decode(&in, wire.Source{Body: []byte(c.body)}); err != nil {
			t.Errorf("Decode(%s): %v", c.body, err)
			continue
		}
		got := ""
		for e, err := range in.List.All() {
			if err != nil {
				if !errs.Is(err, errs.Invalid) {
					t.Errorf("%s: %v is not the caller's", c.body, err)
				}
				got += errs.Message(err)
				continue
			}
			got += string(e.Name) + string(rune('0'+e.Count)) + e.Note.Value + " "
		}
		if in.List.Set() != c.set || got != c.want {
			t.Errorf("%s = set %v, %q, want %v, %q", c.body, in.List.Set(), got, c.set, c.want)
		}
	}
	for _, body := range []string{`{"list":"x"}`, `{"list":{}}`, `{"list":7}`} {
		if _, err := d.Decode(new(listed), wire.Source{Body: []byte(body)}); !errs.Is(err, errs.Invalid) {
			t.Errorf("Decode(%s) = %v, want a refusal", body, err)
		}
	}
}

func TestItemsBound(t *testing.T) {
	var in listed
	body := `{"list":[` + strings.TrimSuffix(strings.Repeat("{},", 1<<17+1), ",") + `]}`
	if _, err := wire.NewDecoder[listed]().Decode(&in, wire.Source{Body: []byte(body)}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range in.List.All() {
		if err != nil {
			if n != 1<<17 || !errs.Is(err, errs.Invalid) {
				t.Errorf("after %d entries: %v", n, err)
			}
			return
		}
		n++
	}
	t.Errorf("all of %d entries were taken", n)
}

// TestItemsWritten writes lists, one in the memory of another, and hashes them
// for the audit log.
func TestItemsWritten(t *testing.T) {
	var buf []byte
	for _, c := range []struct {
		entries []entry
		want    string
		hashed  string
	}{
		{nil, `{"list":[]}`, `{"list":[]}`},
		{[]entry{{Name: wire.Text(`a"b`), Count: 2}, {Note: wire.Some("n")}}, `{"list":[{"name":"a\"b","count":2},{"name":"","note":"n"}]}`, `{"list":[{"name":"#list","count":2},{"name":"#list","note":"#list"}]}`},
		{[]entry{{Name: wire.Text("c")}}, `{"list":[{"name":"c"}]}`, `{"list":[{"name":"#list"}]}`},
	} {
		list := wire.NewItems[entry](buf)
		for i := range c.entries {
			list.Add(&c.entries[i])
		}
		buf = list.Close()
		if got := string(wire.Of(listed{list}).AppendJSON(nil)); got != c.want {
			t.Errorf("%v = %s, want %s", c.entries, got, c.want)
		}
		hash := func(field string, _ bool, _ string) string { return "#" + field }
		if got := string(wire.Of(listed{list}).AppendHashed(nil, hash)); got != c.hashed {
			t.Errorf("%v for the audit log = %s, want %s", c.entries, got, c.hashed)
		}
	}
	if got := string(wire.Of(listed{}).AppendJSON(nil)); got != `{"list":null}` {
		t.Errorf("no list = %s", got)
	}
}

func TestItemsShape(t *testing.T) {
	s := wire.ShapeOf(reflect.TypeFor[listed]())
	if f := s.Fields[0].Shape; f.Type != "array" || f.Items == nil || f.Items.Type != "object" || len(f.Items.Fields) != 4 {
		t.Errorf("the shape of a list is %+v", f)
	}
	if f := wire.FieldsOf(reflect.TypeFor[listed]())[0]; f.Type != "array" || f.Items != "object" {
		t.Errorf("the field of a list is %+v", f)
	}
}

// FuzzItems holds decoding entry by entry to decoding them all at once.
func FuzzItems(f *testing.F) {
	for _, s := range []string{
		`{"list":[]}`, `{"list":[{"name":"a","count":"1"},{},null]}`, `{"list":[{"name":"\u0061\"]"},[]]}`, `{"list":[1`, `{"list":{"a":[1]}}`, `{"list":null}`,
	} {
		f.Add([]byte(s))
	}
	type whole struct {
		List wire.Opt[[]entry] `json:"list"`
	}
	one, all := wire.NewDecoder[listed](), wire.NewDecoder[whole]()
	f.Fuzz(func(t *testing.T, body []byte) {
		var a listed
		var b whole
		_, aerr := one.Decode(&a, wire.Source{Body: body})
		_, berr := all.Decode(&b, wire.Source{Body: body})
		if aerr != nil {
			if berr == nil {
				t.Fatalf("%q is refused: %v", body, aerr)
			}
			return
		}
		list, n := wire.NewItems[entry](nil), 0
		for e, err := range a.List.All() {
			if err != nil {
				if berr == nil {
					t.Fatalf("entry %d of %q is refused: %v", n, body, err)
				}
				return
			}
			list.Add(e)
			n++
		}
		if berr != nil {
			t.Fatalf("%q is taken, and all at once refused: %v", body, berr)
		}
		list.Close()
		if got, want := wire.Append(nil, listed{list}), wire.Append(nil, listed{}); !a.List.Set() {
			if len(b.List.Value) > 0 {
				t.Fatalf("%q: %s, want entries %v", body, want, b.List.Value)
			}
		} else if want := wire.Append(nil, b); string(got) != string(want) {
			t.Fatalf("%q: entry by entry %s, at once %s", body, got, want)
		}
	})
}
