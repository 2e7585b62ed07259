// Package doctest runs what the documentation tells its readers to type, and
// compares what comes back with what the page shows.
//
// A page is run from top to bottom in one shell, in an empty directory, against
// fresh servers. Comments steer it:
//
//	<!-- doctest: server=dev|embedded|own pg=yes ldap=yes -->   what the page needs; once per page
//	<!-- doctest: file=policy.hcl -->              the next block is written to that file
//	<!-- doctest: exit=2 -->                       the next block's last command ends with this code
//	<!-- doctest: skip because … -->               the next block is not run, and why
//
// A console block has commands after "$ " (a line that ends in a backslash or
// opens a here-document goes on) and below each its output. A sh block is a
// script that has to succeed; a text block right below it is its output. Every
// block marked sh, bash, shell or console is run unless it says why not.
//
// Pages show the usual addresses, 127.0.0.1:8200, 127.0.0.1:5432 and 127.0.0.1:389; while a
// page runs they stand for the test's own servers. With server=own the page
// starts its server itself; then /etc/leasehold, /var/lib/leasehold and
// /var/log/leasehold stand for directories of the test. Ids, tokens, times and
// the like are normalised on both sides before they are compared (normal.go).
package doctest

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Page is a parsed page. Its lines are kept, so that outputs can be rewritten
// in place.
type Page struct {
	Server   string // "", "dev", "embedded" or "own"
	Postgres bool
	LDAP     bool // an OpenLDAP server at 127.0.0.1:389 and, with TLS, at 127.0.0.1:636
	Steps    []*Step

	lines []string
}

// Step is one thing to do: write a file, run a command, or run a script.
type Step struct {
	Line    int    // of the fence or command, from 1
	File    string // write Text to this file
	Script  bool   // Text is a sh block: every line has to succeed
	Text    string
	Exit    int
	Compare bool // whether the page shows the output
	Output  string

	from, to int // the lines [from, to) that hold Output
}

var (
	directive = regexp.MustCompile(`^ {0,3}<!--\s*doctest:\s*(.*?)\s*-->\s*$`)
	fence     = regexp.MustCompile("^ {0,3}```\\s*([A-Za-z0-9_-]*)")
	heredoc   = regexp.MustCompile(`<<-?\s*['"]?([A-Za-z_][A-Za-z0-9_]*)['"]?`)
)

var shellLanguages = []string{"sh", "bash", "shell", "console"}

// Parse reads a page. What it cannot make sense of is an error that names the
// line.
func Parse(text string) (*Page, error) {
	p := &Page{lines: strings.Split(text, "\n")}
	next := marks{}
	for i := 0; i < len(p.lines); i++ {
		if m := directive.FindStringSubmatch(p.lines[i]); m != nil {
			if err := p.direct(m[1], &next); err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
			continue
		}
		m := fence.FindStringSubmatch(p.lines[i])
		if m == nil {
			if strings.TrimSpace(p.lines[i]) != "" && next != (marks{}) {
				return nil, fmt.Errorf("line %d: a doctest comment must stand right above its block", i+1)
			}
			continue
		}
		end := i + 1
		for end < len(p.lines) && strings.TrimSpace(p.lines[end]) != "```" {
			end++
		}
		if end == len(p.lines) {
			return nil, fmt.Errorf("line %d: the block has no end", i+1)
		}
		lang, isShell := m[1], slices.Contains(shellLanguages, m[1])
		switch {
		case next.skip != "":
		case next.file != "":
			p.Steps = append(p.Steps, &Step{Line: i + 1, File: next.file, Text: p.text(i+1, end)})
		case lang == "console":
			if err := p.console(i+1, end, next.exit); err != nil {
				return nil, err
			}
		case isShell:
			p.script(i+1, end, next.exit)
		}
		next = marks{}
		i = end
	}
	return p, nil
}

// marks are what comments say about the next block.
type marks struct {
	file, skip string
	exit       int
}

