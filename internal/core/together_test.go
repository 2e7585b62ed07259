package core_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/barrier"
	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/seal"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// together runs fn n times at once and gives the errors.
func together(n int, fn func(i int) error) []error {
	out := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { out[i] = fn(i) })
	}
	wg.Wait()
	return out
}

// succeeded counts the calls without an error, and checks what the others say.
func succeeded(t *testing.T, results []error, isOK func(error) bool) (n int) {
	t.Helper()
	for _, err := range results {
		switch {
		case err == nil:
			n++
		case !isOK(err):
			t.Errorf("one of several at once = %v", err)
		}
	}
	return n
}

func invalid(err error) bool { return errs.Is(err, errs.Invalid) }

func TestInitAtOnce(t *testing.T) {
	c := newCore(mem.New(), nil, nil)
	t.Cleanup(func() { c.Stop(time.Second) })
	var mu sync.Mutex
	var keys [][]byte
	results := together(8, func(int) error {
		in, err := c.Init(t.Context(), seal.Params{Shares: 2, Threshold: 2}, secret.String{})
		if err == nil {
			mu.Lock()
			keys = in.Shares
			mu.Unlock()
		}
		return err
	})
	if n := succeeded(t, results, func(err error) bool { return errors.Is(err, barrier.ErrInitialized) }); n != 1 {
		t.Fatalf("%d of 8 initialisations at once succeeded, want one", n)
	}
	// Each holder gives a share, and some are in a hurry.
	results = together(12, func(i int) error { return c.Unseal(t.Context(), keys[i%2]) })
	if n := succeeded(t, results, invalid); n == 0 {
		t.Error("no share was taken")
	}
	if _, sealed, err := c.Health(t.Context()); err != nil || sealed {
		t.Errorf("after both shares the server is sealed: %v, %v", sealed, err)
	}
}

// TestMountsAtOnce makes mounts while others ask: of one path there is one,
// and who has made a mount can use it at once.
func TestMountsAtOnce(t *testing.T) {
	r := open(t, mem.New())
	add := func(path string) error {
		return r.c.AddMount(t.Context(), &core.Mount{Namespace: token.RootNamespace, Path: path, Class: core.ClassSecret, Type: "kv"})
	}
	if n := succeeded(t, together(8, func(int) error { return add("same/") }), invalid); n != 1 {
		t.Errorf("%d of 8 mounts at one path at once succeeded, want one", n)
	}
	done := make(chan struct{})
	var others sync.WaitGroup
	for range 2 {
		others.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					_, _ = r.c.Mounts(t.Context(), token.RootNamespace, "")
				}
			}
		})
	}
	results := together(4, func(i int) error {
		for j := range 50 {
			path := fmt.Sprintf("kv-%d-%d/", i, j)
			if err := add(path); err != nil {
				return err
			}
			req := &core.Request{ID: path, Op: wire.OpUpdate, Path: path + "a", Token: r.root, Body: []byte(`{"a":"b"}`)}
			if p := r.c.Handle(t.Context(), req); p.Err != nil {
				return fmt.Errorf("writing to a mount that was just made: %w", p.Err)
			}
			if err := r.c.RemoveMount(t.Context(), token.RootNamespace, path); err != nil {
				return err
			}
			if p := r.c.Handle(t.Context(), &core.Request{ID: path, Op: wire.OpRead, Path: path + "a", Token: r.root}); !errs.Is(p.Err, errs.NotFound) {
				return fmt.Errorf("read of a mount that was just removed: %v", p.Err)
			}
		}
		return nil
	})
	close(done)
	others.Wait()
	succeeded(t, results, func(error) bool { return false })
}

// TestSealingDuringMaking: a request that is inside when the server is sealed
// is finished and answered; one that comes later is refused; one that outlasts
// the sealing leaves nothing behind.
func TestSealingDuringMaking(t *testing.T) {
	for _, c := range []struct {
		name    string
		takes   time.Duration // of the creation
		answers bool
	}{{"within its limit", 5 * time.Second, true}, {"past it", 25 * time.Second, false}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLab(t, mem.New())
				l.target.making = func() { time.Sleep(c.takes) }
				var p *core.Response
				done := make(chan struct{})
				go func() {
					defer close(done)
					p = l.c.Handle(context.Background(), &core.Request{ID: "r", Op: wire.OpRead, Path: "db/creds/a", Token: l.root})
					if p.Sent != nil {
						p.Sent(true)
					}
				}()
				synctest.Wait()
				if err := l.c.SealSoon(); err != nil {
					t.Fatal(err)
				}
				if late := l.do(wire.OpRead, "db/creds/b", l.root, ""); !errs.Is(late.Err, errs.Unavailable) {
					t.Errorf("a request after sealing = %v, want Unavailable", late.Err)
				}
				<-done
				if (p.Err == nil) != c.answers {
					t.Errorf("a request inside = %v, want an answer: %v", p.Err, c.answers)
				}
				later(time.Minute)
				l.unseal()
				later(2 * time.Minute)
				if n := len(l.target.users()); (n == 1) != c.answers || n > 1 {
					t.Errorf("the target has %d logins, want one if it was answered: %v", n, c.answers)
				}
			})
		})
	}
}

