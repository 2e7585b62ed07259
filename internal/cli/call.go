package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/leasehold/leasehold/api"
)

// call is one run of a command: its arguments, its settings, and the ways in
// and out.
type call struct {
	cfg    Config
	cmd    *command
	args   []string
	common commonFlags
	format format

	ownToken bool // it brings its token itself: the one of environment and file is of no account

	stdin   *bufio.Reader
	stopped <-chan struct{} // closed when the command is interrupted
	made    *api.Client     // by client
	target  *api.Client     // whom the command talks to, for hints
}

func newCall(cfg Config, cmd *command) *call {
	return &call{cfg: cfg, cmd: cmd, stdin: bufio.NewReader(cfg.Stdin)}
}

// arg is the i-th argument, or "".
func (c *call) arg(i int) string {
	if i < len(c.args) {
		return c.args[i]
	}
	return ""
}

// client is the connection that flags, environment and token file ask for.
// With -output-curl-string or -output-policy it prints instead of sending.
func (c *call) client() (*api.Client, error) {
	if c.made != nil {
		return c.made, nil
	}
	plain, err := c.realClient()
	if err != nil {
		return nil, err
	}
	c.made = plain
	if c.common.outputCurl || c.common.outputPol {
		c.made = plain.WithHTTPClient(&http.Client{Transport: &capture{call: c}})
	}
	return c.made, nil
}

// realClient sends whatever the flags say: for what must be known before the
// request that is to be shown.
func (c *call) realClient() (*api.Client, error) {
	cfg, err := c.common.config(c)
	if err != nil {
		return nil, err
	}
	if cfg.Token, err = c.token(cfg.Token); err != nil {
		return nil, err
	}
	cl, err := api.New(cfg)
	if err != nil {
		return nil, localf("%s", upperFirst(err.Error()))
	}
	c.target = cl
	return cl, nil
}

// do sends one request and prints the warnings of its reply.
func (c *call) do(ctx context.Context, r *api.Request) (*api.Secret, error) {
	cl, err := c.client()
	if err != nil {
		return nil, err
	}
	return c.send(ctx, cl, r)
}

// doPlain is do for what the command itself must know: it is never wrapped,
// because -wrap-ttl is about the answer that the command gives.
func (c *call) doPlain(ctx context.Context, r *api.Request) (*api.Secret, error) {
	cl, err := c.client()
	if err != nil {
		return nil, err
	}
	return c.send(ctx, cl.WithWrapTTL(""), r)
}

func (c *call) send(ctx context.Context, cl *api.Client, r *api.Request) (*api.Secret, error) {
	resp, err := cl.Do(ctx, r)
	if err != nil {
		// Of a wrong path the warnings say which is the right one.
		if refused := (*api.Error)(nil); errors.As(err, &refused) && refused.Secret != nil {
			c.warn(refused.Secret.Warnings)
		}
		return nil, err
	}
	s, err := resp.Secret()
	if s != nil {
		c.warn(s.Warnings)
	}
	return s, err
}

func (c *call) read(ctx context.Context, path string) (*api.Secret, error) {
	return c.do(ctx, &api.Request{Method: http.MethodGet, Path: path})
}

func (c *call) write(ctx context.Context, path string, body any) (*api.Secret, error) {
	return c.do(ctx, &api.Request{Method: http.MethodPut, Path: path, Body: body})
}

func (c *call) remove(ctx context.Context, path string) (*api.Secret, error) {
	return c.do(ctx, &api.Request{Method: http.MethodDelete, Path: path})
}

// readInto reads a path and decodes its data.
func (c *call) readInto(ctx context.Context, path string, v any) error {
	s, err := c.read(ctx, path)
	if err != nil {
		return err
	}
	return decode(s, v)
}

// readPlain is readInto for what the command itself must know.
func (c *call) readPlain(ctx context.Context, path string, v any) error {
	s, err := c.doPlain(ctx, &api.Request{Method: http.MethodGet, Path: path})
	if err != nil {
		return err
	}
	return s.Decode(v)
}

// decode puts a reply's data into v. A reply that came wrapped has none, and
// ends the command: its token is then what there is to print.
func decode(s *api.Secret, v any) error {
	if s != nil && s.WrapInfo != nil {
		return &wrappedReply{s}
	}
	return s.Decode(v)
}

// printf writes to standard output.
func (c *call) printf(format string, args ...any) { fmt.Fprintf(c.cfg.Stdout, format, args...) }

