package server

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// newLogger makes the server's logger. level may be changed while it is in
// use. format is "json", or anything else for lines that people read.
func newLogger(w io.Writer, format string, level *slog.LevelVar) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(&lines{out: &locked{w: w}, level: level})
}

// setLevel reads Vault's names of levels; an unknown one is info.
func setLevel(level *slog.LevelVar, name string) {
	switch strings.ToLower(name) {
	case "trace", "debug":
		level.Set(slog.LevelDebug)
	case "warn", "warning":
		level.Set(slog.LevelWarn)
	case "error", "err":
		level.Set(slog.LevelError)
	default:
		level.Set(slog.LevelInfo)
	}
}

type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// lines writes one line per event: time, level, sentence, key=value.
type lines struct {
	out   io.Writer
	level slog.Leveler
	attrs string
	group string
}

func (h *lines) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *lines) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Time.UTC().Format("2006-01-02T15:04:05.000Z"))
	fmt.Fprintf(&b, " [%-5s] %s%s", r.Level, r.Message, h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		h.append(&b, a)
		return true
	})
	b.WriteByte('\n')
	_, err := io.WriteString(h.out, b.String())
	return err
}

func (h *lines) append(b *strings.Builder, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		for _, sub := range v.Group() {
			h.append(b, slog.Attr{Key: a.Key + "." + sub.Key, Value: sub.Value})
		}
		return
	}
	text := v.String()
	if v.Kind() == slog.KindTime {
		text = v.Time().UTC().Format(time.RFC3339)
	}
	if strings.ContainsAny(text, " \t\n\r\"=") || text == "" {
		text = fmt.Sprintf("%q", text)
	}
	fmt.Fprintf(b, " %s%s=%s", h.group, a.Key, text)
}

func (h *lines) WithAttrs(attrs []slog.Attr) slog.Handler {
	n := *h
	var b strings.Builder
	for _, a := range attrs {
		h.append(&b, a)
	}
	n.attrs += b.String()
	return &n
}

func (h *lines) WithGroup(name string) slog.Handler {
	n := *h
	n.group += name + "."
	return &n
}
