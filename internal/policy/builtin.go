package policy

import (
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
)

// The names with a meaning of their own.
const (
	DefaultName          = "default"           // added to tokens unless they ask not to have it
	RootName             = "root"              // has no text: RootSet
	ResponseWrappingName = "response-wrapping" // held by wrapping tokens only
	ControlGroupName     = "control-group"     // kept free: clients know the name as Vault's
)

// ResponseWrappingText is the policy of a wrapping token.
const ResponseWrappingText = `# Held by wrapping tokens: read what was wrapped, and nothing else.

path "cubbyhole/response" {
  capabilities = ["create", "read"]
}

path "sys/wrapping/unwrap" {
  capabilities = ["update"]
}
`

// DefaultText is what the policy "default" says until somebody changes it. It
// grants what clients written for Vault expect every token to have.
const DefaultText = `# What every token may do, unless it was made without this policy.
# Operators may change this text; the policy itself cannot be deleted.

# See, renew and give up itself.
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}

# Ask what it may do.
path "sys/capabilities-self" {
  capabilities = ["update"]
}
path "sys/internal/ui/resultant-acl" {
  capabilities = ["read"]
}

# Read the entity that it belongs to.
path "identity/entity/id/{{identity.entity.id}}" {
  capabilities = ["read"]
}
path "identity/entity/name/{{identity.entity.name}}" {
  capabilities = ["read"]
}

# Look up and renew a lease whose id it knows. The id is the secret here.
path "sys/leases/lookup" {
  capabilities = ["update"]
}
path "sys/leases/renew" {
  capabilities = ["update"]
}
path "sys/renew" {
  capabilities = ["update"]
}

# Use its own cubbyhole, which no other token can see.
path "cubbyhole/*" {
  capabilities = ["create", "read", "update", "delete", "list"]
}

# Wrap an answer, look at a wrapping token and unwrap it.
path "sys/wrapping/wrap" {
  capabilities = ["update"]
}
path "sys/wrapping/lookup" {
  capabilities = ["update"]
}
path "sys/wrapping/unwrap" {
  capabilities = ["update"]
}

# Hash something, or draw random bytes.
path "sys/tools/hash" {
  capabilities = ["update"]
}
path "sys/tools/hash/*" {
  capabilities = ["update"]
}
path "sys/tools/random" {
  capabilities = ["update"]
}
path "sys/tools/random/*" {
  capabilities = ["update"]
}

# Ask how far a request that others must approve has come.
path "sys/control-group/request" {
  capabilities = ["update"]
}

# Sign in elsewhere with this server as the OpenID Connect provider.
path "identity/oidc/provider/+/authorize" {
  capabilities = ["read", "update"]
}
`

// CleanName is the name a policy is stored and compared under.
func CleanName(name string) string { return strings.ToLower(strings.TrimSpace(name)) }

// CheckWrite refuses to change the policies that are part of the server. The
// name is a clean one.
func CheckWrite(name string) error {
	if name == RootName || !Assignable(name) {
		return errs.New(errs.Invalid, "cannot update %q policy", name)
	}
	return nil
}

// CheckDelete is CheckWrite for deleting: "default" may be changed but not
// deleted.
func CheckDelete(name string) error {
	switch {
	case name == DefaultName:
		return errs.New(errs.Invalid, "cannot delete default policy")
	case name == RootName || !Assignable(name):
		return errs.New(errs.Invalid, "cannot delete %q policy", name)
	}
	return nil
}

// Assignable reports whether a caller may give the policy to a token, and
// whether lists show it: the others are the server's own.
func Assignable(name string) bool { return name != ResponseWrappingName && name != ControlGroupName }
