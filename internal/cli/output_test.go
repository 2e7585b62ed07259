package cli_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/leasehold/leasehold/internal/cli"
)

// A pipe whose reader has left is what "| head" leaves behind.
func TestClosedPipeIsQuiet(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	r.Close()
	var errs bytes.Buffer
	if code := cli.Run(t.Context(), cli.Config{Stdout: w, Stderr: &errs}, []string{"help", "all"}); code != 0 || errs.Len() > 0 {
		t.Errorf("leasehold help all, into a closed pipe: exit %d and %q on standard error, want 0 and nothing", code, &errs)
	}
}
