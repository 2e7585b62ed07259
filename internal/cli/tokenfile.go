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
