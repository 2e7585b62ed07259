package cli

import (
	"fmt"
	"io"
	"strings"
)

// printRootHelp fits a screen of 80 by 24 and begins with what somebody needs
// who has never seen the program.
func printRootHelp(w io.Writer) {
	io.WriteString(w, `Leasehold issues credentials that expire, and takes them away when they do.

Begin here:
  leasehold server -dev                     a server to try things on, in memory
  export VAULT_ADDR=http://127.0.0.1:8200   in a second terminal: where it is
  leasehold kv put secret/app user=ann      store a secret
  leasehold kv get secret/app               and read it

Use it:
  read, write, list, delete, patch PATH     whatever a path offers
  kv                                        secrets in a key-value store
  login, unwrap                             get a token, open a wrapped reply
  lease list|lookup|renew|revoke            who has what, and until when

Run it:
  server, status, monitor, operator         start, look, follow the log, unseal
  secrets, auth, audit                      what is mounted and logged where
  policy, token                             who may do what
  database doctor NAME                      which GRANT a database still needs
  transit encrypt-file|decrypt-file         files of any size, by a Transit key

"leasehold COMMAND -h" shows an example and the flags. All of the commands:
"leasehold help all".  Shell completion: "leasehold -autocomplete-install".
`)
}

// printAll lists every command there is.
func printAll(w io.Writer, cmd *command) {
	for _, leaf := range leaves(cmd, nil) {
		fmt.Fprintf(w, "  %-42s %s\n", leaf.path, leaf.short)
	}
}

func leaves(cmd *command, out []*command) []*command {
	if len(cmd.sub) == 0 && !cmd.hidden {
		return append(out, cmd)
	}
	for _, s := range cmd.sub {
		out = leaves(s, out)
	}
	return out
}

func printGroupHelp(w io.Writer, cmd *command) {
	if cmd.parent == nil {
		printRootHelp(w)
		return
	}
	fmt.Fprintf(w, "Usage: %s COMMAND [flags] [args]\n\n%s\n\nCommands:\n\n", cmd.path, indent(cmd.intro(), "  ", "  "))
	width := 0
	for _, s := range cmd.sub {
		width = max(width, len(s.name))
	}
	for _, s := range cmd.sub {
		fmt.Fprintf(w, "  %-*s   %s\n", width, s.name, s.short)
	}
	if len(cmd.example) > 0 {
		fmt.Fprintf(w, "\nExample:\n\n")
		printExamples(w, cmd)
	}
	fmt.Fprintf(w, "\n\"%s COMMAND -h\" shows an example and the flags.\n", cmd.path)
}

// intro is the longer text, paragraph by paragraph.
func (cmd *command) intro() string {
	text := cmd.long
	if text == "" {
		text = cmd.short + "."
	}
	paragraphs := strings.Split(text, "\n\n")
	for i, p := range paragraphs {
		paragraphs[i] = wrap(strings.ReplaceAll(p, "\n", " "), 76)
	}
	return strings.Join(paragraphs, "\n\n")
}

func printExamples(w io.Writer, cmd *command) {
	for _, e := range cmd.example {
		fmt.Fprintf(w, "  $ %s\n", e)
	}
}

// printHelp is the help of a leaf: usage, an example, flags.
func printHelp(w io.Writer, cmd *command) {
	fmt.Fprintf(w, "Usage: %s\n\n%s\n\nExample:\n\n", cmd.usageLine(), indent(cmd.intro(), "  ", "  "))
	printExamples(w, cmd)
	printFlags(w, "Flags", cmd.flags)
	if !cmd.local {
		var common commonFlags
		printFlags(w, "Flags of every command that talks to a server", common.flags(cmd))
	}
}

func printFlags(w io.Writer, title string, flags []*flag) {
	const column = 30
	printed := false
	for _, f := range flags {
		if f.shy {
			continue
		}
		if !printed {
			fmt.Fprintf(w, "\n%s:\n\n", title)
			printed = true
		}
		left := "  -" + strings.Join(f.names, ", -")
		if f.arg != "" {
			left += "=" + f.arg
		}
		lines := strings.Split(wrap(f.usage, 80-column), "\n")
		if len(left) >= column-1 {
			fmt.Fprintln(w, left)
			left = ""
		}
		for _, line := range lines {
			fmt.Fprintf(w, "%-*s%s\n", column, left, line)
			left = ""
		}
	}
}

// printUnknown answers a word that is no command with the one that was meant.
func printUnknown(cfg Config, cmd *command, word string) {
	var names []string
	for _, s := range cmd.sub {
		names = append(names, s.name)
	}
	fmt.Fprintf(cfg.Stderr, "%s has no command %q.", cmd.path, word)
	like := ""
	if found := commandNamed(cmd, word); found != nil {
		like = strings.TrimPrefix(found.path, cmd.path+" ")
	} else {
		like = closest(word, names)
	}
	if like != "" {
		fmt.Fprintf(cfg.Stderr, " Did you mean \"%s %s\"?\n", cmd.path, like)
		return
	}
	fmt.Fprintf(cfg.Stderr, "\n\n")
	printGroupHelp(cfg.Stderr, cmd)
}

// commandNamed finds a command further down: "unseal" for "operator unseal".
func commandNamed(cmd *command, word string) *command {
	for _, leaf := range leaves(cmd, nil) {
		if leaf.name == word {
			return leaf
		}
	}
	return nil
}
