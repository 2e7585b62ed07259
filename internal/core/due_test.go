package core_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/storage"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/token"
)

// planner is an engine that writes down which work it was asked for.
type planner struct {
	none
	env engine.Env

	mu   sync.Mutex
	done []string
}

func (p *planner) plan(t *testing.T, id string, after time.Duration) {
	t.Helper()
	_, err := p.env.Store.Update(t.Context(), func(tx storage.Tx) error {
		_, err := p.env.Due.Plan(tx, id, p.env.Now().Add(after), p.env.Now())
		return err
	})
	if err != nil {
		t.Fatalf("Plan(%q) = %v", id, err)
	}
}

// Work fails once where the id says so, and does twice what is to be repeated.
func (p *planner) Work(ctx context.Context, id string, at time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = append(p.done, id)
	if id == "fails" && !slices.Contains(p.done[:len(p.done)-1], id) {
		return errors.New("not yet")
	}
	_, err := p.env.Store.Update(ctx, func(tx storage.Tx) error {
		if err := p.env.Due.Cancel(tx, id, at); err != nil || id != "again" {
			return err
		}
		_, err := p.env.Due.Plan(tx, "again, once more", at.Add(time.Hour), p.env.Now())
		return err
	})
	return err
}

// did gives what was done since the last call, in order.
func (p *planner) did() string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	out := strings.Join(p.done, "; ")
	p.done = nil
	return out
}

// TestTimedWork plans work of a mount's own: it is done in time, again where it
// failed, after a restart too, and is gone with the mount.
func TestTimedWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := mem.New()
		var p *planner
		more := map[string]engine.Factory{"secret/planner": func(_ context.Context, env engine.Env) (engine.Engine, error) {
			p = &planner{env: env}
			return p, nil
		}}
		r := openWith(t, db, more)
		r.mount("planner/", "planner", nil)
		p.plan(t, "later", 3*time.Hour)
		p.plan(t, "again", time.Hour)
		p.plan(t, "fails", time.Hour+time.Second)

		time.Sleep(time.Hour - time.Millisecond)
		if got := p.did(); got != "" {
			t.Errorf("before its time: %s", got)
		}
		time.Sleep(time.Millisecond)
		if got := p.did(); got != "again" {
			t.Errorf("after an hour: %s", got)
		}
		time.Sleep(5 * time.Second)
		if got := p.did(); got != "fails; fails" {
			t.Errorf("what failed at first: %s", got)
		}
		time.Sleep(time.Hour)
		if got := p.did(); got != "again, once more" {
			t.Errorf("after two hours: %s", got)
		}

		r.c.Stop(time.Second)
		r.c = newCore(db, more, nil)
		r.unseal()
		if got := p.did(); got != "" {
			t.Errorf("after a restart: %s", got)
		}
		time.Sleep(time.Hour)
		if got := p.did(); got != "later" {
			t.Errorf("after a restart and an hour: %s", got)
		}

		p.plan(t, "never", time.Minute)
		if err := r.c.RemoveMount(t.Context(), token.RootNamespace, "planner/"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if got := p.did(); got != "" {
			t.Errorf("after the mount was disabled: %s", got)
		}
		err := db.View(t.Context(), func(v storage.View) error {
			for _, prefix := range []string{p.env.Due.Range(), lane.MarkPrefix + "mount."} {
				err := v.Scan(prefix, storage.PrefixEnd(prefix), 0, func(key string, _ []byte) bool {
					t.Errorf("%s is left of the mount", key)
					return true
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
