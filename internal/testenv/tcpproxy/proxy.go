// Package tcpproxy stands between a client and a server and does what networks
// do: it delays, swallows and cuts, at the very message a test asks for.
//
// It copies bytes in the pieces in which they arrive. For protocols whose
// messages are smaller than a packet and answered one by one, such as
// PostgreSQL's, a piece is a message or a run of them, so a fault can be aimed
// by a text it contains ("COMMIT").
package tcpproxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// Action is what becomes of a piece.
type Action uint8

// The actions.
const (
	Pass       Action = iota // hand it on
	Cut                      // close both sides instead of handing it on
	CutAfter                 // hand it on, then close both sides before an answer comes back
	Swallow                  // hand on neither this nor anything after it, either way; keep the connection
	AnswerCut                // hand it on, wait for the answer, drop that and close: done, but nobody knows
	AnswerTorn               // AnswerCut, but the first half of the answer arrives
)

// Fault decides about each piece from the client. It runs on the connection's
// own goroutine and may block to delay it.
type Fault func(piece []byte) Action

// On gives act for the first n pieces that contain text, and Pass otherwise.
// n below zero means every one.
func On(text string, n int, act Action) Fault {
	var mu sync.Mutex
	return func(piece []byte) Action {
		mu.Lock()
		defer mu.Unlock()
		if n == 0 || !bytes.Contains(piece, []byte(text)) {
			return Pass
		}
		n--
		return act
	}
}

// Delay passes every piece after d.
func Delay(d time.Duration) Fault {
	return func([]byte) Action {
		time.Sleep(d) // the delay is what is asked for, not a wait for something
		return Pass
	}
}

// Proxy forwards connections to one server.
type Proxy struct {
	ln net.Listener
	wg sync.WaitGroup

	mu     sync.Mutex
	target string
	fault  Fault
	conns  map[net.Conn]bool
	closed bool
	faults int
}

// New starts a proxy to target on a free port of 127.0.0.1.
func New(target string) (*Proxy, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{ln: ln, target: target, conns: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	return p, nil
}

// Addr is where clients connect to.
func (p *Proxy) Addr() string { return p.ln.Addr().String() }

// Break sets the fault for every piece from now on; nil heals.
func (p *Proxy) Break(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// Retarget sends new connections elsewhere and cuts the present ones.
func (p *Proxy) Retarget(target string) {
	p.mu.Lock()
	p.target = target
	p.mu.Unlock()
	p.CutAll()
}

// CutAll closes every connection.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

// Holds says whether a connection from this local port to the server is still
// held: a server at work for one that is not works for nobody.
func (p *Proxy) Holds(port int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if a, ok := c.LocalAddr().(*net.TCPAddr); ok && a.Port == port {
			return true
		}
	}
	return false
}

// Faults is how many pieces met something other than Pass.
func (p *Proxy) Faults() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults
}

// Close stops the proxy and waits for its connections. It may be called twice.
func (p *Proxy) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	err := p.ln.Close()
	p.CutAll()
	p.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *Proxy) accept() {
	for {
		client, err := p.ln.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

// hold remembers a connection, or closes it when the proxy has stopped.
func (p *Proxy) hold(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = c.Close()
		return false
	}
	p.conns[c] = true
	return true
}

// release closes a connection. It is not held any more before anybody can see
// it closed: see Holds.
func (p *Proxy) release(c net.Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	_ = c.Close()
}

func (p *Proxy) serve(client net.Conn) {
	if !p.hold(client) {
		return
	}
	defer p.release(client)
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil || !p.hold(server) {
		return
	}
	defer p.release(server)

	swallow := make(chan struct{}) // closed: nothing passes any more
	lastAnswer := make(chan Action, 1)
	var back sync.WaitGroup
	back.Go(func() {
		defer client.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			select {
			case act := <-lastAnswer: // the server has answered; the client shall not hear it
				if act == AnswerTorn {
					_, _ = client.Write(buf[:n/2])
				}
				return
			case <-swallow:
				n = 0
			default:
			}
			if n > 0 {
				if _, werr := client.Write(buf[:n]); werr != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	})
	p.forward(client, server, swallow, lastAnswer)
	p.release(server)
	back.Wait()
}

// forward copies from the client until either side ends or a fault says so.
func (p *Proxy) forward(client, server net.Conn, swallow chan struct{}, lastAnswer chan<- Action) {
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if n > 0 {
			switch act := p.judge(buf[:n]); act {
			case Cut:
				return
			case CutAfter:
				close(swallow) // the answer may be quicker than the cut
				_, _ = server.Write(buf[:n])
				return
			case AnswerCut, AnswerTorn:
				lastAnswer <- act
				_, _ = server.Write(buf[:n])
				// The other goroutine closes the client after the answer.
				_, _ = io.Copy(io.Discard, client)
				return
			case Swallow:
				close(swallow)
				_, _ = io.Copy(io.Discard, client)
				return
			default:
				if _, werr := server.Write(buf[:n]); werr != nil {
					return
				}
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *Proxy) judge(piece []byte) Action {
	p.mu.Lock()
	f := p.fault
	p.mu.Unlock()
	if f == nil {
		return Pass
	}
	act := f(piece)
	if act != Pass {
		p.mu.Lock()
		p.faults++
		p.mu.Unlock()
	}
	return act
}
