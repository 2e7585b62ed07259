package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"time"
)

var fuzzFunc = regexp.MustCompile(`(?m)^func (Fuzz[A-Za-z0-9_]+)\(`)

// fuzzAll finds the fuzz targets and runs one after another, because go test
// takes only one at a time. Inputs that fail are kept by go test in the
// package's testdata/fuzz.
func fuzzAll(ctx context.Context, pkgs []pkg, each time.Duration, rep *report) error {
	type target struct{ pkg, name string }
	var targets []target
	for _, p := range pkgs {
		for _, f := range p.files {
			src, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			for _, m := range fuzzFunc.FindAllSubmatch(src, -1) {
				targets = append(targets, target{p.path, string(m[1])})
			}
		}
	}
	if len(targets) == 0 {
		return nil
	}
	fmt.Fprintf(rep.w, "== fuzz targets (%d, %s each)\n", len(targets), each)
	for _, t := range targets {
		start := time.Now()
		out, err := fuzz(ctx, t.pkg, t.name, each)
		if err != nil && !bytes.Contains(out, []byte("Failing input written")) && ctx.Err() == nil {
			// Go's fuzzer sometimes reports its own deadline as a
			// failure. A true one comes back.
			out, err = fuzz(ctx, t.pkg, t.name, each)
		}
		rep.single(err == nil)
		mark := "ok  "
		if err != nil {
			mark = "FAIL"
		}
		fmt.Fprintf(rep.w, "%s %-58s %s %6.1fs\n", mark, short(t.pkg), t.name, time.Since(start).Seconds())
		if err != nil {
			fmt.Fprintf(rep.w, "%s%v\n", out, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func fuzz(ctx context.Context, pkg, name string, d time.Duration) ([]byte, error) {
	return command(ctx, "test", "-run=^$", "-fuzz=^"+name+"$", "-fuzztime="+d.String(), "-timeout=5m", pkg).CombinedOutput()
}
