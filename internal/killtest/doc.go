// Package killtest proves the first promise from outside: no credential
// without a lease, whatever dies and whenever. Its tests kill a real server
// with SIGKILL while it issues and revokes at full speed against a real
// PostgreSQL, and compare sets of names afterwards.
package killtest
