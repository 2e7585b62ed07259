package ldap

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/leasehold/leasehold/internal/errs"
)

const (
	atOnce     = 64               // conversations with the directory of a mount
	queueTime  = 5 * time.Second  // to wait for one of them to end
	sickTime   = 30 * time.Second // for which an address that did not answer comes last
	maxAnswers = 16 << 20         // bytes that a directory may say in a conversation
	maxGroups  = 10_000           // of a user
)

// dialogue is a conversation with the directory: one connection, for one login.
type dialogue struct {
	*ready
	raw  net.Conn
	conn *ldap.Conn
	stop func() bool // of closing the connection when the client goes
}

// meter is a connection that ends when the other side has said too much.
type meter struct {
	net.Conn
	left atomic.Int64
}

var errTooMuch = errors.New("ldap: the directory's answers are too long")

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	if m.left.Add(int64(-n)) < 0 {
		return 0, errTooMuch
	}
	return n, err
}

// begin waits for its turn. There are so many at once for a directory that a
// sick one cannot take all that the server has.
func (e *Engine) begin(ctx context.Context) (end func(), err error) {
	select {
	case e.slots <- struct{}{}:
		return func() { <-e.slots }, nil
	default:
	}
	wait := time.NewTimer(queueTime)
	defer wait.Stop()
	select {
	case e.slots <- struct{}{}:
		return func() { <-e.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-wait.C:
		return nil, errs.New(errs.Unavailable, "the directory is slow: %d logins wait for it already; try again", atOnce)
	}
}

// open connects to the first address that answers.
func (e *Engine) open(ctx context.Context, r *ready) (*dialogue, error) {
	var faults error
	for _, u := range e.healthyFirst(r.urls) {
		d, err := r.dial(ctx, u)
		e.note(u, err == nil)
		if err == nil {
			return d, nil
		}
		faults = errors.Join(faults, fmt.Errorf("%s: %w", u.Redacted(), err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, upstream(faults)
}

// upstream is what a client reads whose login the directory had no part in.
func upstream(err error) error {
	return errs.Wrap(errs.Upstream, err, "the directory could not be asked; the server's log has the cause")
}

// healthyFirst puts those addresses last that did not answer a moment ago.
func (e *Engine) healthyFirst(urls []*url.URL) []*url.URL {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.env.Now()
	for host, until := range e.sick {
		if now.After(until) {
			delete(e.sick, host)
		}
	}
	out := slices.Clone(urls)
	slices.SortStableFunc(out, func(a, b *url.URL) int { return cmp.Compare(e.ranked(a), e.ranked(b)) })
	return out
}

// ranked is called with mu held.
func (e *Engine) ranked(u *url.URL) int {
	if e.sick[u.String()].IsZero() {
		return 0
	}
	return 1
}

func (e *Engine) note(u *url.URL, well bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if well {
		delete(e.sick, u.String())
	} else {
		e.sick[u.String()] = e.env.Now().Add(sickTime)
	}
}

// dial connects to one address, encrypted where the configuration wants that.
// From then on the connection has until request_timeout, and lives no longer
// than ctx.
func (r *ready) dial(ctx context.Context, u *url.URL) (*dialogue, error) {
	port := u.Port()
	if port == "" {
		port = ldap.DefaultLdapPort
		if u.Scheme == "ldaps" {
			port = ldap.DefaultLdapsPort
		}
	}
	conf := r.tls.Clone()
	conf.ServerName = u.Hostname()
	limit := time.Now().Add(r.ConnectionTime.Duration())
	dctx, cancel := context.WithDeadline(ctx, limit)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(dctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return nil, err
	}
	m := &meter{Conn: raw}
	m.left.Store(maxAnswers)
	var c net.Conn = m
	if u.Scheme == "ldaps" {
		t := tls.Client(m, conf)
		if err := t.HandshakeContext(dctx); err != nil {
			return nil, errors.Join(err, raw.Close())
		}
		c = t
	}
	if err := raw.SetDeadline(limit); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	conn := ldap.NewConn(c, u.Scheme == "ldaps")
	// The deadline wakes who reads. While TLS starts the library may stop
	// reading and yet wait for an answer, which only its own timeout ends.
	conn.SetTimeout(r.ConnectionTime.Duration())
	conn.Start()
	d := &dialogue{ready: r, raw: raw, conn: conn, stop: context.AfterFunc(ctx, func() { _ = raw.Close() })}
	if r.StartTLS && u.Scheme == "ldap" {
		if err := conn.StartTLS(conf); err != nil {
			d.close()
			return nil, fmt.Errorf("StartTLS: %w", err)
		}
	}
	limit = time.Now().Add(r.RequestTime.Duration())
	conn.SetTimeout(r.RequestTime.Duration())
	if err := raw.SetDeadline(limit); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

// close ends the conversation. What is still being sent or read is cut short:
// the library would wait for it.
func (d *dialogue) close() {
	d.stop()
	_ = d.raw.Close()
	_ = d.conn.Close()
}

// looks reports whether users are looked for before they bind.
func (c *config) looks() bool { return c.account() || c.DiscoverDN }

// account reports whether there is somebody to bind as before the user.
func (c *config) account() bool { return c.BindDN != "" && !c.BindPass.IsZero() }

// bindAccount becomes the bind account, if there is one, or stays nobody.
func (d *dialogue) bindAccount() error {
	if !d.account() {
		return nil
	}
	if err := d.conn.Bind(d.BindDN, d.BindPass.Reveal()); err != nil {
		return fmt.Errorf("binding as binddn: %w", err)
	}
	return nil
}

// errWrong is a bind that the directory refused for what was sent.
var errWrong = errors.New("ldap: the directory does not take this name and password")

// notTheUsers are refusals that have nothing to do with who wants to bind.
var notTheUsers = []uint16{
	ldap.LDAPResultOperationsError, ldap.LDAPResultProtocolError, ldap.LDAPResultTimeLimitExceeded, ldap.LDAPResultAuthMethodNotSupported,
	ldap.LDAPResultStrongAuthRequired, ldap.LDAPResultConfidentialityRequired, ldap.LDAPResultBusy, ldap.LDAPResultUnavailable,
}

// bind tries a user's password.
func (d *dialogue) bind(who, password string) error {
	err := d.conn.Bind(who, password)
	var answer *ldap.Error
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &answer) || answer.ResultCode >= ldap.ErrorNetwork || slices.Contains(notTheUsers, answer.ResultCode):
		return fmt.Errorf("binding as the user: %w", err)
	}
	return errors.Join(errWrong, err)
}

// entry is a user as the directory has them.
type entry struct {
	dn       string
	name     string // the one value of userattr; "" if there is none or more
	disabled bool
}

// disabling are attributes by which directories lock accounts: Active
// Directory, 389 and OpenLDAP.
const (
	attrControl = "userAccountControl"
	attrLock    = "nsAccountLock"
	attrLocked  = "pwdAccountLockedTime"
)

// unseen are refusals of a search by a directory that does not show this
// caller what was asked for.
var unseen = []uint16{ldap.LDAPResultNoSuchObject, ldap.LDAPResultInsufficientAccessRights}

// find looks for a user; nil: there is not exactly one.
func (d *dialogue) find(name string) (*entry, error) {
	attr := d.UserAttr
	values := map[string]string{"UserAttr": attr, "Username": name}
	if d.UPNDomain != "" {
		values["UserAttr"], values["Username"] = "userPrincipalName", name+"@"+d.UPNDomain
	}
	res, err := d.search(d.UserDN, ldap.ScopeWholeSubtree, d.users.render(values), 2, attr, attrControl, attrLock, attrLocked)
	switch {
	case ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded):
		return nil, nil
	case ldap.IsErrorAnyOf(err, unseen...) && !d.looks():
		// Whoever looks here is the user, or nobody, and need not be let. For
		// who was set up to look it is a fault of the setting.
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("looking for the user: %w", err)
	case len(res) != 1:
		return nil, nil
	}
	e := &entry{dn: res[0].DN}
	if v := res[0].GetEqualFoldAttributeValues(attr); len(v) == 1 {
		e.name = v[0]
	}
	control, _ := strconv.ParseUint(res[0].GetEqualFoldAttributeValue(attrControl), 10, 32)
	e.disabled = control&2 != 0 || strings.EqualFold(res[0].GetEqualFoldAttributeValue(attrLock), "true") ||
		res[0].GetEqualFoldAttributeValue(attrLocked) != ""
	return e, nil
}

// search asks the directory for the entries that fit a filter.
func (d *dialogue) search(base string, scope int, filter string, most int, attrs ...string) ([]*ldap.Entry, error) {
	req := ldap.NewSearchRequest(base, scope, d.deref, most, int(d.RequestTime.Duration()/time.Second), false, filter, attrs, nil)
	req.EnforceSizeLimit = true
	var res *ldap.SearchResult
	var err error
	if d.PageSize > 0 && most == maxGroups {
		// The bound is of all pages together, which the request cannot say.
		req.SizeLimit = 0
		res, err = d.conn.SearchWithPaging(req, uint32(d.PageSize))
	} else {
		res, err = d.conn.Search(req)
	}
	if err != nil {
		return nil, err
	}
	if len(res.Entries) > most {
		return nil, ldap.NewError(ldap.LDAPResultSizeLimitExceeded, fmt.Errorf("there are more than %d", most))
	}
	return res.Entries, nil
}

// memberships are the names of the groups that the directory says a user is in.
func (d *dialogue) memberships(dn, name string) ([]string, error) {
	var found []*ldap.Entry
	var err error
	switch {
	case d.TokenGroups && dn != "":
		found, err = d.tokenGroups(dn)
	case d.groups == nil || d.GroupDN == "":
		return nil, nil
	default:
		filter := d.groups.render(map[string]string{"UserDN": dn, "Username": name})
		attrs := []string{"1.1"} // none
		if d.GroupAttr != "" {
			attrs = []string{d.GroupAttr}
		}
		found, err = d.search(d.GroupDN, ldap.ScopeWholeSubtree, filter, maxGroups, attrs...)
	}
	if err != nil {
		return nil, fmt.Errorf("looking for the user's groups: %w", err)
	}
	var names []string
	for _, e := range found {
		values := e.GetEqualFoldAttributeValues(d.GroupAttr)
		if len(values) == 0 {
			values = []string{e.DN} // the group itself
		}
		for _, v := range values {
			if name, ok := plain(groupName(v, d.OldGroupNames)); ok {
				names = append(names, name)
			}
		}
	}
	if len(names) > maxGroups {
		return nil, fmt.Errorf("looking for the user's groups: there are more than %d", maxGroups)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// tokenGroups are a user's groups by what Active Directory computes: security
// identifiers, also of groups that other groups are in.
func (d *dialogue) tokenGroups(dn string) ([]*ldap.Entry, error) {
	res, err := d.search(dn, ldap.ScopeBaseObject, "(objectClass=*)", 1, "tokenGroups")
	if err != nil || len(res) == 0 {
		return nil, err
	}
	sids := res[0].GetRawAttributeValues("tokenGroups")
	if len(sids) > maxGroups {
		return nil, fmt.Errorf("there are more than %d", maxGroups)
	}
	var out []*ldap.Entry
	for _, raw := range sids {
		sid, ok := sidText(raw)
		if !ok {
			continue
		}
		group, err := d.search("<SID="+sid+">", ldap.ScopeBaseObject, "(objectClass=*)", 1, "1.1")
		if ldap.IsErrorAnyOf(err, unseen...) {
			continue // of another domain, or not to be seen
		}
		if err != nil {
			return nil, err
		}
		out = append(out, group...)
	}
	return out, nil
}

// sidText writes a security identifier ([MS-DTYP] 2.4.2) as S-1-5-21-...
func sidText(b []byte) (string, bool) {
	if len(b) < 8 || b[0] != 1 || len(b) != 8+4*int(b[1]) {
		return "", false
	}
	authority := uint64(binary.BigEndian.Uint16(b[2:]))<<32 | uint64(binary.BigEndian.Uint32(b[4:]))
	s := "S-1-" + strconv.FormatUint(authority, 10)
	for at := 8; at < len(b); at += 4 {
		s += "-" + strconv.FormatUint(uint64(binary.LittleEndian.Uint32(b[at:])), 10)
	}
	return s, true
}
