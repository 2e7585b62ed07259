// Package jwt logs in whoever holds a signed token of an issuer that the mount
// trusts: a program with a JWT of its own, or a person whose browser is sent
// to an OpenID Connect provider and comes back with a code.
//
// The key idea: the configuration says where public keys come from (given
// keys, JWKS addresses, or a provider's discovery document), a role says what
// a token must claim, and both are read from the store at each login, so that
// nothing here has to be told of a change. Only what other servers said is
// kept in memory, by [remote]: with a limit on its age, on how often it is
// asked for again, and on how long anybody waits.
//
// A browser's login takes several requests, which may reach different nodes;
// what they share is one short-lived row in the store (flow.go), used once.
package jwt
