package envelope_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/leasehold/leasehold/internal/envelope"
)

const chunk, sealedChunk = 64 << 10, 64<<10 + 16

var (
	ctx    = context.Background()
	header = envelope.Header{Key: "backups", DataKey: "vault:v1:" + strings.Repeat("QUJD", 15)}
	key    = func() []byte {
		k := make([]byte, envelope.DataKeySize)
		for i := range k {
			k[i] = byte(i)
		}
		return k
	}()
)

// content is n bytes that repeat nowhere.
func content(n int) []byte {
	b := make([]byte, 0, n+sha256.Size)
	for sum := sha256.Sum256(nil); len(b) < n; sum = sha256.Sum256(sum[:]) {
		b = append(b, sum[:]...)
	}
	return b[:n]
}

func seal(t testing.TB, plain []byte) []byte {
	t.Helper()
	return sealBy(t, plain, key)
}

func sealBy(t testing.TB, plain, key []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := envelope.Seal(ctx, &out, bytes.NewReader(plain), header, key); err != nil {
		t.Fatalf("Seal: %v", err)
	}
	return out.Bytes()
}

func open(sealed []byte, by []byte) ([]byte, error) {
	s, err := envelope.Open(bytes.NewReader(sealed))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = s.Decrypt(ctx, &out, by)
	return out.Bytes(), err
}

// sizes lie around the ends of chunks and of blocks of them.
var sizes = []int{0, 1, 100, chunk - 1, chunk, chunk + 1, 3 * chunk, 16*chunk - 1, 16 * chunk, 16*chunk + 1, 100*chunk + 7}

func TestRoundTrip(t *testing.T) {
	for _, n := range sizes {
		plain := content(n)
		sealed := seal(t, plain)
		chunks := max((n+chunk-1)/chunk, 1)
		if got := len(sealed) - headLen(t, sealed); got != n+16*chunks {
			t.Errorf("%d bytes became %d, want %d chunks of 16 bytes more", n, got, chunks)
		}
		got, err := open(sealed, key)
		if err != nil || !bytes.Equal(got, plain) {
			t.Errorf("Decrypt of %d bytes = %d bytes, %v", n, len(got), err)
		}
		if got, err := decryptByHand(sealed, key); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("the decryptor of the test gives %d bytes of %d, %v", len(got), n, err)
		}
	}
}

// TestSmallReads: a pipe gives what it has, and an error is not an end.
func TestSmallReads(t *testing.T) {
	plain := content(2*chunk + 3)
	var sealed, back bytes.Buffer
	if err := envelope.Seal(ctx, &sealed, iotest.HalfReader(bytes.NewReader(plain)), header, key); err != nil {
		t.Fatalf("Seal: %v", err)
	}
	s, err := envelope.Open(iotest.DataErrReader(iotest.HalfReader(bytes.NewReader(sealed.Bytes()))))
	if err == nil {
		err = s.Decrypt(ctx, &back, key)
	}
	if err != nil || !bytes.Equal(back.Bytes(), plain) {
		t.Errorf("by small reads: %d bytes, %v", back.Len(), err)
	}

	broken := errors.New("the disk is gone")
	src := io.MultiReader(bytes.NewReader(plain), iotest.ErrReader(broken))
	if err := envelope.Seal(ctx, io.Discard, src, header, key); !errors.Is(err, broken) {
		t.Errorf("Seal of a file that cannot be read = %v, want %v", err, broken)
	}
}

// headLen is where the chunks begin.
func headLen(t testing.TB, sealed []byte) int {
	t.Helper()
	n := 0
	for range 3 {
		n += bytes.IndexByte(sealed[n:], '\n') + 1
	}
	return n + 32
}