// TestRotationWhileWriting rotates the key under writers, and checks that every
// row can be read under whatever key it was written, after a restart too.
func TestRotationWhileWriting(t *testing.T) {
	db := mem.New()
	r := open(t, db)
	r.mount("kv/", "kv", nil)
	var stop atomic.Bool
	written := make([]int, 4)
	var wg sync.WaitGroup
	for i := range written {
		wg.Go(func() {
			for ; !stop.Load(); written[i]++ {
				path := fmt.Sprintf("kv/%d/%d", i, written[i])
				body := fmt.Appendf(nil, `{"n":"%d"}`, written[i])
				if p := r.c.Handle(t.Context(), &core.Request{ID: path, Op: wire.OpUpdate, Path: path, Token: r.root, Body: body}); p.Err != nil {
					t.Errorf("writing while the key is rotated: %v", p.Err)
					return
				}
			}
		})
	}
	for range 10 {
		if _, err := r.c.RotateKey(t.Context()); err != nil {
			t.Errorf("RotateKey = %v", err)
		}
	}
	stop.Store(true)
	wg.Wait()
	st, err := r.c.KeyStatus()
	if err != nil || st.Term != 11 {
		t.Errorf("KeyStatus = %+v, %v, want term 11", st, err)
	}
	r.c.Stop(time.Second)
	r.c = newCore(db, nil, nil)
	r.unseal()
	for i, n := range written {
		for j := range n {
			p := r.ok(wire.OpRead, fmt.Sprintf("kv/%d/%d", i, j), r.root, "")
			if got, want := string(p.Data.AppendJSON(nil)), fmt.Sprintf(`{"n":"%d"}`, j); got != want {
				t.Fatalf("kv/%d/%d = %s, want %s", i, j, got, want)
			}
		}
	}
}

// lingering answers when it is let go.
type lingering struct {
	begun, letGo chan struct{}
}

func (l *lingering) Routes(t *route.Table) {
	route.Write(t, "wait", func(context.Context, *route.Request, route.None) (map[string]string, error) {
		close(l.begun)
		<-l.letGo
		return map[string]string{"signature": "abc"}, nil
	})
}

// TestAnswerPastTheSealing: a request that is still at work when the audit
// devices are closed gets no answer, as nobody records it any more.
func TestAnswerPastTheSealing(t *testing.T) {
	for _, audited := range []bool{true, false} {
		e := &lingering{make(chan struct{}), make(chan struct{})}
		r := openWith(t, mem.New(), map[string]engine.Factory{
			"secret/lingering": func(context.Context, engine.Env) (engine.Engine, error) { return e, nil },
		})
		r.mount("slow/", "lingering", nil)
		path := t.TempDir() + "/audit.log"
		if audited {
			err := r.c.EnableAudit(t.Context(), core.AuditDevice{Path: "file/", Type: "file", Options: map[string]string{"file_path": path}})
			if err != nil {
				t.Fatal(err)
			}
		}
		answer := make(chan *core.Response)
		go func() { answer <- r.do(wire.OpUpdate, "slow/wait", r.root, "") }()
		<-e.begun
		r.c.Stop(0)
		close(e.letGo)
		p := <-answer
		if audited && (!errs.Is(p.Err, errs.Unavailable) || p.Data != nil) {
			t.Errorf("after the devices were closed, answer %v, %v; want Unavailable. The log:\n%s", p.Data, p.Err, readFile(t, path))
		}
		if !audited && p.Err != nil {
			t.Errorf("without devices, answer %v", p.Err)
		}
	}
}

