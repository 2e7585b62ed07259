package wire_test

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

type tree struct {
	Name string  `json:"name"`
	Kids []*tree `json:"kids,omitempty"`
}

type out struct {
	S      string            `json:"s"`
	Empty  string            `json:"empty,omitempty"`
	Pass   secret.String     `json:"pass"`
	TTL    wire.TTL          `json:"ttl"`
	List   []string          `json:"list"`
	None   []string          `json:"none" wire:"null"`
	Map    map[string]string `json:"map"`
	Nil    map[string]string `json:"nil" wire:"null"`
	When   time.Time         `json:"when"`
	Zero   time.Time         `json:"zero"`
	Text   wire.Time         `json:"text"`
	Opt    wire.Opt[int]     `json:"opt"`
	Unset  wire.Opt[int]     `json:"unset"`
	Raw    wire.Value        `json:"raw"`
	Tree   tree              `json:"tree"`
	Data   wire.Data         `json:"data"`
	hidden string
	Skip   string `json:"-"`
}

func sample() out {
	return out{
		S: "<a&b>\"\\\n\x01\u2028\xff🔑", Pass: secret.New("hunter2"), TTL: wire.TTL(90 * time.Minute), List: []string{"x"},
		Map: map[string]string{"b": "2", "a": "1"}, When: time.Date(2026, 1, 2, 3, 4, 5, 600, time.FixedZone("", 3600)),
		Opt: wire.Some(0), Raw: wire.Value(`{"n":1.10,"t":"deep"}`), Tree: tree{"root", []*tree{{Name: "kid"}}},
		Data: wire.Of([]string{"d"}), hidden: "h", Skip: "s",
	}
}

func TestAppend(t *testing.T) {
	want := `{"s":"<a&b>\"\\\n\u0001` + "\u2028\ufffd" + `🔑","pass":"hunter2","ttl":5400,"list":["x"],"none":null,"map":{"a":"1","b":"2"},"nil":null,` +
		`"when":"2026-01-02T02:04:05.0000006Z","zero":null,"text":"","opt":0,"raw":{"n":1.10,"t":"deep"},` +
		`"tree":{"name":"root","kids":[{"name":"kid"}]},"data":["d"]}`
	v := sample()
	for how, got := range map[string][]byte{
		"Of": wire.Of(v).AppendJSON(nil), "OfAny of a value": wire.OfAny(v).AppendJSON(nil),
		"OfAny of a pointer": wire.OfAny(&v).AppendJSON(nil), "Marshal": wire.Marshal(&v), "Append": wire.Append(nil, v),
	} {
		if d := cmp.Diff(want, string(got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", how, d)
		}
	}
	for _, tt := range []struct {
		v    any
		want string
	}{
		{nil, "null"}, {[]int(nil), "[]"}, {map[string]int(nil), "{}"}, {(*tree)(nil), "null"}, {"x", `"x"`}, {int8(-3), "-3"}, {uint64(1 << 63), "9223372036854775808"},
		{wire.Value(nil), "null"}, {wire.Object(`{"a":1}`), `{"a":1}`}, {2.5, "2.5"}, {true, "true"}, {[]byte("hi"), `"aGk="`}, {struct{}{}, "{}"},
		{map[string]secret.String{"k": secret.New("s")}, `{"k":"s"}`},
		{[]netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("127.0.0.1/8"), netip.MustParsePrefix("::1/128")}, `["192.0.2.7","127.0.0.1/8","::1"]`},
	} {
		if got := string(wire.Append(nil, tt.v)); got != tt.want {
			t.Errorf("Append(%#v) = %s, want %s", tt.v, got, tt.want)
		}
	}
}

// mask shows what the walker said of each string.
func mask(field string, isSecret bool, s string) string {
	kind := "plain"
	if isSecret {
		kind = "secret"
	}
	return field + ":" + kind
}

