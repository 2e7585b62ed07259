// Package wire is how values look on Vault's wire: the tolerant types that a
// request's fields have (TTL, CSV, Strings, KV, Opt), the decoder that fills a
// struct from path, query and body, and the encoder that writes a struct as an
// answer, a stored row or the hashed data of an audit record.
//
// The key idea: a struct is the schema. Its type is looked at once, when its
// endpoint is registered, and compiled into a flat plan; a request is then
// decoded and an answer encoded without looking at types again. JSON is never
// turned into maps: the scanner hands out slices of the body, so numbers keep
// their digits and unknown parts cost nothing.
//
// A secret.String is revealed by the encoder and always hashed by the audit
// walker. There is no third way out.
package wire
