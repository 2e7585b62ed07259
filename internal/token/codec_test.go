package token

import (
	"net/netip"
	"reflect"
	"testing"
	"time"
)

func entry() *Entry {
	at := time.Date(2026, 11, 23, 1, 2, 3, 4, time.UTC)
	return &Entry{
		Namespace: "root", Accessor: "acc", Policies: []string{"app", "default"}, Path: "auth/token/create",
		DisplayName: "token-ci", Meta: map[string]string{"team": "a", "": "empty"}, Parent: "root/0123", Role: "r", EntityID: "e",
		BoundCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}, NumUses: 7,
		Created: at, TTL: time.Hour, ExplicitMaxTTL: 2 * time.Hour, Period: 3 * time.Hour, MountMaxTTL: 4 * time.Hour,
		Given: 5 * time.Hour, Expires: at.Add(time.Hour), Renewable: true, Internal: []byte(`{"a":1}`), Due: at,
		MountID: "m1", LoginRole: "web",
	}
}

func TestCodec(t *testing.T) {
	for name, e := range map[string]*Entry{"full": entry(), "empty": {}, "batch": {Type: Batch, Policies: []string{"x"}}} {
		got, err := decode("k", encode(e))
		if err != nil {
			t.Fatalf("%s: decode = %v", name, err)
		}
		got.policyKey = ""
		if !reflect.DeepEqual(got, e) {
			t.Errorf("%s: decode(encode) = %+v, want %+v", name, got, e)
		}
	}
	if _, err := decode("k", append([]byte{rowVersion + 1}, encode(entry())[1:]...)); err == nil {
		t.Error("decode takes a row of a newer version")
	}
	far := &Entry{Expires: time.Date(2400, 1, 1, 0, 0, 0, 0, time.UTC)}
	if got, err := decode("k", encode(far)); err != nil || got.Expires.Year() != 2262 {
		t.Errorf("an end in 2400 is read as %v, %v, want the last year that there is", got.Expires, err)
	}
	b := encode(entry())
	for n := range b {
		if _, err := decode("k", b[:n]); err == nil {
			t.Errorf("decode takes a row cut at %d", n)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(entry()))
	f.Add(encode(&Entry{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decode("k", b)
		if err != nil {
			return
		}
		again, err := decode("k", encode(e))
		if err != nil || !reflect.DeepEqual(again, e) {
			t.Errorf("decode(encode(%+v)) = %+v, %v", e, again, err)
		}
	})
}

func BenchmarkCodec(b *testing.B) {
	e := entry()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode("k", encode(e)); err != nil {
			b.Fatal(err)
		}
	}
}
