// Package kubernetes logs in pods by the token of their service account.
//
// The key idea: the cluster's API server is asked about each token
// (TokenReview), so that a token ends with its pod and its account, and what a
// role binds is held against the server's answer and not against what the
// token says of itself. Nobody learns anything of a role before that: a token
// of one's own making is answered the same whatever it claims. With pem_keys
// the signature is checked here first, and tokens of elsewhere cost the API
// server nothing.
package kubernetes
