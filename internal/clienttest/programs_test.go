//go:build examples

// The tests in this file run the examples whose programs take long to build:
// make examples.

package clienttest_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/leaseholdtest"
	"github.com/leasehold/leasehold/internal/testenv"
)

// program builds a client, or says that it cannot be had.
func program(t *testing.T, p testenv.GoProgram) string {
	t.Helper()
	bin, err := p.Build(t.Context())
	if err != nil {
		t.Fatalf("%s cannot be had here: %v", p.Package, err)
	}
	return bin
}

// background runs a program of an example in a folder of its own until the test
// ends. Its output is shown where the test fails.
func background(t *testing.T, dir string, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var said bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &said, &said
	cmd.Env = append(os.Environ(), env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // it was interrupted
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(name), said.String())
		}
	})
}

// copyExample copies an example's files to a folder that it may write to.
func copyExample(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "examples", name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// appToken makes a token for an application that may read its database logins.
// It lives for its period unless it is renewed.
func appToken(t *testing.T, srv *leaseholdtest.Server, period string) string {
	t.Helper()
	write(t, srv, "sys/policies/acl/app", `{"policy":"path \"database/creds/reader\" { capabilities = [\"read\"] }"}`)
	var out struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		} `json:"auth"`
	}
	body := rawJSON(`{"policies":["app"],"period":"` + period + `"}`)
	if err := srv.Call(t.Context(), "POST", "auth/token/create-orphan", srv.Root, body, &out); err != nil {
		t.Fatal(err)
	}
	return out.Auth.ClientToken
}

func TestConsulTemplate(t *testing.T) {
	bin := program(t, testenv.GoProgram{Package: "github.com/hashicorp/consul-template", Version: "v0.41.1"})
	pg, srv := databaseExample(t, "5s", "15s")
	dir := copyExample(t, "consul-template")
	const period = 8 * time.Second
	background(t, dir, []string{"VAULT_ADDR=" + srv.Addr, "VAULT_TOKEN=" + appToken(t, srv, period.String())}, bin, "-config", "config.hcl")

	// Three logins, each put in place while the one before it still works. The
	// token outlives its period, so it was renewed too.
	file, begun := filepath.Join(dir, "database.env"), time.Now()
	var users, passwords []string
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for len(users) < 3 || time.Since(begun) < 3*period {
		if time.Since(begun) > 90*time.Second {
			t.Fatalf("after a minute and a half the template has seen the logins %v", users)
		}
		text, _ := os.ReadFile(file) // not there yet
		user, password := envOf(string(text), "DB_USER"), envOf(string(text), "DB_PASSWORD")
		if user == "" || len(users) > 0 && users[len(users)-1] == user {
			<-tick.C
			continue
		}
		users, passwords = append(users, user), append(passwords, password)
		for i := max(len(users)-2, 0); i < len(users); i++ {
			if !loginWorks(t, pg, users[i], passwords[i]) {
				t.Errorf("as login %d came, %s did not work", len(users), users[i])
			}
		}
	}
	if n := renewals(t, srv); n < 2 {
		t.Errorf("%d leases were renewed in the life of %d logins, want more", n, len(users))
	}
}

// envOf is the value of a line NAME=value.
func envOf(text, name string) string {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			return v
		}
	}
	return ""
}

// renewals is how many leases the server has renewed.
func renewals(t *testing.T, srv *leaseholdtest.Server) int {
	t.Helper()
	var out struct {
		Counters []struct {
			Name  string
			Count int
		}
	}
	if err := srv.Call(t.Context(), "GET", "sys/metrics", srv.Root, nil, &out); err != nil {
		t.Fatal(err)
	}
	for _, c := range out.Counters {
		if c.Name == "leasehold.leases.renewed_total" {
			return c.Count
		}
	}
	return 0
}

