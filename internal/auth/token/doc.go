// Package token is the auth method behind auth/token/: tokens made by tokens.
//
// The key idea: a token can give away at most what it has. What a child may
// hold is its parent's policies, or what a role allows, or anything for those
// with sudo on the path; all of those rules stand in create.go, in the order
// in which they apply. How tokens are kept, found and ended is not ours: see
// Tokens.
package token
