package cli

import (
	"context"
	"fmt"
	"strings"
)

func auditCommand() *command {
	return &command{
		name: "audit", short: "Say where requests are recorded",
		long: "An audit device records every request and reply. With one enabled, nothing is answered before one has taken the record.",
		sub:  []*command{auditListCommand(), auditEnableCommand(), auditDisableCommand()},
	}
}

type auditDevice struct {
	Type        string            `json:"type"`
	Description string            `json:"description"`
	Options     map[string]string `json:"options"`
	Local       bool              `json:"local"`
}

func auditListCommand() *command {
	var detailed bool
	return &command{
		name: "list", max: 0, short: "List the audit devices", example: []string{"leasehold audit list -detailed"},
		flags: []*flag{boolFlag(&detailed, "detailed", "Show all settings.")},
		run: func(ctx context.Context, c *call) error {
			s, err := c.read(ctx, "sys/audit")
			if err != nil {
				return step(err, "listing audits")
			}
			devices := map[string]auditDevice{}
			if s.HasData() || s != nil && s.WrapInfo != nil {
				if err := decode(s, &devices); err != nil {
					return err
				}
			}
			if len(devices) == 0 && c.format == formatTable {
				return &notFound{"No audit devices are enabled."}
			}
			data, err := parseValue(s.Data)
			if err != nil {
				return err
			}
			return c.printTable(auditTable(devices, detailed), data)
		},
	}
}

func auditTable(devices map[string]auditDevice, detailed bool) *table {
	t := newTable("Path", "Type", "Description")
	if detailed {
		t = newTable("Path", "Type", "Description", "Replication", "Options")
	}
	for _, path := range sortedKeys(devices) {
		d := devices[path]
		cells := []string{path, d.Type, d.Description}
		if detailed {
			replication := "replicated"
			if d.Local {
				replication = "local"
			}
			var opts []string
			for _, k := range sortedKeys(d.Options) {
				opts = append(opts, fmt.Sprintf("%s=%s", k, d.Options[k]))
			}
			cells = append(cells, replication, strings.Join(opts, " "))
		}
		t.add(cells...)
	}
	return t
}

func auditEnableCommand() *command {
	var path, description string
	var local bool
	return &command{
		name: "enable", args: "TYPE [KEY=VALUE …]", min: 1, max: -1, short: "Enable an audit device",
		long: "Enables an audit device: file (file_path=…, or stdout), socket (address=…) or syslog.", example: []string{"leasehold audit enable file file_path=/var/log/leasehold.log"},
		flags: []*flag{
			stringFlag(&path, "path", "PATH", "Its name; by default its type."),
			stringFlag(&description, "description", "TEXT", "What it is for."),
			boolFlag(&local, "local", "").hide(),
		},
		run: func(ctx context.Context, c *call) error {
			typ := c.arg(0)
			if path = cleanPath(path); path == "" {
				path = typ
			}
			options, err := c.parseInput(c.args[1:])
			if err != nil {
				return err
			}
			_, err = c.write(ctx, "sys/audit/"+path, struct {
				Type        string `json:"type"`
				Description string `json:"description"`
				Options     *input `json:"options"`
				Local       bool   `json:"local"`
			}{typ, description, options, local})
			if err != nil {
				return step(err, "enabling audit device")
			}
			c.say("Success! Enabled the %s audit device at: %s/", typ, path)
			return nil
		},
	}
}

func auditDisableCommand() *command {
	return &command{
		name: "disable", args: "PATH", min: 1, max: 1, short: "Disable an audit device", example: []string{"leasehold audit disable file/"},
		run: func(ctx context.Context, c *call) error {
			path := cleanPath(c.arg(0))
			if _, err := c.remove(ctx, "sys/audit/"+path); err != nil {
				return step(err, "disabling audit device")
			}
			c.say("Success! Disabled audit device (if it was enabled) at: %s/", path)
			return nil
		},
	}
}
