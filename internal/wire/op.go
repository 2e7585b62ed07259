package wire

// Op is what a request wants done with a path. Policies grant operations, and
// routes are declared by them.
type Op uint8

// The operations. A POST or PUT is OpUpdate until the endpoint's Exists says
// that the thing is not there; then it is OpCreate.
const (
	OpNone Op = iota
	OpCreate
	OpRead
	OpUpdate
	OpPatch
	OpDelete
	OpList
	OpHelp

	// Work the server does on its own account, named in audit records.
	OpRenew
	OpRevoke
	OpRollback
)

var opNames = [...]string{
	OpNone: "none", OpCreate: "create", OpRead: "read", OpUpdate: "update", OpPatch: "patch", OpDelete: "delete",
	OpList: "list", OpHelp: "help", OpRenew: "renew", OpRevoke: "revoke", OpRollback: "rollback",
}

// String is the operation's name as audit records and policies write it.
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return "invalid"
}
