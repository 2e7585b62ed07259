package cli

import (
	"context"
	"fmt"
)

// initReply is sys/init's answer.
type initReply struct {
	Keys           []string `json:"keys"`
	KeysB64        []string `json:"keys_base64"`
	RecoveryKeys   []string `json:"recovery_keys"`
	RecoveryKeyB64 []string `json:"recovery_keys_base64"`
	RootToken      string   `json:"root_token"`
}

// initOutput is what programs get, in Vault's names and order.
type initOutput struct {
	UnsealKeysB64     []string `json:"unseal_keys_b64"`
	UnsealKeysHex     []string `json:"unseal_keys_hex"`
	UnsealShares      int      `json:"unseal_shares"`
	UnsealThreshold   int      `json:"unseal_threshold"`
	RecoveryKeysB64   []string `json:"recovery_keys_b64"`
	RecoveryKeysHex   []string `json:"recovery_keys_hex"`
	RecoveryShares    int      `json:"recovery_keys_shares"`
	RecoveryThreshold int      `json:"recovery_keys_threshold"`
	RootToken         string   `json:"root_token"`
}

func operatorInitCommand() *command {
	var (
		status              bool
		shares, threshold   *int
		rShares, rThreshold *int
		pgp                 string
	)
	return &command{
		name: "init", max: 0, short: "Make the keys of a new server, once",
		long: "Makes the encryption keys of an empty server and prints the shares that open it, " +
			"and the first root token. They are shown this once.",
		example: []string{"leasehold operator init -key-shares=5 -key-threshold=3"},
		flags: []*flag{
			optIntFlag(&shares, "key-shares", "Into how many shares to split the key; 5 by default.").alias("n"),
			optIntFlag(&threshold, "key-threshold", "How many of them open the server; 3 by default.").alias("t"),
			optIntFlag(&rShares, "recovery-shares", "With a seal that opens by itself: shares of the recovery key; 5 by default."),
			optIntFlag(&rThreshold, "recovery-threshold", "How many of them are needed; 3 by default."),
			boolFlag(&status, "status", "Only tell whether that was done: exit code 0, or 2 if not."),
			stringFlag(&pgp, "pgp-keys", "KEYS", "").hide(),
			stringFlag(&pgp, "recovery-pgp-keys", "KEYS", "").hide(),
			stringFlag(&pgp, "root-token-pgp-key", "KEY", "").hide(),
		},
		run: func(ctx context.Context, c *call) error {
			if pgp != "" {
				return localf("Encrypting shares by PGP keys is not supported yet")
			}
			if status {
				return c.initStatus(ctx)
			}
			return c.initialise(ctx, shares, threshold, rShares, rThreshold)
		},
	}
}

func (c *call) initStatus(ctx context.Context) error {
	var out struct{ Initialized bool }
	if err := c.readInto(ctx, "sys/init", &out); err != nil {
		return step(err, "checking initialization status")
	}
	if out.Initialized {
		c.say("The server is initialized")
		return nil
	}
	c.say("The server is not initialized")
	return exitStatus(exitServer)
}

func (c *call) initialise(ctx context.Context, shares, threshold, rShares, rThreshold *int) error {
	// Asked even when the command's own request is only printed.
	cl, err := c.realClient()
	if err != nil {
		return err
	}
	var st sealStatus
	if err := get(ctx, cl, "sys/seal-status", &st); err != nil {
		return step(err, "checking seal status")
	}
	body := struct {
		Shares            int `json:"secret_shares,omitempty"`
		Threshold         int `json:"secret_threshold,omitempty"`
		RecoveryShares    int `json:"recovery_shares,omitempty"`
		RecoveryThreshold int `json:"recovery_threshold,omitempty"`
	}{}
	// A seal that opens by itself has recovery keys instead of unseal keys. What
	// was given for the other kind is sent too: the server refuses it, and makes
	// no keys that are other than the operator thinks.
	auto := st.Type != "" && st.Type != "shamir"
	if auto {
		body.RecoveryShares, body.RecoveryThreshold = or(rShares, 5), or(rThreshold, 3)
		body.Shares, body.Threshold = or(shares, 0), or(threshold, 0)
	} else {
		body.Shares, body.Threshold = or(shares, 5), or(threshold, 3)
		body.RecoveryShares, body.RecoveryThreshold = or(rShares, 0), or(rThreshold, 0)
	}
	s, err := c.write(ctx, "sys/init", body)
	if err != nil {
		return step(err, "initializing")
	}
	var r initReply
	if err := s.Decode(&r); err != nil {
		return err
	}
	out := initOutput{
		UnsealKeysB64: notNil(r.KeysB64), UnsealKeysHex: notNil(r.Keys), UnsealShares: body.Shares, UnsealThreshold: body.Threshold,
		RecoveryKeysB64: notNil(r.RecoveryKeyB64), RecoveryKeysHex: notNil(r.RecoveryKeys),
		RecoveryShares: body.RecoveryShares, RecoveryThreshold: body.RecoveryThreshold, RootToken: r.RootToken,
	}
	c.once("The keys and the root token are lost: the server has made them, and nothing shows them again. " +
		"Empty its storage and initialize it once more.")
	return c.print(out, func() { c.printInit(out) })
}

func or(p *int, def int) int {
	if p == nil {
		return def
	}
	return *p
}

func notNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func (c *call) printInit(o initOutput) {
	for i, k := range o.UnsealKeysB64 {
		c.printf("Unseal Key %d: %s\n", i+1, k)
	}
	for i, k := range o.RecoveryKeysB64 {
		c.printf("Recovery Key %d: %s\n", i+1, k)
	}
	c.printf("\nInitial Root Token: %s\n\n", o.RootToken)
	if len(o.UnsealKeysB64) == 0 {
		c.printf("%s\n", wrap(fmt.Sprintf("Success! The server is initialized and opens by its seal. Give the recovery keys to different people, apart from that seal: "+
			"%d of them open the server should the seal be lost, and make a new root token.", o.RecoveryThreshold), 78))
		return
	}
	c.printf("%s\n\n%s\n", wrap(fmt.Sprintf("Success! The server is initialized with %d key shares and a key threshold of %d. Give the shares to "+
		"different people: whenever the server starts or was sealed, %d of them open it with \"%s operator unseal\".",
		o.UnsealShares, o.UnsealThreshold, o.UnsealThreshold, programName), 78),
		wrap("The shares are stored nowhere. Without enough of them the data is lost. New shares can be made from the old ones with \""+
			programName+" operator rekey\".", 78))
}
