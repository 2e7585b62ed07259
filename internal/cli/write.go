package cli

import (
	"context"
	"net/http"

	"github.com/leasehold/leasehold/api"
)

func forceFlag(to *bool) *flag {
	return boolFlag(to, "force", "Send the request although there is no data.").alias("f")
}

const writeData = "Data comes as KEY=VALUE; a value of @FILE is read from that file, one of - from " +
	"standard input. A sole @FILE or - holds a JSON object."

func writeCommand() *command {
	var field string
	var force bool
	return &command{
		name: "write", args: "PATH [KEY=VALUE | @FILE | -] …", min: 1, max: -1,
		short: "Write data or settings, run an operation",
		long:  "Writes data to a path. What that does is the path's affair: store, configure, log in, encrypt.\n\n" + writeData,
		example: []string{
			"leasehold write database/roles/ro db_name=app member_of=app_read ttl=1h",
			"leasehold write sys/policies/password/long policy=@long.hcl",
		},
		flags: []*flag{fieldFlag(&field), forceFlag(&force)},
		run: func(ctx context.Context, c *call) error {
			return sendData(ctx, c, http.MethodPut, force, field)
		},
	}
}

func patchCommand() *command {
	var field string
	var force bool
	return &command{
		name: "patch", args: "PATH [KEY=VALUE | @FILE | -] …", min: 1, max: -1,
		short:   "Change parts of what is at a path",
		long:    "Changes the given fields and leaves the others (JSON merge patch).\n\n" + writeData,
		example: []string{"leasehold patch pki/roles/web ttl=24h"},
		flags:   []*flag{fieldFlag(&field), forceFlag(&force)},
		run: func(ctx context.Context, c *call) error {
			return sendData(ctx, c, http.MethodPatch, force, field)
		},
	}
}

// sendData is write and patch: they differ in the method alone.
func sendData(ctx context.Context, c *call, method string, force bool, field string) error {
	path := cleanPath(c.arg(0))
	if len(c.args) == 1 && !force {
		return localf("There is no data to write to %s. Add KEY=VALUE, @FILE or -; or -force for a path that takes none.", path)
	}
	var body any
	if len(c.args) > 1 {
		in, err := c.parseInput(c.args[1:])
		if err != nil {
			return err
		}
		body = in
	}
	s, err := c.do(ctx, &api.Request{Method: method, Path: path, Body: body})
	if err != nil {
		return step(err, "writing data to %s", path)
	}
	c.onceSecret(s)
	return c.printWritten(s, field, path)
}

// printWritten prints a write's reply, or that it worked where there is none.
func (c *call) printWritten(s *api.Secret, field, path string) error {
	if !hasContent(s) {
		if field != "" {
			return localf("Field %q not present: the server answered nothing", field)
		}
		c.say("Success! Data written to: %s", path)
		return nil
	}
	return c.printSecret(s, field)
}

// hasContent is false for replies that only carry warnings, which are printed
// by themselves.
func hasContent(s *api.Secret) bool {
	return s != nil && (s.HasData() || s.Auth != nil || s.WrapInfo != nil || s.LeaseID != "")
}
