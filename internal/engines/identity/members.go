package identity

import (
	"context"
	"errors"
	"slices"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/storage"
)

// groupWrite is a write of a group as it was planned from a snapshot: what to
// change in its row, who joins and who leaves. It is carried out in steps that
// each fit in a transaction, the first of which writes the row. All of them
// hold only as long as nobody else has written the group since.
type groupWrite struct {
	e     *Engine
	in    groupIn
	row   *group // as it is to be; after carryOut as it was stored
	fresh bool   // it is a new one
	seen  uint64 // its Index in the snapshot
	steps int    // that were carried out

	change []membership
	nested []nesting
}

// nesting is a group that is put into the group that is written, or taken out.
type nesting struct {
	child string
	in    bool
}

// planGroup looks at what there is and works out what a write is to change.
func (e *Engine) planGroup(ctx context.Context, in groupIn) (*groupWrite, error) {
	w := &groupWrite{e: e, in: in}
	err := e.env.Store.View(ctx, func(v storage.View) error {
		id, err := in.find(v)
		if err != nil {
			return err
		}
		if id != "" {
			if w.row, err = getGroup(v, id); err != nil {
				return err
			}
		}
		if w.row == nil {
			w.fresh, w.row = true, &group{Created: e.now()}
			if w.row.ID, err = e.newID(); err != nil {
				return err
			}
			if w.row.Name, err = e.newName("group"); err != nil {
				return err
			}
		}
		w.seen = w.row.Index
		if err := in.apply(w.row); err != nil {
			return err
		}
		if list, ok := in.Entities.Get(); ok {
			if err := w.planMembers(v, cleanList(list)); err != nil {
				return err
			}
		}
		if list, ok := in.Groups.Get(); ok {
			return w.planNested(v, cleanList(list))
		}
		return nil
	})
	return w, err
}

// planMembers compares two sorted lists: who is to be in the group, and who is.
func (w *groupWrite) planMembers(v storage.View, want []string) error {
	have, err := below(v, memberPrefix+w.row.ID+"/")
	if err != nil {
		return err
	}
	join, leave := differ(want, have)
	for _, id := range join {
		b, err := v.Get(entityPrefix + id)
		if err != nil {
			return err
		}
		if b == nil {
			return errs.New(errs.Invalid, "invalid entity ID %q", id)
		}
		w.change = append(w.change, membership{group: w.row.ID, entity: id})
	}
	for _, id := range leave {
		w.change = append(w.change, membership{group: w.row.ID, entity: id, leave: true})
	}
	return nil
}

func (w *groupWrite) planNested(v storage.View, want []string) error {
	have, err := below(v, childPrefix+w.row.ID+"/")
	if err != nil {
		return err
	}
	join, leave := differ(want, have)
	for _, id := range leave {
		w.nested = append(w.nested, nesting{id, false})
	}
	for _, id := range join {
		g, err := getGroup(v, id)
		if err != nil {
			return err
		}
		if g == nil {
			return errs.New(errs.Invalid, "invalid group ID %q in member_group_ids", id)
		}
		if err := w.e.acyclic(v, w.row, id); err != nil {
			return err
		}
		if err := shallow(v, w.row, g); err != nil {
			return err
		}
		w.nested = append(w.nested, nesting{id, true})
	}
	return nil
}

// differ gives what is in the first of two sorted lists and not in the second,
// and the other way round.
func differ(want, have []string) (join, leave []string) {
	for len(want) > 0 || len(have) > 0 {
		switch {
		case len(have) == 0 || len(want) > 0 && want[0] < have[0]:
			join, want = append(join, want[0]), want[1:]
		case len(want) == 0 || have[0] < want[0]:
			leave, have = append(leave, have[0]), have[1:]
		default:
			want, have = want[1:], have[1:]
		}
	}
	return join, leave
}

// What one step changes beside the row. A membership touches three keys, a
// nesting two and once all groups above; the first step writes the row and the
// index of its name too.
const (
	firstMembers = 8
	firstNested  = 6
	stepNested   = 12
)

// carryOut does the steps in order.
func (w *groupWrite) carryOut(ctx context.Context) error {
	members, nested := cut(&w.change, firstMembers), cut(&w.nested, firstNested)
	for most := stepMembers; ; {
		_, err := w.e.env.Store.Update(ctx, func(tx storage.Tx) error { return w.step(tx, members, nested) })
		if errors.Is(err, storage.ErrTooLarge) && (len(members) > 1 || len(members) == 1 && w.steps == 0) {
			// Of people who are in very many groups fewer fit in a step.
			fit := len(members) / 2
			w.change = slices.Concat(members[fit:], w.change)
			members, most = members[:fit], max(fit, 1)
			continue
		}
		if err != nil {
			return err
		}
		w.steps++
		members, nested = cut(&w.change, most), nil
		if len(members) == 0 {
			nested = cut(&w.nested, stepNested)
		}
		if len(members)+len(nested) == 0 {
			return nil
		}
	}
}

// cut takes up to n from the front of a list.
func cut[T any](list *[]T, n int) []T {
	n = min(n, len(*list))
	front := (*list)[:n]
	*list = (*list)[n:]
	return front
}

