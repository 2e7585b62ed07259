package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
)

// settle is how long the foreground load is watched while nothing else happens.
const settle = 10 * time.Second

// stormRun is one run of a storm.
type stormRun struct {
	gone      time.Duration // from the common expiry until the last was gone
	idle, hot time.Duration // foreground p99
	errs      int           // foreground requests that failed
	cpu       time.Duration // the server's, from 1 s before the expiry until all were gone
}

func tokenStorm(ctx context.Context, o leasesOptions) (string, []string, error) {
	return storms(ctx, o, storm{
		name: fmt.Sprintf("%d tokens that expire in the same second", o.stormTokens), n: o.stormTokens, limit: maxTokenGone,
		spare: 30 * time.Second, conc: 32,
		create: func(ctx context.Context, s *subject, ttl string) error {
			_, err := quietToken(ctx, s.client, s.server.Root, ttl)
			return err
		},
		left: tokenCount,
	})
}

// tokenCount is the server's own count of the tokens whose rows it holds.
func tokenCount(ctx context.Context, s *subject) (int, error) {
	n, err := s.figure(ctx, "vault_token_count")
	return int(n), err
}

// figure is one of sys/metrics.
func (s *subject) figure(ctx context.Context, name string) (float64, error) {
	page, err := s.raw(ctx, "GET", "sys/metrics?format=prometheus", s.server.Root, nil)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(page)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strconv.ParseFloat(strings.TrimSpace(rest[strings.LastIndexByte(rest, ' ')+1:]), 64) // behind the labels
		}
	}
	return 0, errors.New("sys/metrics has no " + name)
}

func databaseStorm(ctx context.Context, o leasesOptions) (string, []string, error) {
	db, err := startDatabase(ctx)
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = db.stop() }()
	return storms(ctx, o, storm{
		name: fmt.Sprintf("%d database leases that expire in the same second", o.stormDBs), n: o.stormDBs, limit: maxDBGone,
		spare: 90 * time.Second, conc: 16,
		setup: func(ctx context.Context, s *subject) error {
			if err := setupDatabase(ctx, s.client, s.server.Root, db); err != nil {
				return err
			}
			return s.revokeAll(ctx)
		},
		create: func(ctx context.Context, s *subject, ttl string) error {
			// The role's ttl is the lease's: one role per second of it.
			role := "storm" + strings.TrimSuffix(ttl, "s")
			_, err := s.raw(ctx, "GET", "bench-db/creds/"+role, s.server.Root, nil)
			var se *statusError
			if errors.As(err, &se) && se.code/100 == 4 {
				if err := s.call(ctx, "POST", "bench-db/roles/"+role, s.server.Root, obj{"db_name": "pg", "member_of": []string{"bench_app"}, "default_ttl": ttl, "max_ttl": ttl}, nil); err != nil {
					return err
				}
				_, err = s.raw(ctx, "GET", "bench-db/creds/"+role, s.server.Root, nil)
			}
			return err
		},
		left: func(ctx context.Context, _ *subject) (int, error) { return db.roles(ctx) },
	})
}

// storm is a kind of thing that all expires at once.
type storm struct {
	name    string
	n, conc int
	limit   time.Duration // by when all have to be gone
	spare   time.Duration // how long creating may take: all expire that long after its start
	setup   func(context.Context, *subject) error
	create  func(ctx context.Context, s *subject, ttl string) error
	left    func(context.Context, *subject) (int, error)
}

