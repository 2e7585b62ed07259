package sys

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// Leases tells of the leases of a namespace. An id that is unknown, or whose
// end has begun, is errs.Invalid.
type Leases interface {
	Lookup(ctx context.Context, ns string, id lease.ID) (lease.Info, error)
	// Keys lists what stands directly below a path.
	Keys(ctx context.Context, ns, prefix string) ([]string, error)
	// List gives leases in full, page by page.
	List(ctx context.Context, ns string, q lease.Query) (page []lease.Info, more bool, err error)
}

// LeaseActions renews and ends leases. Ending what is gone is no error.
type LeaseActions interface {
	Renew(ctx context.Context, ns string, id lease.ID, increment time.Duration) (lease.Renewed, error)
	Revoke(ctx context.Context, ns string, id lease.ID, cause lease.Cause, sync bool) (lease.Pending, error)
	RevokePrefix(ctx context.Context, ns, prefix string, cause lease.Cause, sync bool) (lease.Pending, error)
}

func (e *Engine) leaseRoutes(t *route.Table) {
	route.Read(t, "leases", e.listLeases, route.Sudo(), route.Doc("List leases with their holders, or only the irrevocable ones."))
	route.Read(t, "leases/count", e.countLeases, route.Doc("Count the leases, or the irrevocable ones."))
	route.List(t, "leases/lookup", e.leaseKeys, route.Sudo(), route.Doc("List the paths that have leases."))
	route.List(t, "leases/lookup/{prefix...}", e.leaseKeys, route.Sudo(), route.Doc("List the leases below a path."))
	route.Write(t, "leases/lookup", e.lookupLease, route.Doc("Read a lease."))
	route.Write(t, "leases/tidy", e.tidyLeases, route.RootOnly(), route.Status(http.StatusAccepted), route.Doc("Delete what is left of leases that are gone."))
	route.Read(t, "leases/fence", e.readFence, route.RootOnly(), route.Sudo(), route.Doc("Tell whether leases wait with expiring, and why."))
	route.Write(t, "leases/fence", e.liftFence, route.RootOnly(), route.Sudo(), route.Doc("Confirm the clock, so that leases expire again."))
	for _, base := range []string{"leases/", ""} { // "" are the older paths
		route.Write(t, base+"renew", e.renewLease, route.Doc("Renew a lease."))
		route.Write(t, base+"renew/{url_lease_id...}", e.renewLease, route.Doc("Renew a lease."))
		route.Write(t, base+"revoke", e.revokeLease, route.Doc("Revoke a lease."))
		route.Write(t, base+"revoke/{url_lease_id...}", e.revokeLease, route.Doc("Revoke a lease."))
		route.Write(t, base+"revoke-prefix/{prefix...}", e.revokePrefix, route.Sudo(), route.Doc("Revoke all leases below a path."))
		route.Write(t, base+"revoke-force/{prefix...}", e.revokeForce, route.Sudo(), route.Doc("Forget all leases below a path, whatever their targets say."))
	}
}

// A lease's id is a secret to the audit log: whoever knows it can renew it.
type leaseIn struct {
	ID    secret.String `json:"lease_id" doc:"The lease's id."`
	URLID secret.String `json:"url_lease_id"`
}

func (in leaseIn) id() (lease.ID, error) {
	id := cmp.Or(in.ID.Reveal(), in.URLID.Reveal())
	if id == "" {
		return "", errs.New(errs.Invalid, "lease_id must be specified")
	}
	return lease.ID(id), nil
}

type leaseOut struct {
	ID          secret.String `json:"id"`
	Path        string        `json:"path"`
	IssueTime   time.Time     `json:"issue_time"`
	ExpireTime  time.Time     `json:"expire_time"`
	LastRenewal *time.Time    `json:"last_renewal"`
	Renewable   bool          `json:"renewable"`
	TTL         wire.TTL      `json:"ttl"`
}