// say prints a line for people: nothing when a program reads the output.
func (c *call) say(format string, args ...any) {
	if c.format == formatTable {
		fmt.Fprintf(c.cfg.Stdout, format+"\n", args...)
	}
}

// note prints to standard error.
func (c *call) note(format string, args ...any) { fmt.Fprintf(c.cfg.Stderr, format+"\n", args...) }

// warn prints the warnings of a reply on standard error.
func (c *call) warn(warnings []string) {
	if len(warnings) == 0 || c.format != formatTable {
		return
	}
	c.note("WARNING! The server's reply came with these warnings:\n")
	for _, w := range warnings {
		c.note("%s", indent(wrap(w, 74), "    ", "  * "))
	}
	c.note("")
}

// terminal reports whether standard output is one.
func (c *call) terminal() bool { return isTerminal(c.cfg.Stdout) }

func isTerminal(f any) bool {
	if out, ok := f.(*output); ok {
		f = out.w
	}
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// ask prompts on the terminal for a line; a secret one is not shown.
func (c *call) ask(prompt string, secret bool) (string, error) {
	file, ok := c.cfg.Stdin.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || c.common.nonInteractive {
		return "", localf("%s is needed, and there is no terminal to ask on: give it as an argument, or \"-\" to read it from standard input",
			strings.TrimSuffix(prompt, ":"))
	}
	fmt.Fprint(c.cfg.Stderr, prompt+" ")
	if !secret {
		return c.line()
	}
	fd := int(file.Fd())
	shown, err := term.GetState(fd)
	if err != nil {
		return "", localf("Reading from the terminal: %v", err)
	}
	b, err := typed(c, func() ([]byte, error) { return term.ReadPassword(fd) })
	fmt.Fprintln(c.cfg.Stderr)
	if errors.Is(err, exitStatus(exitStopped)) {
		_ = term.Restore(fd, shown) // what is typed next is shown again
		return "", err
	}
	if err != nil {
		return "", localf("Reading from the terminal: %v", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// typed runs read, which waits for somebody to type, until it is done or the
// command is interrupted. Nothing calls off the read of a terminal: it is left
// behind, and the process ends.
func typed[T any](c *call, read func() (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := read()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-c.stopped:
		var none T
		return none, exitStatus(exitStopped)
	}
}

// given is arg, or a line of standard input for "-", or the answer to a
// question where there is no argument.
func (c *call) given(arg, prompt string, secret bool) (string, error) {
	switch arg {
	case "":
		return c.ask(prompt, secret)
	case "-":
		return c.line()
	}
	return arg, nil
}

func (c *call) line() (string, error) {
	s, err := typed(c, func() (string, error) { return c.stdin.ReadString('\n') })
	if errors.Is(err, exitStatus(exitStopped)) {
		return "", err
	}
	if err != nil && err != io.EOF {
		return "", localf("Reading standard input: %v", err)
	}
	return strings.TrimSpace(s), nil
}

// all reads standard input to its end.
func (c *call) all() ([]byte, error) {
	b, err := typed(c, func() ([]byte, error) { return io.ReadAll(c.stdin) })
	if errors.Is(err, exitStatus(exitStopped)) {
		return nil, err
	}
	if err != nil {
		return nil, localf("Reading standard input: %v", err)
	}
	return b, nil
}

// file reads a file, or standard input for "-".
func (c *call) file(name string) ([]byte, error) {
	if name == "-" {
		return c.all()
	}
	b, err := os.ReadFile(expandHome(c.cfg.Getenv, name))
	if err != nil {
		return nil, localf("Reading %s: %v", name, err)
	}
	return b, nil
}

// wrap breaks a text into lines of at most width letters.
func wrap(s string, width int) string {
	var out bytes.Buffer
	for i, para := range strings.Split(s, "\n") {
		if i > 0 {
			out.WriteByte('\n')
		}
		n := 0
		for j, word := range strings.Fields(para) {
			switch {
			case j == 0:
			case n+1+len([]rune(word)) > width:
				out.WriteByte('\n')
				n = 0
			default:
				out.WriteByte(' ')
				n++
			}
			out.WriteString(word)
			n += len([]rune(word))
		}
	}
	return out.String()
}

// indent puts prefix before each line, first before the first one.
func indent(s, prefix, first string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		p := prefix
		if i == 0 {
			p = first
		}
		lines[i] = strings.TrimRight(p+lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// cleanPath takes the slashes off both ends, as Vault's commands do.
func cleanPath(p string) string { return strings.Trim(strings.TrimSpace(p), "/") }
