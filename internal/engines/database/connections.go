package database

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/leasehold/leasehold/internal/engines/database/postgres"
	"github.com/leasehold/leasehold/internal/engines/database/statements"
	"github.com/leasehold/leasehold/internal/engines/database/username"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/wire"
)

// pluginPostgres is what Vault's clients call this kind of database.
const pluginPostgres = "postgresql-database-plugin"

// verifyLimit bounds the trial of a connection when it is written.
const verifyLimit = 15 * time.Second

type connectionIn struct {
	Name             string                  `json:"name" doc:"Name of the connection."`
	Plugin           wire.Opt[string]        `json:"plugin_name" doc:"Kind of database: postgresql-database-plugin."`
	PluginVersion    string                  `json:"plugin_version" doc:"Taken and ignored: the engine is part of the server."`
	URL              wire.Opt[string]        `json:"connection_url" doc:"Where the server is, as in postgresql://{{username}}:{{password}}@host:5432/postgres?sslmode=verify-full."`
	Username         wire.Opt[string]        `json:"username" doc:"The managing user, for {{username}}."`
	Password         wire.Opt[secret.String] `json:"password" doc:"Its password, for {{password}}."`
	DisableEscaping  bool                    `json:"disable_escaping" doc:"Taken and ignored: no character of a password is special here."`
	AllowedRoles     wire.Opt[wire.CSV]      `json:"allowed_roles" doc:"Roles that may use the connection, with * at either end for many."`
	Verify           wire.Opt[bool]          `json:"verify_connection" doc:"Whether the connection is tried when it is written; true unless said otherwise."`
	MaxOpen          wire.Opt[int]           `json:"max_open_connections" doc:"How many connections are opened at most, 2 or more; 4 unless said otherwise."`
	MaxIdle          wire.Opt[int]           `json:"max_idle_connections" doc:"Kept for Vault's clients: idle connections are closed after five minutes."`
	MaxLifetime      wire.Opt[wire.Value]    `json:"max_connection_lifetime" doc:"After how long a connection is replaced; an hour unless said otherwise."`
	UsernameTemplate wire.Opt[string]        `json:"username_template" doc:"Template of user names, with Vault's functions."`
	PasswordPolicy   wire.Opt[string]        `json:"password_policy" doc:"Password policy that draws passwords."`
	PasswordAuth     wire.Opt[string]        `json:"password_authentication" doc:"What the server is sent: password, or scram-sha-256 for a verifier only."`
	Iterations       wire.Opt[int]           `json:"scram_iterations" doc:"Iterations of verifiers; 4096 unless said otherwise."`
	CA               wire.Opt[string]        `json:"tls_ca" doc:"Certificates (PEM) that the server's must lead to. Makes TLS obligatory."`
	Certificate      wire.Opt[string]        `json:"tls_certificate" doc:"Our certificate (PEM), to log in with."`
	Key              wire.Opt[secret.String] `json:"private_key" doc:"Its private key (PEM)."`
	RootRotation     wire.Opt[wire.Strings]  `json:"root_rotation_statements" doc:"SQL that changes the managing user's password."`
}

type connectionOut struct {
	AllowedRoles   []string       `json:"allowed_roles"`
	Details        connectionShow `json:"connection_details"`
	PasswordPolicy string         `json:"password_policy"`
	Plugin         string         `json:"plugin_name"`
	PluginVersion  string         `json:"plugin_version"`
	RootRotation   []string       `json:"root_credentials_rotate_statements"`
	Verify         bool           `json:"verify_connection"`
}

type connectionShow struct {
	URL              string     `json:"connection_url"`
	Username         string     `json:"username,omitempty"`
	MaxOpen          int        `json:"max_open_connections,omitempty"`
	MaxIdle          int        `json:"max_idle_connections,omitempty"`
	MaxLifetime      wire.Value `json:"max_connection_lifetime,omitempty"`
	UsernameTemplate string     `json:"username_template,omitempty"`
	PasswordAuth     string     `json:"password_authentication,omitempty"`
	Iterations       int        `json:"scram_iterations,omitempty"`
	CA               string     `json:"tls_ca,omitempty"`
	Certificate      string     `json:"tls_certificate,omitempty"`
}

func (e *Engine) listConnections(ctx context.Context, _ *route.Request, _ route.None) (route.Keys, error) {
	names, err := e.connectionNames(ctx)
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(names)
}

func (e *Engine) connectionExists(ctx context.Context, _ *route.Request, in connectionIn) (there bool, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) error {
		id, err := v.Get(rowName + in.Name)
		there = id != nil
		return err
	})
	return there, err
}

