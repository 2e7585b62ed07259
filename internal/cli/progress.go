package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

// progress shows on the terminal how far a file has been read, once that has
// taken a moment, until the function it returns is called. size is -1 if it is
// not known. Where standard error is no terminal it shows nothing.
func (c *call) progress(r io.Reader, size int64, doing string) (io.Reader, func()) {
	tty, ok := c.cfg.Stderr.(*os.File)
	if !ok || !term.IsTerminal(int(tty.Fd())) {
		return r, func() {}
	}
	counted := &countingReader{Reader: r}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		begun, shown := time.Now(), false
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				width, _, err := term.GetSize(int(tty.Fd()))
				if err != nil || width <= 0 {
					width = 80
				}
				fmt.Fprint(tty, "\r"+progressLine(doing, counted.n.Load(), size, time.Since(begun), width-1)+"\x1b[K")
				shown = true
			case <-stop:
				if shown {
					fmt.Fprint(tty, "\r\x1b[K")
				}
				return
			}
		}
	})
	return counted, sync.OnceFunc(func() { close(stop); wg.Wait() })
}

type countingReader struct {
	io.Reader
	n atomic.Int64
}

func (r *countingReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.n.Add(int64(n))
	return n, err
}

// progressLine is what is shown, in at most width columns.
func progressLine(doing string, done, size int64, taken time.Duration, width int) string {
	speed := float64(done) / max(taken.Seconds(), 0.001)
	text := fmt.Sprintf("%s  %s  %s/s", doing, bytesText(float64(done)), bytesText(speed))
	if size > 0 {
		part := min(float64(done)/float64(size), 1)
		text = fmt.Sprintf("%s  %3.0f %%  %s of %s  %s/s", doing, 100*part, bytesText(float64(done)), bytesText(float64(size)), bytesText(speed))
		if left := float64(size-done) / max(speed, 1); left > 0 && left < 100*3600 {
			text += fmt.Sprintf("  %s left", time.Duration(left*float64(time.Second)).Round(time.Second))
		}
		if bar := min(width-len(text)-4, 30); bar >= 5 {
			full := int(part * float64(bar))
			text += "  [" + strings.Repeat("=", full) + strings.Repeat(" ", bar-full) + "]"
		}
	}
	return text[:min(len(text), max(width, 0))]
}

// bytesText is a number of bytes for people.
func bytesText(n float64) string {
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if n < 1000 {
			if unit == "B" {
				return fmt.Sprintf("%.0f B", n)
			}
			return fmt.Sprintf("%.1f %s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.1f TB", n)
}
