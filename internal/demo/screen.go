package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"
)

// screen prints the story: in colour and with a table that is redrawn in place
// on a terminal, as plain lines elsewhere.
type screen struct {
	out   *os.File
	live  bool // redraw, colour
	steps int
	drawn int // lines of the table that is on the screen now
}

func newScreen(out *os.File) *screen {
	return &screen{out: out, live: term.IsTerminal(int(out.Fd())) && os.Getenv("TERM") != "dumb"}
}

const (
	bold  = "1"
	dim   = "2"
	red   = "31"
	green = "32"
	cyan  = "36"
)

func (s *screen) paint(code, text string) string {
	if !s.live || os.Getenv("NO_COLOR") != "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s *screen) title(text string) {
	s.line("\n%s\n", s.paint(bold, text))
}

// step begins a part of the story.
func (s *screen) step(text string) {
	s.steps++
	s.line("\n%s %s\n", s.paint(cyan, fmt.Sprintf("%d.", s.steps)), s.paint(bold, text))
}

// say is a sentence under a step.
func (s *screen) say(format string, args ...any) { s.line("   "+format+"\n", args...) }

// command is what the reader could type to do the same.
func (s *screen) command(text string) {
	s.line("   %s\n", s.paint(dim, "$ "+strings.ReplaceAll(text, "\n", "\n   ")))
}

// proof is something that was checked just now.
func (s *screen) proof(format string, args ...any) {
	s.line("   %s %s\n", s.paint(green, "✓"), fmt.Sprintf(format, args...))
}

// line prints above a table that is on the screen.
func (s *screen) line(format string, args ...any) {
	s.wipe()
	fmt.Fprintf(s.out, format, args...)
}

// wipe removes the table; the next draw puts it back below what was printed.
func (s *screen) wipe() {
	if s.drawn > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}

// draw shows the table: in place on a terminal, else as lines.
func (s *screen) draw(rows []string) {
	if !s.live {
		for _, r := range rows {
			fmt.Fprintf(s.out, "   %s\n", r)
		}
		return
	}
	var b strings.Builder
	if s.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", s.drawn)
	}
	for _, r := range rows {
		fmt.Fprintf(&b, "   %s\x1b[K\n", r)
	}
	fmt.Fprint(s.out, b.String())
	s.drawn = len(rows)
}

// keepTable lets what is drawn stand, and goes on below it.
func (s *screen) keepTable() { s.drawn = 0 }
