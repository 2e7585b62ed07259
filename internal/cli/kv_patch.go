package cli

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/leasehold/leasehold/api"
)

func kvPatchCommand() *command {
	var field, mount, method string
	var cas *int
	var remove []string
	return &command{
		name: "patch", args: "PATH [KEY=VALUE | @FILE | -] …", min: 1, max: -1,
		short:   "Change some fields of a secret (version 2)",
		long:    "Makes a new version in which the given fields are changed.\n\n" + writeData,
		example: []string{"leasehold kv patch secret/app pass=@new.txt", "leasehold kv patch -remove-data=pass secret/app"},
		flags: []*flag{
			optIntFlag(&cas, "cas", "Change only if the current version is N."),
			fieldFlag(&field), mountFlag(&mount),
			stringFlag(&method, "method", "NAME", "patch (one request) or rw (read, then write). By default patch, and rw where the server or the policy does not allow it."),
			listFlag(&remove, "remove-data", "KEY", "Field to take away; may be repeated."),
		},
		run: func(ctx context.Context, c *call) error {
			if method != "" && method != "patch" && method != "rw" {
				return localf("-method=%s: want patch or rw", method)
			}
			if len(c.args) < 2 && len(remove) == 0 {
				return localf("There is nothing to change: add KEY=VALUE, @FILE, - or -remove-data=KEY")
			}
			in, err := c.parseInput(c.args[1:])
			if err != nil {
				return err
			}
			for _, k := range remove {
				in.put(k, json.RawMessage("null"))
			}
			p, err := c.kvFind(ctx, mount)
			if err != nil {
				return err
			}
			if !p.v2 {
				return localf("%s is a version 1 store, which cannot be patched: use \"leasehold kv put\"", p.mount)
			}
			s, err := c.kvPatch(ctx, p, in, cas, method)
			if err != nil {
				return err
			}
			return c.printKVWritten(s, p, field)
		},
	}
}

func (c *call) kvPatch(ctx context.Context, p kvPath, in *input, cas *int, method string) (*api.Secret, error) {
	if method != "rw" {
		s, err := c.do(ctx, &api.Request{Method: http.MethodPatch, Path: p.at("data"), Body: kvBody{in, casOptions(cas)}})
		status := api.StatusOf(err)
		if method == "patch" || status != http.StatusMethodNotAllowed && status != http.StatusForbidden {
			if s, err := keepMissing(s, err); err == nil && s == nil {
				return nil, &notFound{"No value found at " + p.at("data")}
			}
			return s, step(err, "writing data to %s", p.at("data"))
		}
	}
	// Read, then write what was read with a condition, so that nothing that
	// somebody writes in between is lost.
	s, err := keepMissing(c.doPlain(ctx, &api.Request{Method: http.MethodGet, Path: p.at("data")}))
	if err != nil {
		return nil, step(err, "reading %s", p.at("data"))
	}
	if s == nil {
		return nil, &notFound{"No value found at " + p.at("data")}
	}
	var old struct {
		Data     map[string]json.RawMessage `json:"data"`
		Metadata struct{ Version int }      `json:"metadata"`
	}
	if err := s.Decode(&old); err != nil {
		return nil, err
	}
	if old.Data == nil {
		old.Data = map[string]json.RawMessage{}
	}
	for _, k := range in.keys {
		if string(in.values[k]) == "null" {
			delete(old.Data, k)
		} else {
			old.Data[k] = in.values[k]
		}
	}
	if cas == nil || *cas < 0 {
		cas = &old.Metadata.Version
	}
	s, err = c.write(ctx, p.at("data"), kvBody{old.Data, casOptions(cas)})
	return s, step(err, "writing data to %s", p.at("data"))
}