func (w *groupWrite) step(tx storage.Tx, members []membership, nested []nesting) error {
	row, err := getGroup(tx, w.row.ID)
	switch {
	case err != nil:
		return err
	case w.steps > 0 && (row == nil || row.Index != w.row.Index):
		return errChanged
	case w.steps == 0 && (row == nil) != w.fresh, w.steps == 0 && row != nil && row.Index != w.seen:
		return errChanged
	case w.steps == 0:
		if row, err = w.putRow(tx, row); err != nil {
			return err
		}
	}
	for _, n := range nested {
		if n.in {
			if err := w.e.acyclic(tx, row, n.child); err != nil {
				return err
			}
		}
		if err := w.e.nest(tx, row.ID, n.child, n.in); err != nil {
			return err
		}
	}
	for _, m := range members {
		if err := m.apply(tx); err != nil {
			return err
		}
	}
	return nil
}

// putRow writes the group's row and keeps the index of names in step.
func (w *groupWrite) putRow(tx storage.Tx, stored *group) (*group, error) {
	next := *w.row
	if w.in.Name != "" {
		next.Name = w.in.Name
	}
	key := groupNamePrefix + nameKey(next.Name)
	id, err := getID(tx, key)
	if err != nil {
		return nil, err
	}
	if id != "" && id != next.ID {
		// The index of a row that could not be read may outlive it.
		other, err := tx.Get(groupPrefix + id)
		if err != nil {
			return nil, err
		}
		if other == nil {
			id = ""
		}
	}
	if id != "" && id != next.ID {
		if w.in.Name != "" && w.in.ID != "" {
			return nil, errs.New(errs.Invalid, "group name is already in use")
		}
		return nil, errNameTaken // drawn, or written by somebody else at this moment
	}
	if stored != nil && nameKey(stored.Name) != nameKey(next.Name) {
		if err := tx.Delete(groupNamePrefix + nameKey(stored.Name)); err != nil {
			return nil, err
		}
	}
	if err := tx.Put(key, []byte(next.ID)); err != nil {
		return nil, err
	}
	next.Index = w.seen
	next.touch(w.e.now())
	w.row = &next
	return &next, next.put(tx)
}

// nest puts a group into another, or takes it out. A child that is gone
// changes nothing.
func (e *Engine) nest(tx storage.Tx, parent, child string, in bool) error {
	g, err := getGroup(tx, child)
	if err != nil {
		return err
	}
	if g == nil {
		return tx.Delete(childKey(parent, child))
	}
	at := slices.Index(g.Parents, parent)
	switch {
	case in && at < 0:
		g.Parents = append(g.Parents, parent)
	case !in && at >= 0:
		g.Parents = slices.Delete(g.Parents, at, at+1)
	}
	if in != (at >= 0) {
		g.touch(e.now())
		if err := g.put(tx); err != nil {
			return err
		}
	}
	if in {
		return tx.Put(childKey(parent, child), nil)
	}
	return tx.Delete(childKey(parent, child))
}

// mostAbove bounds the groups that one group is in, through all others: they
// are all read for a nesting, and for each entity in the group.
const mostAbove = 40

// acyclic refuses to put a child into a group that is in that child already,
// through however many others.
func (e *Engine) acyclic(r storage.Reader, parent *group, child string) error {
	if parent.ID == child {
		return errCycle(child)
	}
	above, err := closure(r, parent.Parents)
	if err != nil {
		return err
	}
	if len(above) >= mostAbove {
		return errTooDeep(child, len(above)+1)
	}
	for _, g := range above {
		if g.ID == child {
			return errCycle(child)
		}
	}
	return nil
}

// shallow refuses to put a child into a group if some group in the child, through
// however many others, would be in too many. It looks down, which an Update
// cannot; two requests at the same moment may both pass.
func shallow(v storage.View, parent, child *group) error {
	above, err := closure(v, parent.Parents)
	if err != nil {
		return err
	}
	most := map[string]bool{parent.ID: true}
	for _, g := range above {
		most[g.ID] = true
	}
	seen := map[string]bool{}
	for queue := []*group{child}; len(queue) > 0; queue = queue[1:] {
		g := queue[0]
		if seen[g.ID] {
			continue
		}
		seen[g.ID] = true
		own, err := closure(v, g.Parents)
		if err != nil {
			return err
		}
		n := len(most)
		for _, o := range own {
			if !most[o.ID] {
				n++
			}
		}
		if n > mostAbove {
			return errTooDeep(g.Name, n)
		}
		ids, err := below(v, childPrefix+g.ID+"/")
		if err != nil {
			return err
		}
		for _, id := range ids {
			next, err := getGroup(v, id)
			if err != nil {
				return err
			}
			if next != nil {
				queue = append(queue, next)
			}
		}
	}
	return nil
}

func errTooDeep(name string, n int) error {
	return errs.New(errs.Invalid, "the group %q would be in %d others, counted through all of them; at most %d are possible", name, n, mostAbove)
}

func errCycle(child string) error {
	return errs.New(errs.Invalid, "cyclic relationship detected for member group ID %q", child)
}
