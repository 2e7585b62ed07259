package cli

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/leasehold/leasehold/api"
)

// leaseRow is one lease as GET sys/leases tells it. Servers that are not ours
// answer some of the fields only.
type leaseRow struct {
	LeaseID     string    `json:"lease_id"`
	Path        string    `json:"path,omitempty"`
	Holder      string    `json:"holder,omitempty"` // display name or accessor of the token
	IssueTime   time.Time `json:"issue_time,omitzero"`
	ExpireTime  time.Time `json:"expire_time,omitzero"`
	TTL         int       `json:"ttl"`
	Renewable   bool      `json:"renewable"`
	Ending      bool      `json:"ending,omitempty"`
	Irrevocable bool      `json:"irrevocable,omitempty"`
	Error       string    `json:"errmsg,omitempty"`
	NextTry     time.Time `json:"next_try,omitzero"`
}

const leasePage = 500

func leaseListCommand() *command {
	var prefix string
	var irrevocable bool
	var limit *int
	return &command{
		name: "list", max: 1, args: "[PREFIX]", short: "Show who has what, and until when",
		long: "Lists the leases with their holder, the time they have left and their state. " +
			"A lease that cannot be revoked shows what its target said and when it is tried " +
			"again.",
		example: []string{"leasehold lease list -prefix=database/creds/readonly"},
		flags: []*flag{
			stringFlag(&prefix, "prefix", "PATH", "Only leases below this path."),
			boolFlag(&irrevocable, "irrevocable", "Only those whose revocation fails."),
			optIntFlag(&limit, "limit", "Stop after N leases."),
		},
		run: func(ctx context.Context, c *call) error {
			if len(c.args) == 1 {
				prefix = c.arg(0)
			}
			l := leaseLister{call: c, prefix: cleanPath(prefix), irrevocable: irrevocable, limit: -1}
			if limit != nil && *limit > 0 {
				l.limit = *limit
			}
			rows, err := l.list(ctx)
			if err != nil {
				return step(err, "listing leases")
			}
			if len(rows) == 0 {
				return c.print([]leaseRow{}, func() { c.printf("No leases.\n") })
			}
			return c.printTable(leaseTable(rows, time.Now()), rows)
		},
	}
}

func leaseTable(rows []leaseRow, now time.Time) *table {
	t := newTable("Lease", "Holder", "Ends In", "State")
	for _, r := range rows {
		t.add(r.LeaseID, r.Holder, r.endsIn(now), r.state(now))
	}
	return t
}

func (r leaseRow) endsIn(now time.Time) string {
	switch left := r.ExpireTime.Sub(now).Truncate(time.Second); {
	case r.Ending || !r.ExpireTime.IsZero() && left <= 0:
		return "over"
	case r.ExpireTime.IsZero():
		return "never"
	default:
		return leftText(left)
	}
}

// leftText writes days where hours would be many.
func leftText(d time.Duration) string {
	if days := d / (24 * time.Hour); days >= 2 {
		return fmt.Sprintf("%dd", days)
	}
	return shortDuration(d)
}

func (r leaseRow) state(now time.Time) string {
	switch {
	case r.Irrevocable:
		s := "irrevocable: " + strings.Join(strings.Fields(r.Error), " ")
		if left := r.NextTry.Sub(now).Truncate(time.Second); !r.NextTry.IsZero() {
			s += fmt.Sprintf(" (next try in %s)", leftText(max(left, 0)))
		}
		return s
	case r.Ending && r.Error != "":
		return "ending: " + strings.Join(strings.Fields(r.Error), " ")
	case r.Ending:
		return "ending"
	}
	return "live"
}

// leaseLister walks through the leases page by page.
type leaseLister struct {
	call        *call
	prefix      string
	irrevocable bool
	limit       int // -1 is none
}

func (l *leaseLister) list(ctx context.Context) ([]leaseRow, error) {
	var rows []leaseRow
	after := ""
	for {
		page, more, err := l.page(ctx, after)
		switch api.StatusOf(err) {
		case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed:
			if after == "" && !l.irrevocable {
				return l.walk(ctx, l.prefix, nil) // a server that only knows Vault's way
			}
		}
		if err != nil {
			return nil, err
		}
		rows = append(rows, page...)
		if l.full(rows) || !more || len(page) == 0 {
			return rows, nil
		}
		after = page[len(page)-1].LeaseID
	}
}

func (l *leaseLister) full(rows []leaseRow) bool { return l.limit >= 0 && len(rows) >= l.limit }

func (l *leaseLister) page(ctx context.Context, after string) (rows []leaseRow, more bool, err error) {
	n := leasePage
	if l.limit >= 0 {
		n = min(n, l.limit)
	}
	q := url.Values{"limit": {strconv.Itoa(n)}}
	if l.prefix != "" {
		q.Set("prefix", l.prefix)
	}
	if l.irrevocable {
		q.Set("type", "irrevocable")
	}
	if after != "" {
		q.Set("after", after)
	}
	s, err := l.call.do(ctx, &api.Request{Method: http.MethodGet, Path: "sys/leases", Query: q})
	if err != nil {
		return nil, false, err
	}
	var out struct {
		Leases []leaseRow `json:"leases"`
		More   bool       `json:"more"`
	}
	if err := decode(s, &out); err != nil {
		return nil, false, err
	}
	if l.irrevocable {
		for i := range out.Leases {
			out.Leases[i].Irrevocable = true // Vault's rows do not say what was asked for
		}
	}
	return out.Leases, out.More, nil
}

// walk lists folder by folder and looks up each lease.
func (l *leaseLister) walk(ctx context.Context, path string, rows []leaseRow) ([]leaseRow, error) {
	cl, err := l.call.client()
	if err != nil {
		return nil, err
	}
	cl = cl.WithWrapTTL("") // many answers, of which none is the command's
	keys, err := cl.List(ctx, strings.TrimSuffix("sys/leases/lookup/"+path, "/")+"/")
	if api.IsNotFound(err) {
		return rows, nil
	}
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		if l.full(rows) {
			break
		}
		full := strings.TrimPrefix(path+"/"+k, "/")
		if strings.HasSuffix(k, "/") {
			if rows, err = l.walk(ctx, strings.TrimSuffix(full, "/"), rows); err != nil {
				return nil, err
			}
			continue
		}
		s, err := cl.Write(ctx, "sys/leases/lookup", leaseRequest{LeaseID: full})
		if api.StatusOf(err) == http.StatusBadRequest {
			continue // ended since it was listed
		}
		if err != nil {
			return nil, err
		}
		row := leaseRow{LeaseID: full}
		if err := s.Decode(&row); err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}
