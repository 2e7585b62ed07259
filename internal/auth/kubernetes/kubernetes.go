package kubernetes

import (
	"context"
	"sync/atomic"

	"github.com/leasehold/leasehold/internal/auth/roles"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/route"
)

// Config says where a pod finds what Kubernetes gives it. Empty paths are
// Kubernetes' own.
type Config struct {
	CA    string // the cluster's authorities (PEM)
	Token string // the token of the pod's own service account
}

const podFolder = "/var/run/secrets/kubernetes.io/serviceaccount/"

// Engine is one mount of the method.
type Engine struct {
	env   engine.Env
	roles roles.Store[roleRow, *roleRow]
	cfg   Config
	api   atomic.Pointer[apiServer] // of the configuration that was used last
}

var (
	_ engine.Engine  = (*Engine)(nil)
	_ engine.Closer  = (*Engine)(nil)
	_ engine.Renewer = (*Engine)(nil)
)

// New makes the engine of a mount of a server that may run in a pod.
func New(ctx context.Context, env engine.Env) (engine.Engine, error) {
	return Factory(Config{})(ctx, env)
}

// Factory makes engines that find a pod's files elsewhere.
func Factory(cfg Config) engine.Factory {
	if cfg.CA == "" {
		cfg.CA = podFolder + "ca.crt"
	}
	if cfg.Token == "" {
		cfg.Token = podFolder + "token"
	}
	return func(_ context.Context, env engine.Env) (engine.Engine, error) {
		return &Engine{env: env, cfg: cfg, roles: roles.Store[roleRow, *roleRow]{Slice: env.Store, Version: roleVersion}}, nil
	}
}

// Close lets go of connections.
func (e *Engine) Close() error {
	if api := e.api.Load(); api != nil {
		api.client.CloseIdleConnections()
	}
	return nil
}

// Routes declares the method's endpoints.
func (e *Engine) Routes(t *route.Table) { t.With(e.routes, route.Folds(roles.Known)) }

func (e *Engine) routes(t *route.Table) {
	route.Read(t, "config", e.readConfig, route.Doc("Read which cluster is asked."))
	route.Write(t, "config", e.writeConfig, route.Doc("Say which cluster's API server is asked about tokens."))

	route.List(t, "role", e.roles.List, route.Doc("List the roles."))
	route.Read(t, "role/{name}", e.readRole, route.Doc("Read a role."))
	route.Write(t, "role/{name}", e.writeRole, route.Exists(e.roles.Exists), route.Doc("Write a role: which service accounts may log in as it, and what they get."))
	route.Delete(t, "role/{name}", e.roles.Delete, route.Doc("Delete a role. Tokens that it granted live on and cannot be renewed."))

	route.Login(t, "login", e.login, route.RoleOf(loginRole), route.Doc("Log in with the token of a service account."))
}
