// Command demo is what `make demo` runs: the main job of Leasehold, on real
// parts, in half a minute. Three applications get logins to a PostgreSQL that
// expire; one renews, one is revoked while its session is open, one runs out;
// and each claim is proved with a login.
//
// The parts run in a child of their own (lab.go), which cleans up when this
// process ends, however it ends. With KEEP=1 in the environment the child
// stays.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	server := flag.String("server", "", "leasehold binary; empty: build this tree's")
	role := flag.String("role", "", "for internal use")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if *role == "lab" {
		if err := runLab(ctx, *server, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	err := demo(ctx, *server, os.Getenv("KEEP") != "")
	switch {
	case errors.Is(err, context.Canceled):
		fmt.Println("\nStopped. Nothing is left behind.")
		os.Exit(130)
	case err != nil:
		fmt.Fprintf(os.Stderr, "\nThe demo failed: %v\nNothing is left behind.\n", err)
		os.Exit(1)
	}
}

// demo starts the lab, tells the story in it, and removes it again.
func demo(ctx context.Context, server string, keep bool) (err error) {
	scr := newScreen(os.Stdout)
	scr.title("Leasehold: database credentials that expire")
	scr.step("A private PostgreSQL and a durable Leasehold server are starting")
	l, err := startLab(ctx, server)
	if err != nil {
		return err
	}
	kept := false
	defer func() {
		if !kept {
			err = errors.Join(err, l.stop())
		}
	}()
	s, err := newStory(scr, l)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.tell(ctx); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	if keep {
		if err := l.keep(); err != nil {
			return err
		}
		kept = true
		s.farewellKept()
		return nil
	}
	s.close()
	if err := l.stop(); err != nil {
		return err
	}
	kept = true // there is nothing left to stop
	s.farewell()
	return nil
}
