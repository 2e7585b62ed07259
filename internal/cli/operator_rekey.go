package cli

import (
	"context"
	"net/http"

	"github.com/leasehold/leasehold/api"
)

// rekeyStatus is what sys/rekey/init and sys/rekey/update answer.
type rekeyStatus struct {
	Nonce                string   `json:"nonce"`
	Started              bool     `json:"started"`
	Threshold            int      `json:"t"`
	Shares               int      `json:"n"`
	Progress             int      `json:"progress"`
	Required             int      `json:"required"`
	VerificationRequired bool     `json:"verification_required"`
	VerificationNonce    string   `json:"verification_nonce,omitempty"`
	Complete             bool     `json:"complete,omitempty"`
	Keys                 []string `json:"keys,omitempty"`
	KeysB64              []string `json:"keys_base64,omitempty"`
	Warnings             []string `json:"warnings,omitempty"`
}

type rekeyOptions struct {
	init, cancel, status, verify, backup bool
	shares, threshold                    *int
	nonce, target, pgp                   string
}

func operatorRekeyCommand() *command {
	var o rekeyOptions
	return &command{
		name: "rekey", args: "[KEY | -]", max: 1, short: "Make new key shares from the old ones",
		long: "Makes new shares. Begin with -init; then each holder of an old share runs the " +
			"command with it. The one who completes the number sees the new shares.",
		example: []string{"leasehold operator rekey -init -key-shares=5 -key-threshold=3", "leasehold operator rekey"},
		flags: []*flag{
			boolFlag(&o.init, "init", "Begin."),
			optIntFlag(&o.shares, "key-shares", "How many new shares; 5 by default.").alias("n"),
			optIntFlag(&o.threshold, "key-threshold", "How many of them open the server; 3 by default.").alias("t"),
			stringFlag(&o.nonce, "nonce", "NONCE", "The nonce that -init printed: shows that it is the same rekeying."),
			boolFlag(&o.status, "status", "Tell how far it is."),
			boolFlag(&o.cancel, "cancel", "Give it up."),
			boolFlag(&o.verify, "verify", "With -init: demand the new shares once before they count. Otherwise: give a new share for that."),
			stringFlag(&o.target, "target", "WHICH", "barrier (the unseal key, by default) or recovery."),
			boolFlag(&o.backup, "backup", "").hide(), boolFlag(&o.backup, "backup-retrieve", "").hide(), boolFlag(&o.backup, "backup-delete", "").hide(),
			stringFlag(&o.pgp, "pgp-keys", "KEYS", "").hide(),
		},
		run: func(ctx context.Context, c *call) error { return c.rekey(ctx, &o) },
	}
}

func (c *call) rekey(ctx context.Context, o *rekeyOptions) error {
	base := "sys/rekey/"
	switch {
	case o.backup || o.pgp != "":
		return localf("Encrypting shares by PGP keys, and keeping such shares, is not supported yet")
	case o.target == "recovery":
		base = "sys/rekey-recovery-key/"
	case o.target != "" && o.target != "barrier":
		return localf("-target=%s: want barrier or recovery", o.target)
	}
	switch {
	case o.init:
		return c.rekeySend(ctx, base+"init", struct {
			Shares    int  `json:"secret_shares"`
			Threshold int  `json:"secret_threshold"`
			Verify    bool `json:"require_verification,omitempty"`
		}{or(o.shares, 5), or(o.threshold, 3), o.verify}, false)
	}
	where := base + "init"
	if o.verify {
		where = base + "verify"
	}
	var st rekeyStatus
	if err := c.readInto(ctx, where, &st); err != nil {
		return step(err, "reading rekey status")
	}
	nonce := o.nonce
	if nonce == "" {
		nonce = st.Nonce
	}
	switch {
	case o.status:
		return c.printRekey(&st, o.verify)
	case o.cancel:
		_, err := c.do(ctx, &api.Request{Method: http.MethodDelete, Path: where, Body: struct {
			Nonce string `json:"nonce,omitempty"`
		}{nonce}})
		if err != nil {
			return step(err, "canceling rekey")
		}
		c.say("Success! Canceled rekeying (if it was started)")
		return nil
	case !st.Started:
		return localf("No rekeying is in progress. Begin one:\n\n    %s operator rekey -init -key-shares=5 -key-threshold=3", programName)
	}
	c.note("Rekey operation nonce: %s", nonce)
	key, err := c.given(c.arg(0), "Unseal Key (will be hidden):", true)
	if err != nil {
		return err
	}
	update := base + "update"
	if o.verify {
		update = where
	}
	return c.rekeySend(ctx, update, struct {
		Key   string `json:"key"`
		Nonce string `json:"nonce"`
	}{key, nonce}, o.verify)
}

func (c *call) rekeySend(ctx context.Context, path string, body any, verifying bool) error {
	s, err := c.write(ctx, path, body)
	if err != nil {
		return step(err, "rekeying")
	}
	var st rekeyStatus
	if err := decode(s, &st); err != nil {
		return err
	}
	if len(st.KeysB64) > 0 {
		next := "From now on only they count: while the server is open, copy what it holds to another."
		if st.VerificationRequired {
			next = "They do not count yet: give the rekeying up and begin it anew.\n\n    " + programName + " operator rekey -cancel"
		}
		c.once("The new shares are lost: nothing shows them again. %s", next)
	}
	return c.printRekey(&st, verifying)
}

// printRekey shows how far it is. While the new shares are verified the answer
// has other fields: its nonce is that of verifying, and t says how many it takes.
func (c *call) printRekey(st *rekeyStatus, verifying bool) error {
	return c.print(st, func() {
		if st.Complete || len(st.KeysB64) > 0 {
			for i, k := range st.KeysB64 {
				c.printf("Key %d: %s\n", i+1, k)
			}
			c.printf("\nOperation nonce: %s\n\n", st.Nonce)
			switch {
			case len(st.Warnings) > 0: // it may be no success
				c.warn(st.Warnings)
			case verifying:
				c.printf("%s\n", wrap("Success! From now on the new shares open the server; the old ones are worth nothing.", 78))
			case st.VerificationRequired:
				c.printf("%s\n", wrap("The new shares do not count before enough of them were given to \""+programName+" operator rekey -verify\".", 78))
			default:
				c.printf("%s\n", wrap("Success! From now on the new shares open the server; the old ones are worth nothing. They are shown this once.", 78))
			}
			return
		}
		t := newTable("Key", "Value")
		t.row("Nonce", st.Nonce)
		t.row("Started", st.Started)
		switch {
		case st.Started && verifying:
			t.row("New Shares", st.Shares)
			t.row("New Threshold", st.Threshold)
			t.row("Verification Progress", progress(st.Progress, st.Threshold))
		case st.Started:
			t.row("Rekey Progress", progress(st.Progress, st.Required))
			t.row("New Shares", st.Shares)
			t.row("New Threshold", st.Threshold)
			t.row("Verification Required", st.VerificationRequired)
			if st.VerificationNonce != "" {
				t.row("Verification Nonce", st.VerificationNonce)
			}
		}
		t.write(c.cfg.Stdout, true)
	})
}
