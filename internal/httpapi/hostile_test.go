package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/httpapi"
)

// hostile starts a server with short limits, plain or with TLS, that counts
// what reaches core.
func hostile(t *testing.T, withTLS bool) (s *httptest.Server, reached *atomic.Int32) {
	t.Helper()
	reached = new(atomic.Int32)
	h := httpapi.New(httpapi.Config{Core: coreFunc(func(context.Context, *core.Request) *core.Response {
		reached.Add(1)
		return &core.Response{}
	})})
	s = httptest.NewUnstartedServer(nil)
	s.Config = httpapi.NewServer(h, httpapi.Limits{ReadHeader: 100 * time.Millisecond, Read: 200 * time.Millisecond}, quiet)
	if withTLS {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s, reached
}

func dial(t *testing.T, s *httptest.Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// serves checks that a well-behaved client is served as before.
func serves(t *testing.T, s *httptest.Server) {
	t.Helper()
	resp, err := s.Client().Get(s.URL + "/v1/sys/health")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusNoContent {
		t.Errorf("the next client is answered %d", resp.StatusCode)
	}
}

func TestHeaderFlood(t *testing.T) {
	s, reached := hostile(t, false)
	conn := dial(t, s)
	fmt.Fprint(conn, "GET /v1/x HTTP/1.1\r\nHost: x\r\n")
	go func() {
		for i := 0; ; i++ { // ends when the server has hung up
			if _, err := fmt.Fprintf(conn, "X-Flood-%d: %s\r\n", i, strings.Repeat("x", 1000)); err != nil {
				return
			}
		}
	}()
	answer, _ := io.ReadAll(conn) // the connection is cut; a reset is as good
	if len(answer) > 0 && !strings.HasPrefix(string(answer), "HTTP/1.1 431") {
		t.Errorf("a flood of headers is answered %q, want 431 or nothing", answer)
	}
	if reached.Load() != 0 {
		t.Error("the flood reached core")
	}
	serves(t, s)
}

func TestSlowHead(t *testing.T) {
	s, reached := hostile(t, false)
	conn := dial(t, s)
	fmt.Fprint(conn, "GET /v1/x HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	if answer, err := io.ReadAll(conn); err != nil || reached.Load() != 0 {
		t.Errorf("half a head is answered %q, %v; reached core: %d", answer, err, reached.Load())
	}
	serves(t, s)
}

func TestSlowBody(t *testing.T) {
	s, reached := hostile(t, false)
	conn := dial(t, s)
	fmt.Fprint(conn, "POST /v1/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{\"a\":")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("half a body: %v", err)
	}
	if resp.StatusCode != http.StatusBadRequest || reached.Load() != 0 {
		t.Errorf("half a body is answered %d; reached core: %d", resp.StatusCode, reached.Load())
	}
	serves(t, s)
}

func TestTruncatedHello(t *testing.T) {
	s, reached := hostile(t, true)
	whole := clientHello(t)
	for _, n := range []int{1, 5, 6, len(whole) / 2, len(whole) - 1} {
		conn := dial(t, s)
		if _, err := conn.Write(whole[:n]); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(conn); err == nil && len(answer) > 7 {
			t.Errorf("%d bytes of a hello are answered with %d bytes, want at most an alert", n, len(answer))
		}
	}
	// One that says no more is cut off too.
	conn := dial(t, s)
	if _, err := conn.Write(whole[:len(whole)/2]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(conn); err != nil {
		t.Errorf("a silent half hello: %v, want a closed connection", err)
	}
	if reached.Load() != 0 {
		t.Error("a hello reached core")
	}
	serves(t, s)
}

// clientHello is the first record that a TLS client sends.
func clientHello(t *testing.T) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: "x"}).Handshake()
		client.Close()
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(server, head); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(server, body); err != nil {
		t.Fatal(err)
	}
	return append(head, body...)
}

// TestPanic: a fault of ours in one request ends its connection alone, and
// stands in the log where operators look.
func TestPanic(t *testing.T) {
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	h := httpapi.New(httpapi.Config{Core: coreFunc(func(_ context.Context, req *core.Request) *core.Response {
		if req.Path == "kv/bad" {
			panic("a fault of ours")
		}
		return &core.Response{}
	})})
	s := httptest.NewUnstartedServer(nil)
	s.Config = httpapi.NewServer(h, httpapi.Limits{}, logger)
	s.Start()
	resp, err := s.Client().Get(s.URL + "/v1/kv/bad")
	if err == nil {
		resp.Body.Close()
		t.Errorf("a panic was answered with %d, want a closed connection", resp.StatusCode)
	}
	serves(t, s)
	s.Close()
	if got := log.String(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "a fault of ours") {
		t.Errorf("the log has %q, want the panic as an error", got)
	}
}
