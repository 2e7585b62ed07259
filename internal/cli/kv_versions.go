package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/leasehold/leasehold/api"
)

func kvDeleteCommand() *command {
	var field, mount string
	var versions []string
	return &command{
		name: "delete", args: "PATH", min: 1, max: 1,
		short: "Delete a secret or versions of it",
		long: "Deletes a secret. In version 2 the newest version (or those of -versions) is " +
			"hidden and \"kv undelete\" brings it back; \"kv destroy\" is for good.",
		example: []string{"leasehold kv delete -versions=1,2 secret/app"},
		flags:   []*flag{fieldFlag(&field).hide(), mountFlag(&mount), versionsFlag(&versions)},
		run: func(ctx context.Context, c *call) error {
			p, err := c.kvFind(ctx, mount)
			if err != nil {
				return err
			}
			if p.v2 && len(versions) > 0 {
				_, err = c.write(ctx, p.at("delete"), versionsBody{versions})
			} else {
				_, err = c.remove(ctx, p.at("data"))
			}
			if err != nil {
				return step(err, "deleting %s", p.at("data"))
			}
			c.say("Success! Data deleted (if it existed) at: %s", p.at("data"))
			return nil
		},
	}
}

type versionsBody struct {
	Versions []string `json:"versions"`
}

func kvUndeleteCommand() *command {
	return kvVersions("undelete", "Bring deleted versions back", "leasehold kv undelete -versions=2 secret/app")
}

func kvDestroyCommand() *command {
	return kvVersions("destroy", "Remove versions for good", "leasehold kv destroy -versions=1,2 secret/app")
}

// kvVersions is undelete and destroy: the same request at another path.
func kvVersions(name, short, example string) *command {
	var mount string
	var versions []string
	return &command{
		name: name, args: "PATH", min: 1, max: 1, short: short, example: []string{example},
		flags: []*flag{mountFlag(&mount), versionsFlag(&versions)},
		run: func(ctx context.Context, c *call) error {
			if len(versions) == 0 {
				return localf("Which versions? Add -versions=1,2")
			}
			p, err := c.kvFind(ctx, mount)
			if err != nil {
				return err
			}
			if !p.v2 {
				return localf("%s is a version 1 store: it keeps no versions", p.mount)
			}
			s, err := c.write(ctx, p.at(name), versionsBody{versions})
			if err != nil {
				return step(err, "writing data to %s", p.at(name))
			}
			return c.printWritten(s, "", p.at(name))
		},
	}
}

func kvRollbackCommand() *command {
	var mount string
	var version *int
	return &command{
		name: "rollback", args: "PATH", min: 1, max: 1,
		short:   "Make an old version the newest again",
		example: []string{"leasehold kv rollback -version=2 secret/app"},
		flags:   []*flag{mountFlag(&mount), optIntFlag(&version, "version", "The version to go back to.")},
		run: func(ctx context.Context, c *call) error {
			if version == nil || *version < 1 {
				return localf("Which version? Add -version=N")
			}
			p, err := c.kvFind(ctx, mount)
			if err != nil {
				return err
			}
			if !p.v2 {
				return localf("%s is a version 1 store: it keeps no versions", p.mount)
			}
			s, err := c.kvRollback(ctx, p, *version)
			if err != nil {
				return err
			}
			return c.printKVWritten(s, p, "")
		},
	}
}

func (c *call) kvRollback(ctx context.Context, p kvPath, version int) (*api.Secret, error) {
	var meta struct {
		CurrentVersion int `json:"current_version"`
	}
	s, err := keepMissing(c.doPlain(ctx, &api.Request{Method: http.MethodGet, Path: p.at("metadata")}))
	switch {
	case err != nil:
		return nil, step(err, "reading %s", p.at("metadata"))
	case s == nil:
		return nil, &notFound{"No value found at " + p.at("data")}
	}
	if err := s.Decode(&meta); err != nil {
		return nil, err
	}
	s, err = c.doPlain(ctx, &api.Request{Method: http.MethodGet, Path: p.at("data"), Query: map[string][]string{"version": {fmt.Sprint(version)}}})
	var old struct{ Data json.RawMessage }
	if err == nil {
		err = s.Decode(&old)
	}
	var refused *api.Error
	if errors.As(err, &refused) && refused.Secret != nil || err == nil && string(old.Data) == "null" {
		return nil, localf("Version %d of %s is deleted: \"leasehold kv undelete\" brings it back, if it was not destroyed", version, p.at("data"))
	}
	if api.IsNotFound(err) && len(refused.Errors) == 0 {
		return nil, &notFound{fmt.Sprintf("%s has no version %d: \"leasehold kv metadata get\" shows which it has", p.at("data"), version)}
	}
	if err != nil {
		return nil, step(err, "reading version %d of %s", version, p.at("data"))
	}
	s, err = c.write(ctx, p.at("data"), kvBody{old.Data, casOptions(&meta.CurrentVersion)})
	return s, step(err, "writing data to %s", p.at("data"))
}