func TestDamage(t *testing.T) {
	plain := content(20*chunk + 500) // more than a block
	good := seal(t, plain)
	other := sealBy(t, content(3*chunk), content(32))
	full := seal(t, content(2*chunk)) // its last chunk is a whole one
	head := headLen(t, good)
	at := func(i int) int { return head + i*sealedChunk }
	flip := func(i int) func([]byte) []byte {
		return func(b []byte) []byte { b[i] ^= 1; return b }
	}
	for name, tt := range map[string]struct {
		of     []byte
		change func([]byte) []byte
		want   error // nil: any
	}{
		"a bit of a chunk":            {good, flip(at(3) + 77), nil},
		"a bit of the last chunk":     {good, flip(len(good) - 20), nil},
		"a bit of a tag":              {good, flip(at(1) - 1), nil},
		"a bit of the check":          {good, flip(head - 1), envelope.ErrKey},
		"the name of the key":         {good, func(b []byte) []byte { return bytes.Replace(b, []byte("backups"), []byte("backupz"), 1) }, envelope.ErrKey},
		"the wrapped data key":        {good, func(b []byte) []byte { return bytes.Replace(b, []byte("vault:v1:QUJD"), []byte("vault:v1:QUJE"), 1) }, envelope.ErrKey},
		"its version":                 {good, func(b []byte) []byte { return bytes.Replace(b, []byte("vault:v1:"), []byte("vault:v2:"), 1) }, envelope.ErrKey},
		"cut in a chunk":              {good, func(b []byte) []byte { return b[:at(5)+9000] }, nil},
		"cut in a tag":                {good, func(b []byte) []byte { return b[:at(5)+7] }, envelope.ErrTruncated},
		"cut between chunks":          {good, func(b []byte) []byte { return b[:at(5)] }, envelope.ErrTruncated},
		"cut between blocks":          {good, func(b []byte) []byte { return b[:at(16)] }, envelope.ErrTruncated},
		"cut behind the header":       {good, func(b []byte) []byte { return b[:head] }, envelope.ErrTruncated},
		"cut in the check":            {good, func(b []byte) []byte { return b[:head-5] }, envelope.ErrTruncated},
		"cut in the wrapped data key": {good, func(b []byte) []byte { return b[:80] }, envelope.ErrTruncated},
		"cut in the name of a field":  {good, func(b []byte) []byte { return b[:40] }, envelope.ErrFormat},
		"one byte less":               {good, func(b []byte) []byte { return b[:len(b)-1] }, nil},
		"one byte more":               {good, func(b []byte) []byte { return append(b, 0) }, nil},
		"more behind a whole chunk":   {full, func(b []byte) []byte { return append(b, content(100)...) }, envelope.ErrTrailing},
		"the last chunk twice":        {good, func(b []byte) []byte { return append(b, b[at(20):]...) }, nil},
		"an empty chunk at the end":   {full, func(b []byte) []byte { return append(b, good[at(20):at(20)+16]...) }, envelope.ErrTrailing},
		"two chunks that changed":     {good, func(b []byte) []byte { return swap(b, at(2), at(3)) }, nil},
		"two blocks that changed":     {good, func(b []byte) []byte { return swap(b, at(0), at(16)) }, nil},
		"a chunk less":                {good, func(b []byte) []byte { return append(b[:at(4)], b[at(5):]...) }, nil},
		"the first chunk less":        {good, func(b []byte) []byte { return append(b[:at(0)], b[at(1):]...) }, nil},
		"a chunk of another file":     {good, func(b []byte) []byte { copy(b[at(1):at(2)], other[at(1):at(2)]); return b }, nil},
		"the chunks of another file":  {good, func(b []byte) []byte { return append(b[:head], other[head:]...) }, nil},
		"nothing":                     {good, func([]byte) []byte { return nil }, envelope.ErrFormat},
		"something else":              {good, func([]byte) []byte { return []byte("age-encryption.org/v1\n") }, envelope.ErrFormat},
		"no lines":                    {good, func([]byte) []byte { return content(1 << 20) }, envelope.ErrFormat},
		"a line without an end":       {good, func(b []byte) []byte { return append(b[:25], bytes.Repeat([]byte("a"), 1<<20)...) }, nil},
		"a later version":             {good, func(b []byte) []byte { return bytes.Replace(b, []byte("file/1"), []byte("file/2"), 1) }, nil},
		"lines of Windows":            {good, func(b []byte) []byte { return bytes.Replace(b, []byte("\n"), []byte("\r\n"), 3) }, nil},
		"a name that is a path":       {good, func(b []byte) []byte { return bytes.Replace(b, []byte("backups"), []byte("../sys/x"), 1) }, envelope.ErrFormat},
		"a data key that is anything": {good, func(b []byte) []byte { return bytes.Replace(b, []byte("vault:v1:"), []byte("{}"), 1) }, envelope.ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			bad := tt.change(bytes.Clone(tt.of))
			got, err := open(bad, key)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Decrypt = %d bytes, %v, want an error: %v", len(got), err, tt.want)
			}
			if !bytes.HasPrefix(plain, got) && !bytes.HasPrefix(content(2*chunk), got) {
				t.Errorf("Decrypt gave %d bytes that are not the file's", len(got))
			}
			if _, err := decryptByHand(bad, key); err == nil {
				t.Error("the decryptor of the test takes it")
			}
		})
	}
	if _, err := open(good, content(32)); !errors.Is(err, envelope.ErrKey) {
		t.Errorf("Decrypt by another data key = %v, want %v", err, envelope.ErrKey)
	}
	if _, err := open(good, key[:16]); err == nil {
		t.Error("Decrypt by a short data key: no error")
	}
}

// swap exchanges the chunks that begin at i and at j.
func swap(b []byte, i, j int) []byte {
	one := bytes.Clone(b[i : i+sealedChunk])
	copy(b[i:i+sealedChunk], b[j:j+sealedChunk])
	copy(b[j:j+sealedChunk], one)
	return b
}

