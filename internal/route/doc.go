// Package route holds typed endpoints. An engine declares each of its paths
// with a function from a struct to a struct; decoding, validation, help and
// the OpenAPI document come from those structs.
//
// The key idea: generics carry the plumbing once. Read, List, Write, Patch,
// Delete, Issue and Login turn a typed handler into an Endpoint, which core
// calls without knowing the types. Patterns are a small tree of segments;
// finding an endpoint allocates nothing and uses no regular expression.
//
// Functions are named by operation because policies grant operations.
package route
