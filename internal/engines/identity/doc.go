// Package identity knows who callers are, whatever auth method they come by.
// There is one mount of it in each namespace.
//
// An entity is somebody. Its aliases are the names by which the mounts of auth
// methods know it; a login finds the entity by its alias, or makes one. A group
// holds entities and other groups; an external one is filled at login, by what
// the auth method says. Entities and groups have policies, which every request
// of an entity's tokens gets beside the token's own.
//
// The key idea: each fact is a row that is found by a single key, and a
// membership is a row on the group's side and a word on the entity's. So a
// login and a request read only what is the entity's own, however many
// entities there are and however large its groups, and a login that changes
// nothing writes nothing. What a request needs of an entity is put together
// once and kept in memory until a row that it came from changes.
package identity
