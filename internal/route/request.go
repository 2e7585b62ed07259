package route

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/leasehold/leasehold/internal/lease"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// Request is what an engine may know of a request. Handlers read it; what they
// say about their answer (warnings, status, lease fields) they say by its
// methods. It is used by one goroutine and does not outlive the request.
type Request struct {
	ID     string
	Op     wire.Op
	Path   string // canonical, relative to the mount; of a LIST it is empty or ends in "/"
	Mount  MountInfo
	Caller Caller
	Remote netip.Addr
	Query  url.Values
	Body   []byte // one JSON value, checked by httpapi; nil without a body
	// OnlyUpdate says that what the request names was there when the policies
	// were asked, and that the caller may not create it: whoever finds it gone
	// by now makes no new one.
	OnlyUpdate bool
	// Octets is the body of a request that is bytes, for an endpoint that
	// takes them; its fields are then in the query.
	Octets []byte
	// Header gives the request headers that the mount passes through; any
	// other is "". Nil gives none.
	Header func(name string) string
	// WrapTTL is what the client asked the answer to be wrapped for, or 0.
	WrapTTL time.Duration
	// Lease is the identity of the lease to be. Only Issue endpoints have it.
	Lease *lease.Draft
	// Redact is what the listener leaves out of answers that need no token.
	Redact Redact
	// TLS is the connection the request came over; nil for a plain one.
	TLS *tls.ConnectionState

	params Params
	reply  Reply
}

// MountInfo is the mount that a request reached.
type MountInfo struct {
	Path          string // "database/"
	Type          string
	ID            string
	Accessor      string
	Namespace     string // its id
	NamespacePath string // "" for the root
	Options       map[string]string
	DefaultTTL    time.Duration // effective, never zero
	MaxTTL        time.Duration
}

// Redact says what not to tell of the server.
type Redact struct {
	Addresses, ClusterName, Version bool
}

// Caller is who asks. Without a token all of it is empty.
type Caller struct {
	Token       secret.String // as it was sent
	Key         string        // its keyed hash, by which the store knows it
	Accessor    string
	DisplayName string
	EntityID    string
	LoggedIn    time.Time // when the token was made
	Namespace   string    // the token's: its id
	Below       string    // the path of the request's namespace seen from the token's; "" in its own
	Policies    []string
	Root        bool // has the root policy of its namespace
	Batch       bool
}

// Reply is what a handler said about its answer beside the data.
type Reply struct {
	Status        int // 0: 200, or 204 where there is nothing to say
	Warnings      []string
	LeaseID       string
	LeaseDuration time.Duration
	Renewable     bool
	// WrappedAccessor is the accessor of what the answer holds.
	WrappedAccessor string
	Header          http.Header // passed on where the mount allows the name
	Raw             *Raw        // in place of what the handler returned
	Lent            Lent        // nil: nothing
}

// Lent is memory that an answer lies in. Release takes it back once the answer
// was written.
type Lent interface{ Release() }

// Warn adds a warning to the answer.
func (r *Request) Warn(format string, args ...any) {
	r.reply.Warnings = append(r.reply.Warnings, fmt.Sprintf(format, args...))
}

// SetStatus answers another status than 200 or 204.
func (r *Request) SetStatus(code int) { r.reply.Status = code }

// SetLease fills the envelope's lease fields, as renewing one does.
func (r *Request) SetLease(id string, d time.Duration, renewable bool) {
	r.reply.LeaseID, r.reply.LeaseDuration, r.reply.Renewable = id, d, renewable
}

// SetLeaseDuration fills the envelope's lease_duration alone: a hint when to
// read again.
func (r *Request) SetLeaseDuration(d time.Duration) { r.reply.LeaseDuration = d }

// SetWrappedAccessor names what is in the answer by its accessor, for whoever
// is given a wrapping token instead.
func (r *Request) SetWrappedAccessor(accessor string) { r.reply.WrappedAccessor = accessor }

// SetHeader adds a response header.
func (r *Request) SetHeader(name, value string) {
	if r.reply.Header == nil {
		r.reply.Header = http.Header{}
	}
	r.reply.Header.Set(name, value)
}

// AnswerRaw answers without an envelope, whatever the handler returns beside a
// nil error.
func (r *Request) AnswerRaw(raw *Raw) { r.reply.Raw = raw }

// Lend says that the answer lies in memory that is used again: it is released
// when the answer was written, or never, if something else is answered after
// all. It promises too that the handler has kept nothing of the request's body,
// so that the body's memory is used again with it.
func (r *Request) Lend(l Lent) { r.reply.Lent = l }

