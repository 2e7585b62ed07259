package server_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
)

// TestHostileClients: whatever clients do to a real server, each gets a clear
// answer or a closed connection, a well-behaved one beside them notices
// nothing, and afterwards no connection, goroutine or record is left over.
func TestHostileClients(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pool := certificate(t, dir, 1)
	tlsAddr := freeAddr(t)
	const patient = `
		http_read_header_timeout = "1s"
		http_read_timeout        = "2s"
		http_idle_timeout        = "2s"
	`
	plainAddr := freeAddr(t)
	s := leaseholdtest.Start(t, leaseholdtest.Config{HCL: fmt.Sprintf(`
		listener "tcp" {
		  address     = %q
		  tls_disable = true
		  %s
		}
		listener "tcp" {
		  address       = %q
		  tls_cert_file = %q
		  tls_key_file  = %q
		  %s
		}
	`, plainAddr, patient, tlsAddr, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), patient)})
	auditFile := filepath.Join(dir, "audit")
	call(t, s, "PUT", "sys/audit/file", map[string]any{"type": "file", "options": map[string]string{"file_path": auditFile}}, nil)
	call(t, s, "POST", "sys/mounts/kv", map[string]string{"type": "kv"}, nil)
	h := &hostile{t: t, root: s.Root, plain: plainAddr, tls: tlsAddr}
	before := load(t, s)

	// The well-behaved client: a read and a write at a time until the end.
	ctx, stop := context.WithCancel(t.Context())
	wrote := make(chan int, 1)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			path := fmt.Sprintf("kv/good/%d", n%50)
			if err := s.Call(t.Context(), "PUT", path, s.Root, map[string]int{"n": n}, nil); err != nil {
				t.Errorf("the well-behaved client: %v", err)
			}
			if err := s.Call(t.Context(), "GET", path, s.Root, nil, nil); err != nil {
				t.Errorf("the well-behaved client: %v", err)
			}
		}
		wrote <- n
	}()
	var wg sync.WaitGroup
	for _, attack := range []func(){
		h.largeBodies, h.brokenJSON, h.deepNesting, h.headerFlood, h.longLine, h.slowHead, h.slowBody, h.silence, h.halfHello,
		h.wrongProtocol, h.twoLengths, h.leavesEarly,
	} {
		wg.Go(attack)
	}
	wg.Wait()
	stop()
	if n := <-wrote; n < 10 {
		t.Errorf("the well-behaved client got %d rounds done meanwhile", n)
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	if resp, err := client.Get("https://" + tlsAddr + "/v1/sys/health"); err != nil || resp.StatusCode != 200 {
		t.Errorf("over TLS: %v, %v", resp, err)
	}
	client.CloseIdleConnections()

	// What was taken up is let go, once the time limits have passed.
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for after := load(t, s); after.sockets > before.sockets+2 || after.goroutines > before.goroutines+8; after = load(t, s) {
		if time.Now().After(deadline) {
			t.Fatalf("before %+v, after %+v: something is left over", before, after)
		}
		<-tick.C
	}
	if n := pairs(t, read(t, auditFile)); n < 20 {
		t.Errorf("the audit log tells of %d requests", n)
	}
	if strings.Contains(s.Log(), "panic") {
		t.Error("the log has a panic")
	}
}

// use is what a process has open.
type use struct{ sockets, goroutines int }

func load(t *testing.T, s *leaseholdtest.Server) (u use) {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", s.PID(), fd.Name())); err == nil && strings.HasPrefix(to, "socket:") {
			u.sockets++
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", s.Addr+"/v1/sys/pprof/goroutine?debug=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", s.Root)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	_, total, _ := strings.Cut(string(b), "goroutine profile: total ")
	total, _, _ = strings.Cut(total, "\n")
	if u.goroutines, err = strconv.Atoi(total); err != nil {
		t.Fatalf("the goroutine profile begins %.60q", b)
	}
	return u
}

// hostile is a client who means ill, or is very unlucky.
type hostile struct {
	t          *testing.T
	root       string
	plain, tls string // addresses
}

