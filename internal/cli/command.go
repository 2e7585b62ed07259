package cli

import (
	"context"
	"fmt"
	"strings"

	ucli "github.com/urfave/cli/v3"
)

const programName = "leasehold"

// command is one word of the command line: a group with commands below it, or
// a leaf that runs.
type command struct {
	name  string
	short string // one line for lists
	long  string // what it does and what to know; an empty line parts paragraphs
	sub   []*command

	// Of a leaf.
	args    string   // "PATH [KEY=VALUE …]"
	example []string // command lines without the "$ "
	flags   []*flag
	min     int  // fewest arguments
	max     int  // most; -1 is any number
	local   bool // talks to no server: has no connection flags
	plain   bool // talks to a server, but prints in one format only
	hidden  bool // not in lists
	run     func(context.Context, *call) error

	parent *command
	path   string // with all parents: "leasehold kv get"
}

func (cmd *command) setParents(path string) {
	cmd.path = path
	for _, s := range cmd.sub {
		s.parent = cmd
		s.setParents(path + " " + s.name)
	}
}

func (cmd *command) child(name string) *command {
	for _, s := range cmd.sub {
		if s.name == name {
			return s
		}
	}
	return nil
}

// execute parses a leaf's flags and runs it.
func (cmd *command) execute(ctx context.Context, cfg Config, args []string) int {
	c := newCall(cfg, cmd)
	c.stopped = ctx.Done()
	help := false
	flags := append(cmd.flags[:len(cmd.flags):len(cmd.flags)], boolFlag(&help, "help", "Print this help.").alias("h"))
	if !cmd.local {
		flags = append(flags, c.common.flags(cmd)...)
	}
	parser := &ucli.Command{
		Name:           cmd.name,
		Writer:         cfg.Stdout,
		ErrWriter:      cfg.Stderr,
		HideHelp:       true,
		ExitErrHandler: func(context.Context, *ucli.Command, error) {},
		OnUsageError:   func(_ context.Context, _ *ucli.Command, err error, _ bool) error { return cmd.usage(err, flags) },
	}
	for _, f := range flags {
		parser.Flags = append(parser.Flags, f.parser())
	}
	parser.Action = func(ctx context.Context, p *ucli.Command) error {
		if help {
			printHelp(cfg.Stdout, cmd)
			return nil
		}
		c.args = p.Args().Slice()
		if err := cmd.checkCount(len(c.args)); err != nil {
			return err
		}
		if err := c.common.check(c); err != nil {
			return err
		}
		return cmd.run(ctx, c)
	}
	return c.report(parser.Run(ctx, append([]string{cmd.name}, args...)))
}

func (cmd *command) checkCount(n int) error {
	switch {
	case n < cmd.min:
		return localf("Not enough arguments (expected %d, got %d)%s", cmd.min, n, cmd.seeHelp())
	case cmd.max >= 0 && n > cmd.max:
		return localf("Too many arguments (expected %d, got %d)%s", cmd.max, n, cmd.seeHelp())
	}
	return nil
}

func (cmd *command) seeHelp() string {
	return fmt.Sprintf("\n\nUsage: %s\n\"%s -h\" has an example and the flags.", cmd.usageLine(), cmd.path)
}

func (cmd *command) usageLine() string {
	line := cmd.path + " [flags]"
	if cmd.args != "" {
		line += " " + cmd.args
	}
	return line
}

// usage turns the parser's complaint into ours: the flag that was meant.
func (cmd *command) usage(err error, flags []*flag) error {
	name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !unknown {
		return localf("%s", upperFirst(err.Error()))
	}
	var names []string
	for _, f := range flags {
		names = append(names, f.names...)
	}
	msg := fmt.Sprintf("%s has no flag -%s.", cmd.path, name)
	if like := closest(name, names); like != "" {
		msg += fmt.Sprintf(" Did you mean -%s?", like)
	}
	return localf("%s\n\n\"%s -h\" lists the flags.", msg, cmd.path)
}

func upperFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// closest is the candidate that a typing mistake most likely meant, or "".
func closest(word string, candidates []string) string {
	best, bestDist := "", len(word)/2+1
	for _, c := range candidates {
		if strings.HasPrefix(c, word) && len(word) >= 3 {
			return c
		}
		d := distance(word, c)
		if len(word) >= 4 && len(c) > len(word) {
			d = min(d, distance(word, c[:len(word)])+1) // the beginning of a long name, mistyped
		}
		if d < bestDist {
			best, bestDist = c, d
		}
	}
	return best
}

// distance counts the edits between two words; two letters that changed places
// are one edit (Damerau's variant, optimal string alignment).
func distance(a, b string) int {
	prev2 := make([]int, len(b)+1)
	prev := make([]int, len(b)+1)
	cur := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