func (e *Engine) readConnection(ctx context.Context, _ *route.Request, in nameIn) (connectionOut, error) {
	c, err := e.connectionOrGone(ctx, in.Name)
	if err != nil {
		return connectionOut{}, err
	}
	return connectionOut{
		AllowedRoles: c.AllowedRoles, PasswordPolicy: c.PasswordPolicy, Plugin: c.Plugin, RootRotation: c.RootRotation, Verify: c.Verify,
		Details: connectionShow{
			URL: postgres.Redacted(c.URL), Username: c.Username, MaxOpen: c.MaxOpen, MaxIdle: c.MaxIdle, MaxLifetime: given(c.MaxLifetime),
			UsernameTemplate: c.UsernameTemplate, PasswordAuth: c.PasswordAuth, Iterations: c.Iterations, CA: c.CA, Certificate: c.Cert,
		},
	}, nil
}

// given is a value that somebody sent. Clients expect text where there is a
// key: one that nobody sent has none, and no null.
func given(v wire.Value) wire.Value {
	if v.Kind() == wire.Null {
		return nil
	}
	return v
}

// connectionOrGone is connection for reads, where absence has no sentence.
func (e *Engine) connectionOrGone(ctx context.Context, name string) (c *stored, err error) {
	err = e.env.Store.View(ctx, func(v storage.View) (err error) {
		c, err = byName(v, name)
		return err
	})
	if err == nil && c == nil {
		err = errs.Gone
	}
	return c, err
}

func (e *Engine) writeConnection(ctx context.Context, req *route.Request, in connectionIn) (route.None, error) {
	old, err := e.connectionOrGone(ctx, in.Name)
	if err != nil && !errors.Is(err, errs.Gone) {
		return route.None{}, err
	}
	c := &connection{ID: newID(), Name: in.Name, Generation: 1, Verify: true, AllowedRoles: []string{}}
	if old != nil {
		kept := old.connection
		c = &kept
	}
	in.apply(c)
	// Whoever writes the password settles a rotation with an unknown end by
	// hand, unless it may still come through: then both go on being tried.
	if _, written := in.Password.Get(); written && e.env.Now().Sub(c.Since) >= rotateSettle {
		c.Candidate, c.Since = secret.String{}, time.Time{}
	}
	if err := e.checkConnection(c); err != nil {
		return route.None{}, err
	}
	moved, err := e.moved(old, c)
	if err != nil {
		return route.None{}, err
	}
	if moved {
		c.Identity = ""
	}
	if c.Verify {
		info, err := e.try(ctx, c)
		if err != nil {
			return route.None{}, errs.Wrap(errs.Invalid, err, "error creating database object: error verifying connection: %v", err)
		}
		if old != nil && !moved && old.Identity != "" && info.Identity != old.Identity {
			moved = true // the same address, another server
		}
		c.Identity = info.Identity
		if info.Weak() {
			req.Warn("the managing user may not execute pg_control_system(): the server is told from others by two of its numbers only")
		}
	}
	if moved {
		c.Generation++
		if old.Identity != "" && c.Identity != "" && c.Identity != old.Identity {
			req.Warn("the connection leads to another server now (%s, before %s); leases made on the former one wait until it can be reached, or until you confirm at identity/%s that this one succeeds it",
				c.Identity, old.Identity, in.Name)
		}
	}
	if err := e.replace(ctx, old, c); err != nil {
		return route.None{}, err
	}
	if old != nil {
		e.retire(old.generation(), false)
	}
	return route.None{}, nil
}

// moved reports whether a connection leads elsewhere than before.
func (e *Engine) moved(old *stored, c *connection) (bool, error) {
	if old == nil {
		return false, nil
	}
	before, err := old.config(e).Endpoints()
	if err != nil {
		return true, nil // what it was cannot be read any more
	}
	now, err := c.config(e).Endpoints()
	if err != nil {
		return false, errs.New(errs.Invalid, "%v", err)
	}
	return before != now, nil
}

func (in connectionIn) apply(c *connection) {
	in.Plugin.Apply(&c.Plugin)
	in.URL.Apply(&c.URL)
	in.Username.Apply(&c.Username)
	in.Password.Apply(&c.Password)
	if v, ok := in.AllowedRoles.Get(); ok {
		c.AllowedRoles = slices.DeleteFunc(slices.Clone(v), func(s string) bool { return s == "" })
	}
	in.Verify.Apply(&c.Verify)
	in.MaxOpen.Apply(&c.MaxOpen)
	in.MaxIdle.Apply(&c.MaxIdle)
	if v, ok := in.MaxLifetime.Get(); ok {
		c.MaxLifetime = slices.Clone(v)
	}
	in.UsernameTemplate.Apply(&c.UsernameTemplate)
	in.PasswordPolicy.Apply(&c.PasswordPolicy)
	in.PasswordAuth.Apply(&c.PasswordAuth)
	in.Iterations.Apply(&c.Iterations)
	in.CA.Apply(&c.CA)
	in.Certificate.Apply(&c.Cert)
	in.Key.Apply(&c.Key)
	if v, ok := in.RootRotation.Get(); ok {
		c.RootRotation = v
	}
}

