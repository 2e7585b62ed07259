package audit

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// Data appends the data of a request or response to dst as JSON on one line,
// every string value passed through hash. Such are the AppendHashed methods of
// wire's values and of an endpoint's body, and what Query makes.
type Data func(dst []byte, hash wire.Hasher) []byte

// Entry is what a request or response record tells. The same Entry serves for
// both records of a request: Response is set in between.
type Entry struct {
	Time     time.Time // zero: the time of encoding
	Auth     *Auth     // who asks; nil where nobody was authenticated
	Request  Request
	Response *Response // nil in a request record
	Error    string    // the sentence the client reads; empty when all went well

	asked asked
}

// asked keeps what both records of a request have in common, who asked and for
// what, as the first was written: hashing it again is most of what the second
// would cost. It is kept for one format, which is all there is on most servers.
type asked struct {
	by *formatter // nil: nothing is kept
	b  []byte
}

// mostAsked bounds what is kept while a request is answered.
const mostAsked = 8 << 10

func (a *asked) keep(by *formatter, b []byte) {
	if a.by == nil && len(b) <= mostAsked {
		a.by, a.b = by, bytes.Clone(b)
	}
}

func (a *asked) of(by *formatter) []byte {
	if by == nil || a.by != by {
		return nil
	}
	return a.b
}

// Auth describes a token: the caller's, or one that a login hands out.
type Auth struct {
	ClientToken      secret.String
	Accessor         string
	DisplayName      string
	Policies         []string // all that apply
	TokenPolicies    []string
	IdentityPolicies []string
	NoDefaultPolicy  bool
	Results          *PolicyResults // nil: no policy was asked
	Metadata         map[string]string
	EntityID         string
	TokenType        string // "service" or "batch"
	NumUses          int    // 0: unlimited
	RemainingUses    int    // 0: unlimited
	TTL              time.Duration
	IssueTime        time.Time // zero: left out
}

// PolicyResults says whether policies allowed the request, and which did.
type PolicyResults struct {
	Allowed  bool
	Granting []GrantingPolicy
}

// GrantingPolicy is a policy that allowed the request.
type GrantingPolicy struct {
	Name      string
	Namespace Namespace
	Type      string // "acl"
}

// Namespace names a namespace by its id and its path. The root's path is "".
type Namespace struct {
	ID   string
	Path string
}

// Mount is where a request was routed to. The zero value is left out.
type Mount struct {
	Point    string // "database/"
	Type     string
	Accessor string
	Class    string // "secret" or "auth"
	Version  string // of the engine
}

// Header is a request header that the operator asked to be audited.
type Header struct {
	Name   string
	Values []string
	HMAC   bool // hash the values
}

// Request describes what was asked.
type Request struct {
	ID                  string
	ClientID            string
	Operation           string // "create", "read", "update", "patch", "delete", "list"
	Mount               Mount
	ClientToken         secret.String
	ClientTokenAccessor string
	Namespace           Namespace
	Path                string
	// SecretFrom is where in Path a bearer secret such as a lease id begins;
	// from there on it is hashed. Zero: Path holds none.
	SecretFrom  int
	Data        Data     // nil: none
	NonHMACKeys []string // audit_non_hmac_request_keys of the mount
	Remote      netip.AddrPort
	WrapTTL     time.Duration
	Headers     []Header
}

// Response describes what was answered. Its mount is the request's.
type Response struct {
	Auth        *Auth
	LeaseID     secret.String
	Data        Data     // nil: none
	NonHMACKeys []string // audit_non_hmac_response_keys of the mount
	Warnings    []string
	Redirect    string
	WrapInfo    *WrapInfo
}

// WrapInfo describes a wrapped answer.
type WrapInfo struct {
	TTL             time.Duration
	Token           secret.String
	Accessor        string
	CreationTime    time.Time
	CreationPath    string
	WrappedAccessor string
}

// Stored is an event record: something the server did that no request waits
// for. It is kept in the store until a device has taken it.
type Stored struct {
	ID            string // set by the outbox; equal in repeated deliveries
	Time          time.Time
	Kind          string // "lease", "token", "rotation", ...
	Operation     string // "revoke", "renew", "rotate", ...
	Cause         string // "expired", "revoked", "forced", "undo", "unmounted"
	Outcome       string // "gone", "absent", "foreign", "forgotten", "failed"
	Namespace     Namespace
	Mount         Mount
	Path          string        // the path that made the credential
	LeaseID       secret.String // hashed in the log
	Target        string        // the target's id, never its address
	Credential    secret.String // the login's public name; hashed in the log
	TokenAccessor string        // of the token that owns the lease; hashed like every accessor
	Error         string        // the target's, for an outcome that is none
}
