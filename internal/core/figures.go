package core

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// tally counts how often something happened and how long it took. Counting
// costs two atomic additions. They begin anew with the process.
type tally struct{ count, nanos atomic.Uint64 }

func (t *tally) add(took time.Duration) {
	t.count.Add(1)
	t.nanos.Add(uint64(max(took, 0)))
}

func (t *tally) read() Figure {
	return Figure{Count: t.count.Load(), Took: time.Duration(t.nanos.Load())}
}

// Figure is how often something happened and how long it took together.
type Figure struct {
	Count uint64
	Took  time.Duration
}

// figures are what core counts of all requests, for sys/metrics.
type figures struct {
	tokenChecks, logins, auditRequests, auditResponses tally
	created                                            createdTokens // by auth/token and the server itself
}

// createdTokens counts tokens by their kind.
type createdTokens struct{ service, batch atomic.Uint64 }

func (c *createdTokens) add(t token.Type) {
	if t == token.Batch {
		c.batch.Add(1)
	} else {
		c.service.Add(1)
	}
}

func (c *createdTokens) read() map[string]uint64 {
	return map[string]uint64{token.Service.String(): c.service.Load(), token.Batch.String(): c.batch.Load()}
}

// mountFigures are what core counts of one mount. A tune leaves them alone.
type mountFigures struct {
	answers [wire.OpHelp]tally // by operation
	tokens  createdTokens      // by its logins
	leases  atomic.Uint64      // issued
}

// carryOut is answer, with the time it took counted.
func (x *exchange) carryOut(ctx context.Context) error {
	begun := time.Now()
	err := x.answer(ctx)
	took := time.Since(begun)
	if int(x.r.Op) < len(x.m.figures.answers) {
		x.m.figures.answers[x.r.Op].add(took)
	}
	if x.ep.Class == route.LoggingIn {
		x.u.core.figures.logins.add(took)
	}
	return err
}

// timed is a step whose time is counted.
func timed(ctx context.Context, name string, took *tally, do func(context.Context) error) error {
	begun := time.Now()
	err := step(ctx, name, do)
	took.add(time.Since(begun))
	return err
}

// Figures are what core has counted since the process began.
type Figures struct {
	TokenChecks, Logins           Figure
	AuditRequests, AuditResponses Figure            // while a device was enabled
	Tokens                        map[string]uint64 // made without a login, by kind
	Mounts                        []MountFigures    // by namespace and path
}

// MountFigures are those of one mount.
type MountFigures struct {
	Mount     Mount
	Namespace string // its path, "" for the root
	Answers   map[wire.Op]Figure
	Tokens    map[string]uint64 // made by its logins, by kind
	Leases    uint64            // issued
}

// Figures reads what was counted. Of a sealed server the mounts are unknown.
func (c *Core) Figures(ctx context.Context) Figures {
	f := &c.figures
	out := Figures{
		TokenChecks: f.tokenChecks.read(), Logins: f.logins.read(),
		AuditRequests: f.auditRequests.read(), AuditResponses: f.auditResponses.read(), Tokens: f.created.read(),
	}
	u, err := c.open()
	if err != nil {
		return out
	}
	t, err := u.mounts.current(ctx)
	if err != nil {
		return out
	}
	for _, m := range t.byPath {
		one := MountFigures{
			Mount: m.Mount, Namespace: m.info.NamespacePath, Answers: map[wire.Op]Figure{},
			Tokens: m.figures.tokens.read(), Leases: m.figures.leases.Load(),
		}
		for op := range m.figures.answers {
			if a := m.figures.answers[op].read(); a.Count > 0 {
				one.Answers[wire.Op(op)] = a
			}
		}
		out.Mounts = append(out.Mounts, one)
	}
	slices.SortFunc(out.Mounts, func(a, b MountFigures) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Mount.Path, b.Mount.Path))
	})
	return out
}
