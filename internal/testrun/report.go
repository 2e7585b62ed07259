package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// event is one line of go test -json (see `go doc test2json`). Lines about
// building carry ImportPath instead of Package.
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Elapsed    float64
	Output     string
}

// report counts results and prints as they come.
type report struct {
	w              io.Writer
	slowLimit      time.Duration
	slow           []slowTest
	passed, failed int
	running        map[string]*pkgRun
	build          map[string]*strings.Builder // compiler output by import path
}

type slowTest struct {
	name string
	took time.Duration
}

// pkgRun is a package whose tests are running.
type pkgRun struct {
	result map[string]string // by test: pass, fail, skip, or "" while it runs
	output map[string]*strings.Builder
}

func newReport(w io.Writer, slow time.Duration) *report {
	return &report{w: w, slowLimit: slow, running: map[string]*pkgRun{}, build: map[string]*strings.Builder{}}
}

// read takes the whole stream. Lines that are no events are printed as they are.
func (r *report) read(in io.Reader) error {
	br := bufio.NewReader(in)
	for {
		line, err := br.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(r.w, "%s", line)
			} else {
				r.take(e)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (r *report) take(e event) {
	switch e.Action {
	case "build-output":
		b := r.build[e.ImportPath]
		if b == nil {
			b = &strings.Builder{}
			r.build[e.ImportPath] = b
		}
		b.WriteString(e.Output)
		return
	case "build-fail":
		if b := r.build[e.ImportPath]; b != nil {
			fmt.Fprint(r.w, b.String())
		}
		return
	}
	if e.Package == "" {
		return
	}
	p := r.running[e.Package]
	if p == nil {
		p = &pkgRun{result: map[string]string{}, output: map[string]*strings.Builder{}}
		r.running[e.Package] = p
	}
	switch e.Action {
	case "run":
		p.result[e.Test] = ""
	case "output":
		b := p.output[e.Test]
		if b == nil {
			b = &strings.Builder{}
			p.output[e.Test] = b
		}
		b.WriteString(e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.endPackage(e, p)
			delete(r.running, e.Package)
			return
		}
		p.result[e.Test] = e.Action
		if d := time.Duration(e.Elapsed * float64(time.Second)); d >= r.slowLimit && !strings.Contains(e.Test, "/") {
			r.slow = append(r.slow, slowTest{e.Package + "." + e.Test, d})
		}
		if e.Action == "pass" { // a long run keeps no output that nobody will read
			delete(p.output, e.Test)
		}
	}
}

// endPackage counts a finished package. Of a test with subtests only the
// subtests count, except where it failed and none of them did.
func (r *report) endPackage(e event, p *pkgRun) {
	hasChild, childFailed := map[string]bool{}, map[string]bool{}
	for name, res := range p.result {
		for i := strings.LastIndexByte(name, '/'); i > 0; i = strings.LastIndexByte(name[:i], '/') {
			hasChild[name[:i]] = true
			if res != "pass" {
				childFailed[name[:i]] = true
			}
		}
	}
	passed, failed := 0, 0
	var bad []string
	for name, res := range p.result {
		switch {
		case res == "pass" && hasChild[name]:
		case res == "pass":
			passed++
		case !childFailed[name]:
			failed++
			bad = append(bad, name)
		default:
			bad = append(bad, name) // for its output only
		}
	}
	// The package failed outside its tests: it does not build, or TestMain
	// or an exit ended it.
	if e.Action == "fail" && failed == 0 {
		failed++
		bad = append(bad, "")
	}
	mark := "ok  "
	if failed > 0 {
		mark = "FAIL"
	}
	fmt.Fprintf(r.w, "%s %-58s %4d passed %6.1fs\n", mark, short(e.Package), passed, e.Elapsed)
	slices.Sort(bad)
	for _, name := range bad {
		switch result, isTest := p.result[name]; {
		case result == "skip":
			fmt.Fprintf(r.w, "--- SKIP %s %s: a skipped test counts as a failure\n", short(e.Package), name)
		case isTest && result == "":
			fmt.Fprintf(r.w, "--- FAIL %s %s did not end\n", short(e.Package), name)
		}
		if b := p.output[name]; b != nil {
			fmt.Fprint(r.w, b.String())
		}
	}
	if b := p.output[""]; failed > 0 && b != nil && !slices.Contains(bad, "") {
		fmt.Fprint(r.w, b.String()) // a panic's stack belongs to no test
	}
	r.passed += passed
	r.failed += failed
}

// single counts one result that did not come from the stream.
func (r *report) single(ok bool) {
	if ok {
		r.passed++
	} else {
		r.failed++
	}
}

func (r *report) printSlow() {
	if len(r.slow) == 0 {
		return
	}
	slices.SortFunc(r.slow, func(a, b slowTest) int { return cmp.Compare(b.took, a.took) })
	fmt.Fprintf(r.w, "== slower than %s\n", r.slowLimit)
	for _, s := range r.slow[:min(len(r.slow), 15)] {
		fmt.Fprintf(r.w, "%6.1fs %s\n", s.took.Seconds(), short(s.name))
	}
}

// short leaves the module's name out.
func short(pkg string) string {
	return strings.TrimPrefix(pkg, "github.com/leasehold/leasehold/")
}