func (e *Engine) checkConnection(c *connection) error {
	bad := func(format string, args ...any) error { return errs.New(errs.Invalid, format, args...) }
	switch {
	case c.Plugin == "":
		return bad("empty plugin name: plugin_name is %s", pluginPostgres)
	case c.Plugin != pluginPostgres:
		return bad("unknown plugin %q: this server knows %s", c.Plugin, pluginPostgres)
	case c.URL == "":
		return bad("connection_url cannot be empty")
	case c.PasswordAuth != "" && c.PasswordAuth != "password" && c.PasswordAuth != scram:
		return bad("password_authentication is password or %s, not %q", scram, c.PasswordAuth)
	case c.Iterations != 0 && (c.Iterations < 1 || c.Iterations > 10_000_000):
		return bad("scram_iterations is a number from 1 to 10000000")
	case c.MaxOpen < 0 || c.MaxOpen > 1000 || c.MaxIdle < -1:
		return bad("max_open_connections is a number from 2 to 1000")
	}
	if _, err := lifetime(c.MaxLifetime); err != nil {
		return bad("max_connection_lifetime: %v", err)
	}
	if c.UsernameTemplate != "" {
		t, err := username.Compile(c.UsernameTemplate, longestName)
		if err == nil {
			_, err = t.Bits() // makes one, which shows what only running it can
		}
		if err != nil {
			return bad("%v", err)
		}
	}
	set, err := statements.Compile(c.RootRotation)
	if err == nil && c.PasswordAuth == scram {
		err = set.CheckSCRAM()
	}
	if err != nil {
		return bad("root_rotation_statements: %v", err)
	}
	if err := c.config(e).Check(); err != nil {
		return bad("error creating database object: %v", err)
	}
	return nil
}

// try connects once and says who answers.
func (e *Engine) try(ctx context.Context, c *connection) (postgres.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, verifyLimit)
	defer cancel()
	t, err := postgres.Open(c.config(e))
	if err != nil {
		return postgres.Info{}, err
	}
	defer t.Close()
	info, err := t.Ping(ctx)
	if err == nil && !c.Candidate.IsZero() && t.Working().Equal(c.Candidate) {
		c.Password, c.Candidate, c.Since = c.Candidate, secret.String{}, time.Time{}
	}
	return info, err
}

// deleteConnection leaves a tombstone: no new leases, and the way to the
// server for those there are. Sweeping removes it once there are none.
func (e *Engine) deleteConnection(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	_, err := e.env.Store.Update(ctx, func(tx storage.Tx) error {
		c, err := byName(tx, in.Name)
		if err != nil || c == nil {
			return err
		}
		c.Deleted = e.env.Now().UTC()
		return errors.Join(tx.Delete(rowName+in.Name), tx.Delete(rowLive+c.generation()), put(tx, rowConn+c.ID, &c.connection))
	})
	if err != nil {
		return route.None{}, err
	}
	return route.None{}, e.sweep(ctx)
}

func (e *Engine) resetConnection(ctx context.Context, _ *route.Request, in nameIn) (route.None, error) {
	c, err := e.connection(ctx, in.Name)
	if err != nil {
		return route.None{}, err
	}
	e.retire(c.generation(), false)
	return route.None{}, nil
}

type reloadIn struct {
	Plugin string `json:"plugin_name" doc:"Kind of database."`
}

type reloadOut struct {
	Connections []string `json:"connections"`
	Count       int      `json:"count"`
}

func (e *Engine) reloadPlugin(ctx context.Context, _ *route.Request, in reloadIn) (reloadOut, error) {
	names, err := e.connectionNames(ctx)
	if err != nil {
		return reloadOut{}, err
	}
	out := reloadOut{Connections: []string{}}
	for _, name := range names {
		c, err := e.connectionOrGone(ctx, name)
		switch {
		case errors.Is(err, errs.Gone):
			continue
		case err != nil:
			return reloadOut{}, err
		case c.Plugin != in.Plugin:
			continue
		}
		e.retire(c.generation(), false)
		out.Connections = append(out.Connections, name)
	}
	out.Count = len(out.Connections)
	return out, nil
}

type identityOut struct {
	Identity   string   `json:"identity"`
	Generation int      `json:"generation"`
	Succeeds   []string `json:"succeeds"`
}

func (e *Engine) readIdentity(ctx context.Context, _ *route.Request, in nameIn) (identityOut, error) {
	c, err := e.connectionOrGone(ctx, in.Name)
	if err != nil {
		return identityOut{}, err
	}
	return identityOut{c.Identity, c.Generation, c.Succeeds}, nil
}

