package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tokenFile is where "login" keeps the token: ~/.vault-token, shared with
// Vault's own commands so that either may log in for the other.
func tokenFile(getenv func(string) string) (string, error) {
	home := getenv("HOME")
	if home == "" {
		return "", localf("HOME is not set, so there is no ~/.vault-token: set VAULT_TOKEN instead")
	}
	return filepath.Join(home, ".vault-token"), nil
}

// token is the one to send: fromEnv, or the file's where the environment has
// none. A line break at its end is what echo and editors leave; one inside
// cannot be sent, and is no part of any token.
func (c *call) token(fromEnv string) (string, error) {
	if c.ownToken {
		return "", nil
	}
	if t := strings.TrimSpace(fromEnv); t != "" {
		name := "VAULT_TOKEN"
		if c.cfg.Getenv("LEASEHOLD_TOKEN") != "" {
			name = "LEASEHOLD_TOKEN"
		}
		return t, checkToken(t, name, "set it to the token alone")
	}
	t, err := readTokenFile(c.cfg.Getenv)
	if err != nil || t == "" {
		return "", err
	}
	name, err := tokenFile(c.cfg.Getenv)
	if err != nil {
		return "", err
	}
	return t, checkToken(t, name, "\""+programName+" login\" writes it anew")
}

// checkToken refuses what no header can carry, without showing it.
func checkToken(token, where, next string) error {
	i := strings.IndexFunc(token, func(r rune) bool { return r < ' ' || r == 0x7f })
	switch {
	case i < 0:
		return nil
	case token[i] == '\n' || token[i] == '\r':
		return localf("%s has a line break inside, and a token is one line: %s", where, next)
	}
	return localf("%s has a control character inside, which no token has: %s", where, next)
}

// readTokenFile answers "" where there is none.
func readTokenFile(getenv func(string) string) (string, error) {
	if getenv("HOME") == "" {
		return "", nil
	}
	name, err := tokenFile(getenv)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", localf("Reading the token: %v", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// storeToken replaces the file as a whole, readable by its owner only.
func storeToken(getenv func(string) string, token string) error {
	name, err := tokenFile(getenv)
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".vault-token-*") // made with mode 0600
	if err != nil {
		return localf("Storing the token: %v", err)
	}
	_, err = tmp.WriteString(token)
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return localf("Storing the token: %v", err)
	}
	return nil
}

// expandHome resolves "~/" as a shell would have, had it seen it.
func expandHome(getenv func(string) string, name string) string {
	if rest, ok := strings.CutPrefix(name, "~/"); ok && getenv("HOME") != "" {
		return filepath.Join(getenv("HOME"), rest)
	}
	return name
}
