package wire_test

import (
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

type inner struct {
	A string `json:"a"`
	N int    `json:"n"`
}

type nameIn struct {
	Name string `json:"name" doc:"Name of the thing."`
}

type everything struct {
	nameIn
	S       string              `json:"s"`
	Pass    secret.String       `json:"pass"`
	B       bool                `json:"b"`
	I       int                 `json:"i"`
	I8      int8                `json:"i8"`
	U       uint16              `json:"u"`
	F       float64             `json:"f"`
	TTL     wire.TTL            `json:"ttl"`
	CSV     wire.CSV            `json:"csv"`
	SQL     wire.Strings        `json:"sql"`
	KV      wire.KV             `json:"kv"`
	Opt     wire.Opt[int]       `json:"opt"`
	OptTTL  wire.Opt[wire.TTL]  `json:"opt_ttl"`
	OptList wire.Opt[wire.CSV]  `json:"opt_list"`
	Any     wire.Value          `json:"any"`
	Obj     wire.Object         `json:"obj"`
	Ints    []int               `json:"ints"`
	In      inner               `json:"in"`
	Ptr     *inner              `json:"ptr"`
	Ins     []inner             `json:"ins"`
	Map     map[string]inner    `json:"map"`
	When    time.Time           `json:"when"`
	Addr    netip.Prefix        `json:"addr"`
	Raw     []byte              `json:"raw"`
	Names   map[string][]string `json:"names"`
}

func decode(t *testing.T, body string) (everything, []string, error) {
	t.Helper()
	var in everything
	warnings, err := wire.NewDecoder[everything]().Decode(&in, wire.Source{Body: []byte(body)})
	return in, warnings, err
}

var opts = cmp.Options{cmp.AllowUnexported(everything{}, secret.String{}), cmpopts.EquateComparable(netip.Prefix{})}

func TestDecodeTolerates(t *testing.T) {
	tests := []struct {
		name, body string
		want       everything
	}{
		{"empty body", ``, everything{}},
		{"white space", " \n", everything{}},
		{"null", ` null `, everything{}},
		{"plain", `{"s":"x","b":true,"i":-3,"u":65535,"f":1.5,"pass":"p"}`,
			everything{S: "x", B: true, I: -3, U: 65535, F: 1.5, Pass: secret.New("p")}},
		{"texts for numbers and booleans", `{"b":"true","i":"42","i8":"-128","u":"7","f":"2.5"}`,
			everything{B: true, I: 42, I8: -128, U: 7, F: 2.5}},
		{"empty texts are zero", `{"b":"","i":"","ttl":""}`, everything{}},
		{"numbers for texts", `{"s":12345678901234567890,"pass":7}`,
			everything{S: "12345678901234567890", Pass: secret.New("7")}},
		{"whole numbers in other clothes", `{"i":3.0,"u":1e3}`, everything{I: 3, U: 1000}},
		{"duration in seconds", `{"ttl":3600}`, everything{TTL: wire.TTL(time.Hour)}},
		{"duration in seconds as text", `{"ttl":"3600"}`, everything{TTL: wire.TTL(time.Hour)}},
		{"duration with units", `{"ttl":"1h30m"}`, everything{TTL: wire.TTL(90 * time.Minute)}},
		{"duration in days", `{"ttl":"7d"}`, everything{TTL: wire.TTL(7 * 24 * time.Hour)}},
		{"comma list", `{"csv":"a, b,c"}`, everything{CSV: wire.CSV{"a", "b", "c"}}},
		{"list as list", `{"csv":["a",2]}`, everything{CSV: wire.CSV{"a", "2"}}},
		{"no elements", `{"csv":""}`, everything{CSV: wire.CSV{}}},
		{"SQL keeps its commas", `{"sql":"GRANT a, b;"}`, everything{SQL: wire.Strings{"GRANT a, b;"}}},
		{"SQL list", `{"sql":["a","b"]}`, everything{SQL: wire.Strings{"a", "b"}}},
		{"map", `{"kv":{"a":"b","n":1}}`, everything{KV: wire.KV{"a": "b", "n": "1"}}},
		{"map as list", `{"kv":["a=b=c","d="]}`, everything{KV: wire.KV{"a": "b=c", "d": ""}}},
		{"map as text", `{"kv":"a=b"}`, everything{KV: wire.KV{"a": "b"}}},
		{"present zero", `{"opt":0}`, everything{Opt: wire.Some(0)}},
		{"present null", `{"opt":null,"opt_list":null}`, everything{Opt: wire.Some(0), OptList: wire.Some[wire.CSV](nil)}},
		{"present text", `{"opt":"5","opt_ttl":"1m","opt_list":"a,b"}`,
			everything{Opt: wire.Some(5), OptTTL: wire.Some(wire.TTL(time.Minute)), OptList: wire.Some(wire.CSV{"a", "b"})}},
		{"raw values", `{"any": [1, {"a" : 2}], "obj": {"x": 1.10, "y": [ ]}}`,
			everything{Any: wire.Value(`[1,{"a":2}]`), Obj: wire.Object(`{"x":1.10,"y":[]}`)}},
		{"the last of duplicates", `{"s":"a","s":"b","obj":{"k":1,"l":2,"k":3,"\u006b":4}}`,
			everything{S: "b", Obj: wire.Object(`{"k":4,"l":2}`)}},
		{"compound", `{"ints":[1,"2"],"in":{"a":"x","n":"3","zz":1},"ptr":{"a":"y"},"ins":[{"a":"1"},{}],"map":{"k":{"n":1}},"names":{"k":["v"]}}`,
			everything{Ints: []int{1, 2}, In: inner{"x", 3}, Ptr: &inner{A: "y"}, Ins: []inner{{A: "1"}, {}},
				Map: map[string]inner{"k": {N: 1}}, Names: map[string][]string{"k": {"v"}}}},
		{"one element", `{"ints":5}`, everything{}},
		{"time", `{"when":"2026-01-02T03:04:05.6+01:00","addr":"10.0.0.0/8","raw":"aGk="}`,
			everything{When: time.Date(2026, 1, 2, 2, 4, 5, 6e8, time.UTC), Addr: netip.MustParsePrefix("10.0.0.0/8"), Raw: []byte("hi")}},
		{"address", `{"addr":"192.0.2.7"}`, everything{Addr: netip.MustParsePrefix("192.0.2.7/32")}},
		{"escapes", `{"s":"\u0041\n\"\\\/\ud83d\udd11\ud800x","na\u006de":"n"}`,
			everything{S: "A\n\"\\/🔑\ufffdx", nameIn: nameIn{Name: "n"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, warnings, err := decode(t, tt.body)
			if tt.name == "one element" {
				if !errs.Is(err, errs.Invalid) {
					t.Errorf("Decode(%s) = %v, want an Invalid", tt.body, err)
				}
				return
			}
			if err != nil || len(warnings) > 0 {
				t.Fatalf("Decode(%s) = %v, warnings %q", tt.body, err, warnings)
			}
			if d := cmp.Diff(tt.want, got, opts...); d != "" {
				t.Errorf("Decode(%s) (-want +got):\n%s", tt.body, d)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	tests := []struct{ body, names string }{
		{`{"i":"x"}`, `"i"`},
		{`{"i":1.5}`, `"i"`},
		{`{"i":{}}`, `"i"`},
		{`{"i8":300}`, `"i8"`},
		{`{"u":-1}`, `"u"`},
		{`{"b":"maybe"}`, `"b"`},
		{`{"ttl":-1}`, `"ttl"`},
		{`{"ttl":"-1h"}`, `"ttl"`},
		{`{"ttl":"soon"}`, `"ttl"`},
		{`{"ttl":1.5}`, `"ttl"`},
		{`{"ttl":99999999999999}`, `"ttl"`},
		{`{"ttl":"999999999999d"}`, `"ttl"`},
		{`{"csv":{}}`, `"csv"`},
		{`{"kv":{"a":[]}}`, `"kv"`},
		{`{"kv":"a"}`, `"kv"`},
		{`{"obj":"text"}`, `"obj"`},
		{`{"in":{"n":"x"}}`, `n: `},
		{`{"s":["a"]}`, `"s"`},
		{`[]`, `a list`},
		{`"x"`, `a string`},
		{`{"a":`, `offset 5`},
		{`{"a":1,}`, `offset 7`},
		{`{"a":1} x`, `offset 8`},
		{`{"a":01}`, `offset 6`},
		{`{a:1}`, `offset 1`},
		{`{"a":nul}`, `offset 8`},
		{"{\"a\":\"\n\"}", `offset 6`},
		{"{\"a\":\"\xff\"}", `offset 6`},
		{`{"a":"\x"}`, `offset 7`},
		{`{"a":"\u12g4"}`, `offset 10`},
		{`{"a":` + strings.Repeat("[", 400) + strings.Repeat("]", 400) + `}`, `deeper`},
	}
	for _, tt := range tests {
		_, _, err := decode(t, tt.body)
		if !errs.Is(err, errs.Invalid) || !strings.Contains(errs.Message(err), tt.names) {
			t.Errorf("Decode(%.60s) = %v, want an Invalid that names %s", tt.body, err, tt.names)
		}
	}
}

func TestDecodeSources(t *testing.T) {
	var in everything
	warnings, err := wire.NewDecoder[everything]().Decode(&in, wire.Source{
		Params: []wire.Param{{Name: "name", Value: "path"}, {Name: "i", Value: "4"}, {Name: "elsewhere", Value: "x"}},
		Query:  url.Values{"s": {"q"}, "csv": {"a", "b"}, "zz": {"1"}, "list": {"0"}},
		Body:   []byte(`{"name":"body","s":"b","unknown":{"deep":[1]},"zz":2}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := everything{nameIn: nameIn{Name: "path"}, S: "b", I: 4, CSV: wire.CSV{"a", "b"}}
	if d := cmp.Diff(want, in, opts...); d != "" {
		t.Errorf("Decode (-want +got):\n%s", d)
	}
	wantWarnings := []string{
		"Endpoint ignored these unrecognized parameters: [list unknown zz]",
		"Endpoint replaced the value of these parameters with the values captured from the endpoint's path: [name]",
	}
	if d := cmp.Diff(wantWarnings, warnings); d != "" {
		t.Errorf("warnings (-want +got):\n%s", d)
	}
}

type wholeIn struct {
	Path string      `json:"path"`
	All  wire.Object `json:"-" body:"all"`
}

func TestDecodeWholeBody(t *testing.T) {
	var in wholeIn
	warnings, err := wire.NewDecoder[wholeIn]().Decode(&in, wire.Source{
		Params: []wire.Param{{Name: "path", Value: "p"}},
		Body:   []byte(`{ "path" : "mine", "big": 12345678901234567890, "x": null }`),
	})
	if err != nil {
		t.Fatal(err)
	}
	if in.Path != "p" || string(in.All) != `{"path":"mine","big":12345678901234567890,"x":null}` {
		t.Errorf("Decode = %+v (%s), warnings %q", in, in.All, warnings)
	}
}

type checkedIn struct {
	N int `json:"n"`
}

func (c *checkedIn) Validate() error {
	if c.N > 3 {
		return errors.New("n must not be over 3")
	}
	return nil
}

func TestDecodeValidates(t *testing.T) {
	d := wire.NewDecoder[checkedIn]()
	if _, err := d.Decode(new(checkedIn), wire.Source{Body: []byte(`{"n":3}`)}); err != nil {
		t.Errorf("Decode(3) = %v", err)
	}
	_, err := d.Decode(new(checkedIn), wire.Source{Body: []byte(`{"n":4}`)})
	if !errs.Is(err, errs.Invalid) || errs.Message(err) != "n must not be over 3" {
		t.Errorf("Decode(4) = %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		``, `{}`, `{"s":"x","i":"1","ttl":"1h","kv":{"a":"b"},"csv":"a,b"}`, `{"any":[1,{"a":[]}],"obj":{"k":1,"k":2}}`,
		`{"s":"\ud83d\udd11\u0000"}`, `{"in":{"n":1},"ins":[{},null],"map":{"":{}}}`, `[1]`, `{"f":1e999}`, `{"when":"x"}`,
	} {
		f.Add([]byte(s))
	}
	d := wire.NewDecoder[everything]()
	f.Fuzz(func(t *testing.T, body []byte) {
		var in everything
		_, err := d.Decode(&in, wire.Source{Body: body})
		valid := wire.Check(body)
		if err != nil {
			if !errs.Is(err, errs.Invalid) {
				t.Fatalf("Decode(%q) = %v, which is not the caller's fault", body, err)
			}
			return
		}
		if valid != nil && len(strings.TrimSpace(string(body))) > 0 {
			t.Fatalf("Decode took %q, Check says %v", body, valid)
		}
		out := wire.Marshal(&in)
		var again everything
		if err := wire.Unmarshal(out, &again); err != nil {
			t.Fatalf("Unmarshal(%s), written from %q: %v", out, body, err)
		}
		if second := wire.Marshal(&again); string(second) != string(out) {
			t.Fatalf("%q: Marshal gives %s, after a round trip %s", body, out, second)
		}
		hashed := d.AppendHashedBody(nil, body, func(string, bool, string) string { return "h" })
		if err := wire.Check(hashed); err != nil {
			t.Fatalf("the hashed form of %q is %q: %v", body, hashed, err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	type in struct {
		Name string             `json:"name"`
		TTL  wire.TTL           `json:"ttl"`
		Max  wire.Opt[wire.TTL] `json:"max_ttl"`
		SQL  wire.Strings       `json:"sql"`
		Flag bool               `json:"flag"`
	}
	d := wire.NewDecoder[in]()
	body := []byte(`{"ttl":"1h","max_ttl":86400,"sql":["CREATE ROLE x"],"flag":"true"}`)
	src := wire.Source{Params: []wire.Param{{Name: "name", Value: "app"}}, Body: body}
	b.ReportAllocs()
	for b.Loop() {
		var v in
		if _, err := d.Decode(&v, src); err != nil {
			b.Fatal(err)
		}
	}
}
