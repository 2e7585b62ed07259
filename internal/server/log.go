package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
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
func setLevel(level *slog.LevelVar, name string) { level.Set(levelOf(name)) }

func knownLevel(name string) bool {
	switch strings.ToLower(name) {
	case "trace", "debug", "info", "warn", "warning", "error", "err":
		return true
	}
	return false
}

func levelOf(name string) slog.Level {
	switch strings.ToLower(name) {
	case "trace", "debug":
		return slog.LevelDebug
	case "warn", "warning":
		return slog.LevelWarn
	case "error", "err":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// logFile is the log_file, which is let go of for a new one on SIGHUP, so that
// logrotate can turn it over.
type logFile struct {
	path string

	mu sync.Mutex
	f  *os.File
}

// openLog opens the file at path, or one in the directory that path is.
func openLog(path string) (*logFile, error) {
	if st, err := os.Stat(path); err == nil && st.IsDir() {
		path = filepath.Join(path, "leasehold.log")
	}
	l := &logFile{path: path}
	return l, l.Reopen()
}

// Reopen opens the file at the path anew. On an error the old one stays.
func (l *logFile) Reopen() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening log_file: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.f
	l.f = f
	if old == nil {
		return nil
	}
	return old.Close()
}

func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Write(b)
}

func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Close()
}

// tee writes to both; a terminal that has gone does not silence the file.
type tee struct{ a, b io.Writer }

func (t tee) Write(b []byte) (int, error) {
	_, err1 := t.a.Write(b)
	_, err2 := t.b.Write(b)
	return len(b), errors.Join(err1, err2)
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
	if text == "" || strings.ContainsFunc(text, unclear) {
		text = strconv.Quote(text)
	}
	fmt.Fprintf(b, " %s%s=%s", h.group, a.Key, text)
}

// unclear are characters that could end a value, or do something to a terminal:
// some texts come from strangers.
func unclear(r rune) bool { return r == ' ' || r == '"' || r == '=' || !strconv.IsPrint(r) }

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
