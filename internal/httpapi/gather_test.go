package httpapi_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/httpapi"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// counting counts the writes to its connections.
type counting struct {
	net.Listener
	writes atomic.Int64
}

type countedConn struct {
	net.Conn
	l *counting
}

func (l *counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countedConn{c, l}, err
}

func (c countedConn) Write(b []byte) (int, error) {
	c.l.writes.Add(1)
	return c.Conn.Write(b)
}

// TestGathered asks for answers of all sizes. One that does not fit into
// net/http's buffer leaves in one write, and none is lost or mixed with another.
func TestGathered(t *testing.T) {
	h := httpapi.New(httpapi.Config{Core: coreFunc(func(_ context.Context, req *core.Request) *core.Response {
		n := len(req.Path) - len("x/")
		return &core.Response{Raw: &route.Raw{ContentType: "text/plain", Body: bytes.Repeat([]byte{req.Path[len(req.Path)-1]}, n*100)}}
	})})
	for name, proto := range map[string]int{"plain": 1, "TLS": 1, "HTTP/2": 2} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			counted := &counting{Listener: ln}
			srv := httptest.NewUnstartedServer(h)
			_ = srv.Listener.Close()
			srv.Config = httpapi.NewServer(h, httpapi.Limits{}, slog.New(slog.DiscardHandler))
			srv.Listener = httpapi.Gather(counted)
			srv.EnableHTTP2 = proto == 2
			if name == "plain" {
				srv.Start()
			} else {
				srv.TLS = &tls.Config{}
				srv.StartTLS()
			}
			defer srv.Close()
			get := func(path string) string {
				resp, err := srv.Client().Get(srv.URL + "/v1/x/" + path)
				if err != nil {
					t.Error(err)
					return ""
				}
				defer resp.Body.Close()
				if resp.ProtoMajor != proto {
					t.Errorf("the answer is HTTP/%d", resp.ProtoMajor)
				}
				b, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Errorf("%s: %v", path, err)
				}
				return string(b)
			}
			get("warm")
			for _, n := range []int{1, 20, 29, 30, 31, 38, 41, 60, 300, 650, 700} {
				before := counted.writes.Load()
				if got := get(strings.Repeat("a", n)); got != strings.Repeat("a", n*100) {
					t.Errorf("an answer of %d bytes came as %d", n*100, len(got))
				}
				if writes := counted.writes.Load() - before; name == "plain" && n <= 600 && writes != 1 {
					t.Errorf("an answer of %d bytes took %d writes", n*100, writes)
				}
			}
			var wg sync.WaitGroup
			for _, c := range "bcdefgh" {
				wg.Go(func() {
					for n := range 60 {
						path := strings.Repeat(string(c), n*3+1)
						if got := get(path); got != strings.Repeat(string(c), len(path)*100) {
							t.Errorf("an answer of %d bytes came as %d", len(path)*100, len(got))
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

type lent struct{ released *atomic.Int64 }

func (l lent) Release() { l.released.Add(1) }

type echoIn struct {
	Text wire.Text `json:"text"`
}

// TestLent answers with pieces of the requests' bodies, whose memory is used
// again: nothing may be seen of one request in the answer of another.
func TestLent(t *testing.T) {
	var released atomic.Int64
	d := wire.NewDecoder[echoIn]()
	srv := httptest.NewServer(httpapi.New(httpapi.Config{Core: coreFunc(func(_ context.Context, req *core.Request) *core.Response {
		if req.Octets != nil {
			return &core.Response{Raw: &route.Raw{Body: req.Octets}, Lent: lent{released: &released}}
		}
		var in echoIn
		if _, err := d.Decode(&in, wire.Source{Body: req.Body, Checked: true}); err != nil {
			return &core.Response{Err: err}
		}
		return &core.Response{Form: route.Bare, Data: wire.Of(in), Lent: lent{released: &released}}
	})}))
	defer srv.Close()
	var wg sync.WaitGroup
	const workers, each = 6, 60
	for w := range workers {
		wg.Go(func() {
			for n := range each {
				text := strings.Repeat(string(rune('a'+w)), n*n*5)
				kind, body, want := "application/json", `{"text":"`+text+`"}`, `{"text":"`+text+`"}`+"\n"
				if n%2 == 1 {
					kind, body, want = "application/octet-stream", text, text
				}
				resp, err := http.Post(srv.URL+"/v1/x", kind, strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				got, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if string(got) != want {
					t.Errorf("a body of %d bytes came back as %d other ones", len(body), len(got))
				}
			}
		})
	}
	wg.Wait()
	srv.Close()
	if n := released.Load(); n != workers*each {
		t.Errorf("%d answers were released, of %d", n, workers*each)
	}
}
