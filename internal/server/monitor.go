package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/errs"
)

// monitors let people follow the log over the API, each at a level and in a
// format of their own. Nobody who logs waits for them: what one of them does
// not take in time is left out, and it is told how much that was.
type monitors struct {
	mu  sync.Mutex
	all atomic.Pointer[[]*monitor] // nil: nobody follows
}

var _ sys.Monitor = (*monitors)(nil)

// monitor is one who follows.
type monitor struct {
	level slog.Level
	to    slog.Handler // writes to this
	lines chan []byte
	lost  atomic.Int64 // lines since the last that were taken
}

// waiting is how many lines wait for one who follows.
const waiting = 512

// Write keeps a line for whoever follows, if there is room.
func (m *monitor) Write(line []byte) (int, error) {
	select {
	case m.lines <- slices.Clone(line):
	default:
		m.lost.Add(1)
	}
	return len(line), nil
}

// Follow implements sys.Monitor.
func (ms *monitors) Follow(ctx context.Context, level, format string, w io.Writer) error {
	m := &monitor{level: levelOf(level), lines: make(chan []byte, waiting)}
	m.to = newLogger(m, format, new(slog.LevelVar)).Handler()
	ms.change(func(list []*monitor) []*monitor { return append(list, m) })
	defer ms.change(func(list []*monitor) []*monitor {
		return slices.DeleteFunc(list, func(other *monitor) bool { return other == m })
	})
	for {
		select {
		case <-ctx.Done():
			return nil
		case line := <-m.lines:
			if n := m.lost.Swap(0); n > 0 {
				lost := slog.NewRecord(time.Now(), slog.LevelWarn, fmt.Sprintf("%d lines of the log were left out: they came faster than they were taken", n), 0)
				if err := newLogger(w, format, new(slog.LevelVar)).Handler().Handle(ctx, lost); err != nil {
					return err
				}
			}
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
	}
}

// change puts a new list in place of the old one, which is being read.
func (ms *monitors) change(fn func([]*monitor) []*monitor) {
	ms.mu.Lock()
	defer ms.mu.Unlock()
	var list []*monitor
	if old := ms.all.Load(); old != nil {
		list = slices.Clone(*old)
	}
	if list = fn(list); len(list) == 0 {
		ms.all.Store(nil)
		return
	}
	ms.all.Store(&list)
}

// Check implements sys.Monitor.
func (ms *monitors) Check(level, format string) error {
	if !knownLevel(level) {
		return errs.New(errs.Invalid, "unknown log level %q: trace, debug, info, warn or error", level)
	}
	if format != "standard" && format != "json" {
		return errs.New(errs.Invalid, "unknown log format %q: standard or json", format)
	}
	return nil
}

// over shows those who follow what goes to next, and what is below next's
// level where they ask for it.
func (ms *monitors) over(next slog.Handler) slog.Handler { return &overheard{next: next, ms: ms} }

type overheard struct {
	next slog.Handler
	ms   *monitors
	with []func(slog.Handler) slog.Handler // what became of next since the beginning
}

func (h *overheard) Enabled(ctx context.Context, l slog.Level) bool {
	if h.next.Enabled(ctx, l) {
		return true
	}
	all := h.ms.all.Load()
	return all != nil && slices.ContainsFunc(*all, func(m *monitor) bool { return l >= m.level })
}

func (h *overheard) Handle(ctx context.Context, r slog.Record) error {
	if all := h.ms.all.Load(); all != nil {
		for _, m := range *all {
			if r.Level < m.level {
				continue
			}
			to := m.to
			for _, fn := range h.with {
				to = fn(to)
			}
			_ = to.Handle(ctx, r.Clone()) // writes to memory
		}
	}
	if !h.next.Enabled(ctx, r.Level) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

func (h *overheard) then(fn func(slog.Handler) slog.Handler) slog.Handler {
	return &overheard{next: fn(h.next), ms: h.ms, with: append(slices.Clip(h.with), fn)}
}

func (h *overheard) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.then(func(next slog.Handler) slog.Handler { return next.WithAttrs(attrs) })
}

func (h *overheard) WithGroup(name string) slog.Handler {
	return h.then(func(next slog.Handler) slog.Handler { return next.WithGroup(name) })
}
