package policy

import "github.com/leasehold/leasehold/internal/wire"

// Caps is a set of capabilities. The bits are in the order of their names,
// which is the order in which they are answered.
type Caps uint16

// The capabilities. Scan, Recover and Subscribe belong to operations that
// peers have and this server has not: they are understood and grant nothing.
const (
	Create Caps = 1 << iota
	Delete
	Deny
	List
	Patch
	Read
	Recover
	Scan
	Subscribe
	Sudo
	Update
)

var capNames = [...]string{
	"create", "delete", "deny", "list", "patch", "read", "recover", "scan", "subscribe", "sudo", "update",
}

// Names are the capabilities as the API writes them, sorted. Of nothing, as of
// anything with Deny, they are "deny" alone.
func (c Caps) Names() []string {
	if c == 0 || c&Deny != 0 {
		return []string{"deny"}
	}
	names := make([]string, 0, 4)
	for i, name := range capNames {
		if c&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

func parseCap(name string) (Caps, bool) {
	for i, n := range capNames {
		if n == name {
			return 1 << i, true
		}
	}
	return 0, false
}

// shorthand is what the policy = "…" of Vault's first releases stands for.
func shorthand(name string) (Caps, bool) {
	const write = Create | Read | Update | Delete | List
	switch name {
	case "deny":
		return Deny, true
	case "read":
		return Read | List, true
	case "write":
		return write, true
	case "sudo":
		return write | Sudo, true
	}
	return 0, false
}

// needed is the capability that an operation asks for. What the server does in
// a client's name to a lease counts as an update.
func needed(op wire.Op) Caps {
	switch op {
	case wire.OpCreate:
		return Create
	case wire.OpRead:
		return Read
	case wire.OpUpdate, wire.OpRenew, wire.OpRevoke, wire.OpRollback:
		return Update
	case wire.OpPatch:
		return Patch
	case wire.OpDelete:
		return Delete
	case wire.OpList:
		return List
	}
	return 0
}

// judgesParams says of which operations the parameters are judged: of those
// that hand data in, and of reading, whose query can select what is read.
func judgesParams(op wire.Op) bool {
	switch op {
	case wire.OpCreate, wire.OpRead, wire.OpUpdate, wire.OpPatch:
		return true
	}
	return false
}
