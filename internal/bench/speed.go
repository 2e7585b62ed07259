package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
)

// workload is one kind of request and what it is held to.
type workload struct {
	name   string
	op     op
	before func(context.Context) error // ahead of each round, not measured
	after  func(context.Context) error // after each round, not measured
	pid    int                         // whose CPU counts

	unit string  // another workload whose figure is 1
	ops  bool    // compare operations per second, not CPU per operation
	bar  float64 // how many units it may cost, or (ops) how many it must reach; 0: no bar
	plus float64 // instead of a bar in units: how many µs of CPU it may cost more

	beside     func() float64 // measures the µs of CPU that it may cost beside the units: what was asked for
	besideName string
}

// row is a finished workload: the medians over its rounds.
type row struct {
	workload
	of                  *row // what it is compared with
	rounds              []sample
	units               []sample // of, measured right before each round
	besides             []float64
	perSec, cpu, pg, me float64
	p50, p99            float64
	errs                int
	firstErr            error
}

func speedCommand(ctx context.Context, fs *flag.FlagSet, args []string) error {
	conc := fs.Int("conc", 16, "clients")
	rounds := fs.Int("rounds", 3, "rounds of each workload; medians are shown")
	dur := fs.Duration("dur", 3*time.Second, "length of a round")
	only := fs.String("only", "", "regexp: only these workloads (and what they are compared with)")
	write := fs.Bool("write", false, "put the table into docs/benchmarks.md")
	binary := fs.String("server", "", "leasehold to measure; empty: build this tree's")
	if err := fs.Parse(args); err != nil {
		return err
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "starting PostgreSQL and two servers, one of them with a file audit device ...")
	db, err := startDatabase(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = db.stop() }()
	plain, err := newSubject(ctx, leaseholdtest.Config{Binary: *binary}, *conc)
	if err != nil {
		return err
	}
	defer plain.server.Close()
	audited, err := newSubject(ctx, leaseholdtest.Config{Binary: *binary}, *conc)
	if err != nil {
		return err
	}
	defer audited.server.Close()
	log := filepath.Join(audited.server.Dir, "audit.log")
	if err := audited.call(ctx, "PUT", "sys/audit/file", audited.server.Root, obj{"type": "file", "options": obj{"file_path": log}}, nil); err != nil {
		return err
	}
	control, err := startBare(ctx, plain.client)
	if err != nil {
		return err
	}
	defer control.stop()
	if err := setupDatabase(ctx, plain.client, plain.server.Root, db); err != nil {
		return err
	}

	var rows []*row
	if err := plain.setupTransit(ctx); err != nil {
		return err
	}
	if err := control.setupTransit(ctx, plain.transit); err != nil {
		return err
	}
	for _, w := range append(speedWorkloads(plain, audited, control, db), transitWorkloads(plain, control)...) {
		if *only == "" || match.MatchString(w.name) {
			rows = append(rows, &row{workload: w})
		}
	}
	byName := map[string]*row{}
	for _, r := range rows {
		byName[r.name] = r
	}
	for _, r := range rows {
		r.of = byName[r.unit]
	}
	// A round of everything, then the next, so that what else happens on
	// the machine falls on all workloads alike.
	for n := range *rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d ...\n", n+1, *rounds)
		for _, r := range rows {
			if err := r.run(ctx, *conc, *dur, n == 0, db.PID()); err != nil {
				return fmt.Errorf("%s: %w", r.name, err)
			}
		}
	}
	for _, r := range rows {
		r.sum()
	}
	table, missed := speedTable(rows)
	complete, err := auditComplete(log)
	if err != nil {
		return err
	}
	head := fmt.Sprintf("%s, %d clients, %d rounds of %s, medians. Server: embedded store, static seal, TLS off. PostgreSQL %s, default settings, fsync on, %d connections for the engine and for the control.",
		machine(), *conc, *rounds, *dur, db.version(ctx), dbConns)
	text := head + "\n\n" + table + "\n" + complete + "\n"
	fmt.Println("\n" + text)
	if *write {
		if err := writeSection("speed", text); err != nil {
			return err
		}
	}
	if len(missed) > 0 {
		return fmt.Errorf("missed: %s", strings.Join(missed, "; "))
	}
	return nil
}

