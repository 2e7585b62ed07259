package cli

import (
	"context"
	"fmt"
	"strings"
	"time"
)

func operatorCommand() *command {
	return &command{
		name: "operator", short: "Initialise, unseal, rotate: the server's own keys",
		long: "What is stored is encrypted. A server starts sealed; key shares, or a seal in its " +
			"configuration, open it.",
		sub: []*command{
			operatorInitCommand(), operatorUnsealCommand(), operatorSealCommand(), operatorKeyStatusCommand(), operatorRotateCommand(),
			operatorRekeyCommand(), operatorGenerateRootCommand(), operatorFenceCommand(), operatorDiagnoseCommand(),
		},
	}
}

func operatorSealCommand() *command {
	return &command{
		name: "seal", max: 0, short: "Close the server until it is unsealed",
		long: "Throws the keys away that the server holds in memory. Nothing is served until it is unsealed.", example: []string{"leasehold operator seal"},
		run: func(ctx context.Context, c *call) error {
			if _, err := c.write(ctx, "sys/seal", nil); err != nil {
				return step(err, "sealing")
			}
			c.say("Success! The server is sealed.")
			return nil
		},
	}
}

type keyStatus struct {
	Term        int       `json:"term"`
	InstallTime time.Time `json:"install_time"`
	Encryptions int64     `json:"encryptions"`
}

func operatorKeyStatusCommand() *command {
	return &command{
		name: "key-status", max: 0, short: "Tell how old the encryption key is", example: []string{"leasehold operator key-status"},
		run: func(ctx context.Context, c *call) error { return c.printKeyStatus(ctx) },
	}
}

func (c *call) printKeyStatus(ctx context.Context) error {
	var k keyStatus
	if err := c.readInto(ctx, "sys/key-status", &k); err != nil {
		return step(err, "reading key status")
	}
	return c.print(k, func() {
		t := bareTable()
		t.row("Key Term", k.Term)
		t.row("Install Time", k.InstallTime.Format("02 Jan 06 15:04 MST"))
		t.row("Encryption Count", k.Encryptions)
		t.write(c.cfg.Stdout, false)
	})
}

func operatorRotateCommand() *command {
	return &command{
		name: "rotate", max: 0, short: "Begin a new encryption key",
		long: "New data is encrypted by a new key from now on; old data stays readable. The key shares stay the same: those change with \"operator rekey\".", example: []string{"leasehold operator rotate"},
		run: func(ctx context.Context, c *call) error {
			if _, err := c.write(ctx, "sys/rotate", nil); err != nil {
				return step(err, "rotating key")
			}
			c.say("Success! Rotated key\n")
			return c.printKeyStatus(ctx)
		},
	}
}

func operatorUnsealCommand() *command {
	var reset, migrate bool
	return &command{
		name: "unseal", args: "[KEY | -]", max: 1, short: "Give one key share to open the server",
		long: "Takes one share; the server opens when enough of them came, in any order. Without " +
			"an argument the share is asked for and not shown: that keeps it out of the shell's history.",
		example: []string{"leasehold operator unseal"},
		flags: []*flag{
			boolFlag(&reset, "reset", "Forget the shares given so far."),
			boolFlag(&migrate, "migrate", "").hide(),
		},
		run: func(ctx context.Context, c *call) error {
			body := struct {
				Key   string `json:"key,omitempty"`
				Reset bool   `json:"reset,omitempty"`
			}{Reset: reset}
			switch {
			case migrate:
				return localf("-migrate is not needed: with another seal in the server's configuration enough shares, given as ever, open it once, and it opens by that seal from then on")
			case !reset:
				key, err := c.given(c.arg(0), "Unseal Key (will be hidden):", true)
				if err != nil {
					return err
				}
				if body.Key = strings.TrimSpace(key); body.Key == "" {
					return localf("The key is empty")
				}
			}
			var st sealStatus
			s, err := c.write(ctx, "sys/unseal", body)
			if err != nil {
				return step(err, "unsealing")
			}
			if err := decode(s, &st); err != nil {
				return err
			}
			if !st.Sealed {
				cl, err := c.client()
				if err != nil {
					return err
				}
				if err := get(ctx, cl, "sys/leader", &st.leaderStatus); err != nil {
					return err
				}
			}
			return c.printStatus(&st)
		},
	}
}

func operatorFenceCommand() *command {
	const path = "sys/leases/fence"
	return &command{
		name: "fence", short: "See and lift the stop on expiry",
		long: "When the clock jumped, or the store was restored from a copy, leases are not " +
			"ended by time until they were compared with their targets or somebody confirms " +
			"that the clock is right. Issuing and revoking go on meanwhile.",
		sub: []*command{
			{
				name: "status", max: 0, short: "Tell whether expiry waits, and why", example: []string{"leasehold operator fence status"},
				run: func(ctx context.Context, c *call) error {
					s, err := c.read(ctx, path)
					if err != nil {
						return step(err, "reading the fence")
					}
					return c.printSecret(s, "")
				},
			},
			{
				name: "lift", max: 0, short: "Confirm that the clock is right: expiry goes on", example: []string{"leasehold operator fence lift"},
				run: func(ctx context.Context, c *call) error {
					_, err := c.write(ctx, path, struct {
						Confirm bool `json:"confirm"`
					}{true})
					if err != nil {
						return step(err, "lifting the fence")
					}
					c.say("Success! Leases end by time again.")
					return nil
				},
			},
		},
	}
}

// progress is "1/3".
func progress(done, of int) string { return fmt.Sprintf("%d/%d", done, of) }
