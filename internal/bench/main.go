// Command bench measures a server of this tree on this machine: what each kind
// of request costs (speed), what a million tokens, a kill -9 and storms of expiry
// do to it (leases), and what logins do to its store (logins).
//
// It starts everything itself: the server with the embedded store and a static
// seal, a PostgreSQL with default settings and fsync on, and a bare net/http
// handler to compare with. The figure to look at is the server's CPU time per
// operation; operations per second include the load generator's share of the
// machine. With -write the tables go into docs/benchmarks.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: bench COMMAND [flags]
  speed    operations per second, latency and CPU of each kind of request
  leases   a million tokens, kill -9, and what expires in the same second
  file     a large file through transit encrypt-file and back, beside age
  logins   how logins share syncs, and a million that store nothing
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	commands := map[string]func(context.Context, *flag.FlagSet, []string) error{
		"speed": speedCommand, "leases": leasesCommand, "file": fileCommand, "logins": loginsCommand,
		"bare": bareCommand, // the control; speed starts it as a child
	}
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err := commands[os.Args[1]](ctx, flag.NewFlagSet(os.Args[1], flag.ExitOnError), os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "bench %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}