func (e *Engine) lookupLease(ctx context.Context, req *route.Request, in leaseIn) (leaseOut, error) {
	id, err := in.id()
	if err != nil {
		return leaseOut{}, err
	}
	l, err := e.cfg.Leases.Lookup(ctx, req.Mount.Namespace, id)
	if err != nil {
		return leaseOut{}, err
	}
	out := leaseOut{
		ID: secret.New(string(l.ID)), Path: l.Path, IssueTime: l.Issued, ExpireTime: l.Expires, Renewable: l.Renewable, TTL: e.left(l),
	}
	if !l.Renewed.IsZero() {
		out.LastRenewal = &l.Renewed
	}
	return out, nil
}

func (e *Engine) left(l lease.Info) wire.TTL {
	return wire.TTL(max(l.Expires.Sub(e.cfg.Now()).Round(time.Second), 0))
}

type prefixIn struct {
	Prefix string `json:"prefix" doc:"Path that the leases' ids begin with."`
}

// leaseKeysOut is route.Keys of what may be the secret ends of ids.
type leaseKeysOut struct {
	Keys []secret.String `json:"keys"`
}

func (e *Engine) leaseKeys(ctx context.Context, req *route.Request, in prefixIn) (out leaseKeysOut, err error) {
	keys, err := e.cfg.Leases.Keys(ctx, req.Mount.Namespace, in.Prefix)
	if err != nil {
		return out, err
	}
	for _, k := range keys {
		out.Keys = append(out.Keys, secret.New(k))
	}
	if len(keys) == 0 {
		return out, errs.Gone
	}
	return out, nil
}

type renewIn struct {
	leaseIn
	Increment wire.TTL `json:"increment" doc:"How long from now; 0 is the lease's own TTL."`
}

func (e *Engine) renewLease(ctx context.Context, req *route.Request, in renewIn) (*route.Whole, error) {
	id, err := in.id()
	if err != nil {
		return nil, err
	}
	l, err := e.cfg.LeaseActions.Renew(ctx, req.Mount.Namespace, id, in.Increment.Duration())
	if err != nil {
		return nil, err
	}
	if l.Capped {
		req.Warn("TTL of %q exceeded the effective max_ttl of %q; TTL value is capped accordingly",
			in.Increment, l.MaxExpires.Sub(l.Issued).Round(time.Second))
	}
	return &route.Whole{LeaseID: string(l.ID), LeaseDuration: l.TTL, Renewable: l.Renewable}, nil
}

type revokeIn struct {
	leaseIn
	Sync wire.Opt[bool] `json:"sync" doc:"Wait until the credential is gone, not only disabled. false is answered with 202."`
}

func (e *Engine) revokeLease(ctx context.Context, req *route.Request, in revokeIn) (route.None, error) {
	id, err := in.id()
	if err != nil {
		return route.None{}, err
	}
	p, err := e.cfg.LeaseActions.Revoke(ctx, req.Mount.Namespace, id, lease.Revoked, in.Sync.Or(false))
	return revoked(req, p, in.Sync, err)
}

type revokePrefixIn struct {
	prefixIn
	Sync wire.Opt[bool] `json:"sync" doc:"Wait until the credentials are gone, not only due. false is answered with 202."`
}

func (e *Engine) revokePrefix(ctx context.Context, req *route.Request, in revokePrefixIn) (route.None, error) {
	p, err := e.revokeBelow(ctx, req.Mount.Namespace, in.Prefix, lease.Revoked, in.Sync.Or(false))
	return revoked(req, p, in.Sync, err)
}

func (e *Engine) revokeForce(ctx context.Context, req *route.Request, in prefixIn) (route.None, error) {
	// What is still being cleaned up is no news to somebody who does not want
	// to wait for it: to clients the leases are gone.
	_, err := e.revokeBelow(ctx, req.Mount.Namespace, in.Prefix, lease.Forced, false)
	return route.None{}, err
}