func (p *Page) direct(s string, next *marks) error {
	if reason, ok := strings.CutPrefix(s, "skip"); ok {
		reason, ok = strings.CutPrefix(strings.TrimSpace(reason), "because ")
		if !ok || strings.TrimSpace(reason) == "" {
			return fmt.Errorf("a skipped block says why: <!-- doctest: skip because … -->")
		}
		next.skip = reason
		return nil
	}
	for f := range strings.FieldsSeq(s) {
		k, v, _ := strings.Cut(f, "=")
		switch k {
		case "server":
			if v != "dev" && v != "embedded" && v != "own" {
				return fmt.Errorf("server=%s: dev, embedded or own", v)
			}
			p.Server = v
		case "pg":
			p.Postgres = v == "yes"
		case "ldap":
			p.LDAP = v == "yes"
		case "file":
			next.file = v
		case "exit":
			n, err := strconv.Atoi(v)
			if err != nil {
				return fmt.Errorf("exit=%s: %w", v, err)
			}
			next.exit = n
		default:
			return fmt.Errorf("unknown doctest directive %q", f)
		}
	}
	return nil
}

// text joins lines [from, to).
func (p *Page) text(from, to int) string {
	if from == to {
		return ""
	}
	return strings.Join(p.lines[from:to], "\n") + "\n"
}

// console splits a block into commands and their outputs.
func (p *Page) console(from, to, exit int) error {
	var s *Step
	first := len(p.Steps)
	for i := from; i < to; {
		cmd, ok := strings.CutPrefix(p.lines[i], "$ ")
		if !ok {
			if s == nil {
				return fmt.Errorf("line %d: a console block begins with a command after \"$ \"", i+1)
			}
			i++
			s.to = i
			continue
		}
		s = &Step{Line: i + 1, Compare: true}
		text := []string{cmd}
		for i++; i < to && goesOn(text); i++ {
			text = append(text, strings.TrimPrefix(p.lines[i], "> "))
		}
		s.Text = strings.Join(text, "\n") + "\n"
		s.from, s.to = i, i
		p.Steps = append(p.Steps, s)
	}
	if s != nil {
		s.Exit = exit
	}
	for _, s := range p.Steps[first:] {
		s.Output = p.text(s.from, s.to)
	}
	return nil
}

// goesOn says whether a command is unfinished: its last line ends in a
// backslash, or a here-document is open.
func goesOn(lines []string) bool {
	if strings.HasSuffix(lines[len(lines)-1], `\`) {
		return true
	}
	for i, l := range lines {
		if m := heredoc.FindStringSubmatch(l); m != nil {
			return !slices.Contains(lines[i+1:], m[1])
		}
	}
	return false
}

// script takes a sh block, and a text block below it as its output.
func (p *Page) script(from, to, exit int) {
	s := &Step{Line: from, Script: true, Text: p.text(from, to), Exit: exit}
	p.Steps = append(p.Steps, s)
	i := to + 1
	for i < len(p.lines) && strings.TrimSpace(p.lines[i]) == "" {
		i++
	}
	if i == len(p.lines) || strings.TrimSpace(p.lines[i]) != "```text" {
		return
	}
	for end := i + 1; end < len(p.lines); end++ {
		if strings.TrimSpace(p.lines[end]) == "```" {
			s.Compare, s.from, s.to = true, i+1, end
			s.Output = p.text(i+1, end)
			return
		}
	}
}

// Rewrite is the page with other outputs: outputs[i] belongs to Steps[i], and
// nil leaves it as it is.
func (p *Page) Rewrite(outputs []*string) string {
	var out []string
	at := 0
	for i, s := range p.Steps {
		if !s.Compare || outputs[i] == nil {
			continue
		}
		out = append(out, p.lines[at:s.from]...)
		if text := strings.TrimRight(*outputs[i], "\n"); text != "" {
			out = append(out, strings.Split(text, "\n")...)
		}
		at = s.to
	}
	return strings.Join(append(out, p.lines[at:]...), "\n")
}
