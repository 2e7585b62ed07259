package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
)

// leasesOptions are the flags of leases. The defaults are what the issue asks.
type leasesOptions struct {
	tokens, conc          int // of the growth
	stormTokens, stormDBs int
	rate                  int // foreground requests a second during storms
	runs                  int // of each storm
	binary                string
}

// What is asked for.
const (
	maxGrowth    = 1.1         // CPU per creation, last tenth against the first
	maxStart     = time.Second // from the start of the process to an old token's lookup
	maxRSS       = 300.0       // MB
	maxTokenGone = 10 * time.Second
	maxDBGone    = 30 * time.Second
	maxSlower    = 2.0 // foreground p99, storm against idle
)

func leasesCommand(ctx context.Context, fs *flag.FlagSet, args []string) error {
	var o leasesOptions
	fs.IntVar(&o.tokens, "n", 1_000_000, "tokens to create before the kill; 0 leaves this part out")
	fs.IntVar(&o.conc, "conc", 64, "concurrent creators")
	fs.IntVar(&o.stormTokens, "storm", 20_000, "tokens that expire in the same second; 0 leaves it out")
	fs.IntVar(&o.stormDBs, "storm-db", 2_000, "database leases that expire in the same second; 0 leaves it out")
	fs.IntVar(&o.rate, "rate", 40, "foreground requests a second")
	fs.IntVar(&o.runs, "runs", 3, "runs of each storm; medians are held to the bars")
	fs.StringVar(&o.binary, "server", "", "leasehold to measure; empty: build this tree's")
	write := fs.Bool("write", false, "put the tables into docs/benchmarks.md")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var parts, missed []string
	for _, part := range []struct {
		on  bool
		run func(context.Context, leasesOptions) (string, []string, error)
	}{
		{o.tokens > 0, growth},
		{o.stormTokens > 0, tokenStorm},
		{o.stormDBs > 0, databaseStorm},
	} {
		if !part.on {
			continue
		}
		text, bad, err := part.run(ctx, o)
		if err != nil {
			return err
		}
		fmt.Println("\n" + text)
		parts, missed = append(parts, text), append(missed, bad...)
	}
	if *write {
		if err := writeSection("leases", machine()+".\n\n"+strings.Join(parts, "\n")); err != nil {
			return err
		}
	}
	if len(missed) > 0 {
		return fmt.Errorf("missed: %s", strings.Join(missed, "; "))
	}
	return nil
}

// verdict names a bar and says whether it was held.
func verdict(missed *[]string, what string, ok bool) string {
	if ok {
		return "held"
	}
	*missed = append(*missed, what)
	return "**missed**"
}

// nonePolicy lets a token look at itself and end itself.
const nonePolicy = `path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/revoke-self" { capabilities = ["update"] }`

// quietToken makes a token without default policy that nobody renews.
func quietToken(ctx context.Context, c *client, root, ttl string) (string, error) {
	var a answer
	err := c.call(ctx, "POST", "auth/token/create", root, obj{"ttl": ttl, "no_parent": true, "no_default_policy": true,
		"policies": []string{"bench-none"}, "renewable": false}, &a)
	if err == nil && a.Auth.ClientToken == "" {
		err = errors.New("no token in the answer")
	}
	return a.Auth.ClientToken, err
}

func startQuiet(ctx context.Context, o leasesOptions) (*leaseholdtest.Server, *client, error) {
	srv, err := leaseholdtest.Launch(ctx, leaseholdtest.Config{Binary: o.binary})
	if err != nil {
		return nil, nil, err
	}
	c := newClient(srv.Addr)
	if err := c.call(ctx, "PUT", "sys/policies/acl/bench-none", srv.Root, obj{"policy": nonePolicy}, nil); err != nil {
		srv.Close()
		return nil, nil, err
	}
	return srv, c, nil
}

