package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
)

// What is asked of logins, beside what they may cost (see speed).
const (
	minShared = 2.0       // commits that share a sync, with 64 clients
	maxStored = 256 << 10 // bytes that the store may grow by, however many batch tokens are given out: its clock ticks
)

// holdLogins makes a role of approle for each kind of token, and what a login
// with it sends.
func (s *subject) holdLogins(ctx context.Context) error {
	if s.logins != nil {
		return nil
	}
	if err := s.call(ctx, "POST", "sys/auth/bench-approle", s.server.Root, obj{"type": "approle"}, nil); err != nil {
		return err
	}
	logins := map[string][]byte{}
	for _, kind := range []string{"service", "batch"} {
		role := "auth/bench-approle/role/" + kind
		err := s.call(ctx, "POST", role, s.server.Root, obj{"role_id": "role-id-" + kind, "token_type": kind, "token_policies": "bench-app", "token_ttl": "12h"}, nil)
		if err != nil {
			return err
		}
		var a struct {
			Data struct {
				SecretID string `json:"secret_id"`
			} `json:"data"`
		}
		if err := s.call(ctx, "POST", role+"/secret-id", s.server.Root, nil, &a); err != nil {
			return err
		}
		if logins[kind], err = json.Marshal(obj{"role_id": "role-id-" + kind, "secret_id": a.Data.SecretID}); err != nil {
			return err
		}
	}
	s.logins = logins
	return nil
}

// login logs in by approle, for one kind of token.
func (s *subject) login(kind string) op {
	return func(ctx context.Context, _ int) error {
		_, err := s.raw(ctx, "POST", "auth/bench-approle/login", "", s.logins[kind])
		return err
	}
}

func loginsCommand(ctx context.Context, flags *flag.FlagSet, args []string) error {
	n := flags.Int("n", 1_000_000, "logins with batch tokens")
	conc := flags.Int("conc", 64, "clients")
	dur := flags.Duration("dur", 5*time.Second, "how long they log in for service tokens")
	binary := flags.String("server", "", "leasehold to measure; empty: build this tree's")
	write := flags.Bool("write", false, "put the table into docs/benchmarks.md")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s, err := newSubject(ctx, leaseholdtest.Config{Binary: *binary}, 1)
	if err != nil {
		return err
	}
	defer s.server.Close()
	if err := s.holdLogins(ctx); err != nil {
		return err
	}
	var missed []string
	before, err := s.stored(ctx)
	if err != nil {
		return err
	}
	service := round(ctx, *conc, *dur, s.server.PID(), 0, s.login("service"))
	between, err := s.stored(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := parallel(*n, *conc, func(i int) error { return s.login("batch")(ctx, i) }); err != nil {
		return err
	}
	took := time.Since(start)
	after, err := s.stored(ctx)
	if err != nil {
		return err
	}

	shared := float64(between.commits-before.commits) / float64(max(between.syncs-before.syncs, 1))
	grown := after.bytes - between.bytes
	var b strings.Builder
	b.WriteString("| logins by approle | logins/s | commits | syncs | the store grew by | bar | |\n|---|--:|--:|--:|--:|---|---|\n")
	fmt.Fprintf(&b, "| %d, service tokens | %.0f | %d | %d | %d KB | ≥ %g commits a sync | %s |\n", service.ops, float64(service.ops)/service.elapsed.Seconds(),
		between.commits-before.commits, between.syncs-before.syncs, (between.bytes-before.bytes)>>10, minShared,
		verdict(&missed, fmt.Sprintf("%.1f commits share a sync", shared), shared >= minShared && service.errs == 0))
	fmt.Fprintf(&b, "| %d, batch tokens | %.0f | %d | %d | %d KB | ≤ %d KB | %s |\n", *n, float64(*n)/took.Seconds(),
		after.commits-between.commits, after.syncs-between.syncs, grown>>10, maxStored>>10,
		verdict(&missed, fmt.Sprintf("the store grew by %d bytes", grown), grown <= maxStored))
	text := fmt.Sprintf("%s, %d clients.\n\n%s", machine(), *conc, b.String())
	fmt.Println("\n" + text)
	if *write {
		if err := writeSection("logins", text); err != nil {
			return err
		}
	}
	if len(missed) > 0 {
		return fmt.Errorf("missed: %s", strings.Join(missed, "; "))
	}
	return nil
}

// stored is what the server says of its store, and the size of its files.
type stored struct {
	commits, syncs int64
	bytes          int64
}

func (s *subject) stored(ctx context.Context) (st stored, err error) {
	commits, err := s.figure(ctx, "leasehold_storage_commits_total")
	if err != nil {
		return st, err
	}
	syncs, err := s.figure(ctx, "leasehold_storage_syncs_total")
	if err != nil {
		return st, err
	}
	st.commits, st.syncs = int64(commits), int64(syncs)
	err = filepath.WalkDir(filepath.Join(s.server.Dir, "data"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			st.bytes += info.Size()
		}
		return err
	})
	return st, err
}
