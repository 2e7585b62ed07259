package embedded

import (
	"fmt"
	"testing"
)

func TestRowCacheNeverServesAnotherRevision(t *testing.T) {
	c := newRowCache()
	if _, ok := c.get("k", 9); ok {
		t.Error("get of an unknown key is ok")
	}
	c.fill("k", []byte("old"), 3)
	if v, ok := c.get("k", 5); !ok || string(v) != "old" {
		t.Errorf("get at 5 = %q, %v, want old", v, ok)
	}
	if _, ok := c.get("k", 2); ok {
		t.Error("a snapshot older than the entry was served by it")
	}
	c.write("k", []byte("new"), 7)
	if _, ok := c.get("k", 6); ok {
		t.Error("a snapshot before the write was served the new value")
	}
	c.fill("k", []byte("old"), 6) // a reader of the old snapshot comes late
	if v, ok := c.get("k", 7); !ok || string(v) != "new" {
		t.Errorf("get at 7 = %q, %v, want new", v, ok)
	}
	c.write("k", nil, 8)
	if v, ok := c.get("k", 8); !ok || v != nil {
		t.Errorf("get of a deleted key = %q, %v, want absent", v, ok)
	}
	c.write("k", make([]byte, rowValue+1), 9)
	if _, ok := c.get("k", 9); ok {
		t.Error("a value too large to keep left an older one behind")
	}
}

func TestRowCacheIsBounded(t *testing.T) {
	c := newRowCache()
	value := make([]byte, 1000)
	for i := range 50_000 {
		c.write(fmt.Sprint("key", i), value, 1)
		c.get("key0", 1) // in use all the time: it survives the generations
	}
	n := 0
	for i := range c.shards {
		n += len(c.shards[i].young) + len(c.shards[i].old)
	}
	if most := 3 * rowBytes / 1000; n > most {
		t.Errorf("%d rows are kept, want at most %d", n, most)
	}
	if _, ok := c.get("key0", 1); !ok {
		t.Error("a row in use was forgotten")
	}
}