// TestTerraform sets a server up as code, uses what was made, and takes it away
// again.
func TestTerraform(t *testing.T) {
	terraform := program(t, testenv.GoProgram{Package: "github.com/hashicorp/terraform", Version: "v1.5.7"})
	provider := program(t, testenv.GoProgram{
		// Its module still has the name it had then. A newer SDK lets it speak
		// with the Terraform of today.
		Package: "github.com/terraform-providers/terraform-provider-vault", Version: "v1.9.0",
		Newer: []string{"github.com/hashicorp/terraform@v0.12.9", "golang.org/x/sys@v0.28.0", "golang.org/x/net@v0.33.0", "golang.org/x/text@v0.21.0", "golang.org/x/crypto@v0.31.0"},
	})
	pg := testenv.SharedPostgres(t, testenv.Config{})
	db := pg.NewDatabase(t)
	srv := leaseholdtest.Start(t, leaseholdtest.Config{})
	dir := copyExample(t, "terraform")
	config := filepath.Join(dir, "cli.tfrc")
	text := `provider_installation {
		dev_overrides { "hashicorp/vault" = "` + filepath.Dir(provider) + `" }
		direct {}
	}`
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, int) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), terraform, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "VAULT_ADDR="+srv.Addr, "VAULT_TOKEN="+srv.Root, "TF_CLI_CONFIG_FILE="+config, "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1", "HOME="+dir,
			"TF_VAR_database="+pg.Addr()+"/"+db, "TF_VAR_manager="+testenv.Superuser, "TF_VAR_manager_password="+pg.Password)
		out, err := cmd.CombinedOutput()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	if out, code := run("apply", "-auto-approve", "-no-color"); code != 0 {
		t.Fatalf("terraform apply ended with %d:\n%s", code, out)
	}
	if out, code := run("plan", "-detailed-exitcode", "-no-color"); code != 0 {
		t.Errorf("a second plan ended with %d, want 0, nothing to change:\n%s", code, out)
	}

	// What an application does with it.
	roleID, secretID := approleLogin(t, srv, "app")
	if out, _ := run("output", "-raw", "-no-color", "role_id"); !strings.Contains(out, roleID) {
		t.Errorf("Terraform knows the role id as %q, want %s", out, roleID)
	}
	var login struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		}
	}
	var creds struct {
		Data struct{ Username, Password string }
	}
	var secret struct {
		Data struct{ Data struct{ Color string } }
	}
	err := srv.Call(t.Context(), "POST", "auth/approle/login", "", rawJSON(`{"role_id":"`+roleID+`","secret_id":"`+secretID+`"}`), &login)
	if err == nil {
		err = srv.Call(t.Context(), "GET", "database/creds/reader", login.Auth.ClientToken, nil, &creds)
	}
	if err == nil {
		err = srv.Call(t.Context(), "GET", "config/data/app", login.Auth.ClientToken, nil, &secret)
	}
	if err != nil || secret.Data.Data.Color != "green" || !loginWorks(t, pg, creds.Data.Username, creds.Data.Password) {
		t.Errorf("as the application: %v, color %q, and the login of %s must work", err, secret.Data.Data.Color, creds.Data.Username)
	}

	if out, code := run("destroy", "-auto-approve", "-no-color"); code != 0 {
		t.Fatalf("terraform destroy ended with %d:\n%s", code, out)
	}
	var mounts struct{ Data map[string]any }
	if err := srv.Call(t.Context(), "GET", "sys/mounts", srv.Root, nil, &mounts); err != nil || mounts.Data["database/"] != nil || mounts.Data["config/"] != nil {
		t.Errorf("after destroy the mounts are %v, %v", mounts.Data, err)
	}
}

// TestSops keeps secrets in a file by a key of Transit: encrypted, read,
// changed, encrypted anew after a rotation, and read no more by who may not.
func TestSops(t *testing.T) {
	bin := program(t, testenv.GoProgram{Package: "github.com/getsops/sops/v3/cmd/sops", Version: "v3.13.3"})
	srv := leaseholdtest.Start(t, leaseholdtest.Config{})
	write(t, srv, "sys/mounts/sops", `{"type":"transit"}`)
	write(t, srv, "sops/keys/app", `{}`)
	dir := copyExample(t, "sops")
	for _, name := range []string{".sops.yaml", "secrets.yaml"} { // they have the usual address
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			text = bytes.ReplaceAll(text, []byte("http://127.0.0.1:8200"), []byte(srv.Addr))
			err = os.WriteFile(filepath.Join(dir, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "secrets.yaml")
	plain, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sops := func(token string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), bin, append(args, "secrets.yaml")...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "VAULT_ADDR="+srv.Addr, "VAULT_TOKEN="+token, "HOME="+dir, "SOPS_DISABLE_VERSION_CHECK=1")
		out, err := cmd.Output()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			return string(exit.Stderr), err
		}
		return string(out), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := sops(srv.Root, args...)
		if err != nil {
			t.Fatalf("sops %v: %v\n%s", args, err, out)
		}
		return out
	}
	sealed := func(version string) {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil || strings.Contains(string(text), "battery") || !strings.Contains(string(text), "host: db.example.org") || !strings.Contains(string(text), "enc: vault:"+version+":") {
			t.Errorf("the file is not encrypted by %s as the rules say, %v:\n%s", version, err, text)
		}
	}
	must("encrypt", "-i")
	sealed("v1")
	if got := must("decrypt"); got != string(plain) {
		t.Errorf("sops decrypt gives\n%s\nwant\n%s", got, plain)
	}
	write(t, srv, "sops/keys/app/rotate", `{}`)
	must("rotate", "-i")
	sealed("v2")
	write(t, srv, "sops/keys/app/config", `{"min_decryption_version":2}`)
	if got := must("decrypt", "--extract", `["database"]["password"]`); got != "correct horse battery staple" {
		t.Errorf("after the rotation the password is %q", got)
	}
	if said, err := sops(appToken(t, srv, "1h"), "decrypt"); err == nil || !strings.Contains(said, "permission denied") {
		t.Errorf("sops decrypt without the right = %q, %v, want permission denied", said, err)
	}
}
