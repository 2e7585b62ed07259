package cli

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/api"
)

// loginMethod is a way to log in.
type loginMethod struct {
	name    string
	short   string
	args    []loginArg
	example string // the arguments of one
	refused string // why it cannot be used; "": it can
	run     func(ctx context.Context, c *call, mount string, in *input) (*api.Secret, error)
}

// loginArg is one KEY=VALUE.
type loginArg struct{ name, usage string }

// loginMethods are all that -method takes. A server that is not ours may have
// those that are okta and radius; the way is the same.
func loginMethods() []*loginMethod {
	username := loginArg{"username", "Name of the user; asked for on the terminal."}
	password := loginArg{"password", "Their password; asked for on the terminal, without showing it."}
	role := loginArg{"role", "Role to log in as; without one the method's default_role."}
	people := []loginArg{username, password}
	return []*loginMethod{
		{
			name: "token", short: "Take a token that was made elsewhere, and keep it.",
			args: []loginArg{{"token", "The token, also without \"token=\"; asked for on the terminal."}}, example: "hvs.CAESI…",
		},
		{
			name: "userpass", short: "Log in with a name and a password that the server keeps.",
			args: people, example: "username=ann", run: passwordLogin{}.run,
		},
		{
			name: "ldap", short: "Log in with the name and password of a directory.",
			args: []loginArg{
				{"username", "Name of the user; else VAULT_LDAP_USERNAME, or who you are on this machine."},
				{"password", "Their password; else VAULT_LDAP_PASSWORD, or asked for on the terminal, without showing it."},
			},
			example: "username=ann", run: passwordLogin{env: "LDAP", self: true}.run,
		},
		{
			name: "approle", short: "Log in as an application, with the id of a role and a secret id.",
			args:    []loginArg{{"role_id", "Id of the role."}, {"secret_id", "Secret id, if the role wants one."}},
			example: "role_id=… secret_id=@secret-id", run: loginPost,
		},
		{
			name: "jwt", short: "Log in with a signed token of an issuer that the server trusts.",
			args:    []loginArg{role, {"jwt", "The token; asked for on the terminal, without showing it."}},
			example: "role=ci jwt=@token", run: loginJWT,
		},
		{
			name: "oidc", short: "Log in by your browser, with an OpenID Connect provider.",
			args: append([]loginArg{role}, browserArgs...), example: "role=people", run: loginBrowser,
		},
		{
			name: "kubernetes", short: "Log in as the service account of a pod.",
			args:    []loginArg{{"role", "Role to log in as."}, {"jwt", "The account's token; in a pod its own."}},
			example: "role=app", run: loginKubernetes,
		},
		{
			name: "cert", short: "Log in with the certificate that the connection was made with: -client-cert and -client-key.",
			args:    []loginArg{{"name", "Role to log in as; without one any that the certificate fits."}},
			example: "-client-cert=me.pem -client-key=me-key.pem name=web", run: loginCertificate,
		},
		{name: "okta", short: "As userpass, on servers that have it.", args: people, example: "username=ann", run: passwordLogin{}.run},
		{name: "radius", short: "As userpass, on servers that have it.", args: people, example: "username=ann", run: passwordLogin{}.run},
		{
			name: "github", short: "Not supported.",
			refused: "-method=github: Leasehold has no such method. GitHub's workflows log in with -method=jwt, by the tokens that GitHub signs for them;\n" +
				"people with -method=oidc. A token made elsewhere can be stored with \"leasehold login TOKEN\".",
		},
	}
}

func methodNamed(name string) *loginMethod {
	for _, m := range loginMethods() {
		if m.name == name {
			return m
		}
	}
	return nil
}

