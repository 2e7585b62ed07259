package cli

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"math/big"
	"strings"
)

// rootStatus is what sys/generate-root/… answers.
type rootStatus struct {
	Nonce        string `json:"nonce"`
	Started      bool   `json:"started"`
	Progress     int    `json:"progress"`
	Required     int    `json:"required"`
	Complete     bool   `json:"complete"`
	EncodedToken string `json:"encoded_token"`
	EncodedRoot  string `json:"encoded_root_token"`
	OTP          string `json:"otp"`
	OTPLength    int    `json:"otp_length"`
}

type rootOptions struct {
	init, cancel, status, generate bool
	decode, otp, nonce, pgp        string
	recovery                       bool
}

func operatorGenerateRootCommand() *command {
	var o rootOptions
	return &command{
		name: "generate-root", args: "[KEY | -]", max: 1, short: "Make a root token from key shares",
		long: "Makes a root token when enough holders of shares agree. Begin with -init, which " +
			"prints a one-time password; then each holder runs the command with a share; the " +
			"encoded token that comes out is decoded with the password.",
		example: []string{
			"leasehold operator generate-root -init",
			"leasehold operator generate-root",
			"leasehold operator generate-root -decode=ENCODED -otp=PASSWORD",
		},
		flags: []*flag{
			boolFlag(&o.init, "init", "Begin; prints the one-time password."),
			stringFlag(&o.otp, "otp", "PASSWORD", "The one-time password, for -decode; or one of your own for -init."),
			stringFlag(&o.decode, "decode", "ENCODED", "Decode the token that came out; - reads it from standard input."),
			boolFlag(&o.generate, "generate-otp", "Only print a one-time password for -init."),
			stringFlag(&o.nonce, "nonce", "NONCE", "The nonce that -init printed: shows that it is the same attempt."),
			boolFlag(&o.status, "status", "Tell how far it is."),
			boolFlag(&o.cancel, "cancel", "Give it up."),
			stringFlag(&o.pgp, "pgp-key", "KEY", "").hide(), boolFlag(&o.recovery, "recovery-token", "").hide(),
		},
		run: func(ctx context.Context, c *call) error { return c.generateRoot(ctx, &o) },
	}
}

const rootPath = "sys/generate-root/"

func (c *call) generateRoot(ctx context.Context, o *rootOptions) error {
	switch {
	case o.pgp != "" || o.recovery:
		return localf("PGP keys and recovery tokens are not supported yet")
	case o.decode != "":
		return c.decodeRoot(o)
	case o.init:
		s, err := c.write(ctx, rootPath+"attempt", struct {
			OTP string `json:"otp,omitempty"`
		}{o.otp})
		if err != nil {
			return step(err, "initializing root generation")
		}
		var st rootStatus
		if err := decode(s, &st); err != nil {
			return err
		}
		if st.OTP != "" {
			c.once("The one-time password is lost: it is not shown again. Give the attempt up and begin it anew:\n\n    %s operator generate-root -cancel", programName)
		}
		return c.printRoot(&st)
	case o.cancel:
		if _, err := c.remove(ctx, rootPath+"attempt"); err != nil {
			return step(err, "canceling root token generation")
		}
		c.say("Success! Root token generation canceled (if it was started)")
		return nil
	}
	var st rootStatus
	if err := c.readInto(ctx, rootPath+"attempt", &st); err != nil {
		return step(err, "reading root generation status")
	}
	switch {
	case o.generate:
		otp, err := newOTP(st.OTPLength)
		if err != nil {
			return err
		}
		return c.print(otp, func() { c.printf("%s\n", otp) })
	case o.status:
		return c.printRoot(&st)
	case !st.Started:
		return localf("No attempt is in progress. Begin one:\n\n    %s operator generate-root -init", programName)
	}
	nonce := o.nonce
	if nonce == "" {
		nonce = st.Nonce
	}
	c.note("Operation nonce: %s", nonce)
	key, err := c.given(c.arg(0), "Unseal Key (will be hidden):", true)
	if err != nil {
		return err
	}
	s, err := c.write(ctx, rootPath+"update", struct {
		Key   string `json:"key"`
		Nonce string `json:"nonce"`
	}{key, nonce})
	if err != nil {
		return step(err, "posting unseal key")
	}
	st = rootStatus{}
	if err := decode(s, &st); err != nil {
		return err
	}
	if st.EncodedToken != "" || st.EncodedRoot != "" {
		c.once("The encoded root token is lost: it is not shown again. Begin a new attempt:\n\n    %s operator generate-root -init", programName)
	}
	return c.printRoot(&st)
}

func (c *call) printRoot(st *rootStatus) error {
	if st.EncodedToken == "" {
		st.EncodedToken = st.EncodedRoot
	}
	return c.print(st, func() {
		t := newTable("Key", "Value")
		t.row("Nonce", st.Nonce)
		t.row("Started", st.Started)
		t.row("Progress", progress(st.Progress, st.Required))
		t.row("Complete", st.Complete)
		if st.EncodedToken != "" {
			t.row("Encoded Token", st.EncodedToken)
		}
		if st.OTP != "" {
			t.row("OTP", st.OTP)
		}
		if st.OTPLength != 0 {
			t.row("OTP Length", st.OTPLength)
		}
		t.write(c.cfg.Stdout, true)
	})
}

// decodeRoot takes the one-time password off the token, here and not on the
// server: whoever runs -init alone can read it.
func (c *call) decodeRoot(o *rootOptions) error {
	encoded, err := c.given(o.decode, "", false)
	if err != nil {
		return err
	}
	if o.otp == "" {
		return localf("-decode needs the one-time password: -otp=…")
	}
	b, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(encoded, "="))
	if err != nil {
		return localf("The encoded token is not base64: %v", err)
	}
	if len(b) != len(o.otp) {
		return localf("The password has %d letters, the encoded token %d: they are not of the same attempt", len(o.otp), len(b))
	}
	token := make([]byte, len(b))
	subtle.XORBytes(token, b, []byte(o.otp))
	out := struct {
		Token string `json:"token"`
	}{string(token)}
	return c.print(out, func() { c.printf("%s\n", token) })
}

func newOTP(length int) (string, error) {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	out := make([]byte, length)
	for i := range out {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
		if err != nil {
			return "", err
		}
		out[i] = letters[n.Int64()]
	}
	return string(out), nil
}
