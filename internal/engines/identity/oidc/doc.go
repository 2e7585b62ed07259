// Package oidc tells other programs who somebody is, in tokens that they can
// check by themselves: identity tokens for whoever asks for one of a role, and
// an OpenID Connect provider for programs that want people to log in here.
//
// The key idea: nothing is kept in the process. A named key is one row with
// the key that signs, the one that will sign next (published ahead, so that
// whoever keeps the published keys for a while knows it when it is first used)
// and those that still verify. It is rotated by whoever meets it after its
// time, in a transaction that looks at the time again: a request that is about
// to sign, or the server's sweep, which finds the keys that nobody uses by one
// seek in a range ordered by time. An authorization code is a row that the
// first exchange deletes; an access token is no row at all, because it carries
// what it grants under a MAC and is good for one endpoint only.
//
// What is stored, and under which keys of the mount's slice:
//
//	oidc/config               configRow
//	oidc/key/<name>           keyRow
//	oidc/due/<time>/<name>    the key is to be rotated
//	oidc/role/<name>          roleRow
//	oidc/scope/<name>         scopeRow
//	oidc/assignment/<name>    assignmentRow
//	oidc/client/<name>        clientRow
//	oidc/clientid/<id>        name of the client
//	oidc/provider/<name>      providerRow
//	oidc/code/<time>/<hash>   codeRow
//	oidc/mac                  macRow: what access tokens are made with
//	oidc/refs                 a number, raised by whatever refers to another row
package oidc