// TestTokensOfAMountThatCameLater: removing an auth method logs out who came in
// by it, and not who came in by the next one at its path.
func TestTokensOfAMountThatCameLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		engines := map[string]engine.Factory{}
		engines["auth/door"] = func(context.Context, engine.Env) (engine.Engine, error) { return none{}, nil }
		r := openWith(t, mem.New(), engines)
		ctx := t.Context()
		enable := func() (id string) {
			t.Helper()
			m := &core.Mount{Namespace: "root", Path: "auth/door/", Class: core.ClassAuth, Type: "door"}
			if err := r.c.AddMount(ctx, m); err != nil {
				t.Fatal(err)
			}
			return m.ID
		}
		enter := func() string {
			t.Helper()
			tok, err := r.c.CreateToken(ctx, &token.Entry{
				Policies: []string{"default"}, Path: "auth/door/login", TTL: time.Hour, Expires: time.Now().Add(time.Hour),
			}, secret.String{})
			if err != nil {
				t.Fatal(err)
			}
			return tok.Key
		}
		tokens, err := r.c.Tokens()
		if err != nil {
			t.Fatal(err)
		}
		alive := func(keys ...string) (out []bool) {
			for _, k := range keys {
				ok, err := tokens.Alive(ctx, "root", k)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, ok)
			}
			return out
		}
		gone := enable()
		first := enter()
		later(time.Second)
		if err := r.c.RemoveMount(ctx, "root", "auth/door/"); err != nil {
			t.Fatal(err)
		}
		removed := time.Now()
		later(time.Second)
		enable()
		second := enter()
		// What a removal that was cut does again, once there is another mount.
		if err := tokens.RevokeMount(ctx, "root", gone, "auth/door/", removed); err != nil {
			t.Fatal(err)
		}
		if got := alive(first, second); !slices.Equal(got, []bool{false, true}) {
			t.Errorf("alive are %v, want only the token of the mount that there is", got)
		}
	})
}

// writing is an engine whose writes begin, wait and then write.
type writing struct {
	env          engine.Env
	inside, goOn chan struct{}
}

func (w writing) Routes(t *route.Table) {
	route.Write(t, "{name}", func(ctx context.Context, req *route.Request, _ route.None) (route.None, error) {
		w.inside <- struct{}{}
		<-w.goOn
		_, err := w.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Put(req.Param("name"), []byte("late")) })
		return route.None{}, err
	})
}

// TestWriteThatOutlivesItsMount: what a request writes whose mount has ended
// meanwhile is deleted with the rest.
func TestWriteThatOutlivesItsMount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, inside, goOn := mem.New(), make(chan struct{}), make(chan struct{})
		r := openWith(t, db, map[string]engine.Factory{"secret/writing": func(_ context.Context, env engine.Env) (engine.Engine, error) {
			return writing{env, inside, goOn}, nil
		}})
		r.mount("slow/", "writing", nil)
		l := &lab{rig: r, db: db}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if p := r.c.Handle(context.Background(), &core.Request{ID: "r", Op: wire.OpUpdate, Path: "slow/x", Token: r.root}); p.Err != nil {
				t.Errorf("a request that was inside = %v, want it answered", p.Err)
			}
		}()
		<-inside
		if err := r.c.RemoveMount(t.Context(), "root", "slow/"); err != nil {
			t.Fatal(err)
		}
		later(time.Minute)
		close(goOn)
		<-done
		later(20 * time.Minute)
		if k := l.rows(); count(k, "m/root/") > 0 || count(k, "mount/root/") != 4 {
			t.Errorf("rows are left of a mount that has ended: %q", k)
		}
	})
}

// lateCubbyhole is the cubbyhole with writes that wait before they write.
type lateCubbyhole struct{ writing }

func (c *lateCubbyhole) Drop(ctx context.Context, key string) error {
	_, err := c.env.Store.Update(ctx, func(tx storage.Tx) error { return tx.Delete("x") })
	return err
}

// TestWriteThatOutlivesItsToken is the same with a token that has ended.
func TestWriteThatOutlivesItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db, inside, goOn := mem.New(), make(chan struct{}), make(chan struct{})
		r := openWith(t, db, map[string]engine.Factory{"secret/cubbyhole": func(_ context.Context, env engine.Env) (engine.Engine, error) {
			return &lateCubbyhole{writing{env, inside, goOn}}, nil
		}})
		l := &lab{rig: r, db: db}
		tok := l.make(&token.Entry{Policies: []string{"default"}, TTL: time.Hour})
		done := make(chan struct{})
		go func() {
			defer close(done)
			p := r.c.Handle(context.Background(), &core.Request{ID: "r", Op: wire.OpUpdate, Path: "cubbyhole/x", Token: tok.Text})
			if !errs.Is(p.Err, errs.Denied) {
				t.Errorf("a write of a token that ended meanwhile = %v, want Denied", p.Err)
			}
		}()
		<-inside
		if err := mustTokens(l).Revoke(t.Context(), tok.Key); err != nil {
			t.Fatal(err)
		}
		later(time.Minute)
		close(goOn)
		<-done
		if k := l.rows(); count(k, "m/root/") > 0 {
			t.Errorf("rows are left of a token that has ended: %q", k)
		}
	})
}
