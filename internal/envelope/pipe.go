package envelope

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"
)

// pipe is the way of blocks from reading to writing. Each block is in one
// place at a time:
//
//	free → the reader → todo → a worker ┐
//	              └──→ order ───────────┴→ the writer → free
type pipe struct {
	free  chan *block
	todo  chan *block // for whichever worker comes first
	order chan *block // the same blocks, for the writer, in the file's order
	err   error       // the reader's; set before order is closed
}

// run reads src block by block, has work done on each, and writes what came of
// it to dst in order.
//
// When it fails, or ctx ends, the goroutines that read and write may be left
// behind: a read from a terminal or a pipe cannot be called off, nor can a write
// to a pipe that nobody reads. They end with that, and touch nothing but their
// block.
func run(ctx context.Context, dst io.Writer, src io.Reader, chunk int, work func(*block)) error {
	workers := min(runtime.GOMAXPROCS(0), 4)
	blocks := workers + 4 // one is being read, one waits to learn whether it is the last, one is written, one is ready
	p := &pipe{free: make(chan *block, blocks), todo: make(chan *block, blocks), order: make(chan *block, blocks)}
	for range blocks {
		p.free <- newBlock()
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	go p.read(ctx, src, perBlock*chunk)
	for range workers {
		wg.Go(func() { p.work(ctx, work) })
	}
	return p.write(ctx, dst)
}

// read fills blocks. One is handed on when it is known whether another follows.
func (p *pipe) read(ctx context.Context, src io.Reader, size int) {
	defer close(p.order)
	defer close(p.todo)
	var before *block
	for number := uint64(0); ; number += perBlock {
		b := receive(ctx, p.free)
		if b == nil {
			return
		}
		n, err := io.ReadFull(src, b.in[:size])
		ended := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !ended {
			p.err = err
			return
		}
		b.number, b.last, b.in = number, ended, b.in[:n]
		if before != nil {
			before.last = n == 0
			p.hand(before)
			if n == 0 {
				return
			}
		}
		if ended {
			p.hand(b)
			return
		}
		before = b
	}
}

// hand never waits: there is room for all blocks.
func (p *pipe) hand(b *block) {
	p.order <- b
	p.todo <- b
}

func (p *pipe) work(ctx context.Context, do func(*block)) {
	for b := receive(ctx, p.todo); b != nil; b = receive(ctx, p.todo) {
		do(b)
		b.done <- struct{}{}
	}
}

func (p *pipe) write(ctx context.Context, dst io.Writer) error {
	wrote := make(chan error, 1)
	for {
		b := receive(ctx, p.order)
		if b == nil {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			return p.err
		}
		select {
		case <-b.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		// What opened before the chunk that did not is authentic.
		go func() { _, err := dst.Write(b.out); wrote <- err }()
		select {
		case err := <-wrote:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if b.err != nil {
			return b.err
		}
		p.free <- b
	}
}

// receive takes the next block; nil when there is none or ctx has ended.
func receive(ctx context.Context, from <-chan *block) *block {
	select {
	case b := <-from:
		return b
	case <-ctx.Done():
		return nil
	}
}
