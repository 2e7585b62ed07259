package httpapi

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// net/http writes an answer through a buffer of 4 KiB: a larger one takes two
// system calls, which cost more than all that was done for it. A gathered
// connection takes both parts of such an answer and writes them at once.
//
// It stands below TLS. An answer in HTTP/2 has frames of its own and is never
// gathered.

// Gather makes the connections of a listener gathered ones.
func Gather(ln net.Listener) net.Listener { return gatherer{ln} }

type gatherer struct{ net.Listener }

func (g gatherer) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &gathered{Conn: c}, nil
}

// gathered is used by one goroutine that writes: the one that serves it.
type gathered struct {
	net.Conn
	held *[]byte // what was written while it is not to go out yet; nil: it goes out
}

var heldBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 8<<10); return &b }}

func (g *gathered) Write(b []byte) (int, error) {
	if g.held == nil {
		return g.Conn.Write(b)
	}
	*g.held = append(*g.held, b...)
	return len(b), nil
}

// hold keeps what is written until let.
func (g *gathered) hold() { g.held = heldBuffers.Get().(*[]byte) }

// let writes what was held.
func (g *gathered) let() {
	held := g.held
	g.held = nil
	_, _ = g.Conn.Write(*held) // net/http meets the same error at its next read
	clear(*held)
	if cap(*held) <= 2*keepBuffer {
		*held = (*held)[:0]
		heldBuffers.Put(held)
	}
}

type gatheredKey struct{}

// withConn is net/http's ConnContext.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if g, ok := c.(*gathered); ok {
		return context.WithValue(ctx, gatheredKey{}, g)
	}
	return ctx
}

// gatheredOf is the connection of a request, if its answer can be gathered.
func gatheredOf(r *http.Request) *gathered {
	if r.ProtoMajor != 1 {
		return nil
	}
	g, _ := r.Context().Value(gatheredKey{}).(*gathered)
	return g
}
