// Package devices makes audit devices from the kind and options that an
// operator gives them. It is the one place that knows all kinds.
package devices

import (
	"io/fs"
	"net"
	"strconv"
	"time"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/audit/file"
	"github.com/leasehold/leasehold/internal/audit/socket"
	"github.com/leasehold/leasehold/internal/audit/syslog"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
)

// Made is a new device. It has opened nothing: call Device.Reopen to find out
// whether it works, when it is enabled; not when it comes back with a restart,
// as it opens itself when it can.
type Made struct {
	Device  audit.Device
	Format  audit.Format
	Unknown []string // options that mean nothing to this kind, for a warning
}

// kind makes the devices of one kind from its own options.
type kind struct {
	options []string
	make    func(options map[string]string) (audit.Device, error)
}

var kinds = map[string]kind{
	"file":   {[]string{"file_path", "path", "mode", "sync"}, newFile},
	"socket": {[]string{"address", "socket_type", "write_timeout"}, newSocket},
	"syslog": {[]string{"facility", "tag"}, newSyslog},
}

// enterprise options decide which records a device gets. Ignoring them would
// log what was meant to be left out, so they are refused.
var enterprise = []string{"filter", "exclude", "fallback"}

// New makes a device of a kind: file, socket or syslog. The faults it finds
// are the caller's.
func New(kindName string, options map[string]string, salt secret.String) (Made, error) {
	k, ok := kinds[kindName]
	if !ok {
		return Made{}, errs.New(errs.Invalid, "unknown audit device type %q: there are file, socket and syslog", kindName)
	}
	for _, name := range enterprise {
		if options[name] != "" {
			return Made{}, errs.New(errs.Invalid, "the option %s is not supported: every device gets every record", name)
		}
	}
	format, err := audit.ParseFormat(options, salt)
	if err != nil {
		return Made{}, err
	}
	d, err := k.make(options)
	if err != nil {
		return Made{}, err
	}
	return Made{Device: d, Format: format, Unknown: audit.Unknown(options, k.options...)}, nil
}

func newFile(options map[string]string) (audit.Device, error) {
	cfg := file.Config{Path: options["file_path"]}
	if cfg.Path == "" {
		cfg.Path = options["path"]
	}
	if cfg.Path == "" {
		return nil, errs.New(errs.Invalid, "file_path is required: the path of the audit log, or stdout")
	}
	// Mode 0000 is Vault's way to say that the file's mode is to be left alone.
	cfg.Mode = file.DefaultMode
	if s := options["mode"]; s != "" {
		m, err := strconv.ParseUint(s, 8, 32)
		if err != nil || m > 0o777 {
			return nil, errs.New(errs.Invalid, "mode must be an octal file mode such as 0600, not %q", s)
		}
		if m&0o111 != 0 {
			return nil, errs.New(errs.Invalid, "mode %s would make the audit log executable; write 0600 or 0640", s)
		}
		cfg.Mode = fs.FileMode(m)
	}
	if err := audit.Bool(options, "sync", &cfg.Sync); err != nil {
		return nil, err
	}
	return file.New(cfg), nil
}

func newSocket(options map[string]string) (audit.Device, error) {
	cfg := socket.Config{Network: options["socket_type"], Address: options["address"]}
	switch cfg.Network {
	case "", "tcp", "udp":
		if _, _, err := net.SplitHostPort(cfg.Address); err != nil {
			return nil, errs.New(errs.Invalid, "address must be host:port, not %q", cfg.Address)
		}
	case "unix":
		if cfg.Address == "" {
			return nil, errs.New(errs.Invalid, "address is required: the path of the Unix socket")
		}
	default:
		return nil, errs.New(errs.Invalid, "socket_type must be tcp, udp or unix, not %q", cfg.Network)
	}
	if s := options["write_timeout"]; s != "" {
		d, err := time.ParseDuration(s)
		if n, nerr := strconv.Atoi(s); nerr == nil { // a bare number is seconds
			d, err = time.Duration(n)*time.Second, nil
		}
		if err != nil || d <= 0 {
			return nil, errs.New(errs.Invalid, "write_timeout must be a duration such as 2s, not %q", s)
		}
		cfg.Timeout = d
	}
	return socket.New(cfg), nil
}

func newSyslog(options map[string]string) (audit.Device, error) {
	return syslog.New(syslog.Config{Facility: options["facility"], Tag: options["tag"]})
}