func TestAppendHashed(t *testing.T) {
	v := sample()
	want := `{"s":"s:plain","pass":"pass:secret","ttl":5400,"list":["list:plain"],"none":null,"map":{"a":"map:plain","b":"map:plain"},"nil":null,` +
		`"when":"2026-01-02T02:04:05.0000006Z","zero":null,"text":"","opt":0,"raw":{"n":1.10,"t":"raw:plain"},` +
		`"tree":{"name":"tree:plain","kids":[{"name":"tree:plain"}]},"data":["data:plain"]}`
	if d := cmp.Diff(want, string(wire.AppendHashed(nil, v, mask))); d != "" {
		t.Errorf("AppendHashed (-want +got):\n%s", d)
	}
	for in, want := range map[string]string{
		`{"a":{"b":["x",1,null]},"c":"y"}`: `{"a":{"b":["a:plain",1,null]},"c":"c:plain"}`,
		`"top"`:                            `":plain"`,
	} {
		if got := string(wire.AppendHashed(nil, wire.Value(in), mask)); got != want {
			t.Errorf("AppendHashed(%s) = %s, want %s", in, got, want)
		}
	}
	if got := string(wire.AppendHashed(nil, map[string]any{"x": 1}["y"], mask)); got != "null" {
		t.Errorf("AppendHashed(nil) = %s", got)
	}
	top := string(wire.AppendHashed(nil, map[string]secret.String{"k": secret.New("s")}, mask))
	if top != `{"k":"k:secret"}` {
		t.Errorf("AppendHashed of a map of secrets = %s", top)
	}
}

func TestAppendHashedBody(t *testing.T) {
	type in struct {
		Pass  secret.String             `json:"pass"`
		Opt   wire.Opt[secret.String]   `json:"opt"`
		Many  map[string]secret.String  `json:"many"`
		Name  string                    `json:"name"`
		Deep  wire.Object               `json:"deep"`
		Lists []secret.String           `json:"lists"`
		_     map[string]map[string]int // of no interest
	}
	body := ` {"pass":"p","opt":"o","many":{"k":"v"},"name":"n","deep":{"pass":"x"},"lists":["l"],"unknown":"u","pa\u0073s":"again"} `
	want := `{"pass":"pass:secret","opt":"opt:secret","many":{"k":"many:secret"},"name":"name:plain","deep":{"pass":"deep:plain"},` +
		`"lists":["lists:secret"],"unknown":"unknown:plain","pa\u0073s":"pass:secret"}`
	if got := string(wire.NewDecoder[in]().AppendHashedBody(nil, []byte(body), mask)); got != want {
		t.Errorf("AppendHashedBody = %s\nwant %s", got, want)
	}
	want = strings.ReplaceAll(want, "secret", "plain")
	if got := string(wire.AppendHashedBody(nil, []byte(body), mask)); got != want {
		t.Errorf("AppendHashedBody of an unknown endpoint = %s\nwant %s", got, want)
	}
	for _, none := range []string{"", "  ", "{"} {
		if got := string(wire.AppendHashedBody(nil, []byte(none), mask)); got != "null" {
			t.Errorf("AppendHashedBody(%q) = %s, want null", none, got)
		}
	}
}

func TestFieldsOf(t *testing.T) {
	type in struct {
		nameIn
		TTL   wire.Opt[wire.TTL] `json:"ttl" doc:"How long."`
		Pass  secret.String      `json:"pass"`
		Ints  []int              `json:"ints"`
		Flag  bool               `json:"flag"`
		Any   wire.Value         `json:"any"`
		Whole wire.Object        `json:"-" body:"all"`
	}
	want := []wire.FieldInfo{
		{Name: "name", Doc: "Name of the thing.", Type: "string"}, {Name: "ttl", Doc: "How long.", Type: "string"},
		{Name: "pass", Type: "string", Secret: true}, {Name: "ints", Type: "array", Items: "integer"},
		{Name: "flag", Type: "boolean"}, {Name: "any"},
	}
	if d := cmp.Diff(want, wire.FieldsOf(reflect.TypeFor[*in]())); d != "" {
		t.Errorf("FieldsOf (-want +got):\n%s", d)
	}
}

func TestUnmarshalRoundTrip(t *testing.T) {
	type row struct {
		V    int               `json:"v"`
		Pass secret.String     `json:"pass"`
		At   time.Time         `json:"at"`
		Tree tree              `json:"tree"`
		Opt  wire.Opt[int]     `json:"opt"`
		M    map[string]string `json:"m"`
	}
	want := row{1, secret.New("s"), time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), tree{"a", []*tree{{Name: "b"}, nil}}, wire.Opt[int]{}, map[string]string{"k": "v"}}
	var got row
	if err := wire.Unmarshal(wire.Marshal(&want), &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(secret.String{})); d != "" {
		t.Errorf("a row read back (-want +got):\n%s", d)
	}
	if err := wire.Unmarshal([]byte(`{"v":"x"}`), &got); err == nil {
		t.Error("Unmarshal of a bad row gives no error")
	}
	if err := wire.Unmarshal([]byte(`{"v":1`), &got); err == nil {
		t.Error("Unmarshal of half a row gives no error")
	}
}

