package tcpproxy_test

import (
	"bufio"
	"net"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/testenv/tcpproxy"
)

// echo is a server that answers each line with itself and counts them.
func echo(t *testing.T) (addr string, heard chan string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	heard = make(chan string, 10)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r := bufio.NewReader(c)
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					break
				}
				heard <- line
				if _, err := c.Write([]byte(line)); err != nil {
					break
				}
			}
			_ = c.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String(), heard
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name            string
		act             tcpproxy.Action
		heard, answered bool
	}{
		{"pass", tcpproxy.Pass, true, true},
		{"cut", tcpproxy.Cut, false, false},
		{"cut after", tcpproxy.CutAfter, true, false},
		{"answer cut", tcpproxy.AnswerCut, true, false},
		{"swallow", tcpproxy.Swallow, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			addr, heard := echo(t)
			p, err := tcpproxy.New(addr)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			p.Break(tcpproxy.On("COMMIT", 1, tt.act))
			c, err := net.Dial("tcp", p.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			r := bufio.NewReader(c)
			if _, err := c.Write([]byte("hello\n")); err != nil {
				t.Fatal(err)
			}
			if got, err := r.ReadString('\n'); err != nil || got != "hello\n" {
				t.Fatalf("before the fault: %q, %v, want hello", got, err)
			}
			<-heard
			if _, err := c.Write([]byte("COMMIT\n")); err != nil {
				t.Fatal(err)
			}
			if tt.act == tcpproxy.Swallow {
				_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			}
			_, err = r.ReadString('\n')
			if answered := err == nil; answered != tt.answered {
				t.Errorf("answered = %v (%v), want %v", answered, err, tt.answered)
			}
			if tt.heard {
				if got := <-heard; got != "COMMIT\n" {
					t.Errorf("the server heard %q, want COMMIT", got)
				}
			} else {
				select {
				case got := <-heard:
					t.Errorf("the server heard %q, want nothing", got)
				default:
				}
			}
		})
	}
}
