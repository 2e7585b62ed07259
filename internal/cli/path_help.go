package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/leasehold/leasehold/api"
)

func pathHelpCommand() *command {
	return &command{
		name: "path-help", args: "PATH", min: 1, max: 1, plain: true,
		short: "Tell what a path offers", example: []string{"leasehold path-help database/roles/x"},
		long: "Asks the server about a path: its operations and their fields. A mount's own path answers with what is below it.",
		run: func(ctx context.Context, c *call) error {
			return c.printPathHelp(ctx, cleanPath(c.arg(0)))
		},
	}
}

func (c *call) printPathHelp(ctx context.Context, path string) error {
	cl, err := c.client()
	if err != nil {
		return err
	}
	resp, err := cl.Do(ctx, &api.Request{Method: http.MethodGet, Path: path, Query: map[string][]string{"help": {"1"}}})
	if err != nil {
		return step(err, "retrieving help for %s", path)
	}
	var out struct {
		Help string
		Data struct{ Help string }
	}
	if err := json.Unmarshal(resp.Body, &out); err != nil {
		return fmt.Errorf("reading the help: %w", err)
	}
	if out.Help == "" {
		out.Help = out.Data.Help
	}
	c.printf("%s\n", strings.TrimRight(out.Help, "\n"))
	return nil
}
