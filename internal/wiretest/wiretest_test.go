package wiretest_test

import (
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
	"github.com/leasehold/leasehold/internal/testenv"
	"github.com/leasehold/leasehold/internal/wiretest"
)

// areas are the transcripts that must pass. A later issue adds its own.
var areas = strings.Fields("init kv1 kv2 cubbyhole auth-token policies leases wrapping errors database-postgres sys approle userpass jwt transit identity")

// What has to pass of the steps that can: all that fail are listed with a
// reason, and there are not many.
const (
	wantTotal = 0.97
	wantFile  = 0.90
)

// TestTranscripts replays the recordings. Every step that counts is a subtest.
func TestTranscripts(t *testing.T) {
	waiting, err := wiretest.Listed("../../docs/wire-not-yet.md")
	if err != nil {
		t.Fatal(err)
	}
	differing, err := wiretest.Listed("../../docs/wire-divergences.md")
	if err != nil {
		t.Fatal(err)
	}
	for id := range waiting {
		if differing[id] != "" {
			t.Errorf("step %s is listed both as waiting and as differing", id)
		}
	}

	pg := testenv.Postgres(t, testenv.Config{})
	psqlInPath(t, pg)
	super, err := url.Parse(pg.Super("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	dev := leaseholdtest.Start(t, leaseholdtest.Config{Dev: true})
	fresh := leaseholdtest.Start(t, leaseholdtest.Config{Shamir: true, Closed: true})
	t.Cleanup(func() { _ = os.Remove("/tmp/replay-audit.log") }) // the recording of init names this file

	known := map[string]bool{}
	passed, counted := 0, 0
	for _, area := range areas {
		tr, err := wiretest.Load("testdata/transcripts/" + area + ".json")
		if err != nil {
			t.Fatal(err)
		}
		target := wiretest.Target{Addr: dev.Addr, Root: dev.Root, Postgres: super}
		if area == "init" {
			target.Addr, target.Root = fresh.Addr, ""
		}
		results, err := wiretest.Run(tr, target)
		if err != nil {
			t.Fatal(err)
		}
		filePassed, fileCounted := 0, 0
		for _, r := range results {
			id, ok := r.Step.ID, len(r.Diffs) == 0
			known[id] = true
			if waiting[id] != "" {
				if ok {
					t.Errorf("%s passes: take it off docs/wire-not-yet.md, where it waits for %q", id, waiting[id])
				}
				continue
			}
			fileCounted++
			if ok {
				filePassed++
			}
			t.Run(id, func(t *testing.T) {
				switch {
				case ok && differing[id] != "":
					t.Errorf("%s: passes, and yet docs/wire-divergences.md says it differs", r.Step.Label())
				case !ok && differing[id] == "":
					t.Errorf("%s:\n  %s", r.Step.Label(), strings.Join(r.Diffs, "\n  "))
				}
			})
		}
		t.Logf("%-18s %3d of %3d pass", area, filePassed, fileCounted)
		if share(filePassed, fileCounted) < wantFile {
			t.Errorf("%s: %d of %d steps pass, want at least %.0f %%", area, filePassed, fileCounted, 100*wantFile)
		}
		passed, counted = passed+filePassed, counted+fileCounted
	}
	t.Logf("in total %d of %d pass (%.1f %%); %d more wait", passed, counted, 100*share(passed, counted), len(waiting))
	if share(passed, counted) < wantTotal {
		t.Errorf("%d of %d steps pass, want at least %.0f %%", passed, counted, 100*wantTotal)
	}
	for _, list := range []map[string]string{waiting, differing} {
		for id := range list {
			if !known[id] {
				t.Errorf("step %s is listed under docs/ but is in no transcript", id)
			}
		}
	}
}

func share(part, whole int) float64 {
	if whole == 0 {
		return 1
	}
	return float64(part) / float64(whole)
}

// psqlInPath makes sure that the replayer's sql steps find psql: the one in
// PATH, or the server's own.
func psqlInPath(t *testing.T, pg *testenv.PG) {
	t.Helper()
	if _, err := exec.LookPath("psql"); err == nil {
		return
	}
	if _, err := pg.Psql(); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", fmt.Sprintf("%s:%s", pg.Bin, os.Getenv("PATH")))
}

// TestBadTranscript holds the replayer itself to account: a step that cannot
// pass must not.
func TestBadTranscript(t *testing.T) {
	tr := &wiretest.Transcript{Area: "bad", Steps: []*wiretest.Step{
		{ID: "bad-001", Request: &wiretest.Request{Method: "GET", Path: "/v1/sys/health"}, Expect: &wiretest.Answer{Status: 200}},
		{ID: "bad-002", Request: &wiretest.Request{Method: "GET", Path: "/v1/{{never}}"}, Expect: &wiretest.Answer{Status: 200}},
	}}
	results, err := wiretest.Run(tr, wiretest.Target{Addr: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if len(r.Diffs) == 0 {
			t.Errorf("step %s passes without a server", r.Step.ID)
		}
	}
	if !strings.Contains(results[1].Diffs[0], "blocked") {
		t.Errorf("step bad-002 says %q, want blocked", results[1].Diffs[0])
	}
	if _, err := wiretest.Run(&wiretest.Transcript{Needs: []string{"postgres"}}, wiretest.Target{}); err == nil {
		t.Error("a transcript that needs PostgreSQL ran without")
	}
}
