package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"github.com/leasehold/leasehold/api"
)

func kvMetadataCommand() *command {
	return &command{
		name: "metadata", short: "Versions and settings of a secret (version 2)",
		sub: []*command{kvMetadataGetCommand(), kvMetadataPutCommand(), kvMetadataPatchCommand(), kvMetadataDeleteCommand()},
	}
}

// kvV2 finds a secret that must be in a version 2 store.
func (c *call) kvV2(ctx context.Context, mount string) (kvPath, error) {
	p, err := c.kvFind(ctx, mount)
	if err == nil && !p.v2 {
		err = localf("%s is a version 1 store: it keeps no metadata", p.mount)
	}
	return p, err
}

func kvMetadataGetCommand() *command {
	var mount string
	return &command{
		name: "get", args: "PATH", min: 1, max: 1,
		short: "Show a secret's versions and settings", example: []string{"leasehold kv metadata get secret/app"},
		flags: []*flag{mountFlag(&mount)},
		run: func(ctx context.Context, c *call) error {
			p, err := c.kvV2(ctx, mount)
			if err != nil {
				return err
			}
			path := p.at("metadata")
			s, err := keepMissing(c.read(ctx, path))
			if err != nil {
				return step(err, "reading %s", path)
			}
			if s == nil {
				return &notFound{"No value found at " + path}
			}
			if c.format != formatTable || s.WrapInfo != nil {
				return c.printSecret(s, "")
			}
			all, err := parseValue(s.Data)
			if err != nil {
				return err
			}
			c.printPath("Metadata Path", path)
			c.printSection("Metadata", all.without("versions"))
			versions, _ := all.get("versions")
			slices.SortFunc(versions.fields, func(a, b field) int { return number(a.name) - number(b.name) })
			for _, v := range versions.fields {
				c.printf("\n")
				c.printSection("Version "+v.name, v.value)
			}
			return nil
		},
	}
}

func number(s string) int { n, _ := strconv.Atoi(s); return n } // keys are the server's own counters

// kvMetadata is what of a secret's settings was given.
type kvMetadata struct {
	CASRequired        *bool                      `json:"cas_required,omitempty"`
	CustomMetadata     map[string]json.RawMessage `json:"custom_metadata,omitempty"`
	DeleteVersionAfter string                     `json:"delete_version_after,omitempty"`
	MaxVersions        *int                       `json:"max_versions,omitempty"`

	custom map[string]string
}

func (m *kvMetadata) flags() []*flag {
	return []*flag{
		optBoolFlag(&m.CASRequired, "cas-required", "Refuse writes that do not name the current version."),
		pairsFlag(&m.custom, "custom-metadata", "Field of your own; may be repeated."),
		durationFlag(&m.DeleteVersionAfter, "delete-version-after", "Delete each version after this time."),
		optIntFlag(&m.MaxVersions, "max-versions", "How many versions to keep."),
	}
}

func (m *kvMetadata) fill(remove []string) {
	if len(m.custom) > 0 || len(remove) > 0 {
		m.CustomMetadata = map[string]json.RawMessage{}
	}
	for k, v := range m.custom {
		m.CustomMetadata[k] = appendJSONString(nil, v)
	}
	for _, k := range remove {
		m.CustomMetadata[k] = json.RawMessage("null")
	}
}

func kvMetadataPutCommand() *command {
	var mount string
	var m kvMetadata
	return &command{
		name: "put", args: "PATH", min: 1, max: 1,
		short: "Set a secret's settings", long: "Sets a secret's settings. Custom metadata is replaced as a whole.",
		example: []string{"leasehold kv metadata put -max-versions=5 secret/app"},
		flags:   append(m.flags(), mountFlag(&mount)),
		run: func(ctx context.Context, c *call) error {
			return c.kvWriteMetadata(ctx, http.MethodPut, mount, &m, nil)
		},
	}
}

func kvMetadataPatchCommand() *command {
	var mount string
	var remove []string
	var m kvMetadata
	return &command{
		name: "patch", args: "PATH", min: 1, max: 1,
		short:   "Change some of a secret's settings",
		example: []string{"leasehold kv metadata patch -remove-custom-metadata=owner secret/app"},
		flags: append(m.flags(), mountFlag(&mount),
			listFlag(&remove, "remove-custom-metadata", "KEY", "Field of your own to take away; may be repeated.")),
		run: func(ctx context.Context, c *call) error {
			return c.kvWriteMetadata(ctx, http.MethodPatch, mount, &m, remove)
		},
	}
}

func (c *call) kvWriteMetadata(ctx context.Context, method, mount string, m *kvMetadata, remove []string) error {
	p, err := c.kvV2(ctx, mount)
	if err != nil {
		return err
	}
	m.fill(remove)
	path := p.at("metadata")
	s, err := c.do(ctx, &api.Request{Method: method, Path: path, Body: m})
	if err != nil {
		return step(err, "writing data to %s", path)
	}
	return c.printWritten(s, "", path)
}

func kvMetadataDeleteCommand() *command {
	var mount string
	return &command{
		name: "delete", args: "PATH", min: 1, max: 1,
		short: "Delete a secret with all its versions", example: []string{"leasehold kv metadata delete secret/app"},
		flags: []*flag{mountFlag(&mount)},
		run: func(ctx context.Context, c *call) error {
			p, err := c.kvV2(ctx, mount)
			if err != nil {
				return err
			}
			if _, err := c.remove(ctx, p.at("metadata")); err != nil {
				return step(err, "deleting %s", p.at("metadata"))
			}
			c.say("Success! Data deleted (if it existed) at: %s", p.at("metadata"))
			return nil
		},
	}
}
