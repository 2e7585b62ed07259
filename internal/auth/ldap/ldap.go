// Package ldap is the auth method of people who are in an LDAP directory: who
// can bind there with a name and a password is logged in, with the policies of
// the groups that the directory, or an operator, says they are in.
//
// The key idea: the directory is a stranger to whom every byte is chosen. Names
// go into filters and DNs only through filter.go, which fixes what a template
// may look like when it is written; a conversation (dialogue.go) has a
// deadline, a bound on what it reads, and a connection of its own, so that a
// directory that hangs, lies or floods costs those who log in there and nobody
// else. A name that is not there takes the same steps as a wrong password.
//
// Passwords are not kept. A renewal looks the user up again with the bind
// account, or anonymously where there is none.
package ldap

import (
	"context"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/storage"
)

// What is stored. Values are JSON.
//
//	config         config
//	group/<name>   mapping
//	user/<name>    mapping
const (
	rowConfig  = "config"
	rowsGroups = "group/"
	rowsUsers  = "user/"
)

// Engine is one mount of the method.
type Engine struct {
	env   engine.Env
	slots chan struct{} // one for each conversation that goes on

	mu   sync.Mutex
	sick map[string]time.Time // addresses that did not answer: until when others come first
}

var (
	_ engine.Engine  = (*Engine)(nil)
	_ engine.Renewer = (*Engine)(nil)
)

// New makes the engine of a mount.
func New(_ context.Context, env engine.Env) (engine.Engine, error) {
	return &Engine{env: env, slots: make(chan struct{}, atOnce), sick: map[string]time.Time{}}, nil
}

// Routes declares the method's endpoints.
// Policies tell names apart by case in no directory, also not with
// case_sensitive_names: that is known only when the store was read.
func (e *Engine) Routes(t *route.Table) { t.With(e.routes, route.Folds(fold)) }

func (e *Engine) routes(t *route.Table) {
	route.Login(t, "login/{username...}", e.login, route.LockedBy(func(in loginIn) string { return fold(in.Username) }),
		route.Doc("Log in with a name and a password of the directory."))

	route.Read(t, "config", e.readConfig, route.Doc("Read where the directory is and how people and groups are found in it."))
	route.Write(t, "config", e.writeConfig, route.Doc("Change where the directory is and how people and groups are found in it."))

	route.List(t, "groups", e.listGroups, route.Doc("List the groups that have policies."))
	route.Read(t, "groups/{name...}", e.readGroup, route.Doc("Read a group's policies."))
	route.Write(t, "groups/{name...}", e.writeGroup, route.Doc("Give a group of the directory policies."))
	route.Delete(t, "groups/{name...}", e.deleteGroup, route.Doc("Take a group's policies away."))

	route.List(t, "users", e.listUsers, route.Doc("List the users that have policies or groups of their own."))
	route.Read(t, "users/{name...}", e.readUser, route.Doc("Read a user's own policies and groups."))
	route.Write(t, "users/{name...}", e.writeUser, route.Doc("Give a user of the directory policies, and groups beside those of the directory."))
	route.Delete(t, "users/{name...}", e.deleteUser, route.Doc("Take a user's own policies and groups away."))
}

// maxName bounds names of users and groups. It leaves room in a key.
const maxName = 512

// plain is a name in the form in which directories compare it, but for its
// case: they do not tell one from another that is spelt with other characters
// of the same meaning or with other runs of spaces, and what they take for one
// person must be one name here, in mappings and lockouts. A name is not ok that
// holds what cannot be seen, or nothing.
func plain(name string) (string, bool) {
	if len(name) > maxName || !utf8.ValidString(name) {
		return "", false
	}
	name = strings.Join(strings.Fields(norm.NFKC.String(name)), " ")
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return "", false
		}
	}
	return name, name != "" && len(name) <= maxName
}

// fold is plain without case, "" of a name that is not ok.
func fold(name string) string {
	name, ok := plain(name)
	if !ok {
		return ""
	}
	return norm.NFKC.String(strings.ToLower(name))
}

// known is a name as rows have it.
func (c *config) known(name string) string {
	if c.CaseSensitive {
		return name
	}
	return norm.NFKC.String(strings.ToLower(name))
}

// list gives the names of the rows below a prefix.
func (e *Engine) list(ctx context.Context, prefix string) (route.Keys, error) {
	var names []string
	err := e.env.Store.View(ctx, func(v storage.View) error {
		return storage.ScanEach(v, prefix, storage.PrefixEnd(prefix), 0, func(key string, _ []byte, _ error) bool {
			names = append(names, key[len(prefix):])
			return true
		})
	})
	if err != nil {
		return route.Keys{}, err
	}
	return route.ListOf(names)
}

func newer(what string, v int) error {
	return errs.New(errs.Internal, "%s has version %d, written by a newer server", what, v)
}