// revokeBelow ends the leases below a path, and the one with that path as its
// id. A path ends with a segment: creds/read is not the beginning of
// creds/readonly.
func (e *Engine) revokeBelow(ctx context.Context, ns, prefix string, cause lease.Cause, sync bool) (lease.Pending, error) {
	if !strings.HasSuffix(prefix, "/") {
		if p, err := e.cfg.LeaseActions.Revoke(ctx, ns, lease.ID(prefix), cause, sync); err != nil {
			return p, err
		}
		prefix += "/"
	}
	return e.cfg.LeaseActions.RevokePrefix(ctx, ns, prefix, cause, sync)
}

func revoked(req *route.Request, p lease.Pending, sync wire.Opt[bool], err error) (route.None, error) {
	if err != nil {
		return route.None{}, err
	}
	if p.Cleaning {
		req.Warn("no login is possible any more; cleaning up at the target goes on")
	}
	if wait, said := sync.Get(); said && !wait {
		req.SetStatus(http.StatusAccepted)
	}
	return route.None{}, nil
}

func (e *Engine) tidyLeases(_ context.Context, req *route.Request, _ route.None) (*route.Whole, error) {
	e.once("tidying leases", e.cfg.TidyLeases)
	req.Warn("Tidy operation successfully started. Any information from the operation will be printed to the server's log.")
	return &route.Whole{}, nil
}

type countIn struct {
	Type     string `json:"type" doc:"irrevocable counts only those; anything else all."`
	Children bool   `json:"include_child_namespaces" doc:"Count those of the namespaces below this one too."`
}

type countOut struct {
	Count  int64            `json:"lease_count"`
	Counts map[string]int64 `json:"counts"` // by accessor of the mount
}

const irrevocable = "irrevocable"

func (e *Engine) countLeases(ctx context.Context, req *route.Request, in countIn) (countOut, error) {
	out := countOut{Counts: map[string]int64{}}
	all := []string{req.Mount.Namespace}
	if in.Children {
		below, err := e.cfg.Namespaces.Below(ctx, req.Mount.Namespace, true)
		if err != nil {
			return out, err
		}
		for _, n := range below {
			all = append(all, n.ID)
		}
	}
	for _, ns := range all {
		one, err := e.countIn(ctx, ns, in.Type)
		if err != nil {
			return out, err
		}
		out.Count += one.Count
		maps.Copy(out.Counts, one.Counts)
	}
	return out, nil
}

// countIn counts the leases of one namespace.
func (e *Engine) countIn(ctx context.Context, ns, kind string) (countOut, error) {
	if kind != irrevocable {
		byMount, err := e.cfg.LeaseCounts(ctx, ns)
		if err != nil {
			return countOut{}, err
		}
		return e.counted(ctx, ns, byMount)
	}
	byMount := map[string]int64{}
	err := e.eachLease(ctx, ns, lease.Query{Irrevocable: true}, func(l lease.Info) { byMount[l.MountID]++ })
	if err != nil {
		return countOut{}, err
	}
	return e.counted(ctx, ns, byMount)
}

// counted names mounts by their accessors, as the API does; one that is being
// removed has none any more and is named by its id.
func (e *Engine) counted(ctx context.Context, ns string, byMount map[string]int64) (countOut, error) {
	out := countOut{Counts: map[string]int64{}}
	all, err := e.cfg.Mounts.List(ctx, ns)
	if err != nil {
		return out, err
	}
	accessors := make(map[string]string, len(all))
	for _, m := range all {
		accessors[m.ID] = m.Accessor
	}
	for id, n := range byMount {
		if n == 0 {
			continue
		}
		out.Count += n
		out.Counts[cmp.Or(accessors[id], id)] += n
	}
	return out, nil
}