// growth creates many tokens in tenths, kills the server, and times the way back.
func growth(ctx context.Context, o leasesOptions) (string, []string, error) {
	srv, c, err := startQuiet(ctx, o)
	if err != nil {
		return "", nil, err
	}
	defer srv.Close()
	var b strings.Builder
	fmt.Fprintf(&b, "%d service tokens (no parent, ttl 24h), %d creators. Empty server: %.0f MB resident.\n\n", o.tokens, o.conc, memory(srv.PID(), "VmRSS"))
	b.WriteString("| tokens | created/s | p50 ms | p99 ms | server CPU µs/op | RSS MB | peak MB |\n|--:|--:|--:|--:|--:|--:|--:|\n")
	const tenths = 10
	slice := max(1, o.tokens/tenths)
	var mu sync.Mutex
	var sample []string
	var cpus []float64
	for n := range tenths {
		lats := make([]time.Duration, slice)
		cpu0, t0 := cpuTree(srv.PID()), time.Now()
		err := parallel(slice, o.conc, func(i int) error {
			begin := time.Now()
			tok, err := quietToken(ctx, c, srv.Root, "24h")
			lats[i] = time.Since(begin)
			if err == nil && i%max(1, slice/50) == 0 {
				mu.Lock()
				sample = append(sample, tok)
				mu.Unlock()
			}
			return err
		})
		if err != nil {
			return "", nil, err
		}
		took := time.Since(t0)
		slices.Sort(lats)
		cpus = append(cpus, us(cpuTree(srv.PID())-cpu0)/float64(slice))
		fmt.Fprintf(&b, "| %d | %.0f | %.2f | %.2f | %.1f | %.0f | %.0f |\n", (n+1)*slice, float64(slice)/took.Seconds(),
			ms(quantile(lats, .5)), ms(quantile(lats, .99)), cpus[n], memory(srv.PID(), "VmRSS"), memory(srv.PID(), "VmHWM"))
		fmt.Fprintf(os.Stderr, "%d tokens, %.0f/s\n", (n+1)*slice, float64(slice)/took.Seconds())
	}
	before := memory(srv.PID(), "VmHWM")
	srv.Kill()
	back := make(chan error, 1)
	t0 := time.Now()
	go func() { back <- srv.Restart(ctx) }()
	tok := sample[rand.IntN(len(sample))]
	var first time.Duration
	for first == 0 && time.Since(t0) < time.Minute {
		if _, err := c.raw(ctx, "GET", "auth/token/lookup-self", tok, nil); err == nil {
			first = time.Since(t0)
		} else {
			time.Sleep(2 * time.Millisecond)
		}
	}
	if err := <-back; err != nil {
		return "", nil, fmt.Errorf("after kill -9: %w", err)
	}
	for _, tok := range sample {
		if _, err := c.raw(ctx, "GET", "auth/token/lookup-self", tok, nil); err != nil {
			return "", nil, fmt.Errorf("an acknowledged token is lost after kill -9: %w", err)
		}
	}
	rss := max(before, memory(srv.PID(), "VmHWM"))
	var missed []string
	ratio := cpus[tenths-1] / cpus[0]
	fmt.Fprintf(&b, "\n| asked for | measured | |\n|---|--:|---|\n")
	fmt.Fprintf(&b, "| CPU per creation, last tenth ÷ first ≤ %g | %.2f | %s |\n", maxGrowth, ratio, verdict(&missed, fmt.Sprintf("growth: %.2f", ratio), ratio <= maxGrowth))
	fmt.Fprintf(&b, "| kill -9, then process start → lookup-self of an old token ≤ %s | %s | %s |\n", maxStart, first.Round(time.Millisecond),
		verdict(&missed, fmt.Sprintf("start: %s", first), first > 0 && first <= maxStart))
	fmt.Fprintf(&b, "| resident memory, peak before and after ≤ %.0f MB | %.0f MB | %s |\n", maxRSS, rss, verdict(&missed, fmt.Sprintf("memory: %.0f MB", rss), rss <= maxRSS))
	return b.String(), missed, nil
}