type succeedsIn struct {
	Name     string `json:"name" doc:"Name of the connection."`
	Succeeds string `json:"succeeds" doc:"Identity of the server whose users are on this one now."`
}

func (e *Engine) writeIdentity(ctx context.Context, _ *route.Request, in succeedsIn) (route.None, error) {
	if in.Succeeds == "" {
		return route.None{}, errs.New(errs.Invalid, "succeeds names the identity of the former server; leases that wait for it show it in their error")
	}
	old, err := e.connection(ctx, in.Name)
	if err != nil {
		return route.None{}, err
	}
	c := old.connection
	if c.Identity == "" {
		return route.None{}, errs.New(errs.Invalid, "the connection's server was not reached yet; write the connection with verify_connection=true first")
	}
	if !slices.Contains(c.Succeeds, in.Succeeds) && in.Succeeds != c.Identity {
		c.Succeeds = append(slices.Clone(c.Succeeds), in.Succeeds)
	}
	return route.None{}, e.replace(ctx, old, &c)
}

type doctorOut struct {
	OK       bool    `json:"ok"`
	Identity string  `json:"identity"`
	Version  string  `json:"version"`
	Checks   []check `json:"checks"`
}

type check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Fix    string `json:"fix,omitempty"`
}

func (e *Engine) doctor(ctx context.Context, _ *route.Request, in nameIn) (doctorOut, error) {
	c, err := e.connection(ctx, in.Name)
	if err != nil {
		return doctorOut{}, err
	}
	t, release, err := e.use(c)
	if err != nil {
		return doctorOut{}, err
	}
	defer release()
	patient, err := e.patient(ctx, c)
	if err != nil {
		return doctorOut{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	info, found := t.Doctor(ctx, patient)
	out := doctorOut{OK: true, Identity: info.Identity, Checks: []check{}}
	if info.Version > 0 {
		out.Version = fmt.Sprintf("%d.%d", info.Version/10000, info.Version%10000)
	}
	found = append(found, e.habits(ctx, c)...)
	for _, f := range found {
		ch := check{Name: f.Check, OK: f.Error == "" || !f.Fatal, Detail: f.Error, Fix: f.Hint}
		out.OK = out.OK && ch.OK
		out.Checks = append(out.Checks, ch)
	}
	return out, nil
}

// habits finds what works and is still better otherwise.
func (e *Engine) habits(ctx context.Context, c *stored) (found []postgres.Finding) {
	if c.UsernameTemplate != "" {
		f := postgres.Finding{Check: "user names that cannot clash"}
		if t, err := username.Compile(c.UsernameTemplate, longestName); err != nil {
			f.Error, f.Fatal = err.Error(), true
		} else if bits, err := t.Bits(); err == nil && bits < username.WantedBits {
			f.Error = fmt.Sprintf("the username_template gives %d random bits; below %d two names may be the same, and making the second then fails",
				int(bits), username.WantedBits)
			f.Hint = "use {{random 20}} in the username_template"
		}
		found = append(found, f)
	}
	names, err := storage.Folder(ctx, e.env.Store, rowRole)
	if err != nil {
		return found
	}
	for _, name := range names {
		if r, err := e.role(ctx, name); err == nil && r != nil && r.Connection == c.Name && !allowed(c.AllowedRoles, name) {
			found = append(found, postgres.Finding{
				Check: "role " + name + " may use the connection", Error: "the connection's allowed_roles do not name it",
				Hint: "add " + name + " to allowed_roles of config/" + c.Name,
			})
		}
	}
	return found
}

// patient is what the roles of a connection need of it.
func (e *Engine) patient(ctx context.Context, c *stored) (postgres.Patient, error) {
	p := postgres.Patient{Probe: postgres.ProbeRole()}
	names, err := storage.Folder(ctx, e.env.Store, rowRole)
	if err != nil {
		return p, err
	}
	for _, name := range names {
		r, err := e.role(ctx, name)
		if err != nil || r == nil || r.Connection != c.Name || !allowed(c.AllowedRoles, name) {
			continue // a row that cannot be read is another doctor's
		}
		for _, g := range r.MemberOf {
			if !slices.Contains(p.Groups, g) {
				p.Groups = append(p.Groups, g)
			}
		}
		prog, err := compile(r, &c.connection)
		if err != nil || prog.creation.Len() == 0 {
			continue
		}
		sql, err := prog.creation.Render(statements.Values{
			Name: p.Probe, Password: rand.Text(), Expiration: postgres.FormatExpiration(e.env.Now().Add(time.Minute)),
		})
		if err == nil {
			p.Roles = append(p.Roles, postgres.TrialRole{Name: name, SQL: sql})
		}
	}
	return p, nil
}
