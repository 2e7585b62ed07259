// Package syslog is the audit device that gives records to the system log of
// the machine, one message per record, at level info.
//
// A record is taken when the log's socket has it. System logs limit the length
// of a message; a record that is longer is refused by some and cut by others,
// so this should not be the only device where large values are stored.
//
// The messages are those of the standard library's log/syslog, from which the
// names of facilities come. Its writer waits for ever for a log that has
// stopped reading, and every request with it; hence one of our own, which gives
// up in time and then refuses records at once for a while.
package syslog

import (
	"errors"
	"fmt"
	"log/syslog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/errs"
)

// What an option that is not set means.
const (
	DefaultFacility = "AUTH"
	DefaultTag      = "leasehold"
	DefaultTimeout  = 2 * time.Second
)

// pause is how long a log that did not take a record in time is left alone, and
// hungTimeout how long it may take for the one after it: that costs no request
// its time again.
const (
	pause       = time.Second
	hungTimeout = 10 * time.Millisecond
)

// Config says which log and how messages are marked.
type Config struct {
	// Network and Address of the log; empty mean that of this machine.
	Network, Address string
	Facility         string // "AUTH", "LOCAL0", ...; empty means DefaultFacility
	Tag              string // empty means DefaultTag
	// Timeout is how long the log may take for what it is given at once; zero
	// means DefaultTimeout.
	Timeout time.Duration
}

var facilities = map[string]syslog.Priority{
	"KERN": syslog.LOG_KERN, "USER": syslog.LOG_USER, "MAIL": syslog.LOG_MAIL, "DAEMON": syslog.LOG_DAEMON,
	"AUTH": syslog.LOG_AUTH, "SYSLOG": syslog.LOG_SYSLOG, "LPR": syslog.LOG_LPR, "NEWS": syslog.LOG_NEWS,
	"UUCP": syslog.LOG_UUCP, "CRON": syslog.LOG_CRON, "AUTHPRIV": syslog.LOG_AUTHPRIV, "FTP": syslog.LOG_FTP,
	"LOCAL0": syslog.LOG_LOCAL0, "LOCAL1": syslog.LOG_LOCAL1, "LOCAL2": syslog.LOG_LOCAL2, "LOCAL3": syslog.LOG_LOCAL3,
	"LOCAL4": syslog.LOG_LOCAL4, "LOCAL5": syslog.LOG_LOCAL5, "LOCAL6": syslog.LOG_LOCAL6, "LOCAL7": syslog.LOG_LOCAL7,
}

// Device writes to one log.
type Device struct {
	cfg      Config
	priority syslog.Priority

	mu     sync.Mutex // serialises messages, so that records stay in order
	conn   net.Conn   // nil: to be connected for the next record
	closed bool
	rests  time.Time // until then nothing is tried, because of cause
	cause  error     // why the last record was not taken in time; nil once one was
	buf    []byte
}

var _ audit.Device = (*Device)(nil)

// New makes a device, which connects for the first record. Reopen connects at
// once and says what is wrong.
func New(cfg Config) (*Device, error) {
	if cfg.Facility == "" {
		cfg.Facility = DefaultFacility
	}
	if cfg.Tag == "" {
		cfg.Tag = DefaultTag
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	facility, ok := facilities[strings.ToUpper(cfg.Facility)]
	if !ok {
		return nil, errs.New(errs.Invalid, "unknown syslog facility %q: write AUTH, DAEMON, LOCAL0 to LOCAL7 or another of syslog's", cfg.Facility)
	}
	return &Device{cfg: cfg, priority: facility | syslog.LOG_INFO}, nil
}

// Write sends lines, each as a message.
func (d *Device) Write(lines []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return audit.ErrClosed
	}
	if time.Now().Before(d.rests) {
		return fmt.Errorf("the log has stopped reading: %w", d.cause)
	}
	limit := d.cfg.Timeout
	if d.cause != nil {
		limit = min(limit, hungTimeout)
		if d.conn == nil { // the way to it may be longer than that
			if err := d.connectLocked(); err != nil {
				return err
			}
		}
	}
	until := time.Now().Add(limit)
	for line := range audit.Lines(lines) {
		if err := d.sendLocked(line, until); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				d.rests, d.cause = time.Now().Add(pause), err
			}
			return fmt.Errorf("writing to syslog: %w", err)
		}
	}
	d.cause = nil
	return nil
}

// sendLocked sends one message. A log that was restarted is connected to anew,
// and tried once more; one that is too slow is not.
func (d *Device) sendLocked(line []byte, until time.Time) error {
	had := d.conn != nil
	for {
		if d.conn == nil {
			if err := d.connectLocked(); err != nil {
				return err
			}
		}
		err := d.conn.SetWriteDeadline(until)
		if err == nil {
			_, err = d.conn.Write(d.messageLocked(line))
		}
		if err == nil {
			return nil
		}
		d.dropLocked()
		if !had || errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		had = false
	}
}

// messageLocked is a line as system logs read it. A log of this machine wants
// the time in the old form and no host.
func (d *Device) messageLocked(line []byte) []byte {
	now, layout, host := time.Now(), time.Stamp, ""
	if !strings.HasPrefix(d.conn.RemoteAddr().Network(), "unix") {
		layout = time.RFC3339
		if host, _ = os.Hostname(); host == "" {
			host = "localhost"
		}
		host += " "
	}
	d.buf = fmt.Appendf(d.buf[:0], "<%d>%s %s%s[%d]: %s\n", d.priority, now.Format(layout), host, d.cfg.Tag, os.Getpid(), line)
	return d.buf
}

// Reopen makes a new connection.
func (d *Device) Reopen() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return audit.ErrClosed
	}
	return d.connectLocked()
}

// Close ends the connection.
func (d *Device) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	d.dropLocked()
	return nil
}

func (d *Device) dropLocked() {
	if d.conn != nil {
		_ = d.conn.Close()
		d.conn = nil
	}
}

// local are the places where a machine's log listens.
var local = []string{"/dev/log", "/var/run/syslog", "/var/run/log"}

func (d *Device) connectLocked() error {
	conn, err := d.dial()
	if err != nil {
		return fmt.Errorf("connecting to syslog: %w", err)
	}
	d.dropLocked()
	d.conn = conn
	return nil
}

func (d *Device) dial() (net.Conn, error) {
	if d.cfg.Network != "" {
		return net.DialTimeout(d.cfg.Network, d.cfg.Address, d.cfg.Timeout)
	}
	var failed []error
	for _, network := range []string{"unixgram", "unix"} {
		for _, path := range local {
			conn, err := net.DialTimeout(network, path, d.cfg.Timeout)
			if err == nil {
				return conn, nil
			}
			failed = append(failed, err)
		}
	}
	return nil, errors.Join(failed...)
}
