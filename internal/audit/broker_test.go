package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
)

func TestBrokerFailsClosed(t *testing.T) {
	var log bytes.Buffer
	b := audit.NewBroker(slog.New(slog.NewTextHandler(&log, nil)))
	ctx := context.Background()
	write := func() error { return b.Request(ctx, entry()) }

	if err := write(); err != nil || b.Enabled() {
		t.Errorf("without devices: error %v, enabled %t; want none, false", err, b.Enabled())
	}
	full := errors.New("no space left")
	one, two := &memory{err: full}, &memory{}
	set := func(ds ...audit.Enabled) {
		t.Helper()
		if err := b.Set(ds); err != nil {
			t.Fatal(err)
		}
	}
	e1 := audit.Enabled{Path: "one/", Format: format, Device: one}
	e2 := audit.Enabled{Path: "two/", Format: audit.Format{Salt: secret.New("other")}, Device: two}

	set(e1)
	for range 3 {
		if err := write(); !errs.Is(err, errs.Unavailable) || !errors.Is(err, full) {
			t.Fatalf("with a sick device: %v, want Unavailable for %v", err, full)
		}
	}
	if n := strings.Count(log.String(), "no space left"); n != 1 {
		t.Errorf("the failing device is logged %d times, want once: %s", n, &log)
	}

	set(e1, e2)
	if err := write(); err != nil {
		t.Errorf("with one device of two: %v, want no error", err)
	}
	if got := strings.Count(two.text(), "\n"); got != 1 {
		t.Errorf("the well device has %d records, want 1", got)
	}

	one.fail(nil)
	if err := write(); err != nil {
		t.Error(err)
	}
	if one.text() == "" || one.text() == two.text() {
		t.Errorf("records of devices with different salts = %q and %q, want both, different", one.text(), two.text())
	}
	if !strings.Contains(log.String(), "works again") {
		t.Errorf("the recovery is not logged: %s", &log)
	}
	want := audit.Stats{Written: 2, Refused: 3, Devices: []audit.DeviceStats{{Path: "one/", Failed: 4}, {Path: "two/"}}}
	if got := b.Stats(); got.Written != want.Written || got.Refused != want.Refused || !slices.Equal(got.Devices, want.Devices) {
		t.Errorf("Stats() = %+v, want %+v", got, want)
	}

	set(e2)
	if !one.closed || two.closed {
		t.Errorf("closed = %t, %t after disabling the first; want true, false", one.closed, two.closed)
	}
	if err := b.Close(); err != nil || !two.closed {
		t.Errorf("Close() = %v, closed = %t; want no error, true", err, two.closed)
	}
}

func TestDeliverWaitsForADevice(t *testing.T) {
	b := audit.NewBroker(slog.New(slog.DiscardHandler))
	if err := b.Deliver(context.Background(), []audit.Stored{{}}); !errs.Is(err, errs.Unavailable) {
		t.Errorf("Deliver without devices = %v, want Unavailable", err)
	}
}

func TestHash(t *testing.T) {
	b, _ := brokerFor(t, format)
	got, err := b.Hash("mem/", "x")
	if want := format.Hash("x"); got != want || err != nil {
		t.Errorf("Hash = %q, %v, want %q", got, err, want)
	}
	if _, err := b.Hash("none/", "x"); !errs.Is(err, errs.Invalid) {
		t.Errorf("Hash of an unknown device = %v, want Invalid", err)
	}
}

// TestChangingDevicesRefusesNobody swaps the only device for another while
// requests are written: none of them may be refused for it.
func TestChangingDevicesRefusesNobody(t *testing.T) {
	b, _ := brokerFor(t, format)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := b.Request(context.Background(), entry()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 100 {
		err := b.Set([]audit.Enabled{{Path: fmt.Sprint(i, "/"), Format: format, Device: &memory{}}})
		if err != nil {
			t.Error(err)
		}
	}
	if err := b.Set(nil); err != nil {
		t.Error(err)
	}
	close(done)
	wg.Wait()
}

func TestCombiner(t *testing.T) {
	var (
		got     bytes.Buffer
		batches int
		failing = errors.New("full")
	)
	entered, release := make(chan struct{}), make(chan struct{})
	c := &audit.Combiner{Flush: func(lines []byte, ends []int) (int, error) {
		batches++
		if batches == 1 {
			close(entered)
			<-release
		}
		if batches == 2 { // the first line only
			got.Write(lines[:ends[0]])
			return ends[0], failing
		}
		got.Write(lines)
		return len(lines), nil
	}}
	var wg sync.WaitGroup
	results := make([]error, 5)
	write := func(i int) { results[i] = c.Write(fmt.Appendf(nil, "line %d\n", i)) }
	wg.Go(func() { write(0) })
	<-entered
	for i := 1; i < 5; i++ {
		wg.Go(func() { write(i) })
	}
	close(release)
	wg.Wait()
	for i, err := range results {
		if (err == nil) != strings.Contains(got.String(), fmt.Sprintf("line %d\n", i)) {
			t.Errorf("line %d: error %v, log %q", i, err, &got)
		}
	}
	if batches > 5 {
		t.Errorf("%d batches for 5 lines", batches)
	}
}
