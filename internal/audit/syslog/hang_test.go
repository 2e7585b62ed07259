package syslog_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/audit/syslog"
)

// TestLogThatHangs: a log that does not read any more costs its time once, and
// then refuses at once, so that another device can answer for it; it takes
// records again when it reads again.
func TestLogThatHangs(t *testing.T) {
	const timeout = time.Second
	address := filepath.Join(t.TempDir(), "log")
	conn, err := net.ListenPacket("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d, err := syslog.New(syslog.Config{Network: "unixgram", Address: address, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		line := []byte(strings.Repeat("x", 1000) + "\n")
		for range 100_000 {
			if err := d.Write(line); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	select {
	case err := <-failed:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("writing to a log that does not read = %v, want a timeout", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("writing to a log that does not read hangs")
	}
	longest := time.Duration(0)
	for begun := time.Now(); time.Since(begun) < 3*timeout; {
		one := time.Now()
		if err := d.Write([]byte("a\n")); err == nil {
			t.Fatal("a log that hangs took a record")
		}
		longest = max(longest, time.Since(one))
		runtime.Gosched()
	}
	if longest > timeout/2 {
		t.Errorf("a record after the one that timed out took %s to be refused", longest)
	}
	go func() {
		buf := make([]byte, 2000)
		for {
			if _, _, err := conn.ReadFrom(buf); err != nil {
				return
			}
		}
	}()
	for end := time.Now().Add(30 * time.Second); ; {
		if err = d.Write([]byte("again\n")); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("a log that reads again = %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
