// Package cli is the command line of Leasehold: Vault's verbs, flags, output
// shapes and exit codes, so that scripts written for the vault and bao
// commands run unchanged.
//
// Run finds the command that the arguments name in a tree of [command] values,
// has its flags parsed, and calls its run function with a [call], through
// which a command reads its input, reaches the server (package api) and prints
// in the format asked for. Each family of commands has a file of its own.
// Tables are for people and go to standard output; warnings, hints and errors
// go to standard error.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/leasehold/leasehold/api"
	"github.com/leasehold/leasehold/internal/server"
)

// Exit codes, as Vault's.
const (
	exitOK      = 0
	exitLocal   = 1   // wrong usage, unreadable file; for status: no answer
	exitServer  = 2   // the server refused or could not be reached; for status: sealed
	exitUnknown = 127 // no such command
	exitStopped = 130 // interrupted while it waited for somebody to type, as shells say it
)

// Config is what the program hands in.
type Config struct {
	Stdin  io.Reader // nil reads nothing
	Stdout io.Writer // must be set
	Stderr io.Writer // must be set

	// Getenv reads the environment; nil is an empty one.
	Getenv func(string) string
	// Version is the program's own; "" takes what the build recorded.
	Version string

	// Server runs "leasehold server" until ctx ends and answers the exit
	// code; nil is server.Main.
	Server func(ctx context.Context, version string, args server.Args) int
}

// Run carries out one command line (without the program's name) and answers
// the exit code.
func Run(ctx context.Context, cfg Config, args []string) int {
	if cfg.Stdin == nil {
		cfg.Stdin = strings.NewReader("")
	}
	if cfg.Getenv == nil {
		cfg.Getenv = func(string) string { return "" }
	}
	if cfg.Version == "" {
		cfg.Version = server.BuildVersion()
	}
	if rest, ok := strings.CutPrefix(cfg.Version, "v"); ok && strings.Contains(rest, ".") {
		cfg.Version = rest // a tag
	}
	if cfg.Server == nil {
		cfg.Server = server.Main
	}
	out := &output{w: cfg.Stdout}
	cfg.Stdout = out
	return out.settle(cfg.Stderr, run(ctx, cfg, args))
}

func run(ctx context.Context, cfg Config, args []string) int {
	root := newRoot()
	if line := cfg.Getenv("COMP_LINE"); line != "" {
		completeLine(cfg, root, line)
		return exitOK
	}
	cmd, rest, unknown := find(root, args)
	if unknown != "" {
		printUnknown(cfg, cmd, unknown)
		return exitUnknown
	}
	if len(cmd.sub) > 0 {
		return runGroup(cfg, cmd, rest)
	}
	return cmd.execute(ctx, cfg, rest)
}

// newRoot is the tree of all commands.
func newRoot() *command {
	root := &command{sub: []*command{
		readCommand(), writeCommand(), patchCommand(), listCommand(), deleteCommand(),
		kvCommand(), loginCommand(), unwrapCommand(), databaseCommand(), transitCommand(), leaseCommand(),
		serverCommand(), statusCommand(), monitorCommand(), secretsCommand(), authCommand(), policyCommand(), tokenCommand(),
		auditCommand(), operatorCommand(), namespaceCommand(),
		pathHelpCommand(), printCommand(), completionCommand(), versionCommand(),
	}}
	root.setParents(programName)
	return root
}

// find walks down the tree as far as the arguments name commands. It answers
// the command and what is left for it, or the word that is none.
func find(root *command, args []string) (cmd *command, rest []string, unknown string) {
	cmd = root
	for len(args) > 0 && len(cmd.sub) > 0 {
		word := args[0]
		if strings.HasPrefix(word, "-") {
			break
		}
		if word == "help" && cmd == root {
			return findHelp(root, args[1:])
		}
		next := cmd.child(word)
		if next == nil {
			return cmd, args, word
		}
		cmd, args = next, args[1:]
	}
	return cmd, args, ""
}

