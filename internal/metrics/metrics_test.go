package metrics_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/metrics"
)

func TestText(t *testing.T) {
	var p metrics.Page
	p.Gauge("unsealed", "1 while it is.", 1)
	p.Counter("devices_total", "A \"help\"\nof two lines.", 3, metrics.Label{Name: "path", Value: "a\\b\"c\n"})
	p.Gauge("unsealed", "", 0.5, metrics.Label{Name: "a", Value: "b"}, metrics.Label{Name: "c", Value: "d"})
	p.Summary("handled", "Handled.", 4, 12.5)
	want := `# HELP unsealed 1 while it is.
# TYPE unsealed gauge
unsealed 1
unsealed{a="b",c="d"} 0.5
# HELP devices_total A "help"\nof two lines.
# TYPE devices_total counter
devices_total{path="a\\b\"c\n"} 3
# HELP handled Handled.
# TYPE handled summary
handled_sum 12.5
handled_count 4
`
	if diff := cmp.Diff(want, string(p.AppendText(nil))); diff != "" {
		t.Errorf("AppendText (-want +got):\n%s", diff)
	}
}

func TestDurations(t *testing.T) {
	var d metrics.Durations
	for _, took := range []time.Duration{
		-time.Second, 0, 64 * time.Microsecond, // the first bucket
		64*time.Microsecond + 1, 128 * time.Microsecond, // the second
		129 * time.Microsecond,                     // the third
		67108864 * time.Microsecond, 2 * time.Hour, // the last with a bound, and beyond
	} {
		d.Add(took)
	}
	var tally metrics.Tally
	tally.Add(&d)
	if got, want := tally.Count(), uint64(8); got != want {
		t.Errorf("Count() = %d, want %d", got, want)
	}
	if got, want := tally.Sum(), 2*time.Hour+67108864*time.Microsecond+385*time.Microsecond+1; got != want {
		t.Errorf("Sum() = %s, want %s", got, want)
	}
	var p metrics.Page
	p.Durations("took", "", tally, metrics.Label{Name: "op", Value: "read"})
	text := string(p.AppendText(nil))
	for _, want := range []string{
		`took_bucket{op="read",le="6.4e-05"} 3`, `took_bucket{op="read",le="0.000128"} 5`, `took_bucket{op="read",le="0.000256"} 6`,
		`took_bucket{op="read",le="33.554432"} 6`, `took_bucket{op="read",le="67.108864"} 7`, `took_bucket{op="read",le="+Inf"} 8`,
		`took_count{op="read"} 8`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no line %s in\n%s", want, text)
		}
	}
}

func BenchmarkDurations(b *testing.B) {
	var d metrics.Durations
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			d.Add(300 * time.Microsecond)
		}
	})
}
