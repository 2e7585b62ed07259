// Package postgres makes, extends and ends logins on a PostgreSQL server.
//
// A Target is one server as one connection of the database engine knows it:
// an address, a managing user, and two small pools, one for creating and one
// for revoking, so that neither waits for the other. It decides nothing about
// leases; it is told names, marks and times.
//
// Making a login is one message and one answer:
//
//	BEGIN; SET LOCAL …timeouts; CREATE ROLE …; COMMENT ON ROLE … IS '<mark>';
//	<fail if the clock is past make_by>; COMMIT
//
// so the login, its mark and the check of the time stand or fall together,
// and a message that arrives too late makes nothing. What the answer does not
// tell is reported as lease.ErrUnknown and never tried again.
//
// Ending takes N logins through the stages together, each stage one
// transaction, one by one where that fails: no login and no password; sessions
// ended and seen to be gone; what they owned and were granted, in every
// database that pg_shdepend names; DROP. Only a role whose comment is the
// lease's mark is touched, and the transactions check that again themselves.
//
// Our own SQL runs with the managing user's rights on the search_path that the
// operator's statements need. Others may create there, and who owns a database
// says what it is. So functions, types and operators all have their schema
// (OPERATOR(pg_catalog.=)): what is found by its name may be anybody's.
package postgres