// Reply is what was said so far.
func (r *Request) Reply() *Reply { return &r.reply }

// Param is a parameter of the path, "" if the pattern has none of that name.
func (r *Request) Param(name string) string { v, _ := r.params.Get(name); return v }

// None is the answer of an endpoint that has nothing to say: 204 without a
// body, or 200 with the envelope when there are warnings. As In it takes no
// fields.
type None struct{}

// Raw is an answer that is not an envelope: a certificate, a CRL, metrics.
type Raw struct {
	Status      int // 0: 200, or 204 without a body
	ContentType string
	Body        []byte
	Header      http.Header
	// Stream writes the body in place of Body, each Write going out at once,
	// until it has no more to say or ctx ends: then the client has gone.
	Stream func(ctx context.Context, w io.Writer) error
}

// Auth is what a login grants. core makes the token.
type Auth struct {
	Policies        []string
	DisplayName     string
	Metadata        map[string]string
	TTL             time.Duration // 0: the mount's default
	MaxTTL          time.Duration // 0: the mount's
	ExplicitMaxTTL  time.Duration
	Period          time.Duration
	NumUses         int
	Type            TokenType
	NotRenewable    bool
	NoDefaultPolicy bool
	BoundCIDRs      []netip.Prefix
	// Alias is who it is by the method's own lights. Identity finds or makes
	// the entity that it belongs to. Nil: nobody in particular.
	Alias *Alias
	// Role is the method's role that was logged in by, where it has roles: the
	// one that RoleOf names. Quotas count by it.
	Role string
	// Groups are the names of the groups that the method says it is in.
	Groups []string
	// Internal is kept with the token for the method's own renewal check.
	Internal wire.Object
	// Held is a login that waited for its second factors and has them now, as
	// core wrote it. All else is then empty.
	Held []byte
}

// Alias is a name that an auth method's mount knows somebody by.
type Alias struct {
	Name     string
	Metadata map[string]string // of the alias, replaced at each login
}

// TokenType is the kind of token that a login makes.
type TokenType uint8

// The kinds of token. The mount's setting decides what TokenDefault is.
const (
	TokenDefault TokenType = iota
	TokenService
	TokenBatch
)

// TokenReply is the auth part of an envelope: a token that exists.
type TokenReply struct {
	ClientToken      secret.String     `json:"client_token"`
	Accessor         string            `json:"accessor"`
	Policies         []string          `json:"policies"`
	TokenPolicies    []string          `json:"token_policies"`
	IdentityPolicies []string          `json:"identity_policies,omitempty"`
	Metadata         map[string]string `json:"metadata" wire:"null"`
	LeaseDuration    wire.TTL          `json:"lease_duration"`
	Renewable        bool              `json:"renewable"`
	EntityID         string            `json:"entity_id"`
	TokenType        string            `json:"token_type"`
	Orphan           bool              `json:"orphan"`
	MFARequirement   *MFARequirement   `json:"mfa_requirement"`
	NumUses          int               `json:"num_uses"`
}

// MFARequirement stands in the auth part in place of a token: the login waits
// for second factors, which sys/mfa/validate takes.
type MFARequirement struct {
	RequestID   string                   `json:"mfa_request_id"`
	Constraints map[string]MFAConstraint `json:"mfa_constraints"`
}

// MFAConstraint is met by any of its methods.
type MFAConstraint struct {
	Any []MFAMethod `json:"any"`
}

// MFAMethod is one way to show a second factor.
type MFAMethod struct {
	Type         string `json:"type"`
	ID           string `json:"id"`
	UsesPasscode bool   `json:"uses_passcode"`
	Name         string `json:"name"`
}

// Whole is the answer of an endpoint that gives back an envelope made before,
// as unwrapping does, or one with an auth part, as creating a token does.
type Whole struct {
	Data          wire.Data // nil is null
	Auth          wire.Data // nil is null
	Wrap          *WrapInfo // nil is null; the answer is wrapped already
	LeaseID       string
	LeaseDuration time.Duration
	Renewable     bool
}

// WrapInfo stands in the envelope in place of a wrapped answer.
type WrapInfo struct {
	Token           secret.String `json:"token"`
	Accessor        string        `json:"accessor"`
	TTL             wire.TTL      `json:"ttl"`
	CreationTime    time.Time     `json:"creation_time"`
	CreationPath    string        `json:"creation_path"`
	WrappedAccessor string        `json:"wrapped_accessor,omitempty"`
}
