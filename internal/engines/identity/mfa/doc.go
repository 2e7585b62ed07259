// Package mfa asks some logins for a second factor: a passcode of a TOTP
// device (RFC 6238).
//
// A method says how passcodes look, an enforcement which logins need one. The
// secret of a device belongs to an entity and a method.
//
// The key idea: whether a passcode counts is decided in one transaction, over
// one row, which holds the secret with the last time step that was used and
// the failures since. So each passcode works once, on however many servers it
// is tried at the same moment, and guessing is slowed down by what is stored
// and not by what one process remembers. A login that waits for its passcode
// is a row too; its id begins with the time, so that those whose time is over
// lie at the beginning of their range.
//
// What is stored, and under which keys of the mount's slice:
//
//	mfa/method/<id>               methodRow
//	mfa/name/<name>               id of the method
//	mfa/enforcement/<name>        enforcementRow
//	mfa/secret/<entity>/<method>  secretRow
//	mfa/pending/<id>              pendingRow: a login that waits
//	mfa/waiting/<entity>          waitingRow: which logins of the entity wait
//	mfa/refs                      a number, raised by each enforcement that is written
package mfa
