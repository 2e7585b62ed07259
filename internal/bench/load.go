package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// errDone ends a worker's round early: there is nothing left to do.
var errDone = errors.New("nothing left")

// sample is one round of one workload.
type sample struct {
	ops, errs      int
	firstErr       error
	elapsed        time.Duration
	p50, p99       time.Duration
	cpu, pgCPU, me time.Duration // per operation: the server's, PostgreSQL's, ours
}

// round lets conc workers repeat op for d. op gets its worker's number.
func round(ctx context.Context, conc int, d time.Duration, pid, pgPID int, op func(ctx context.Context, worker int) error) sample {
	var s sample
	var mu sync.Mutex
	lats := make([][]time.Duration, conc)
	cpu0, pg0, me0, start := cpuTree(pid), cpuTree(pgPID), selfCPU(), time.Now()
	var wg sync.WaitGroup
	for i := range conc {
		wg.Go(func() {
			for ctx.Err() == nil {
				t0 := time.Now()
				if t0.Sub(start) >= d {
					return
				}
				err := op(ctx, i)
				if errors.Is(err, errDone) {
					return
				}
				if err != nil {
					mu.Lock()
					s.errs++
					if s.firstErr == nil {
						s.firstErr = err
					}
					mu.Unlock()
					time.Sleep(10 * time.Millisecond) // a failing server is not hammered
					continue
				}
				lats[i] = append(lats[i], time.Since(t0))
			}
		})
	}
	wg.Wait()
	s.elapsed = time.Since(start)
	all := slices.Concat(lats...)
	if s.ops = len(all); s.ops > 0 {
		n := time.Duration(s.ops)
		s.cpu, s.pgCPU, s.me = (cpuTree(pid)-cpu0)/n, (cpuTree(pgPID)-pg0)/n, (selfCPU()-me0)/n
		slices.Sort(all)
		s.p50, s.p99 = quantile(all, 0.50), quantile(all, 0.99)
	}
	return s
}

// parallel runs f(0) … f(n-1) on some workers and stops at the first error.
func parallel(n, workers int, f func(i int) error) error {
	var next atomic.Int64
	var first atomic.Pointer[error]
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for first.Load() == nil {
				i := int(next.Add(1) - 1)
				if i >= n {
					return
				}
				if err := f(i); err != nil {
					first.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := first.Load(); err != nil {
		return *err
	}
	return nil
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func median[T any](list []T, f func(T) float64) float64 {
	v := make([]float64, 0, len(list))
	for _, s := range list {
		v = append(v, f(s))
	}
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
func us(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 }
