package token_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/auth/token"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// book is a token store that behaves: what is made can be found, and what is
// revoked takes its children along.
type book struct {
	now    time.Time
	tokens map[string]token.Token // by key, which is the text
	tidied int
}

func (b *book) Create(_ context.Context, _ string, t token.Token, id secret.String) (token.Token, error) {
	text := id.Reveal()
	if text == "" {
		text = fmt.Sprintf("hvs.%024d", len(b.tokens)+1)
	}
	if _, ok := b.tokens[text]; ok {
		return t, errs.New(errs.Invalid, "cannot create a token with a duplicate ID")
	}
	t.Key, t.Text = text, secret.New(text)
	if !t.Batch {
		t.Accessor = "acc-" + text
	}
	b.tokens[text] = t
	return t, nil
}

func (b *book) Lookup(_ context.Context, text secret.String) (token.Token, error) {
	t, ok := b.tokens[text.Reveal()]
	if !ok {
		return t, errs.New(errs.Denied, "permission denied")
	}
	return t, nil
}

func (b *book) ByAccessor(_ context.Context, _, accessor string) (token.Token, error) {
	for _, t := range b.tokens {
		if t.Accessor == accessor && accessor != "" {
			return t, nil
		}
	}
	return token.Token{}, errs.New(errs.Invalid, "invalid accessor")
}

func (b *book) Renew(_ context.Context, t token.Token, increment time.Duration, role token.RoleLimits, _ *route.Request) (token.Token, bool, error) {
	if role.Period > 0 {
		increment = role.Period
	}
	t.Renewed, t.Expires = b.now, b.now.Add(increment)
	b.tokens[t.Key] = t
	return t, false, nil
}

func (b *book) Revoke(ctx context.Context, key string) error {
	delete(b.tokens, key)
	for k, t := range b.tokens {
		if t.Parent == key {
			if err := b.Revoke(ctx, k); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *book) RevokeOrphan(_ context.Context, key string) error {
	delete(b.tokens, key)
	for k, t := range b.tokens {
		if t.Parent == key {
			t.Parent = ""
			b.tokens[k] = t
		}
	}
	return nil
}

func (b *book) Accessors(context.Context, string) (all []string, err error) {
	for _, t := range b.tokens {
		all = append(all, t.Accessor)
	}
	slices.Sort(all)
	return all, nil
}

func (b *book) Tidy(context.Context, string) error { b.tidied++; return nil }

// method is the engine on a mount, with a caller.
type method struct {
	t     *testing.T
	book  *book
	table *route.Table
	eng   engine.Engine
	sudo  bool
}

// people are entities that are called by their alias; "gone" is disabled.
type people struct{}

func (people) Policies(_ context.Context, t token.Token) ([]string, error) {
	if t.EntityID == "" {
		return nil, nil
	}
	return []string{"of-" + t.EntityID}, nil
}

func (people) OfAlias(_ context.Context, mount route.MountInfo, name string) (string, error) {
	if name == "gone" {
		return "", errs.New(errs.Denied, "disabled")
	}
	return name, nil
}

func start(t *testing.T) *method {
	t.Helper()
	m := &method{t: t, table: route.NewTable()}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m.book = &book{now: now, tokens: map[string]token.Token{}}
	store := mem.New()
	t.Cleanup(func() { _ = store.Close() })
	e, err := token.Factory(token.Config{
		Tokens: m.book, Lifecycle: m.book, Identities: people{},
		Sudo: func(_ context.Context, c route.Caller, _ string) (bool, error) { return m.sudo, nil },
		HasPolicy: func(_ context.Context, _, name string) (bool, error) {
			return !strings.HasPrefix(name, "missing"), nil
		},
		Assignable: func(name string) bool { return name != "response-wrapping" },
	})(t.Context(), engine.Env{
		Store: storage.Prefix(store, "m/root/x/"), Now: func() time.Time { return now }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	m.eng = e
	e.Routes(m.table)
	t.Cleanup(func() { _ = e.(engine.Closer).Close() })
	m.book.tokens["root"] = token.Token{Key: "root", Text: secret.New("root"), Policies: []string{"root"}, Accessor: "acc-root"}
	return m
}

// answer is what came back, as it would stand in the envelope.
type answer struct {
	Auth struct {
		ClientToken   string            `json:"client_token"`
		Accessor      string            `json:"accessor"`
		Policies      []string          `json:"policies"`
		Metadata      map[string]string `json:"metadata"`
		LeaseDuration int               `json:"lease_duration"`
		Renewable     bool              `json:"renewable"`
		Orphan        bool              `json:"orphan"`
		Type          string            `json:"token_type"`
		NumUses       int               `json:"num_uses"`
		EntityID      string            `json:"entity_id"`
		Identity      []string          `json:"identity_policies"`
	}
	Data     map[string]any
	Warnings []string
	Status   int
}

// do calls an endpoint as the holder of a token.
func (m *method) do(as string, op wire.Op, path, body string) (answer, error) {
	m.t.Helper()
	var out answer
	caller := m.book.tokens[as]
	req := &route.Request{
		Op: op, Path: path,
		Mount: route.MountInfo{Path: "auth/token/", Namespace: "root", DefaultTTL: 768 * time.Hour, MaxTTL: 768 * time.Hour},
		Caller: route.Caller{
			Token: secret.New(as), Key: caller.Key, Policies: caller.Policies, Root: slices.Contains(caller.Policies, "root"),
		},
	}
	if body != "" {
		req.Body = []byte(body)
	}
	ep, err := m.table.Route(req)
	if err != nil {
		m.t.Fatalf("%s %s: %v", op, path, err)
	}
	res, err := ep.Call(m.t.Context(), req)
	if err != nil {
		return out, err
	}
	out.Warnings, out.Status = req.Reply().Warnings, req.Reply().Status
	data := res.Data
	if res.Whole != nil {
		data = res.Whole.Data
		if res.Whole.Auth != nil {
			m.decode(res.Whole.Auth, &out.Auth)
		}
	}
	if data != nil {
		m.decode(data, &out.Data)
	}
	return out, nil
}

func (m *method) decode(d wire.Data, into any) {
	m.t.Helper()
	if err := json.Unmarshal(d.AppendJSON(nil), into); err != nil {
		m.t.Fatal(err)
	}
}

func (m *method) must(as string, op wire.Op, path, body string) answer {
	m.t.Helper()
	out, err := m.do(as, op, path, body)
	if err != nil {
		m.t.Fatalf("%s %s %s = %v, want success", op, path, body, err)
	}
	return out
}

func (m *method) create(as, body string) answer {
	m.t.Helper()
	return m.must(as, wire.OpUpdate, "create", body)
}

// refused wants an error of a kind that says something.
func (m *method) refused(kind errs.Kind, says, as, path, body string) {
	m.t.Helper()
	_, err := m.do(as, wire.OpUpdate, path, body)
	if !errs.Is(err, kind) || !strings.Contains(err.Error(), says) {
		m.t.Errorf("%s %s by %s = %v, want %q", path, body, as, err, says)
	}
}
