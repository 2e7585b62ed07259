// Package socket is the audit device that sends records over TCP, UDP or a
// Unix socket: one line per record on a stream, one datagram per record on UDP.
//
// A record is taken when the operating system has it; the far end acknowledges
// nothing. What it has not read when the connection breaks is lost, which is
// why a socket should not be the only device.
//
// A broken connection is made again at once, within the write timeout. If that
// fails too, records are refused at once while one goroutine goes on dialling,
// so that a dead collector costs no request its time.
package socket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/leasehold/leasehold/internal/audit"
)

// DefaultTimeout is how long a write or an attempt to connect may take.
const DefaultTimeout = 2 * time.Second

// Pauses between attempts to connect to a collector that is away.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Config says where records go.
type Config struct {
	Network string        // "tcp", "udp" or "unix"; empty means tcp
	Address string        // host:port, or the path of the Unix socket
	Timeout time.Duration // for a write and for connecting; zero means DefaultTimeout
}

// Device writes to one socket.
type Device struct {
	cfg    Config
	writes audit.Combiner

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // readers and the dialling goroutine

	mu      sync.Mutex // guards what follows; not held while dialling or writing
	conn    net.Conn   // nil: broken
	gone    bool       // conn was closed by the far end; nothing was sent since
	dialing bool       // a goroutine is at it; until it has succeeded records are refused
	cause   error      // why the last attempt failed
}

var _ audit.Device = (*Device)(nil)

// New makes a device, which connects for the first record. Reopen connects at
// once and says what is wrong.
func New(cfg Config) *Device {
	if cfg.Network == "" {
		cfg.Network = "tcp"
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	d := &Device{cfg: cfg}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.writes.Flush = d.flush
	return d
}

// Write sends lines.
func (d *Device) Write(lines []byte) (err error) {
	if d.cfg.Network != "udp" {
		return d.writes.Write(lines)
	}
	// Datagrams gain nothing from being joined, and each has a fate of its own.
	d.writes.Exclusive(func() { _, err = d.flush(lines, nil) })
	return err
}

// Reopen makes a new connection.
func (d *Device) Reopen() (err error) {
	d.writes.Exclusive(func() { _, err = d.connect() })
	return err
}

// Close ends the connection and waits for all goroutines of the device.
func (d *Device) Close() error {
	d.cancel()
	d.writes.Exclusive(func() { d.drop(nil) })
	d.wg.Wait()
	return nil
}

// flush writes a batch. See audit.Combiner for its contract.
func (d *Device) flush(lines []byte, _ []int) (taken int, err error) {
	conn, err := d.current()
	if err == nil {
		if err = d.send(conn, lines); err == nil {
			return len(lines), nil
		}
		if errors.Is(err, syscall.EMSGSIZE) {
			return 0, fmt.Errorf("the record does not fit a datagram: %w", err)
		}
		// A collector that was restarted is there again: one more try. It may
		// read some records twice, which is better than not at all.
		// One that is too slow is not asked again before the next record.
		d.drop(conn)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			if conn, err = d.connect(); err == nil {
				if err = d.send(conn, lines); err == nil {
					return len(lines), nil
				}
				d.drop(conn)
			}
		}
	}
	d.redial(err)
	return 0, err
}

func (d *Device) send(conn net.Conn, lines []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(d.cfg.Timeout)); err != nil {
		return err
	}
	if d.cfg.Network != "udp" {
		_, err := conn.Write(lines)
		return err
	}
	for line := range audit.Lines(lines) {
		if _, err := conn.Write(line); err != nil {
			return err
		}
	}
	return nil
}

// current is the connection to write to. A missing one is made, unless we know
// the collector to be away.
func (d *Device) current() (net.Conn, error) {
	if d.ctx.Err() != nil {
		return nil, audit.ErrClosed
	}
	d.mu.Lock()
	conn, gone, dialing, cause := d.conn, d.gone, d.dialing, d.cause
	d.mu.Unlock()
	switch {
	case dialing:
		return nil, fmt.Errorf("collector is away: %w", cause)
	case conn != nil && !gone:
		return conn, nil
	}
	d.drop(conn)
	return d.connect()
}

// connect makes a connection and puts it in place of the one there was.
func (d *Device) connect() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(d.ctx, d.cfg.Timeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, d.cfg.Network, d.cfg.Address)
	if err != nil {
		if d.ctx.Err() != nil {
			return nil, audit.ErrClosed
		}
		return nil, err
	}
	d.mu.Lock()
	if d.ctx.Err() != nil { // Close has looked for a connection already
		d.mu.Unlock()
		closeConn(conn)
		return nil, audit.ErrClosed
	}
	old := d.conn
	d.conn, d.gone, d.dialing, d.cause = conn, false, false, nil
	// A stream that the collector closed takes one more write without an
	// error, and loses it. So somebody reads what never comes, and notes its
	// end.
	if d.cfg.Network != "udp" {
		d.wg.Go(func() { d.watch(conn) })
	}
	d.mu.Unlock()
	closeConn(old)
	return conn, nil
}

// watch notes when the far end closes conn.
func (d *Device) watch(conn net.Conn) {
	_, _ = io.Copy(io.Discard, conn)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn == conn {
		d.gone = true
	}
}

// drop closes conn, or without one the connection there is.
func (d *Device) drop(conn net.Conn) {
	d.mu.Lock()
	if conn == nil {
		conn = d.conn
	}
	if d.conn == conn {
		d.conn = nil
	}
	d.mu.Unlock()
	closeConn(conn)
}

// redial starts the goroutine that dials until it succeeds, and has records
// refused meanwhile.
func (d *Device) redial(cause error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dialing || errors.Is(cause, audit.ErrClosed) || d.ctx.Err() != nil {
		return
	}
	d.dialing, d.cause = true, cause
	d.wg.Go(func() {
		for pause := firstPause; ; pause = min(2*pause, lastPause) {
			select {
			case <-d.ctx.Done():
				return
			case <-time.After(pause):
			}
			if !d.isDialing() { // Reopen was faster
				return
			}
			if _, err := d.connect(); err == nil {
				return
			}
		}
	})
}

func (d *Device) isDialing() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dialing
}

func closeConn(c net.Conn) {
	if c != nil {
		_ = c.Close()
	}
}
