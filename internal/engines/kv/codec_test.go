package kv

import (
	"reflect"
	"testing"

	"github.com/leasehold/leasehold/internal/wire"
)

func fullMeta() *keyMeta {
	return &keyMeta{
		Created: 1_795_000_000_000_000_000, Updated: 1_795_000_000_000_000_900, Current: 12, Oldest: 3, MaxVersions: 10,
		CASRequired: true, DeleteAfter: -1, Custom: wire.KV{"owner": "ann", "": "x"},
		Versions: []version{{N: 3, Created: 1_795_000_000_000_000_000}, {N: 4, Created: 5, Deleted: 9}, {N: 12, Created: 7, Destroyed: true}},
	}
}

func TestMetaCodec(t *testing.T) {
	for name, m := range map[string]*keyMeta{"full": fullMeta(), "empty": {}} {
		got, err := decodeMeta(m.encode())
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: decodeMeta(encode) = %+v, %v, want %+v", name, got, err, m)
		}
	}
	row := fullMeta().encode()
	for n := range row {
		if _, err := decodeMeta(row[:n]); err == nil {
			t.Errorf("decodeMeta takes a row cut at %d of %d", n, len(row))
		}
	}
}

func FuzzDecodeMeta(f *testing.F) {
	f.Add(fullMeta().encode())
	f.Add((&keyMeta{}).encode())
	f.Fuzz(func(t *testing.T, row []byte) {
		m, err := decodeMeta(row)
		if err != nil {
			return
		}
		again, err := decodeMeta(m.encode())
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("decodeMeta(encode(%+v)) = %+v, %v", m, again, err)
		}
	})
}