func TestWhatCannotBeWritten(t *testing.T) {
	for name, h := range map[string]envelope.Header{
		"no key":           {DataKey: header.DataKey},
		"a path for a key": {Key: "a/b", DataKey: header.DataKey},
		"no data key":      {Key: "a"},
		"two lines":        {Key: "a", DataKey: header.DataKey + "\nkey: b"},
		"a huge data key":  {Key: "a", DataKey: "vault:v1:" + strings.Repeat("A", 20<<10)},
	} {
		var out bytes.Buffer
		if err := envelope.Seal(ctx, &out, strings.NewReader("x"), h, key); err == nil || out.Len() > 0 {
			t.Errorf("Seal with %s = %v and %d bytes, want an error and nothing", name, err, out.Len())
		}
	}
}

// fullDisk takes so much and no more.
type fullDisk struct{ room int }

var errFull = errors.New("no space left")

func (d *fullDisk) Write(b []byte) (int, error) {
	if d.room -= len(b); d.room < 0 {
		return 0, errFull
	}
	return len(b), nil
}

// TestEnds: whatever ends it, it ends, also while it waits for input.
func TestEnds(t *testing.T) {
	plain := content(40 * chunk)
	if err := envelope.Seal(ctx, &fullDisk{20 * chunk}, bytes.NewReader(plain), header, key); !errors.Is(err, errFull) {
		t.Errorf("Seal onto a full disk = %v, want %v", err, errFull)
	}
	src, feed := io.Pipe()
	defer feed.Close()
	cctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- envelope.Seal(cctx, io.Discard, src, header, key) }()
	if _, err := feed.Write(plain); err != nil { // it was read: more is being waited for
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Seal after its end = %v, want %v", err, context.Canceled)
	}

	// And while nobody takes what it writes.
	out, dst := io.Pipe()
	defer out.Close()
	cctx, cancel = context.WithCancel(ctx)
	go func() { ended <- envelope.Seal(cctx, dst, bytes.NewReader(plain), header, key) }()
	if _, err := io.CopyN(io.Discard, out, 2*chunk); err != nil { // the rest of its block is left
		t.Fatal(err)
	}
	cancel()
	late := time.NewTimer(time.Minute)
	defer late.Stop()
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Seal after its end, while it writes = %v, want %v", err, context.Canceled)
		}
	case <-late.C:
		t.Fatal("Seal does not end while nobody takes what it writes")
	}
}

// TestVector holds the format to the example in the documentation.
func TestVector(t *testing.T) {
	page, err := os.ReadFile("../../docs/transit-file-format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(page), "```vector\n")
	text, _, ok2 := strings.Cut(text, "```")
	if !ok || !ok2 {
		t.Fatal("the page has no vector")
	}
	fields := map[string][]byte{}
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		b, err := hex.DecodeString(strings.TrimSpace(value))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		fields[name] = append(fields[name], b...)
	}
	plain, file := fields["content"], fields["file"]
	if got, err := decryptByHand(file, fields["datakey"]); err != nil || !bytes.Equal(got, plain) || len(plain) == 0 {
		t.Errorf("the vector opens as %q, %v, want %q", got, err, plain)
	}
	if got, err := open(file, fields["datakey"]); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("Decrypt of the vector = %q, %v, want %q", got, err, plain)
	}
	s, err := envelope.Open(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	var again bytes.Buffer
	if err := envelope.Seal(ctx, &again, bytes.NewReader(plain), s.Header, fields["datakey"]); err != nil || !bytes.Equal(again.Bytes(), file) {
		t.Errorf("Seal = %x, %v, want the vector %x", again.Bytes(), err, file)
	}
	// A file of more than a chunk, by its digest: the content is the letter a.
	var big bytes.Buffer
	if err := envelope.Seal(ctx, &big, strings.NewReader(strings.Repeat("a", 70_000)), s.Header, fields["datakey"]); err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(big.Bytes()); !bytes.Equal(sum[:], fields["large"]) {
		t.Errorf("70,000 letters give the digest %x, the page has %x", sum, fields["large"])
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(seal(f, nil))
	f.Add(seal(f, []byte("some content")))
	f.Add(seal(f, content(chunk+1)))
	f.Add([]byte("leasehold-transit-file/1\nkey: a\ndatakey: vault:v1:AA\n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		got, err := open(file, key)
		want, byHand := decryptByHand(file, key)
		if (err == nil) != (byHand == nil) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("Decrypt = %d bytes, %v; by hand %d bytes, %v", len(got), err, len(want), byHand)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	plain := content(32 << 20)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		if err := envelope.Seal(ctx, io.Discard, bytes.NewReader(plain), header, key); err != nil {
			b.Fatal(err)
		}
	}
}