func speedWorkloads(plain, audited *subject, control *control, db *database) []workload {
	own, aud := plain.server.PID(), audited.server.PID()
	bareHealth := func(ctx context.Context, _ int) error {
		_, err := control.raw(ctx, "GET", "sys/health", "", nil)
		return err
	}
	return []workload{
		{name: "bare net/http handler", op: bareHealth, pid: control.cmd.Process.Pid},
		{name: "sys/health", op: plain.health, pid: own, unit: "bare net/http handler", bar: 1.5},
		{name: "token lookup-self", op: plain.get("auth/token/lookup-self"), pid: own, unit: "sys/health", bar: 1.5},
		{name: "kv2 read", op: plain.kvRead, pid: own, unit: "sys/health", bar: 1.5},
		{name: "kv2 write", op: plain.kvWrite, pid: own, unit: "sys/health", bar: 3},
		{name: "token renew-self", op: plain.renewToken, before: plain.holdTokens, pid: own, unit: "sys/health", bar: 3},

		{name: "approle login, service token", op: plain.login("service"), before: plain.holdLogins, pid: own, unit: "sys/health", bar: 4},
		{name: "approle login, batch token", op: plain.login("batch"), before: plain.holdLogins, pid: own, unit: "sys/health", bar: 2},

		{name: "kv2 read, one rule", op: plain.readJudged(0), before: plain.holdPolicies, pid: own, unit: "sys/health"},
		{name: "kv2 read, 20 of 10,000 policies, 1,000 rules", op: plain.readJudged(1), before: plain.holdPolicies, pid: own, unit: "kv2 read, one rule", bar: 1.2},

		{name: "kv2 read, file audit", op: audited.kvRead, pid: aud, unit: "kv2 read", plus: 60},
		{name: "kv2 write, file audit", op: audited.kvWrite, pid: aud, unit: "kv2 write", bar: 1.3},

		{name: "bare SQL: CREATE ROLE", op: db.bareRole, after: db.dropBare},
		{name: "db creds, own statements", op: plain.get("bench-db/creds/app"), after: plain.revokeAll, pid: own, unit: "bare SQL: CREATE ROLE", ops: true, bar: 0.8},
		{name: "db creds, group role, 4096 iterations", op: plain.get("bench-db/creds/group"), after: plain.revokeAll, pid: own, unit: "bare SQL: CREATE ROLE", ops: true, bar: 0.8},
		{name: fmt.Sprintf("db creds, group role, %d iterations", lowIterations), op: plain.get("bench-db/creds/grouplow"), after: plain.revokeAll, pid: own, unit: "bare SQL: CREATE ROLE", ops: true},
		{name: "db lease renew", op: plain.renewLease, before: plain.holdLeases, after: plain.revokeAll, pid: own, unit: "sys/health"},
		{name: "db lease revoke (sync)", op: plain.revoke, before: plain.fillPool, pid: own, unit: "the peer's 30/s", ops: true, bar: 10},
	}
}

func (r *row) run(ctx context.Context, conc int, d time.Duration, warm bool, pgPID int) error {
	if r.before != nil {
		if err := r.before(ctx); err != nil {
			return fmt.Errorf("preparing: %w", err)
		}
	}
	if warm && r.before == nil {
		round(ctx, conc, d/6, r.pid, 0, r.op)
	}
	if of := r.of; of != nil {
		// What an operation costs wanders by a tenth within a minute, on
		// machines like these: the unit is measured next to what it is for.
		u := of.rounds[len(of.rounds)-1]
		if of.before == nil && of.after == nil {
			u = round(ctx, conc, d/2, of.pid, 0, of.op)
		}
		r.units = append(r.units, u)
		if r.beside != nil {
			r.besides = append(r.besides, r.beside())
		}
	}
	s := round(ctx, conc, d, r.pid, pgPID, r.op)
	r.rounds = append(r.rounds, s)
	if s.ops == 0 {
		return fmt.Errorf("nothing succeeded: %w", s.firstErr)
	}
	if r.after != nil {
		if err := r.after(ctx); err != nil {
			return fmt.Errorf("cleaning up: %w", err)
		}
	}
	return ctx.Err()
}

func (r *row) sum() {
	r.perSec = median(r.rounds, perSecond)
	r.cpu = median(r.rounds, func(s sample) float64 { return us(s.cpu) })
	r.pg = median(r.rounds, func(s sample) float64 { return us(s.pgCPU) })
	r.me = median(r.rounds, func(s sample) float64 { return us(s.me) })
	r.p50 = median(r.rounds, func(s sample) float64 { return ms(s.p50) })
	r.p99 = median(r.rounds, func(s sample) float64 { return ms(s.p99) })
	for _, s := range r.rounds {
		r.errs += s.errs
		r.firstErr = errors.Join(r.firstErr, s.firstErr)
	}
}

