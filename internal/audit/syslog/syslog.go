// Package syslog is the audit device that gives records to the system log of
// the machine, one message per record, at level info.
//
// A record is taken when the log's socket has it. System logs limit the length
// of a message; a record that is longer is refused by some and cut by others,
// so this should not be the only device where large values are stored.
package syslog

import (
	"fmt"
	"log/syslog"
	"strings"
	"sync"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/errs"
)

// What an option that is not set means.
const (
	DefaultFacility = "AUTH"
	DefaultTag      = "leasehold"
)

// Config says which log and how messages are marked.
type Config struct {
	// Network and Address of the log; empty mean that of this machine.
	Network, Address string
	Facility         string // "AUTH", "LOCAL0", ...; empty means DefaultFacility
	Tag              string // empty means DefaultTag
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

	mu     sync.Mutex     // serialises messages, so that records stay in order
	log    *syslog.Writer // nil: to be connected for the next record
	closed bool
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
	if d.log == nil {
		if err := d.connectLocked(); err != nil {
			return err
		}
	}
	for line := range audit.Lines(lines) {
		// The writer connects once more by itself before it gives up.
		if _, err := d.log.Write(line); err != nil {
			_ = d.log.Close()
			d.log = nil
			return fmt.Errorf("writing to syslog: %w", err)
		}
	}
	return nil
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
	if d.log != nil {
		_ = d.log.Close()
		d.log = nil
	}
	return nil
}

func (d *Device) connectLocked() error {
	w, err := syslog.Dial(d.cfg.Network, d.cfg.Address, d.priority, d.cfg.Tag)
	if err != nil {
		return fmt.Errorf("connecting to syslog: %w", err)
	}
	if d.log != nil {
		_ = d.log.Close()
	}
	d.log = w
	return nil
}
