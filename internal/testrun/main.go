// Command testrun is what `make test` runs: every test once, the packages
// where a data race would cost a promise under the race detector, and each
// fuzz target for a few seconds.
//
// It reads the stream of `go test -json`, prints one line per package, the
// output of what failed and the slowest tests, and ends with the line
//
//	N passed, N failed
//
// Nothing may be missing quietly: a skipped test counts as a failure, and so
// does a package that does not build or ends before its tests do.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	race     []string      // package patterns that run under the race detector
	fuzzTime time.Duration // for each fuzz target; 0 leaves fuzzing out
	timeout  time.Duration // of one package
	slow     time.Duration // tests that take longer are listed
	run      string        // like go test -run
	tests    bool          // false: fuzz targets only
	patterns []string      // all packages
}

func main() {
	var o options
	race := flag.String("race", "", "comma list of package patterns that run under the race detector, and only there")
	flag.DurationVar(&o.fuzzTime, "fuzztime", 3*time.Second, "how long each fuzz target runs; 0 leaves them out")
	flag.DurationVar(&o.timeout, "timeout", 10*time.Minute, "limit of one package")
	flag.DurationVar(&o.slow, "slow", 10*time.Second, "list tests that take longer")
	flag.StringVar(&o.run, "run", "", "only the tests that match, as of go test -run")
	flag.BoolVar(&o.tests, "tests", true, "run the tests; false leaves only the fuzz targets")
	flag.Parse()
	if *race != "" {
		o.race = strings.Split(*race, ",")
	}
	if o.patterns = flag.Args(); len(o.patterns) == 0 {
		o.patterns = []string{"./..."}
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	passed, failed, err := runAll(ctx, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testrun:", err)
		failed++
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}

// runAll runs plain tests, tests under the race detector, and fuzz targets.
func runAll(ctx context.Context, o options) (passed, failed int, err error) {
	all, err := list(ctx, o.patterns)
	if err != nil {
		return 0, 0, err
	}
	raced := map[string]bool{}
	if len(o.race) > 0 {
		pkgs, err := list(ctx, o.race)
		if err != nil {
			return 0, 0, err
		}
		for _, p := range pkgs {
			raced[p.path] = true
		}
	}
	var plain, withRace []string
	for _, p := range all {
		switch {
		case len(p.files) == 0:
		case raced[p.path]:
			withRace = append(withRace, p.path)
		default:
			plain = append(plain, p.path)
		}
	}
	rep := newReport(os.Stdout, o.slow)
	for _, phase := range []struct {
		title string
		flags []string
		pkgs  []string
	}{
		{"tests", nil, plain},
		{"tests under the race detector", []string{"-race"}, withRace},
	} {
		if !o.tests || len(phase.pkgs) == 0 {
			continue
		}
		fmt.Printf("== %s (%d packages)\n", phase.title, len(phase.pkgs))
		if err := goTest(ctx, o, phase.flags, phase.pkgs, rep); err != nil {
			return rep.passed, rep.failed, err
		}
	}
	if o.fuzzTime > 0 && o.run == "" {
		if err := fuzzAll(ctx, all, o.fuzzTime, rep); err != nil {
			return rep.passed, rep.failed, err
		}
	}
	rep.printSlow()
	return rep.passed, rep.failed, ctx.Err()
}

// goTest runs go test -json on pkgs and feeds the report.
func goTest(ctx context.Context, o options, flags, pkgs []string, rep *report) error {
	args := slices.Concat([]string{"test", "-json", "-count=1", "-timeout=" + o.timeout.String()}, flags)
	if o.run != "" {
		args = append(args, "-run="+o.run)
	}
	cmd := command(ctx, append(args, pkgs...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	failedBefore := rep.failed
	readErr := rep.read(out)
	err = cmd.Wait()
	if readErr != nil {
		return fmt.Errorf("reading the output of go test: %w", readErr)
	}
	if err != nil && rep.failed == failedBefore {
		return fmt.Errorf("go test: %w", err) // it failed without naming a package
	}
	return nil
}

// command is a go command that is asked to stop, not killed, when ctx ends,
// so that tests can stop the servers they started.
func command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

// pkg is a package and the paths of its test files.
type pkg struct {
	path  string
	files []string
}

func list(ctx context.Context, patterns []string) ([]pkg, error) {
	const format = `{{$d := .Dir}}{{.ImportPath}}{{range .TestGoFiles}}|{{$d}}/{{.}}{{end}}{{range .XTestGoFiles}}|{{$d}}/{{.}}{{end}}`
	cmd := command(ctx, append([]string{"list", "-f", format}, patterns...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list %s: %w", strings.Join(patterns, " "), err)
	}
	var pkgs []pkg
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		pkgs = append(pkgs, pkg{path: f[0], files: f[1:]})
	}
	return pkgs, nil
}