// methodNames lists those that can be used.
func methodNames() string {
	var names []string
	for _, m := range loginMethods() {
		if m.refused == "" {
			names = append(names, m.name)
		}
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}

// passwordLogin is for methods whose path ends in the user's name.
type passwordLogin struct {
	env  string // VAULT_…_USERNAME and …_PASSWORD stand in for arguments; "": none do
	self bool   // without a name it is that of whoever runs the command
}

func (p passwordLogin) run(ctx context.Context, c *call, mount string, in *input) (*api.Secret, error) {
	user, err := in.text("username"), error(nil)
	if user == "" && p.env != "" {
		user = api.LookupEnv(c.cfg.Getenv, p.env+"_USERNAME")
	}
	if user == "" && p.self {
		user = c.self()
	}
	if user == "" {
		if user, err = c.ask("Username:", false); err != nil {
			return nil, err
		}
	}
	in.drop("username")
	if _, given := in.values["password"]; !given {
		password := ""
		if p.env != "" {
			password = api.LookupEnv(c.cfg.Getenv, p.env+"_PASSWORD")
		}
		if password == "" {
			if password, err = c.ask("Password (will be hidden):", true); err != nil {
				return nil, err
			}
		}
		in.addText("password", password)
	}
	return c.sendLogin(ctx, "auth/"+mount+"/login/"+user, in)
}

// self is who runs the command, by the environment.
func (c *call) self() string {
	for _, name := range []string{"LOGNAME", "USER", "USERNAME"} {
		if v := c.cfg.Getenv(name); v != "" {
			return v
		}
	}
	return ""
}

// loginPost sends the arguments as they are.
func loginPost(ctx context.Context, c *call, mount string, in *input) (*api.Secret, error) {
	return c.sendLogin(ctx, "auth/"+mount+"/login", in)
}

func loginJWT(ctx context.Context, c *call, mount string, in *input) (*api.Secret, error) {
	if _, given := in.values["jwt"]; !given {
		token, err := c.ask("JWT (will be hidden):", true)
		if err != nil {
			return nil, err
		}
		in.addText("jwt", token)
	}
	return loginPost(ctx, c, mount, in)
}

// podToken is where a pod finds the token of its service account.
const podToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

func loginKubernetes(ctx context.Context, c *call, mount string, in *input) (*api.Secret, error) {
	if _, given := in.values["jwt"]; !given {
		token, err := os.ReadFile(podToken)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, localf("This is no pod: there is no %s. Give the service account's token as jwt=@FILE.", podToken)
		case err != nil:
			return nil, localf("Reading the pod's token: %v", err)
		}
		in.addText("jwt", strings.TrimSpace(string(token)))
	}
	if in.text("role") == "" {
		return nil, localf("Which role? Give role=NAME")
	}
	return loginPost(ctx, c, mount, in)
}

func loginCertificate(ctx context.Context, c *call, mount string, in *input) (*api.Secret, error) {
	if c.common.clientCert == "" && api.LookupEnv(c.cfg.Getenv, "CLIENT_CERT") == "" {
		return nil, localf("Which certificate? Give -client-cert and -client-key, or set VAULT_CLIENT_CERT and VAULT_CLIENT_KEY")
	}
	return loginPost(ctx, c, mount, in)
}

// onlyArgs refuses arguments that a method does not know: those of a browser's
// login go nowhere else, where a server would speak up.
func (in *input) onlyArgs(args []loginArg) error {
	for _, key := range in.keys {
		if !slices.ContainsFunc(args, func(a loginArg) bool { return a.name == key }) {
			return localf("%s=…: this method has no such argument. \"leasehold auth help oidc\" lists them.", key)
		}
	}
	return nil
}

// printMethodHelp tells what a method takes.
func printMethodHelp(w io.Writer, m *loginMethod) {
	line := programName + " login"
	if m.name != "token" {
		line += " -method=" + m.name
	}
	write := func(s string) { _, _ = io.WriteString(w, s) }
	if m.refused != "" {
		write(wrap(m.refused, 78) + "\n")
		return
	}
	write("Usage: " + line + " [flags] [KEY=VALUE …]\n\n" + indent(wrap(m.short, 76), "  ", "  ") + "\n\nExample:\n\n  $ " + line + " " + m.example + "\n\nArguments:\n\n")
	width := 0
	for _, a := range m.args {
		width = max(width, len(a.name))
	}
	for _, a := range m.args {
		pad := strings.Repeat(" ", width+7)
		write(indent(wrap(a.usage, 78-len(pad)), pad, "  "+a.name+"=…"+strings.Repeat(" ", width-len(a.name)+3)) + "\n")
	}
	write("\nWhere the method is mounted at another path: -path=PATH. A value of @FILE is read\nfrom a file, - from standard input.\n")
}
