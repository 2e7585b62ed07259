package server_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
	"github.com/leasehold/leasehold/internal/testenv"
	"github.com/leasehold/leasehold/internal/testenv/tcpproxy"
)

// How a server ends: asked to, with work under way, and when its disk fails.

// TestStopsWithinFiveSeconds: a database takes connections and never answers;
// one credential is being made and the lease of another is being ended.
func TestStopsWithinFiveSeconds(t *testing.T) {
	t.Parallel()
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hole.Close() })
	reached := make(chan net.Conn, 64)
	go func() { // ends with hole
		for {
			c, err := hole.Accept()
			if err != nil {
				return
			}
			reached <- c
		}
	}()
	s := leaseholdtest.Start(t, leaseholdtest.Config{})
	call(t, s, "POST", "sys/mounts/database", map[string]string{"type": "database"}, nil)
	call(t, s, "POST", "database/config/app", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "app", "verify_connection": false, "username": "u", "password": "p",
		"connection_url": "postgresql://{{username}}:{{password}}@" + hole.Addr().String() + "/db?sslmode=disable",
	}, nil)
	call(t, s, "POST", "database/roles/app", map[string]any{
		"db_name": "app", "creation_statements": []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}'`}, "default_ttl": "1h",
	}, nil)
	answered := make(chan error, 2)
	for range 2 {
		go func() { answered <- s.Call(context.Background(), "GET", "database/creds/app", s.Root, nil, nil) }()
	}
	select {
	case c := <-reached:
		defer c.Close()
	case <-time.After(patience):
		t.Fatal("the database was not asked")
	}
	begun := time.Now()
	if err := s.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended(t, s, 0)
	// What is promised is five seconds; a loaded machine may add to them.
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("stopping took %v", took)
	}
	for range 2 {
		if err := <-answered; err == nil {
			t.Error("a credential was answered, although the database never did")
		}
	}
	// Whatever was going on is found again.
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	var health struct {
		Sealed bool `json:"sealed"`
	}
	call(t, s, "GET", "sys/health", nil, &health)
	if health.Sealed {
		t.Error("the server is sealed after a restart")
	}
}

// TestStopsWhileRevoking: the database stops answering in the middle of ending
// leases. Stopping does not wait for it, and the next start ends them.
func TestStopsWhileRevoking(t *testing.T) {
	t.Parallel()
	pg := testenv.Postgres(t, testenv.Config{})
	db := pg.NewDatabase(t)
	proxy, err := tcpproxy.New(pg.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { proxy.Close() })
	s := leaseholdtest.Start(t, leaseholdtest.Config{})
	call(t, s, "POST", "sys/mounts/database", map[string]string{"type": "database"}, nil)
	call(t, s, "POST", "database/config/app", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "app", "username": testenv.Superuser, "password": pg.Password,
		"connection_url": fmt.Sprintf("postgresql://{{username}}:{{password}}@%s/%s?sslmode=disable", proxy.Addr(), db),
	}, nil)
	call(t, s, "POST", "database/roles/app", map[string]any{
		"db_name": "app", "creation_statements": []string{`CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`}, "default_ttl": "1h",
	}, nil)
	for range 5 {
		call(t, s, "GET", "database/creds/app", nil, nil)
	}
	proxy.Break(func([]byte) tcpproxy.Action { return tcpproxy.Swallow })
	answered := make(chan error, 1)
	go func() {
		answered <- s.Call(context.Background(), "PUT", "sys/leases/revoke-prefix/database/creds/app", s.Root, map[string]bool{"sync": true}, nil)
	}()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for proxy.Faults() == 0 { // until a statement was swallowed
		if time.Now().After(deadline) {
			t.Fatal("the database was not asked to end anything")
		}
		<-tick.C
	}
	begun := time.Now()
	if err := s.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ended(t, s, 0)
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("stopping took %v", took)
	}
	<-answered
	proxy.Break(nil)
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	for {
		n := pg.Query(t, db, `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%'`)
		if n == "0" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s logins are left after the restart", n)
		}
		<-tick.C
	}
}

// fileLimit sets the largest size of files that the process can write.
func fileLimit(t *testing.T, s *leaseholdtest.Server, bytes uint64) {
	t.Helper()
	if err := unix.Prlimit(s.PID(), unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: bytes, Max: unix.RLIM_INFINITY}, nil); err != nil {
		t.Fatal(err)
	}
}

// TestStoreThatStops: a write of the store's log fails with an error that
// nobody survives.
func TestStoreThatStops(t *testing.T) {
	t.Parallel()
	s := leaseholdtest.Start(t, leaseholdtest.Config{})
	call(t, s, "POST", "sys/mounts/kv", map[string]string{"type": "kv"}, nil)
	call(t, s, "PUT", "kv/before", map[string]string{"a": "b"}, nil)
	fileLimit(t, s, 64<<10) // the log of what the server says has room below that
	err := s.Call(t.Context(), "PUT", "kv/a", s.Root, map[string]string{"a": strings.Repeat("b", 256<<10)}, nil)
	if err == nil {
		t.Error("a write that cannot be durable was answered with success")
	}
	ended(t, s, 1)
	for _, want := range []string{"the store has stopped, because its disk failed a write", "file too large"} {
		if !strings.Contains(s.Log(), want) {
			t.Errorf("the log has no %q", want)
		}
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	call(t, s, "GET", "kv/before", nil, nil)
}