func storms(ctx context.Context, o leasesOptions, st storm) (string, []string, error) {
	s, err := newSubject(ctx, leaseholdtest.Config{Binary: o.binary}, 1)
	if err != nil {
		return "", nil, err
	}
	defer s.server.Close()
	if err := s.call(ctx, "PUT", "sys/policies/acl/bench-none", s.server.Root, obj{"policy": nonePolicy}, nil); err != nil {
		return "", nil, err
	}
	if st.setup != nil {
		if err := st.setup(ctx, s); err != nil {
			return "", nil, err
		}
	}
	var runs []stormRun
	for n := range o.runs {
		fmt.Fprintf(os.Stderr, "%s: run %d of %d\n", st.name, n+1, o.runs)
		r, err := st.run(ctx, s, o.rate)
		if err != nil {
			return "", nil, err
		}
		runs = append(runs, r)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s, with foreground requests at %d/s (a KV read, a KV write, a token lookup in turn).\n\n", st.name, o.rate)
	b.WriteString("| run | all gone after | foreground p99 idle ms | in the storm ms | × | foreground errors | server CPU |\n|--:|--:|--:|--:|--:|--:|--:|\n")
	for i, r := range runs {
		fmt.Fprintf(&b, "| %d | %s | %.1f | %.1f | %.2f | %d | %s |\n", i+1, r.gone.Round(100*time.Millisecond), ms(r.idle), ms(r.hot), float64(r.hot)/float64(r.idle), r.errs, r.cpu)
	}
	var missed []string
	gone := time.Duration(median(runs, func(r stormRun) float64 { return float64(r.gone) }))
	slower := median(runs, func(r stormRun) float64 { return float64(r.hot) / float64(r.idle) })
	errs := median(runs, func(r stormRun) float64 { return float64(r.errs) })
	fmt.Fprintf(&b, "\n| asked for | median | |\n|---|--:|---|\n| all gone within %s | %s | %s |\n| foreground p99 within %g × idle | %.2f | %s |\n| no foreground errors | %.0f | %s |\n",
		st.limit, gone.Round(100*time.Millisecond), verdict(&missed, fmt.Sprintf("%s: gone after %s", st.name, gone), gone <= st.limit),
		maxSlower, slower, verdict(&missed, fmt.Sprintf("%s: foreground %.2f × idle", st.name, slower), slower <= maxSlower),
		errs, verdict(&missed, st.name+": foreground errors", errs == 0))
	return b.String(), missed, nil
}

// run watches the foreground while idle, creates everything with a common
// expiry, and watches again from a second before that until all is gone.
func (st storm) run(ctx context.Context, s *subject, rate int) (stormRun, error) {
	base, err := st.left(ctx, s)
	if err != nil {
		return stormRun{}, err
	}
	var r stormRun
	idle := s.foreground(ctx, rate, func() { sleep(ctx, settle) })
	expiry := time.Now().Add(st.spare).Truncate(time.Second)
	err = parallel(st.n, st.conc, func(int) error {
		ttl := int(time.Until(expiry).Seconds() + 0.5)
		if ttl < 2 {
			return fmt.Errorf("creating %d took longer than %s", st.n, st.spare)
		}
		return st.create(ctx, s, strconv.Itoa(ttl)+"s")
	})
	if err != nil {
		return r, err
	}
	if there, err := st.left(ctx, s); err != nil || there < base+st.n {
		return r, errors.Join(err, fmt.Errorf("of %d created, %d are there before their time", st.n, there-base))
	}
	sleep(ctx, time.Until(expiry.Add(-time.Second)))
	cpu0 := cpuTree(s.server.PID())
	hot := s.foreground(ctx, rate, func() {
		for ctx.Err() == nil && time.Since(expiry) < 4*st.limit {
			var n int
			if n, err = st.left(ctx, s); err != nil || n <= base {
				break
			}
			sleep(ctx, 500*time.Millisecond)
		}
		r.gone = max(0, time.Since(expiry))
		r.cpu = cpuTree(s.server.PID()) - cpu0
		sleep(ctx, time.Until(expiry.Add(3*time.Second))) // a p99 wants a few samples
	})
	r.idle, r.hot, r.errs = idle.p99, hot.p99, idle.errs+hot.errs
	return r, errors.Join(err, ctx.Err())
}

// foreground sends paced requests, due by the clock and not by the last
// answer, until meanwhile returns; latencies count from when each was due.
func (s *subject) foreground(ctx context.Context, rate int, meanwhile func()) sample {
	done := make(chan struct{})
	go func() { meanwhile(); close(done) }()
	ops := []op{s.kvRead, s.kvWrite, s.get("auth/token/lookup-self")}
	var mu sync.Mutex
	var out sample
	var lats []time.Duration
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Second / time.Duration(rate))
	defer tick.Stop()
	for i := rand.IntN(len(ops)); ; i++ {
		select {
		case <-done:
			wg.Wait()
			slices.Sort(lats)
			out.ops, out.p50, out.p99 = len(lats), quantile(lats, .5), quantile(lats, .99)
			return out
		case due := <-tick.C:
			wg.Go(func() {
				err := ops[i%len(ops)](ctx, 0)
				mu.Lock()
				defer mu.Unlock()
				lats = append(lats, time.Since(due))
				if err != nil {
					out.errs++
					out.firstErr = err
				}
			})
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