func (e *Engine) eachLease(ctx context.Context, ns string, q lease.Query, fn func(lease.Info)) error {
	q.Limit = leasePage
	for {
		page, more, err := e.cfg.Leases.List(ctx, ns, q)
		if err != nil {
			return err
		}
		for _, l := range page {
			fn(l)
		}
		if !more || len(page) == 0 {
			return nil
		}
		q.After = page[len(page)-1].ID
	}
}

type listLeasesIn struct {
	Prefix      string        `json:"prefix" doc:"Path that the leases' ids begin with."`
	Type        string        `json:"type" doc:"irrevocable lists only those."`
	Irrevocable bool          `json:"irrevocable" doc:"The same as type=irrevocable."`
	After       secret.String `json:"after" doc:"Last lease of the page before."`
	Limit       string        `json:"limit" doc:"Most leases to answer, 1000 without; at most 10000."`
	Children    bool          `json:"include_child_namespaces" doc:"Has no effect: the list is of one namespace."`
	Force       bool          `json:"force"`
}

const (
	leasePage  = 1000
	mostLeases = 10000
)

// leaseRow is one lease in an operator's list.
type leaseRow struct {
	ID          secret.String `json:"lease_id"`
	Path        string        `json:"path"`
	Holder      string        `json:"holder,omitempty"` // the token's display name
	IssueTime   time.Time     `json:"issue_time"`
	ExpireTime  time.Time     `json:"expire_time"`
	TTL         wire.TTL      `json:"ttl"`
	Renewable   bool          `json:"renewable"`
	Ending      bool          `json:"ending,omitempty"`
	Cause       lease.Cause   `json:"cause,omitempty"`
	Irrevocable bool          `json:"irrevocable,omitempty"`
	Error       string        `json:"errmsg,omitempty"` // the target's
	NextTry     time.Time     `json:"next_try,omitzero"`
	Tries       int           `json:"tries,omitempty"`
}

type listLeasesOut struct {
	countOut
	Leases []leaseRow `json:"leases"`
	More   bool       `json:"more,omitempty"`
}

// listLeases shows who has what until when.
func (e *Engine) listLeases(ctx context.Context, req *route.Request, in listLeasesIn) (listLeasesOut, error) {
	ns := req.Mount.Namespace
	q := lease.Query{
		Prefix: in.Prefix, Irrevocable: in.Irrevocable || in.Type == irrevocable, After: lease.ID(in.After.Reveal()), Limit: leasePage,
	}
	switch n, err := strconv.Atoi(in.Limit); {
	case in.Limit == "":
	case in.Limit == "none":
		q.Limit = mostLeases
	case err != nil || n < 1:
		return listLeasesOut{}, errs.New(errs.Invalid, "invalid 'limit' value: give a number of leases")
	default:
		q.Limit = min(n, mostLeases)
	}
	if in.Children {
		req.Warn("include_child_namespaces has no effect on the list, which is of one namespace; sys/leases/count takes it")
	}
	page, more, err := e.cfg.Leases.List(ctx, ns, q)
	if err != nil {
		return listLeasesOut{}, err
	}
	out := listLeasesOut{Leases: make([]leaseRow, 0, len(page)), More: more}
	holders := map[string]string{}
	byMount := map[string]int64{}
	for _, l := range page {
		name, known := holders[l.Owner]
		if !known && l.Owner != "" {
			name = e.cfg.LeaseHolder(ctx, l.Owner)
			holders[l.Owner] = name
		}
		byMount[l.MountID]++
		out.Leases = append(out.Leases, leaseRow{
			ID: secret.New(string(l.ID)), Path: l.Path, Holder: name, IssueTime: l.Issued, ExpireTime: l.Expires, TTL: e.left(l),
			Renewable: l.Renewable, Ending: l.Ending, Cause: l.Cause, Irrevocable: l.Irrevocable,
			Error: l.Error, NextTry: l.NextTry, Tries: l.Tries,
		})
	}
	out.countOut, err = e.counted(ctx, ns, byMount)
	return out, err
}
