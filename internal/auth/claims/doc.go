// Package claims reads signed tokens (JWT in compact form) for the auth
// methods that take them: it checks the signature against keys that somebody
// trusted said, and gives what the token claims.
//
// The key idea: nothing in a token chooses how it is judged. The algorithm
// that its header names must be one of a fixed list without `none` and without
// shared secrets, and must fit the type and curve of a key that was there
// before; keys that a token brings along (jwk, x5c, jku, x5u) are not looked
// at. Claims stay JSON text and are looked up in it, so numbers keep their
// digits and a claim that nobody asks for costs nothing.
package claims