func (h *hostile) dial(addr string) net.Conn {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		h.t.Errorf("connecting: %v", err)
		return nil
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		h.t.Error(err)
	}
	return c
}

// send writes a request and wants one of the statuses, or, with 0 among them,
// a closed connection.
func (h *hostile) send(what string, write func(io.Writer), want ...int) {
	c := h.dial(h.plain)
	if c == nil {
		return
	}
	defer c.Close()
	written := make(chan struct{})
	go func() {
		defer close(written)
		write(c)
	}()
	got := 0
	body := ""
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		got, body = resp.StatusCode, string(b)
	} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		h.t.Errorf("%s: neither an answer nor an end: %v", what, err)
	}
	c.Close()
	<-written
	for _, w := range want {
		if got == w {
			return
		}
	}
	h.t.Errorf("%s is answered %d %.200s, want one of %v", what, got, body, want)
}

func (h *hostile) head(method, path string, more ...string) string {
	return fmt.Sprintf("%s /v1/%s HTTP/1.1\r\nHost: x\r\nX-Vault-Token: %s\r\n%s\r\n", method, path, h.root, strings.Join(more, ""))
}

func (h *hostile) largeBodies() {
	const size = 33 << 20
	h.send("a body that says it is too large", func(w io.Writer) {
		fmt.Fprint(w, h.head("POST", "kv/a", fmt.Sprintf("Content-Length: %d\r\n", size)))
	}, 413)
	h.send("a body that turns out too large", func(w io.Writer) {
		fmt.Fprint(w, h.head("POST", "kv/a", "Transfer-Encoding: chunked\r\n"))
		chunk := bytes.Repeat([]byte{' '}, 1<<20)
		for range size >> 20 {
			if _, err := fmt.Fprintf(w, "%x\r\n%s\r\n", len(chunk), chunk); err != nil {
				return
			}
		}
	}, 413, 0)
}

func (h *hostile) brokenJSON() {
	for _, body := range []string{`{`, `{"a":`, `{"a":"`, `["a"]`, `"a"`, "{\"a\":\"\xff\"}", `{}{}`, "\x00\x01"} {
		h.send("the body "+body, func(w io.Writer) {
			fmt.Fprint(w, h.head("POST", "kv/a", fmt.Sprintf("Content-Length: %d\r\n", len(body)))+body)
		}, 400)
	}
}

func (h *hostile) deepNesting() {
	for _, body := range []string{strings.Repeat(`{"a":`, 1_000_000), strings.Repeat("[", 1_000_000), `{"a":` + strings.Repeat("[", 400) + strings.Repeat("]", 400) + "}"} {
		h.send("deep nesting", func(w io.Writer) {
			fmt.Fprint(w, h.head("POST", "kv/a", fmt.Sprintf("Content-Length: %d\r\n", len(body)))+body)
		}, 400)
	}
}

func (h *hostile) headerFlood() {
	h.send("a flood of headers", func(w io.Writer) {
		fmt.Fprint(w, "GET /v1/kv/a HTTP/1.1\r\nHost: x\r\n")
		for i := 0; i < 10_000; i++ {
			if _, err := fmt.Fprintf(w, "X-Flood-%d: %s\r\n", i, strings.Repeat("x", 1000)); err != nil {
				return
			}
		}
	}, 431, 0)
}

func (h *hostile) longLine() {
	h.send("an endless request line", func(w io.Writer) {
		fmt.Fprint(w, "GET /v1/")
		for range 10_000 {
			if _, err := fmt.Fprint(w, strings.Repeat("x", 1000)); err != nil {
				return
			}
		}
	}, 431, 0)
}

// many runs something on 20 connections at once.
func many(fn func()) {
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(fn)
	}
	wg.Wait()
}

func (h *hostile) slowHead() {
	many(func() {
		h.send("a head that does not end", func(w io.Writer) { fmt.Fprint(w, "GET /v1/kv/a HTTP/1.1\r\nHost: x\r\nX-Slow: ") }, 0, 408)
	})
}

