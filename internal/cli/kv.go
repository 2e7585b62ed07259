package cli

import (
	"context"
	"strings"

	"github.com/leasehold/leasehold/api"
)

func kvCommand() *command {
	return &command{
		name: "kv", short: "Work with secrets in a key-value store",
		long: "Stores and reads secrets in a key-value store. The path begins with the mount, " +
			"as in secret/app, or -mount names it. Version 2 keeps old versions, which can be " +
			"read, rolled back, deleted and destroyed.",
		example: []string{"leasehold kv put secret/app user=ann pass=@password.txt", "leasehold kv get -field=pass secret/app"},
		sub: []*command{
			kvPutCommand(), kvGetCommand(), kvPatchCommand(), kvListCommand(), kvDeleteCommand(), kvUndeleteCommand(),
			kvDestroyCommand(), kvRollbackCommand(), kvMetadataCommand(), kvEnableVersioningCommand(),
		},
	}
}

func mountFlag(to *string) *flag {
	return stringFlag(to, "mount", "PATH", "Mount of the store; PATH is then below it.")
}

func versionsFlag(to *[]string) *flag {
	f := listFlag(to, "versions", "N,…", "Versions, separated by commas.")
	f.set = func(s string) error {
		for _, v := range strings.Split(s, ",") {
			if v = strings.TrimSpace(v); v != "" {
				*to = append(*to, v)
			}
		}
		return nil
	}
	return f
}

// kvPath is a secret's place: in which mount, and of which kind.
type kvPath struct {
	mount string // without slashes at the ends
	rel   string
	v2    bool
}

// at is the API path for one use of the secret: data, metadata, delete, ….
func (p kvPath) at(use string) string {
	if !p.v2 {
		return joinPath(p.mount, p.rel)
	}
	return joinPath(p.mount, use, p.rel)
}

func joinPath(parts ...string) string {
	var out []string
	for _, p := range parts {
		if p = strings.Trim(p, "/"); p != "" {
			out = append(out, p)
		}
	}
	return strings.Join(out, "/")
}

// kvFind asks the server where the mount ends and which version it has. That
// question is asked even when the command's own request is only printed.
func (c *call) kvFind(ctx context.Context, mount string) (kvPath, error) {
	rel := cleanPath(c.arg(0))
	ask := rel
	if mount = cleanPath(mount); mount != "" {
		ask = mount
	}
	cl, err := c.realClient()
	if err != nil {
		return kvPath{}, err
	}
	var found struct {
		Path    string            `json:"path"`
		Options map[string]string `json:"options"`
	}
	s, err := cl.WithWrapTTL("").Read(ctx, "sys/internal/ui/mounts/"+ask, nil)
	switch {
	case api.IsNotFound(err):
		// A server too old to tell has version 1 only.
		first, rest, _ := strings.Cut(ask, "/")
		found.Path = first
		if mount == "" {
			rel = rest
		}
	case err != nil:
		return kvPath{}, step(err, "looking up the mount of %s", ask)
	default:
		if err := s.Decode(&found); err != nil {
			return kvPath{}, err
		}
		if mount == "" {
			rel = strings.Trim(strings.TrimPrefix(rel+"/", found.Path), "/")
		}
	}
	p := kvPath{mount: cleanPath(found.Path), rel: rel, v2: found.Options["version"] == "2"}
	if name, ok := strings.CutPrefix(p.rel, "data/"); ok && p.v2 && mount == "" {
		// The HTTP API has data/ there; the command adds it.
		c.note("Note: the secret's name is %q. Did you mean %q?", p.rel, name)
	}
	return p, nil
}

func (c *call) printPath(title, path string) {
	c.printf("%s\n%s\n\n", heading(title, len(path)), path)
}

// printSection is a headed Key/Value table of an object.
func (c *call) printSection(title string, data value) {
	t := newTable("Key", "Value")
	addFields(t, data)
	longest := len("Key")
	for _, f := range data.fields {
		longest = max(longest, len(f.name))
	}
	c.printf("%s\n", heading(title, longest+4+len("Value")))
	t.write(c.cfg.Stdout, true)
}

func kvListCommand() *command {
	var mount string
	return &command{
		name: "list", args: "[PATH]", min: 0, max: 1,
		short:   "List secrets",
		example: []string{"leasehold kv list secret/"},
		flags:   []*flag{mountFlag(&mount)},
		run: func(ctx context.Context, c *call) error {
			if len(c.args) == 0 && mount == "" {
				return localf("Not enough arguments (expected 1, got 0)%s", c.cmd.seeHelp())
			}
			p, err := c.kvFind(ctx, mount)
			if err != nil {
				return err
			}
			return c.list(ctx, p.at("metadata"))
		},
	}
}

func kvEnableVersioningCommand() *command {
	return &command{
		name: "enable-versioning", args: "MOUNT", min: 1, max: 1,
		short:   "Turn a version 1 store into version 2",
		example: []string{"leasehold kv enable-versioning kv1"},
		run: func(ctx context.Context, c *call) error {
			mount := cleanPath(c.arg(0))
			body := mountTune{Options: map[string]string{"version": "2"}}
			if _, err := c.write(ctx, "sys/mounts/"+mount+"/tune", body); err != nil {
				return step(err, "tuning secrets engine %s/", mount)
			}
			c.say("Success! Tuned the secrets engine at: %s/", mount)
			return nil
		},
	}
}
