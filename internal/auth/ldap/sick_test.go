package ldap_test

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/testenv"
)

// hostile is a directory that does to each connection what a test says.
func hostile(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() { serve(c); _ = c.Close() })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return "ldap://" + ln.Addr().String()
}

// TestHostileDirectory: whatever a directory says, or does not say, a login
// ends in time, and with an error that is the directory's.
func TestHostileDirectory(t *testing.T) {
	entry := []byte{0x30, 0x84, 0, 0, 0, 11, 2, 1, 2, 0x64, 0x84, 0, 0, 0, 0, 4, 0} // nearly a search result
	for name, serve := range map[string]func(net.Conn){
		"says nothing": func(c net.Conn) {
			for {
				if _, err := c.Read(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		},
		"hangs up": func(net.Conn) {},
		"says garbage": func(c net.Conn) {
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_, _ = c.Read(make([]byte, 1<<20))
		},
		"announces 4 GB": func(c net.Conn) {
			_, _ = c.Write([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff})
			for {
				if _, err := c.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		},
		"nests": func(c net.Conn) {
			for {
				if _, err := c.Write([]byte{0x30, 0x80, 0x30, 0x80, 0x30, 0x80, 0x30, 0x80}); err != nil {
					return
				}
			}
		},
		"goes on and on": func(c net.Conn) {
			for {
				if _, err := c.Write(entry); err != nil {
					return
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, starttls := range []bool{false, true} {
				r := newRig(t)
				r.write("config", object{"url": hostile(t, serve), "binddn": "cn=x", "bindpass": "y", "userdn": "dc=x", "starttls": starttls, "connection_timeout": 1, "request_timeout": 1})
				begun := time.Now()
				a, err := r.login("ann", "ann-pw")
				if errs.KindOf(err) != errs.Upstream {
					t.Errorf("StartTLS %v: login = %+v, %v, want Upstream", starttls, a, err)
				}
				if d := time.Since(begun); d > 15*time.Second {
					t.Errorf("StartTLS %v: the login took %v", starttls, d)
				}
			}
		})
	}
}

// TestSickDirectory: one that hangs holds up only those who log in there, and
// only until the next address is tried; then that one comes first.
func TestSickDirectory(t *testing.T) {
	sick, well := testenv.Slapd(t, testenv.SlapdConfig{LDIF: people}), testenv.Slapd(t, testenv.SlapdConfig{LDIF: people})
	stuck, fine, both := newRig(t), newRig(t), newRig(t)
	limits := object{"connection_timeout": 6, "request_timeout": 6, "starttls": true, "insecure_tls": true}
	stuck.write("config", with(basics(sick), limits))
	fine.write("config", with(basics(well), limits))
	both.write("config", with(with(basics(well), limits), object{"url": sick.URL() + "," + well.URL()}))
	stuck.lets("while it is well", "ann", "ann-pw")
	if err := sick.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sick.Signal(syscall.SIGCONT) }()
	ended := make(chan error, 100)
	for range 100 {
		go func() { _, err := stuck.login("ann", "ann-pw"); ended <- err }()
	}
	begun := time.Now()
	fine.lets("beside a sick directory", "ann", "ann-pw")
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("beside a sick directory a login took %v", d)
	}
	both.lets("with two addresses", "ann", "ann-pw")
	begun = time.Now()
	both.lets("with two addresses, once more", "ann", "ann-pw")
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("the address that did not answer was asked first again: %v", d)
	}
	for range 100 {
		if err := <-ended; errs.KindOf(err) != errs.Upstream && errs.KindOf(err) != errs.Unavailable {
			t.Errorf("login = %v, want Upstream or Unavailable", err)
		}
	}
	if err := sick.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	stuck.lets("well again", "ann", "ann-pw")
}

// TestClientGoes: a login whose client goes away ends at once.
func TestClientGoes(t *testing.T) {
	said := make(chan struct{}, 1)
	url := hostile(t, func(c net.Conn) {
		for {
			if _, err := c.Read(make([]byte, 1<<16)); err != nil {
				return
			}
			select {
			case said <- struct{}{}:
			default:
			}
		}
	})
	r := newRig(t)
	r.write("config", object{"url": url, "binddn": "cn=x", "bindpass": "y", "userdn": "dc=x", "connection_timeout": 60, "request_timeout": 60})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.loginUnder(ctx, "ann", "ann-pw") }()
	<-said
	begun := time.Now()
	cancel()
	if err := <-done; err == nil {
		t.Error("the login came to an end without an error")
	}
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("the login ended %v after its client", d)
	}
}

// TestUntrustedDirectory: one whose certificate leads nowhere is told nothing.
func TestUntrustedDirectory(t *testing.T) {
	l, other := testenv.Slapd(t, testenv.SlapdConfig{LDIF: people}), testenv.Slapd(t, testenv.SlapdConfig{})
	for name, conf := range map[string]object{
		"TLS, the system's authorities":      {"url": l.TLSURL()},
		"TLS, another authority":             {"url": l.TLSURL(), "certificate": other.CA},
		"StartTLS, the system's authorities": {"starttls": true},
		"StartTLS, another authority":        {"starttls": true, "certificate": other.CA},
		"plain text where TLS is spoken":     {"url": "ldap" + l.TLSURL()[len("ldaps"):]},
		"TLS where plain text is spoken":     {"url": "ldaps" + l.URL()[len("ldap"):], "insecure_tls": true},
	} {
		r := newRig(t)
		r.write("config", with(with(basics(l), conf), object{"connection_timeout": 2, "request_timeout": 2}))
		if a, err := r.login("ann", "ann-pw"); errs.KindOf(err) != errs.Upstream {
			t.Errorf("%s: login = %+v, %v, want Upstream", name, a, err)
		}
	}
}
