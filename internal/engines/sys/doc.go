// Package sys is the engine behind sys/: what an operator does to the server
// itself. It has two tables. Engine's routes exist while the server is
// unsealed, as any engine's do; BootRoutes are those that work whatever state
// the server is in, and are served before anything is unsealed.
//
// The key idea: sys decides how the API reads and writes, and nothing else.
// The mount table, the policies, the leases and the seal belong to other
// packages; each file here says in a small interface what it needs of them,
// and package server hands that in.
package sys
