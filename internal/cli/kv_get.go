package cli

import (
	"context"
	"fmt"
	"net/http"

	"github.com/leasehold/leasehold/api"
)

func kvGetCommand() *command {
	var field, mount string
	var version *int
	return &command{
		name: "get", args: "PATH", min: 1, max: 1,
		short:   "Read a secret",
		example: []string{"leasehold kv get -field=pass secret/app"},
		flags: []*flag{
			fieldFlag(&field), mountFlag(&mount),
			optIntFlag(&version, "version", "Read this version instead of the newest."),
		},
		run: func(ctx context.Context, c *call) error {
			p, err := c.kvFind(ctx, mount)
			if err != nil {
				return err
			}
			req := &api.Request{Method: http.MethodGet, Path: p.at("data")}
			if version != nil && p.v2 {
				req.Query = map[string][]string{"version": {fmt.Sprint(*version)}}
			}
			if c.format == formatRaw && field == "" {
				return c.printRaw(ctx, req, "reading "+req.Path)
			}
			s, err := keepMissing(c.do(ctx, req))
			if err != nil {
				return step(err, "reading %s", req.Path)
			}
			if s == nil || !hasContent(s) {
				return &notFound{"No value found at " + req.Path}
			}
			return c.printKV(s, p, field)
		},
	}
}

// printKV shows a secret's fields, and for version 2 its metadata before them.
func (c *call) printKV(s *api.Secret, p kvPath, fieldName string) error {
	all, err := parseValue(s.Data)
	if err != nil {
		return err
	}
	data := all
	if p.v2 {
		data, _ = all.get("data")
	}
	switch {
	case s.WrapInfo != nil:
		return c.printSecret(s, fieldName)
	case fieldName != "" && fieldName == "data" && p.v2:
		return c.printBare(fieldName, data)
	case fieldName != "":
		return c.printField(&api.Secret{}, data, fieldName)
	case c.format != formatTable:
		return c.printSecret(s, "")
	}
	if p.v2 {
		c.printPath("Secret Path", p.at("data"))
		if meta, ok := all.get("metadata"); ok {
			c.printSection("Metadata", meta)
			if data.kind != kindNull {
				c.printf("\n")
			}
		}
	}
	if data.kind != kindNull {
		c.printSection("Data", data)
	}
	return nil
}
