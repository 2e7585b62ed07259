package syslog_test

import (
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/audit/syslog"
	"github.com/leasehold/leasehold/internal/errs"
)

func TestMessages(t *testing.T) {
	address := filepath.Join(t.TempDir(), "log")
	conn, err := net.ListenPacket("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d, err := syslog.New(syslog.Config{Network: "unixgram", Address: address, Facility: "local3", Tag: "lease"})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Write([]byte("{\"a\":1}\n{\"b\":2}\n")); err != nil {
		t.Fatal(err)
	}
	if err := d.Reopen(); err != nil {
		t.Fatal(err)
	}
	if err := d.Write([]byte("{\"c\":3}\n")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1000)
	for _, want := range []string{`{"a":1}`, `{"b":2}`, `{"c":3}`} {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		// local3 is 19, info is 6.
		if got := string(buf[:n]); !strings.HasPrefix(got, "<158>") || !strings.Contains(got, "lease[") || !strings.HasSuffix(got, want+"\n") {
			t.Errorf("message %q, want %q of local3.info", got, want)
		}
	}
	for range 2 {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := d.Write([]byte("d\n")); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("Write after Close = %v, want ErrClosed", err)
	}
}

func TestHeals(t *testing.T) {
	address := filepath.Join(t.TempDir(), "log")
	d, err := syslog.New(syslog.Config{Network: "unixgram", Address: address})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Write([]byte("a\n")); err == nil {
		t.Error("Write without a log = nil, want an error")
	}
	conn, err := net.ListenPacket("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := d.Write([]byte("b\n")); err != nil {
		t.Errorf("Write with a log again = %v, want no error", err)
	}
}

func TestUnknownFacility(t *testing.T) {
	if _, err := syslog.New(syslog.Config{Facility: "LOCAL9"}); !errs.Is(err, errs.Invalid) {
		t.Errorf("New with LOCAL9 = %v, want Invalid", err)
	}
}
