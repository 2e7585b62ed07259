package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// drain is how long a stopping server lets requests finish.
	drain = 3500 * time.Millisecond
	// stopWithin is when a stopping server ends whatever still runs. Whatever
	// that is, the store has been told of it before it began: the next start
	// finds it, as it would after a kill.
	stopWithin = 4700 * time.Millisecond
	// openWithin is how long requests wait at the start for the server to open.
	// From then on they are told that it is sealed: its seal's key may be
	// another server's, which takes its time or is away.
	openWithin = 3 * time.Second
)

// Run opens the server where it can and answers requests until ctx ends or the
// store stops. Then it refuses new ones, lets those inside finish, makes the
// rest due and closes the store, all within five seconds. The process is to
// end after it.
func (s *Server) Run(ctx context.Context) error {
	if s.conf.PIDFile != "" {
		if err := os.WriteFile(s.conf.PIDFile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
			s.closeListeners()
			return errors.Join(fmt.Errorf("writing pid_file: %w", err), s.store.Close(), s.tracer.Close())
		}
		defer os.Remove(s.conf.PIDFile)
	}
	g, gctx := errgroup.WithContext(ctx)
	tried := make(chan struct{})
	g.Go(func() error {
		waits := s.unseal(gctx)
		close(tried)
		if waits {
			s.unsealLater(gctx)
		}
		return nil
	})
	patience := time.NewTimer(openWithin)
	defer patience.Stop()
	select {
	case <-tried:
	case <-patience.C:
	}
	for _, l := range s.listeners {
		g.Go(func() error { return l.serve(gctx, drain, s.cfg.Log) })
	}
	g.Go(func() error { return s.watchStore(gctx) })
	for _, w := range s.wrappers {
		if kept, ok := w.(interface{ Run(context.Context) }); ok {
			g.Go(func() error { kept.Run(gctx); return nil })
		}
	}
	g.Go(func() error {
		<-gctx.Done()
		notify("STOPPING=1")
		s.cfg.Log.Info("stopping")
		s.core.Stop(drain)
		return nil
	})
	notify("READY=1")

	ended := make(chan error, 1)
	go func() { // outlived by Run only where it does not end, and then by nothing
		err := g.Wait()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			if terr := s.tracer.Close(); terr != nil { // within a second
				s.cfg.Log.Warn("the last spans were not sent", "error", terr)
			}
		}()
		err = errors.Join(err, s.store.Close())
		<-sent
		ended <- err
	}()
	<-gctx.Done()
	late := time.NewTimer(stopWithin)
	defer late.Stop()
	select {
	case err := <-ended:
		return err
	case <-late.C:
		s.cfg.Log.Warn("not everything has stopped in time; the next start goes on with it")
		if ctx.Err() == nil {
			return context.Cause(gctx)
		}
		return nil
	}
}

// watchStore waits for a store that can stop for good, as one on a disk does
// when a write failed whose fate nobody knows.
func (s *Server) watchStore(ctx context.Context) error {
	store, ok := s.store.(interface{ Stopped() <-chan struct{} })
	if !ok {
		return nil
	}
	select {
	case <-store.Stopped():
		return errStoreStopped
	case <-ctx.Done():
		return nil
	}
}

var errStoreStopped = errors.New("the store has stopped, because its disk failed a write; the log says which. " +
	"Nothing that was answered is lost: see to the disk and start the server again")