// peerRevocations is what the open peer revokes in a second on a like machine.
const peerRevocations = 30

// speedTable also says which bars were missed.
func speedTable(rows []*row) (table string, missed []string) {
	var b strings.Builder
	b.WriteString("| workload | ops/s | p50 ms | p99 ms | server CPU µs/op | PostgreSQL CPU µs/op | client CPU µs/op | compared | bar | |\n")
	b.WriteString("|---|--:|--:|--:|--:|--:|--:|---|---|---|\n")
	for _, r := range rows {
		compared, bar, ok := r.compare()
		verdict := ""
		switch {
		case r.errs > 0:
			verdict = fmt.Sprintf("%d errors: %.80s", r.errs, strings.ReplaceAll(r.firstErr.Error(), "\n", " "))
			missed = append(missed, r.name+" had errors")
		case bar != "" && ok:
			verdict = "held"
		case bar != "":
			verdict = "**missed**"
			missed = append(missed, fmt.Sprintf("%s: %s, bar %s", r.name, compared, bar))
		}
		cpu := fmt.Sprintf("%.0f", r.cpu)
		if r.pid == 0 {
			cpu = ""
		}
		fmt.Fprintf(&b, "| %s | %.0f | %.2f | %.2f | %s | %.0f | %.0f | %s | %s | %s |\n", r.name, r.perSec, r.p50, r.p99, cpu, r.pg, r.me, compared, bar, verdict)
	}
	return b.String(), missed
}

// compare puts a row into its unit's figures: the median of its rounds, each
// in those of the unit beside it.
func (r *row) compare() (compared, bar string, ok bool) {
	if r.name == "db lease revoke (sync)" {
		x := r.perSec / peerRevocations
		return fmt.Sprintf("%.1f × %s", x, r.unit), fmt.Sprintf("≥ %g", r.bar), x >= r.bar
	}
	if r.of == nil {
		return "", "", true
	}
	x := r.ratio()
	switch {
	case r.ops:
		if r.bar > 0 {
			bar = fmt.Sprintf("≥ %g", r.bar)
		}
		return fmt.Sprintf("%.2f × %s (ops/s)", x, r.unit), bar, x >= r.bar
	case r.plus > 0:
		return fmt.Sprintf("%+.0f µs over %s", x, r.unit), fmt.Sprintf("≤ %+.0f µs", r.plus), x <= r.plus
	case r.bar > 0:
		bar = fmt.Sprintf("≤ %g", r.bar)
	}
	compared = fmt.Sprintf("%.2f × %s (CPU)", x, r.unit)
	if r.beside != nil {
		compared += fmt.Sprintf(", and %s of %.0f µs", r.besideName, median(r.besides, func(v float64) float64 { return v }))
	}
	return compared, bar, r.bar == 0 || x <= r.bar
}

func (r *row) ratio() float64 {
	x := make([]float64, len(r.rounds))
	for i, s := range r.rounds {
		switch u := r.units[i]; {
		case r.ops:
			x[i] = perSecond(s) / perSecond(u)
		case r.plus > 0:
			x[i] = us(s.cpu) - us(u.cpu)
		case r.beside != nil:
			x[i] = (us(s.cpu) - r.besides[i]) / us(u.cpu)
		default:
			x[i] = us(s.cpu) / us(u.cpu)
		}
	}
	return median(x, func(v float64) float64 { return v })
}

func perSecond(s sample) float64 { return float64(s.ops) / s.elapsed.Seconds() }

// auditComplete checks that each line of the audit log is a whole record and
// that every request has its response.
func auditComplete(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	count := map[string]int{}
	in := bufio.NewReader(f)
	for {
		line, err := in.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			var rec struct {
				Type string `json:"type"`
			}
			if jsonErr := json.Unmarshal(line, &rec); jsonErr != nil {
				return "", fmt.Errorf("an audit record is not whole: %w", jsonErr)
			}
			count[rec.Type]++
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
	}
	// The first record is the reply that enabled the device.
	if d := count["response"] - count["request"]; d < 0 || d > 1 {
		return "", fmt.Errorf("the audit log has %d requests and %d responses", count["request"], count["response"])
	}
	return fmt.Sprintf("Audit log: %d records, each whole, a response for each request.", count["request"]+count["response"]), nil
}
