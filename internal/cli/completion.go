package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// The shells call the program itself with the line so far in COMP_LINE (bash's
// "complete -C", which zsh understands too; fish is told to do the same), and
// it prints what may follow. So one small function serves all three.
var completionScripts = map[string]string{
	"bash": "complete -o nospace -C '%[1]s' leasehold\n",
	"zsh":  "autoload -U +X bashcompinit && bashcompinit\ncomplete -o nospace -C '%[1]s' leasehold\n",
	"fish": "function __complete_leasehold\n    set -lx COMP_LINE (commandline -cp)\n    '%[1]s'\nend\n" +
		"complete -f -c leasehold -a \"(__complete_leasehold)\"\n",
}

func completionCommand() *command {
	return &command{
		name: "completion", args: "bash|zsh|fish", min: 1, max: 1, local: true, short: "Print what makes a shell complete commands",
		long: "Prints the lines that make a shell complete commands and flags. To have them put where the shell finds them: \"leasehold -autocomplete-install\".", example: []string{"leasehold completion bash >> ~/.bashrc"},
		run: func(_ context.Context, c *call) error {
			script, ok := completionScripts[c.arg(0)]
			if !ok {
				return localf("%q: want bash, zsh or fish", c.arg(0))
			}
			c.printf(script, executable())
			return nil
		},
	}
}

func executable() string {
	name, err := os.Executable()
	if err != nil {
		return programName // found by PATH
	}
	return name
}

// completeLine prints what may stand where the cursor is, one a line.
func completeLine(cfg Config, root *command, line string) {
	if n, err := strconv.Atoi(cfg.Getenv("COMP_POINT")); err == nil && n >= 0 && n < len(line) {
		line = line[:n]
	}
	words := strings.Fields(line)
	last := ""
	if !strings.HasSuffix(line, " ") && len(words) > 0 {
		last, words = words[len(words)-1], words[:len(words)-1]
	}
	if len(words) == 0 {
		return
	}
	cmd, _, unknown := find(root, words[1:])
	if unknown != "" {
		return
	}
	for _, w := range candidates(cmd, last) {
		if strings.HasPrefix(w, last) {
			fmt.Fprintln(cfg.Stdout, w)
		}
	}
}

func candidates(cmd *command, last string) []string {
	var out []string
	if !strings.HasPrefix(last, "-") {
		for _, s := range cmd.sub {
			if !s.hidden {
				out = append(out, s.name+" ")
			}
		}
		return out
	}
	if len(cmd.sub) > 0 {
		return nil
	}
	dashes := "-"
	if strings.HasPrefix(last, "--") {
		dashes = "--"
	}
	flags := cmd.flags
	if !cmd.local {
		flags = append(flags[:len(flags):len(flags)], new(commonFlags).flags(cmd)...)
	}
	for _, f := range flags {
		switch {
		case f.shy:
		case f.names[0] == "format" && strings.Contains(last, "="):
			for _, v := range []string{"table", "json", "yaml", "raw"} {
				out = append(out, dashes+"format="+v+" ")
			}
		case f.arg == "":
			out = append(out, dashes+f.names[0]+" ")
		default:
			out = append(out, dashes+f.names[0]+"=")
		}
	}
	return out
}

// installCompletion adds the lines to the start-up files of the shells in use,
// or takes them out again.
func installCompletion(cfg Config, remove bool) int {
	home := cfg.Getenv("HOME")
	if home == "" {
		fmt.Fprintln(cfg.Stderr, "HOME is not set, so there are no start-up files to change.")
		return exitLocal
	}
	targets := []struct {
		shell, file string
		create      bool
	}{
		{"bash", filepath.Join(home, ".bashrc"), false},
		{"zsh", filepath.Join(home, ".zshrc"), false},
		{"fish", filepath.Join(home, ".config/fish/completions/leasehold.fish"), true},
	}
	changed := 0
	for _, t := range targets {
		if t.create {
			if _, err := os.Stat(filepath.Join(home, ".config/fish")); err != nil {
				continue
			}
		}
		done, err := editStartup(t.file, fmt.Sprintf(completionScripts[t.shell], executable()), t.create, remove)
		if err != nil {
			fmt.Fprintf(cfg.Stderr, "Changing %s: %v\n", t.file, err)
			return exitLocal
		}
		if done {
			changed++
			fmt.Fprintf(cfg.Stdout, "Changed %s\n", t.file)
		}
	}
	if changed == 0 {
		fmt.Fprintln(cfg.Stdout, "Nothing to change: no start-up file of bash, zsh or fish needs it.")
		return exitOK
	}
	fmt.Fprintln(cfg.Stdout, "A new shell will know.")
	return exitOK
}

// editStartup adds the text to a file or removes it, and tells whether it had to.
func editStartup(file, text string, create, remove bool) (bool, error) {
	old, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && create && !remove {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return false, err
		}
	} else if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	has := bytes.Contains(old, []byte(text))
	if has != remove {
		return false, nil
	}
	if remove {
		return true, os.WriteFile(file, bytes.Replace(old, []byte(text), nil, 1), 0o644)
	}
	if len(old) > 0 && !bytes.HasSuffix(old, []byte("\n")) {
		old = append(old, '\n')
	}
	return true, os.WriteFile(file, append(old, text...), 0o644)
}
