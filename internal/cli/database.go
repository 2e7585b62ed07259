package cli

import (
	"context"
	"slices"
)

func databaseCommand() *command {
	return &command{
		name: "database", short: "Help with databases that credentials are made for",
		sub: []*command{databaseDoctorCommand()},
	}
}

// doctorReport is what {mount}/doctor/{name} answers.
type doctorReport struct {
	OK     bool          `json:"ok"`
	Checks []doctorCheck `json:"checks"`
}

type doctorCheck struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Fix    string `json:"fix,omitempty"` // what to run on the database
}

func databaseDoctorCommand() *command {
	var mount string
	return &command{
		name: "doctor", args: "NAME", min: 1, max: 1, short: "Find out which GRANT a connection still needs",
		long: "Makes a user over the connection NAME, logs in as it, revokes it and drops it, " +
			"and names the exact statement that is missing where a step fails. Exit code 2 " +
			"if any does.",
		example: []string{"leasehold database doctor app"},
		flags:   []*flag{stringFlag(&mount, "mount", "PATH", "Mount of the database engine; by default database.")},
		run: func(ctx context.Context, c *call) error {
			if mount = cleanPath(mount); mount == "" {
				mount = "database"
			}
			name := c.arg(0)
			s, err := c.write(ctx, mount+"/doctor/"+name, nil)
			if err != nil {
				return step(err, "examining the connection %s", name)
			}
			var rep doctorReport
			if err := decode(s, &rep); err != nil {
				return err
			}
			if err := c.printDoctor(rep); err != nil {
				return err
			}
			if !rep.healthy() {
				return exitStatus(exitServer)
			}
			return nil
		},
	}
}

func (r doctorReport) healthy() bool {
	for _, ch := range r.Checks {
		if !ch.OK {
			return false
		}
	}
	return len(r.Checks) > 0
}

func (c *call) printDoctor(rep doctorReport) error {
	detailed := slices.ContainsFunc(rep.Checks, func(ch doctorCheck) bool { return ch.Detail != "" })
	t := newTable("Check", "Result")
	if detailed {
		t = newTable("Check", "Result", "Detail")
	}
	for _, ch := range rep.Checks {
		row := []string{ch.Name, "ok"}
		if !ch.OK {
			row[1] = "FAILED"
		}
		if detailed {
			row = append(row, ch.Detail)
		}
		t.add(row...)
	}
	if err := c.printTable(t, rep); err != nil {
		return err
	}
	if c.format != formatTable {
		return nil
	}
	if rep.healthy() {
		c.printf("\nThe connection can do all that leases need.\n")
		return nil
	}
	seen := map[string]bool{}
	for _, ch := range rep.Checks {
		if ch.Fix == "" || seen[ch.Fix] {
			continue
		}
		if len(seen) == 0 {
			c.printf("\nTo be run on the database by somebody who may:\n\n")
		}
		seen[ch.Fix] = true
		c.printf("%s\n", indent(ch.Fix, "    ", "    "))
	}
	return nil
}
