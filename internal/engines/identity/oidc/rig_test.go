package oidc_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/identity/oidc"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

const address = "https://leasehold.test:8200"

// rig is the engine over a real store, called as core calls it, with a clock
// that the test moves.
type rig struct {
	t      testing.TB
	store  storage.Backend
	engine *oidc.Engine
	table  *route.Table
	people people

	mu  sync.Mutex
	now time.Time
}

// people are the entities of a test.
type people map[string]*engine.Identified

func (p people) Identify(_ context.Context, id string) (*engine.Identified, error) { return p[id], nil }

func newRig(t testing.TB) *rig {
	r := &rig{t: t, store: mem.New(), now: time.Now(), people: people{
		"ann": {
			ID: "ann", Name: "Ann", Metadata: map[string]string{"team": "core"},
			Groups:  []engine.IdentifiedGroup{{ID: "g1", Name: "devs"}, {ID: "g2", Name: "ops"}},
			Aliases: []engine.IdentifiedAlias{{ID: "a1", Accessor: "acc", Name: "ann@test", Metadata: map[string]string{"uid": "7"}}},
		},
		"bob": {ID: "bob", Name: "Bob"},
		"off": {ID: "off", Name: "Off", Disabled: true},
	}}
	t.Cleanup(func() { _ = r.store.Close() })
	r.engine, r.table = r.open()
	return r
}

// open is one more server on the same store.
func (r *rig) open() (*oidc.Engine, *route.Table) {
	e := oidc.New(oidc.Config{Address: address, People: r.people, Env: engine.Env{
		Store: storage.Prefix(r.store, "m/root/id/"), Now: r.clock, Rand: rand.Reader, Log: slog.New(slog.DiscardHandler),
	}})
	t := route.NewTable()
	e.Routes(t)
	return e, t
}

func (r *rig) clock() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *rig) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

// answer is what a call answers: the status, and the data or bare body.
type answer struct {
	status int
	body   map[string]any
	text   string
	header http.Header
}

func (a answer) str(name string) string { s, _ := a.body[name].(string); return s }

// call is one request: as an entity, with an access token, with a header.
type call struct {
	entity, token, basic string
	loggedIn             time.Time
}

func (r *rig) do(op wire.Op, path string, body any, as ...call) answer {
	r.t.Helper()
	return r.doAt(r.table, op, path, body, as...)
}

func (r *rig) doAt(table *route.Table, op wire.Op, path string, body any, as ...call) answer {
	r.t.Helper()
	path, query, _ := strings.Cut(path, "?")
	q, err := url.ParseQuery(query)
	if err != nil {
		r.t.Fatal(err)
	}
	if op == wire.OpList {
		path += "/"
	}
	req := &route.Request{
		Op: op, Path: path, Query: q, Mount: route.MountInfo{Path: "identity/", Namespace: "root"},
		Header: func(string) string { return "" },
	}
	for _, c := range as {
		req.Caller.EntityID, req.Caller.Token, req.Caller.LoggedIn = c.entity, secret.New(c.token), c.loggedIn
		if c.basic != "" {
			req.Header = func(name string) string {
				if name != "Authorization" {
					return ""
				}
				return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.basic))
			}
		}
	}
	if body != nil {
		if req.Body, err = json.Marshal(body); err != nil {
			r.t.Fatal(err)
		}
	}
	ep, err := table.Route(req)
	if err != nil {
		return answer{status: statusOf(err)}
	}
	res, err := ep.Call(context.Background(), req)
	a := answer{status: http.StatusNoContent}
	switch {
	case err != nil:
		a.status, a.text = statusOf(err), errs.Message(err)
		if a.status == 500 {
			r.t.Errorf("%s %s: %v", op, path, err)
		}
		return a
	case res.Raw != nil:
		a.status, a.text, a.header = res.Raw.Status, string(res.Raw.Body), res.Raw.Header
	case res.Data != nil:
		a.status, a.text = 200, string(res.Data.AppendJSON(nil))
	default:
		return a
	}
	if err := json.Unmarshal([]byte(a.text), &a.body); err != nil {
		r.t.Fatalf("%s %s answered %q: %v", op, path, a.text, err)
	}
	return a
}

func statusOf(err error) int {
	return map[errs.Kind]int{errs.Invalid: 400, errs.Denied: 403, errs.NotFound: 404, errs.Unsupported: 405, errs.Internal: 500}[errs.KindOf(err)]
}

// must is do, which has to answer a status.
func (r *rig) must(status int, op wire.Op, path string, body any, as ...call) answer {
	r.t.Helper()
	a := r.do(op, path, body, as...)
	if a.status != status {
		r.t.Fatalf("%s %s %v = %d %s, want %d", op, path, body, a.status, a.text, status)
	}
	return a
}

type obj = map[string]any

// keys are those that the mount publishes.
func (r *rig) keys(path string) jose.JSONWebKeySet {
	r.t.Helper()
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(r.must(200, wire.OpRead, path, nil).text), &set); err != nil {
		r.t.Fatal(err)
	}
	return set
}

var every = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA}

// verify checks a token as a stranger does: by the published keys.
func (r *rig) verify(set jose.JSONWebKeySet, text string) (claims obj, alg string) {
	r.t.Helper()
	jws, err := jose.ParseSignedCompact(text, every)
	if err != nil {
		r.t.Fatal(err)
	}
	h := jws.Signatures[0].Protected
	known := set.Key(h.KeyID)
	if len(known) != 1 {
		r.t.Fatalf("the key %q of the token is published %d times, want once", h.KeyID, len(known))
	}
	payload, err := jws.Verify(known[0])
	if err != nil {
		r.t.Fatal(err)
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		r.t.Fatal(err)
	}
	return claims, h.Algorithm
}