func (h *hostile) slowBody() {
	many(func() {
		h.send("a body that does not come", func(w io.Writer) {
			fmt.Fprint(w, h.head("POST", "kv/a", "Content-Length: 1000000\r\n")+`{"a":`)
		}, 400, 0)
	})
}

func (h *hostile) silence() {
	many(func() { h.send("a connection that says nothing", func(io.Writer) {}, 0, 408) })
}

// halfHello breaks off TLS hellos at every stage, with and without hanging up.
func (h *hostile) halfHello() {
	whole := clientHello(h.t)
	var wg sync.WaitGroup
	for _, n := range []int{0, 1, 5, 6, len(whole) / 2, len(whole) - 1} {
		for _, hangsUp := range []bool{true, false} {
			wg.Go(func() { h.hello(whole[:n], hangsUp) })
		}
	}
	wg.Wait()
}

func (h *hostile) hello(part []byte, hangsUp bool) {
	c := h.dial(h.tls)
	if c == nil {
		return
	}
	defer c.Close()
	if _, err := c.Write(part); err != nil {
		h.t.Error(err)
	}
	if hangsUp {
		_ = c.(*net.TCPConn).CloseWrite()
	}
	answer, err := io.ReadAll(c)
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() || len(answer) > 7 {
		h.t.Errorf("%d bytes of a hello (hanging up: %v) are answered with %d bytes, %v, want at most an alert and the end", len(part), hangsUp, len(answer), err)
	}
}

// clientHello is the first record that a TLS client sends.
func clientHello(t *testing.T) []byte {
	client, srv := net.Pipe()
	defer srv.Close()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: "x"}).Handshake()
		client.Close()
	}()
	head := make([]byte, 5)
	if _, err := io.ReadFull(srv, head); err != nil {
		t.Error(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(srv, body); err != nil {
		t.Error(err)
	}
	return append(head, body...)
}

// wrongProtocol speaks HTTP to the TLS listener, TLS to the plain one, and
// something else to both.
func (h *hostile) wrongProtocol() {
	h.send("TLS to the plain listener", func(w io.Writer) { _, _ = w.Write(clientHello(h.t)) }, 400, 0)
	for _, addr := range []string{h.plain, h.tls} {
		for _, text := range []string{"GET /v1/sys/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\x00\x01\x02\x03\r\n\r\n", "HELO x\r\n\r\n"} {
			c := h.dial(addr)
			if c == nil {
				return
			}
			if _, err := c.Write([]byte(text)); err != nil {
				h.t.Error(err)
			}
			if _, err := io.ReadAll(c); err != nil {
				if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
					h.t.Errorf("%q keeps its connection: %v", text, err)
				}
			}
			c.Close()
		}
	}
}

// twoLengths is how requests are smuggled past a proxy.
func (h *hostile) twoLengths() {
	h.send("a length and chunks", func(w io.Writer) {
		fmt.Fprint(w, h.head("POST", "kv/a", "Content-Length: 4\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n")+"0\r\n\r\nGET /v1/kv/b HTTP/1.1\r\nHost: x\r\n\r\n")
	}, 200, 204, 400)
	h.send("two lengths", func(w io.Writer) {
		fmt.Fprint(w, h.head("POST", "kv/a", "Content-Length: 2\r\n", "Content-Length: 3\r\n")+"{}")
	}, 400)
	h.send("a negative length", func(w io.Writer) { fmt.Fprint(w, h.head("POST", "kv/a", "Content-Length: -1\r\n")) }, 400)
}

// leavesEarly asks and is gone before the answer.
func (h *hostile) leavesEarly() {
	many(func() {
		for range 10 {
			c := h.dial(h.plain)
			if c == nil {
				return
			}
			fmt.Fprint(c, h.head("GET", "kv/good/1"))
			_ = c.(*net.TCPConn).SetLinger(0) // a reset
			c.Close()
		}
	})
}