func TestMerge(t *testing.T) { // the cases of RFC 7396, appendix A, that are objects
	for _, tt := range []struct{ target, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`null`, `{"a":1}`, `{"a":1}`},
	} {
		if got := string(wire.Object(tt.target).Merge(wire.Object(tt.patch))); got != tt.want {
			t.Errorf("%s merged with %s = %s, want %s", tt.target, tt.patch, got, tt.want)
		}
	}
}

func TestObject(t *testing.T) {
	o, err := wire.ParseObject([]byte(` {"a" : 1, "b\u0062":[ ], "a":{"x" :2}} `))
	if err != nil || string(o) != `{"a":{"x":2},"b\u0062":[]}` {
		t.Fatalf("ParseObject = %s, %v", o, err)
	}
	if v, ok := o.Get("bb"); !ok || string(v) != "[]" || o.Len() != 2 {
		t.Errorf("Get(bb) = %s, %v of %d members", v, ok, o.Len())
	}
	if _, ok := o.Get("c"); ok {
		t.Error("Get(c) found something")
	}
	for in, ok := range map[string]bool{"": true, " ": true, "null": true, "[]": false, "{": false, `{} {}`: false} {
		if o, err := wire.ParseObject([]byte(in)); o != nil || (err == nil) != ok {
			t.Errorf("ParseObject(%q) = %s, %v", in, o, err)
		}
	}
	many := "{"
	for i := range 40 {
		many += `"k` + string(rune('a'+i%20)) + `":` + string(rune('0'+i%10)) + ","
	}
	o, err = wire.ParseObject([]byte(many + `"z":1}`))
	if err != nil || o.Len() != 21 {
		t.Errorf("ParseObject of many duplicates = %s, %v", o, err)
	}
}

func TestParseTTL(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"": 0, "0": 0, "60": time.Minute, " 5m ": 5 * time.Minute, "1d12h": 36 * time.Hour, "7d": 168 * time.Hour, "1.5h": 90 * time.Minute, "500ms": 500 * time.Millisecond,
	} {
		if got, err := wire.ParseTTL(in); err != nil || got != want {
			t.Errorf("ParseTTL(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"-1", "-1h", "x", "1x", "d", "-1d", "1d-1h", "1h1d", "9223372036854775807", "200000d", "106751d24h"} {
		if got, err := wire.ParseTTL(in); err == nil {
			t.Errorf("ParseTTL(%q) = %v, want an error", in, got)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	v := sample()
	d := wire.Of(v)
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf = d.AppendJSON(buf[:0])
	}
}

func TestShapeOf(t *testing.T) {
	type part struct {
		At time.Time `json:"at"`
	}
	type out struct {
		nameIn
		TTL    wire.Opt[wire.TTL] `json:"ttl" doc:"How long."`
		Pass   secret.String      `json:"pass"`
		Parts  []part             `json:"parts"`
		ByName map[string]*part   `json:"by_name" wire:"null"`
		Tags   wire.CSV           `json:"tags"`
		Any    wire.Value         `json:"any"`
		Tree   *tree              `json:"tree"`
		Whole  wire.Object        `json:"-" body:"all"`
	}
	text, at := &wire.Shape{Type: "string"}, []wire.Field{{Name: "at", Shape: &wire.Shape{Type: "string", Format: wire.DateTime, Null: true}}}
	want := &wire.Shape{Type: "object", Values: &wire.Shape{}, Fields: []wire.Field{
		{Name: "name", Doc: "Name of the thing.", Shape: text},
		{Name: "ttl", Doc: "How long.", Shape: &wire.Shape{Type: "string", Format: wire.Duration}},
		{Name: "pass", Shape: &wire.Shape{Type: "string", Secret: true}},
		{Name: "parts", Shape: &wire.Shape{Type: "array", Items: &wire.Shape{Type: "object", Fields: at}}},
		{Name: "by_name", Shape: &wire.Shape{Type: "object", Null: true, Values: &wire.Shape{Type: "object", Null: true, Fields: at}}},
		{Name: "tags", Shape: &wire.Shape{Type: "array", Items: text}},
		{Name: "any", Shape: &wire.Shape{}},
		// What contains itself is described once.
		{Name: "tree", Shape: &wire.Shape{Type: "object", Null: true, Fields: []wire.Field{
			{Name: "name", Shape: text},
			{Name: "kids", Shape: &wire.Shape{Type: "array", Items: &wire.Shape{Type: "object", Null: true}}},
		}}},
	}}
	if d := cmp.Diff(want, wire.ShapeOf(reflect.TypeFor[*out]())); d != "" {
		t.Errorf("ShapeOf (-want +got):\n%s", d)
	}
}
