package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/hashicorp/hcl/hcl/printer"

	"github.com/leasehold/leasehold/api"
	"github.com/leasehold/leasehold/internal/policy"
)

const policyPath = "sys/policies/acl"

func policyCommand() *command {
	return &command{
		name: "policy", short: "Write and read policies: who may do what",
		long: "A policy grants capabilities on paths. Tokens carry the names of theirs.",
		sub:  []*command{policyListCommand(), policyReadCommand(), policyWriteCommand(), policyDeleteCommand(), policyFmtCommand()},
	}
}

func policyListCommand() *command {
	return &command{
		name: "list", max: 0, short: "List the policies", example: []string{"leasehold policy list"},
		run: func(ctx context.Context, c *call) error {
			s, err := c.do(ctx, &api.Request{Method: "LIST", Path: policyPath})
			if err != nil {
				return step(err, "listing policies")
			}
			var out struct{ Keys []string }
			if err := decode(s, &out); err != nil {
				return err
			}
			return c.print(out.Keys, func() { c.printf("%s\n", strings.Join(out.Keys, "\n")) })
		},
	}
}

func policyReadCommand() *command {
	return &command{
		name: "read", args: "NAME", min: 1, max: 1, short: "Print a policy", example: []string{"leasehold policy read app"},
		run: func(ctx context.Context, c *call) error {
			name := strings.ToLower(strings.TrimSpace(c.arg(0)))
			s, err := keepMissing(c.read(ctx, policyPath+"/"+name))
			if err != nil {
				return step(err, "reading policy named %s", name)
			}
			if s == nil {
				return &notFound{"No policy named: " + name}
			}
			var out struct {
				Policy string `json:"policy"`
			}
			if err := decode(s, &out); err != nil {
				return err
			}
			return c.print(out, func() { c.printf("%s\n", strings.TrimSpace(out.Policy)) })
		},
	}
}

func policyWriteCommand() *command {
	return &command{
		name: "write", args: "NAME FILE|-", min: 2, max: 2, short: "Store a policy from a file or standard input",
		example: []string{"leasehold policy write app app.hcl"},
		run: func(ctx context.Context, c *call) error {
			name := strings.ToLower(strings.TrimSpace(c.arg(0)))
			rules, err := c.file(c.arg(1))
			if err != nil {
				return err
			}
			if len(bytes.TrimSpace(rules)) == 0 {
				return localf("%s holds no policy", c.arg(1))
			}
			_, err = c.write(ctx, policyPath+"/"+name, struct {
				Policy string `json:"policy"`
			}{string(rules)})
			if err != nil {
				return step(err, "uploading policy")
			}
			c.say("Success! Uploaded policy: %s", name)
			return nil
		},
	}
}

func policyDeleteCommand() *command {
	return &command{
		name: "delete", args: "NAME", min: 1, max: 1, short: "Delete a policy",
		long:    "Deletes a policy. Tokens that carry its name lose what it granted at once.",
		example: []string{"leasehold policy delete app"},
		run: func(ctx context.Context, c *call) error {
			name := strings.ToLower(strings.TrimSpace(c.arg(0)))
			if _, err := c.remove(ctx, policyPath+"/"+name); err != nil {
				return step(err, "deleting %s", name)
			}
			c.say("Success! Deleted policy: %s", name)
			return nil
		},
	}
}

// The parser recurses, so what is deep or large is refused before it sees it.
const (
	maxPolicySize  = 256 << 10
	maxPolicyDepth = 64
)

func policyFmtCommand() *command {
	return &command{
		name: "fmt", args: "FILE", min: 1, max: 1, local: true, short: "Format a policy file in place",
		example: []string{"leasehold policy fmt app.hcl"},
		run: func(_ context.Context, c *call) error {
			name := expandHome(c.cfg.Getenv, c.arg(0))
			src, err := c.file(name)
			if err != nil {
				return err
			}
			if err := checkNesting(src); err != nil {
				return localf("%s: %v", name, err)
			}
			out, err := printer.Format(src)
			if err != nil {
				return localf("%s: %v", name, err)
			}
			if _, err := policy.Parse("", string(src)); err != nil {
				return localf("%s: %v", name, err)
			}
			info, err := os.Stat(name)
			if err != nil {
				return localf("%v", err)
			}
			if err := os.WriteFile(name, out, info.Mode().Perm()); err != nil {
				return localf("%v", err)
			}
			c.printf("Success! Formatted policy: %s\n", c.arg(0))
			return nil
		},
	}
}

func checkNesting(src []byte) error {
	if len(src) > maxPolicySize {
		return fmt.Errorf("larger than %d KiB", maxPolicySize>>10)
	}
	depth := 0
	for _, b := range src {
		switch b {
		case '{', '[', '(':
			if depth++; depth > maxPolicyDepth {
				return fmt.Errorf("nested more than %d deep", maxPolicyDepth)
			}
		case '}', ']', ')':
			depth--
		}
	}
	return nil
}
