// Package audit writes down who asked for what, what was answered, and what
// the server ended by itself, in the JSON form that Vault's audit devices have.
//
// The key idea is that there is no answer without a record: the Broker gives
// each record to every enabled device and fails unless at least one has taken
// it. A device has taken a record when the record is in the hands of the
// operating system (or on the disk, where the device was asked to sync) as one
// complete line. With no device enabled the Broker costs one atomic load.
//
// A log that repeats secrets would be a second place to steal them from, so
// every string in the data of requests and responses is replaced by its HMAC
// under a salt of the device; /sys/audit-hash computes the same HMAC to search
// for a known value. Keys that a mount lists as not to be hashed stay readable,
// except fields whose type is secret. Tokens, lease ids and (unless told
// otherwise) accessors are hashed wherever they stand. Only a device with
// log_raw shows everything. Names of keys, numbers, booleans, policies, token
// metadata, warnings and error sentences stand in clear, as in Vault.
//
// A record is one line. There are three types:
//
//	request   written before the request is carried out
//	response  written before the answer is sent
//	event     what no request waits for: expiry, revocation, rotation
//
// Vault has the first two. An event is stored in the transaction that it tells
// of (package outbox) and may be written twice after a crash: its id is then
// the same.
package audit
