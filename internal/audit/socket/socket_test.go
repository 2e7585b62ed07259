package socket_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/audit/socket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collector reads lines from every connection to l.
type collector struct {
	l     net.Listener
	lines chan string
	wg    sync.WaitGroup

	stopped chan struct{}
	once    sync.Once

	mu    sync.Mutex
	conns []net.Conn
}

func listen(t *testing.T, network, address string) *collector {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{l: l, lines: make(chan string, 1000), stopped: make(chan struct{})}
	c.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.conns = append(c.conns, conn)
			c.mu.Unlock()
			c.wg.Go(func() {
				for in := bufio.NewScanner(conn); in.Scan(); {
					select {
					case c.lines <- in.Text():
					case <-c.stopped:
						return
					}
				}
			})
		}
	})
	t.Cleanup(c.stop)
	return c
}

// stop ends the listener and its connections, as a crash of the collector does.
func (c *collector) stop() {
	c.once.Do(func() { close(c.stopped) })
	_ = c.l.Close()
	c.mu.Lock()
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.mu.Unlock()
	c.wg.Wait()
}

func newDevice(t *testing.T, cfg socket.Config) *socket.Device {
	t.Helper()
	d := socket.New(cfg)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// wants reads a line that must come.
func (c *collector) wants(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-c.lines:
		if got != want {
			t.Fatalf("the collector got %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("the collector got nothing, want %q", want)
	}
}

func TestStreams(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			address := "127.0.0.1:0"
			if network == "unix" {
				address = filepath.Join(t.TempDir(), "s")
			}
			c := listen(t, network, address)
			d := newDevice(t, socket.Config{Network: network, Address: c.l.Addr().String()})
			for i := range 3 {
				if err := d.Write(fmt.Appendf(nil, "%d\n", i)); err != nil {
					t.Fatal(err)
				}
				c.wants(t, fmt.Sprint(i))
			}
		})
	}
}

// TestCollectorComesAndGoes: while the collector is away every record is
// refused, and soon after it is back they are taken again, each whole.
func TestCollectorComesAndGoes(t *testing.T) {
	c := listen(t, "tcp", "127.0.0.1:0")
	address := c.l.Addr().String()
	d := newDevice(t, socket.Config{Address: address})
	if err := d.Write([]byte("before\n")); err != nil {
		t.Fatal(err)
	}
	c.wants(t, "before")
	c.stop()
	// The end of the connection is seen soon, though not at once.
	until(t, func() bool { return d.Write([]byte("lost\n")) != nil })
	if err := d.Write([]byte("refused\n")); err == nil || !strings.Contains(err.Error(), "away") {
		t.Errorf("Write without a collector = %v, want a refusal", err)
	}
	c = listen(t, "tcp", address)
	until(t, func() bool { return d.Write([]byte("after\n")) == nil })
	c.wants(t, "after")

	// A restart that is over by the next record refuses none.
	c.stop()
	c = listen(t, "tcp", address)
	until(t, func() bool {
		if err := d.Write([]byte("again\n")); err != nil {
			t.Fatalf("Write after a restart = %v, want no error", err)
		}
		select {
		case <-c.lines:
			return true
		case <-time.After(20 * time.Millisecond):
			return false
		}
	})
}

// until repeats a step whose effect another process must notice first.
func until(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen in 10 s")
		}
		runtime.Gosched()
	}
}

// TestStuckCollector has a collector that reads nothing: writes end with the
// timeout, and the next ones at once or with it.
func TestStuckCollector(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := newDevice(t, socket.Config{Address: l.Addr().String(), Timeout: 50 * time.Millisecond})
	big := append([]byte(strings.Repeat("x", 1<<20)), '\n')
	until(t, func() bool {
		var timeout net.Error
		err := d.Write(big)
		return errors.As(err, &timeout) && timeout.Timeout()
	})
}

func TestDatagrams(t *testing.T) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d := newDevice(t, socket.Config{Network: "udp", Address: conn.LocalAddr().String()})
	if err := d.Write([]byte("one\ntwo\n")); err != nil {
		t.Fatal(err)
	}
	if err := d.Write(append([]byte(strings.Repeat("x", 1<<17)), '\n')); err == nil {
		t.Error("Write of a record that fits no datagram = nil, want an error")
	}
	if err := d.Write([]byte("three\n")); err != nil {
		t.Errorf("the record after it: %v", err)
	}
	buf := make([]byte, 100)
	for _, want := range []string{"one", "two", "three"} {
		n, _, err := conn.ReadFrom(buf)
		if err != nil || string(buf[:n]) != want {
			t.Errorf("datagram %q, %v, want %q", buf[:n], err, want)
		}
	}
}

func TestReopenTellsWhatIsWrong(t *testing.T) {
	d := newDevice(t, socket.Config{Network: "unix", Address: filepath.Join(t.TempDir(), "none")})
	if err := d.Reopen(); err == nil {
		t.Error("Reopen without a collector = nil, want an error")
	}
	if err := d.Write([]byte("a\n")); err == nil {
		t.Error("Write without a collector = nil, want an error")
	}
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := d.Write([]byte("a\n")); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("Write after Close = %v, want ErrClosed", err)
	}
}
