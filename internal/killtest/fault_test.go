package killtest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/storage/fault"
	"github.com/leasehold/leasehold/internal/testenv/tcpproxy"
	"github.com/leasehold/leasehold/internal/token"
)

// story is the life of a few credentials of each kind of role: they are issued,
// some of them to two requests at once, renewed, revoked, outlive a restart, end
// with their token, and expire. Any step may fail; what clients were told is
// remembered.
type story struct {
	*lab
	tok, brief *token.Token
	together   bool // two clients were given the same login
	seen
}

// begin makes what a story needs before anything is broken.
func (l *lab) begin() *story {
	l.t.Helper()
	return &story{lab: l, tok: l.newToken(), brief: l.newToken(), seen: seen{delivered: map[lease.ID]held{}}}
}

func (s *story) get(role string, tok *token.Token) held {
	s.t.Helper()
	h, err := s.issue(role, tok.Text)
	if err == nil {
		s.delivered[h.id] = h
	}
	return h
}

// ended notes that somebody asked for the end of a lease: it may have ended
// whatever the answer, and must have when that was good.
func (s *story) ended(h held, err error) {
	if _, ok := s.delivered[h.id]; !ok {
		return
	}
	delete(s.delivered, h.id)
	if err == nil {
		s.revoked = append(s.revoked, h)
	}
}

// tell walks through the story. restart seals and opens the server anew in
// the middle.
func (s *story) tell(restart bool) {
	s.t.Helper()
	own, group, short := s.get("own", s.tok), s.get("group", s.tok), s.get("group", s.brief)
	first, second := s.get("shared", s.tok), s.get("shared", s.tok)
	s.together = first.id != "" && first.user == second.user
	for _, h := range []held{own, second} {
		if h.id != "" {
			_ = s.renew(h.id)
		}
	}
	for _, h := range []held{group, first} {
		if h.id != "" {
			s.ended(h, s.revoke(h.id))
		}
	}
	if restart && s.restart() != nil {
		return
	}
	s.get("own", s.tok)
	s.get("shared", s.tok)
	// A token's end answers before its leases' logins are gone.
	if s.revokeToken(s.brief) == nil && short.id != "" && s.lookup(short.id) == nil {
		s.t.Error("a lease reads as alive although its token's revocation was acknowledged")
	}
	s.ended(short, errStillEnding)
	// The renewed leases outlive this, the others expire.
	s.orphansGone()
	s.clock.advance(ttlOfLab + time.Second)
	for id, h := range s.delivered {
		if id != own.id && id != second.id || s.lookup(id) != nil {
			s.ended(h, errStillEnding)
		}
	}
	s.within(400*time.Millisecond, func() { s.clock.advance(time.Second); s.look() }, func() bool {
		return len(s.rows("lease/")) <= len(s.delivered)
	})
}

// errStillEnding stands for an end that was asked for and is under way.
var errStillEnding = fmt.Errorf("it is still ending")

// figures are what a test prints: what it broke and what it looked at.
type figures struct{ faults, delivered, revoked, shared int }

func (f *figures) add(s *story) {
	f.faults++
	if s.together {
		f.shared++
	}
	f.delivered += len(s.delivered) + len(s.revoked)
	f.revoked += len(s.revoked)
}

// TestEveryStorageCall breaks each call of the store in turn, the restart's
// too: so that it fails; so that a commit is durable and its caller is told
// otherwise; and so that the store is dead from that call on until a restart.
func TestEveryStorageCall(t *testing.T) {
	for _, kind := range []string{"one call fails", "dead from one call on"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			var f figures
			beyond := 0
			for n := 1; ; n++ {
				when := fmt.Sprintf("call %d (%s)", n, kind)
				s := l.begin()
				var mu sync.Mutex
				calls, hit := 0, fault.Call{}
				l.store.Set(func(c fault.Call) error {
					mu.Lock()
					defer mu.Unlock()
					// Within a transaction one call that fails is like
					// another: it is void. Commit and answer are told apart.
					switch c.Op {
					case fault.View, fault.Scan, fault.Begin, fault.Commit, fault.Answer:
					default:
						if !strings.HasPrefix(c.Key, "lease/") || c.Op != fault.Get {
							return nil
						}
					}
					calls++
					if calls == n {
						hit = c
					}
					if calls == n || calls > n && kind != "one call fails" {
						return fault.ErrInjected
					}
					return nil
				})
				s.tell(true)
				mu.Lock()
				over := calls < n
				mu.Unlock()
				l.store.Set(nil)
				if _, err := l.core.Leases(); err != nil || kind != "one call fails" {
					if err := l.restart(); err != nil {
						t.Fatalf("%s: opening the healed store: %v", when, err)
					}
				}
				when = fmt.Sprintf("%s, %s %s", when, hit.Op, hit.Key)
				l.promises(when, s.seen)
				l.settled(when)
				if over { // twice, as the lanes' calls are not quite the same each time
					if beyond++; beyond == 2 {
						break
					}
					continue
				}
				beyond = 0
				f.add(s)
				if t.Failed() {
					t.FailNow()
				}
			}
			if f.shared == 0 {
				t.Error("no login was shared")
			}
			t.Logf("%d storage calls broken in turn; %d credentials delivered, %d logins shared, %d revocations acknowledged meanwhile: "+
				"no login without a lease, no lease unknown, no revocation undone, no row left", f.faults, f.delivered, f.shared, f.revoked)
		})
	}
}

// TestEverySQLMessage breaks the connection at each message in turn, the ones
// of logging in included, in either direction.
func TestEverySQLMessage(t *testing.T) {
	for _, c := range []struct {
		name string
		act  tcpproxy.Action
	}{
		{"cut before the message", tcpproxy.Cut},
		{"cut behind the message", tcpproxy.CutAfter},
		{"cut before the answer", tcpproxy.AnswerCut},
		{"cut within the answer", tcpproxy.AnswerTorn},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			var f figures
			beyond := 0
			for n := 1; ; n++ {
				l.write("database/reset/pg", nil) // each story begins with new connections
				s := l.begin()
				var mu sync.Mutex
				sent := 0
				l.proxy.Break(func([]byte) tcpproxy.Action {
					mu.Lock()
					defer mu.Unlock()
					if sent++; sent == n {
						return c.act
					}
					return tcpproxy.Pass
				})
				s.tell(n%4 == 0)
				mu.Lock()
				over := sent < n
				mu.Unlock()
				when := fmt.Sprintf("message %d, %s", n, c.name)
				l.quiet()
				l.promises(when, s.seen)
				l.settled(when)
				if over { // twice, as the lanes' calls are not quite the same each time
					if beyond++; beyond == 2 {
						break
					}
					continue
				}
				beyond = 0
				f.add(s)
				if t.Failed() {
					t.FailNow()
				}
			}
			t.Logf("%d SQL messages: %s; %d credentials delivered, %d logins shared, %d revocations acknowledged meanwhile: "+
				"no login without a lease, no lease unknown, no revocation undone, no row left", f.faults, c.name, f.delivered, f.shared, f.revoked)
		})
	}
}
