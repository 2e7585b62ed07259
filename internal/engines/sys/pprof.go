package sys

import (
	"bytes"
	"context"
	"fmt"
	"html"
	"os"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
)

// profiles are those of the runtime, and what each shows.
var profiles = []struct{ name, doc string }{
	{"allocs", "where memory was allocated since the start"},
	{"block", "where goroutines waited; empty unless the rate was set"},
	{"goroutine", "the stacks of all goroutines"},
	{"heap", "where the memory in use was allocated"},
	{"mutex", "who held locks that others waited for; empty unless the rate was set"},
	{"threadcreate", "where threads of the operating system were made"},
}

// pprofRoutes answer as net/http/pprof does, which go tool pprof reads.
func (e *Engine) pprofRoutes(t *route.Table) {
	t.With(func(t *route.Table) {
		route.Read(t, "pprof/{name...?}", profileIndex, route.Doc("List the profiles, as a page."))
		for _, p := range profiles {
			route.Read(t, "pprof/"+p.name, profileOf(p.name), route.Doc("Read a profile: "+p.doc+"."))
		}
		route.Read(t, "pprof/profile", cpuProfile, route.Doc("Profile the processor's use."))
		route.Read(t, "pprof/trace", traceFor, route.Doc("Trace the scheduler."))
		route.Read(t, "pprof/cmdline", commandLine, route.Doc("Read the command line that the server was started with."))
		route.Read(t, "pprof/symbol", symbols, route.Doc("Name the functions at addresses."))
	}, route.Sudo())
}

func profileIndex(_ context.Context, _ *route.Request, in nameIn) (route.Raw, error) {
	if in.Name != "" {
		return route.Raw{}, errs.New(errs.NotFound, "there is no profile %q; GET sys/pprof lists them", in.Name)
	}
	var b bytes.Buffer
	b.WriteString("<!DOCTYPE html>\n<title>Profiles</title>\n<h1>Profiles</h1>\n<table>\n<tr><th>Count<th>Profile<th>\n")
	row := func(count, name, doc string) {
		fmt.Fprintf(&b, "<tr><td>%s<td><a href=\"/v1/sys/pprof/%s\">%s</a><td>%s\n", count, name, name, html.EscapeString(doc))
	}
	for _, p := range profiles {
		row(strconv.Itoa(pprof.Lookup(p.name).Count()), p.name, p.doc)
	}
	row("", "profile", "the processor's use; ?seconds= says for how long, 30 without")
	row("", "trace", "what the scheduler does; ?seconds= says for how long, 1 without")
	row("", "cmdline", "the command line that the server was started with")
	row("", "symbol", "the names of the functions at addresses: ?0x1234+0x5678")
	b.WriteString("</table>\n")
	return route.Raw{ContentType: "text/html; charset=utf-8", Body: b.Bytes()}, nil
}

type profileIn struct {
	Debug   int `json:"debug" doc:"1 or 2 for text."`
	Seconds int `json:"seconds" doc:"How long profile and trace run, at most 300."`
	GC      int `json:"gc" doc:"1 to collect garbage before."`
}

func (in profileIn) duration(def time.Duration) time.Duration {
	if in.Seconds <= 0 {
		return def
	}
	return min(time.Duration(in.Seconds)*time.Second, 5*time.Minute)
}

const plainText = "text/plain; charset=utf-8"

func binary(b []byte, name string) route.Raw {
	raw := route.Raw{ContentType: "application/octet-stream", Body: b}
	raw.Header = map[string][]string{"Content-Disposition": {fmt.Sprintf("attachment; filename=%q", name)}}
	return raw
}

func profileOf(name string) route.Handler[profileIn, route.Raw] {
	return func(_ context.Context, _ *route.Request, in profileIn) (route.Raw, error) {
		if in.GC > 0 {
			runtime.GC()
		}
		var b bytes.Buffer
		if err := pprof.Lookup(name).WriteTo(&b, in.Debug); err != nil {
			return route.Raw{}, err
		}
		if in.Debug > 0 {
			return route.Raw{ContentType: plainText, Body: b.Bytes()}, nil
		}
		return binary(b.Bytes(), name), nil
	}
}

// wait lets a profile run, or ends it with the request.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func cpuProfile(ctx context.Context, _ *route.Request, in profileIn) (route.Raw, error) {
	var b bytes.Buffer
	if err := pprof.StartCPUProfile(&b); err != nil {
		return route.Raw{}, errs.Wrap(errs.Invalid, err, "a profile is being taken already")
	}
	wait(ctx, in.duration(30*time.Second))
	pprof.StopCPUProfile()
	return binary(b.Bytes(), "profile"), nil
}

func traceFor(ctx context.Context, _ *route.Request, in profileIn) (route.Raw, error) {
	var b bytes.Buffer
	if err := trace.Start(&b); err != nil {
		return route.Raw{}, errs.Wrap(errs.Invalid, err, "a trace is being taken already")
	}
	wait(ctx, in.duration(time.Second))
	trace.Stop()
	return binary(b.Bytes(), "trace"), nil
}

// commandLine gives the arguments with a zero byte between them.
func commandLine(context.Context, *route.Request, route.None) (route.Raw, error) {
	return route.Raw{ContentType: plainText, Body: []byte(strings.Join(withoutTokens(os.Args), "\x00"))}, nil
}

// withoutTokens leaves out the value of a flag that gives a token, as that of
// the dev server's root token.
func withoutTokens(args []string) []string {
	out := make([]string, len(args))
	next := false
	for i, arg := range args {
		name, _, joined := strings.Cut(arg, "=")
		switch {
		case next:
			arg, next = "redacted", false
		case !strings.HasPrefix(arg, "-") || !strings.Contains(name, "token"):
		case joined:
			arg = name + "=redacted"
		default:
			next = true
		}
		out[i] = arg
	}
	return out
}

// symbols takes addresses as the query's own text, joined by "+".
func symbols(_ context.Context, req *route.Request, _ route.None) (route.Raw, error) {
	var b bytes.Buffer
	b.WriteString("num_symbols: 1\n") // not how many, but that there are some
	for text := range req.Query {
		for _, one := range strings.Fields(strings.ReplaceAll(text, "+", " ")) {
			pc, err := strconv.ParseUint(one, 0, 64)
			if err != nil {
				continue
			}
			if f := runtime.FuncForPC(uintptr(pc)); f != nil {
				fmt.Fprintf(&b, "%#x %s\n", pc, f.Name())
			}
		}
	}
	return route.Raw{ContentType: plainText, Body: b.Bytes()}, nil
}