// findHelp is "help kv put" for "kv put -help".
func findHelp(root *command, args []string) (cmd *command, rest []string, unknown string) {
	if len(args) == 1 && args[0] == "all" {
		return root, []string{"-help-all"}, ""
	}
	cmd, _, unknown = find(root, args)
	return cmd, []string{"-help"}, unknown
}

// runGroup answers a command line that stops at a group: help when asked, the
// same on standard error and exit 127 when something is missing, as Vault does.
func runGroup(cfg Config, cmd *command, rest []string) int {
	switch {
	case len(rest) == 0 && cmd.parent == nil:
		printRootHelp(cfg.Stdout)
		return exitOK
	case len(rest) == 0:
		printGroupHelp(cfg.Stderr, cmd)
		return exitUnknown
	}
	switch strings.TrimLeft(rest[0], "-") {
	case "h", "help":
		if cmd.parent == nil {
			printRootHelp(cfg.Stdout)
		} else {
			printGroupHelp(cfg.Stdout, cmd)
		}
		return exitOK
	case "help-all":
		printAll(cfg.Stdout, cmd)
		return exitOK
	case "v", "version":
		if cmd.parent == nil {
			fmt.Fprintln(cfg.Stdout, versionLine(cfg))
			return exitOK
		}
	case "autocomplete-install", "autocomplete-uninstall":
		if cmd.parent == nil {
			return installCompletion(cfg, strings.HasSuffix(rest[0], "-uninstall"))
		}
	}
	fmt.Fprintf(cfg.Stderr, "Flags go after the command: %s COMMAND %s\n", cmd.path, rest[0])
	return exitLocal
}

// localError is a fault on this side: usage, files, the terminal. Exit 1.
type localError struct{ msg string }

func (e *localError) Error() string { return e.msg }

func localf(format string, args ...any) error { return &localError{fmt.Sprintf(format, args...)} }

// notFound is printed as it is, without "Error" before it. Exit 2.
type notFound struct{ msg string }

func (e *notFound) Error() string { return e.msg }

// exitStatus ends a command whose output is already printed.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit %d", int(e)) }

// wrappedReply is how a command ends whose answer came wrapped (-wrap-ttl).
type wrappedReply struct{ secret *api.Secret }

func (e *wrappedReply) Error() string { return "the reply is wrapped" }

// stepError says what was being done when err came: "reading secret/app".
type stepError struct {
	step string
	err  error
}

func (e *stepError) Error() string { return "Error " + e.step + ": " + e.err.Error() }
func (e *stepError) Unwrap() error { return e.err }

// step names what was being done. Faults on this side say so themselves; nil
// stays nil.
func step(err error, format string, args ...any) error {
	var local *localError
	if err == nil || errors.As(err, &local) {
		return err
	}
	return &stepError{fmt.Sprintf(format, args...), err}
}

// report prints err with what to do next, and answers the exit code.
func (c *call) report(err error) int {
	var (
		status    exitStatus
		captured  *capturedRequest
		unwritten *outputError
		wrapped   *wrappedReply
		missing   *notFound
		refused   *api.Error
		transport *url.Error
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &captured):
		fmt.Fprintln(c.cfg.Stdout, captured.text)
		return exitOK
	case errors.As(err, &unwritten):
		return exitOK // Run says so, as of all output
	case errors.As(err, &wrapped):
		c.onceSecret(wrapped.secret)
		return c.report(c.printSecret(wrapped.secret, ""))
	}
	fmt.Fprintln(c.cfg.Stderr, err)
	if h := c.hint(err); h != "" {
		fmt.Fprintf(c.cfg.Stderr, "\n%s\n", h)
	}
	if errors.As(err, &missing) || errors.As(err, &refused) || errors.As(err, &transport) {
		return exitServer
	}
	return exitLocal
}
