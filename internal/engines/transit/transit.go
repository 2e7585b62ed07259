// Package transit is encryption as a service: keys that never leave, and what
// is done with them.
//
// The key idea: a key is a row of settings and one row per version, so that a
// key with a hundred thousand versions costs no more than one with two. What
// is in use is kept ready in memory (the settings, and each version's cipher
// or signer as it is first needed) and dropped when any of its rows changes,
// here or elsewhere; a request then costs the cryptography that it asked for
// and no read of the store.
//
// Ciphertexts, signatures and MACs are Vault's: "vault:v3:" and base64, where
// 3 is the version of the key.
package transit

import (
	"context"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// Engine is one mount.
type Engine struct {
	env   engine.Env
	cache cache
	wrap  wrapping
}

var (
	_ engine.Watcher = (*Engine)(nil)
	_ engine.Worker  = (*Engine)(nil)
	_ engine.Sweeper = (*Engine)(nil)
)

// New makes the engine of a mount.
func New(_ context.Context, env engine.Env) (engine.Engine, error) {
	return &Engine{env: env}, nil
}

// Routes declares the endpoints.
func (e *Engine) Routes(t *route.Table) {
	route.List(t, "keys", e.listKeys, route.Doc("List the keys."))
	route.Write(t, "keys/{name}", e.createKey, route.Doc("Create a key. One that is there stays as it is."))
	route.Read(t, "keys/{name}", e.readKey, route.Doc("Read a key: its settings, and when its versions were made or their public halves."))
	route.Delete(t, "keys/{name}", e.deleteKey, route.Doc("Delete a key and all its versions, if its setting deletion_allowed is on."))
	route.Write(t, "keys/{name}/config", e.configKey, route.Doc("Change the settings of a key."))
	route.Write(t, "keys/{name}/rotate", e.rotateKey, route.Doc("Make a new version of a key."))
	route.Write(t, "keys/{name}/trim", e.trimKey, route.Doc("Delete the versions before one for good."))
	route.Delete(t, "keys/{name}/soft-delete", e.softDelete, route.Doc("Take a key out of use until it is restored."))
	route.Write(t, "keys/{name}/soft-delete-restore", e.softRestore, route.Doc("Put a soft-deleted key back into use."))
	route.Write(t, "keys/{name}/import", e.importKey, route.Doc("Bring a key along, wrapped by the wrapping key."))
	route.Write(t, "keys/{name}/import_version", e.importVersion, route.Doc("Bring a new version of an imported key along."))
	route.Write(t, "keys/{name}/csr", e.signCSR, route.Doc("Sign a certificate request with a key."))
	route.Write(t, "keys/{name}/set-certificate", e.setCertificate, route.Doc("Keep a certificate chain with a version of a key."))
	route.Write(t, "derive-key/{name}", e.deriveKey, route.Doc("Make a key of the secret that one of ours and somebody's public key agree on."))
	route.Read(t, "wrapping_key", e.wrappingKey, route.Doc("Read the public key that keys to be imported are wrapped by."))
	route.Read(t, "byok-export/{destination}/{source}", e.byokExport, route.Doc("Export a key wrapped by another key."))
	route.Read(t, "byok-export/{destination}/{source}/{version}", e.byokExport, route.Doc("Export one version of a key wrapped by another key."))

	route.Write(t, "encrypt/{name}", e.encrypt, route.Exists(e.encryptExists), route.Octets(asPlaintext, e.encryptOctets), route.Doc("Encrypt. A key that is not there is created, if the policies let the caller."))
	route.Write(t, "decrypt/{name}", e.decrypt, route.Octets(asCiphertext, e.decryptOctets), route.Doc("Decrypt."))
	route.Write(t, "rewrap/{name}", e.rewrap, route.Doc("Encrypt a ciphertext anew by the newest version, without showing what is in it."))
	route.Write(t, "datakey/{plaintext}/{name}", e.dataKey, route.Doc("Draw a key to encrypt with elsewhere: plaintext shows it, wrapped only gives it encrypted."))

	route.Write(t, "sign/{name}", e.sign, route.Octets(asInput, e.signOctets), route.Doc("Sign."))
	route.Write(t, "sign/{name}/{urlalgorithm}", e.sign, route.Octets(asInput, e.signOctets), route.Doc("Sign by a hash algorithm."))
	route.Write(t, "verify/{name}", e.verify, route.Doc("Verify a signature, an HMAC or a CMAC."))
	route.Write(t, "verify/{name}/{urlalgorithm}", e.verify, route.Doc("Verify by a hash algorithm."))
	route.Write(t, "hmac/{name}", e.hmac, route.Octets(asInput, e.hmacOctets), route.Doc("Make an HMAC."))
	route.Write(t, "hmac/{name}/{urlalgorithm}", e.hmac, route.Octets(asInput, e.hmacOctets), route.Doc("Make an HMAC by a hash algorithm."))
	route.Write(t, "cmac/{name}", e.cmac, route.Doc("Make an AES-CMAC."))
	route.Write(t, "cmac/{name}/{url_mac_length}", e.cmac, route.Doc("Make an AES-CMAC of some length."))
	route.Write(t, "encapsulate/{name}", e.encapsulate, route.Doc("Agree on a secret with the holder of an ML-KEM key."))
	route.Write(t, "decapsulate/{name}", e.decapsulate, route.Doc("Learn the secret that somebody agreed on with an ML-KEM key."))

	route.Write(t, "hash", e.hash, route.Doc("Hash."))
	route.Write(t, "hash/{urlalgorithm}", e.hash, route.Doc("Hash by an algorithm."))
	route.Write(t, "random", e.random, route.Doc("Draw random bytes."))
	route.Write(t, "random/{source}", e.random, route.Doc("Draw random bytes, of a source or so many."))
	route.Write(t, "random/{source}/{urlbytes}", e.random, route.Doc("Draw so many random bytes of a source."))

	route.Read(t, "export/{type}/{name}", e.export, route.Doc("Export a key that is exportable."))
	route.Read(t, "export/{type}/{name}/{version}", e.export, route.Doc("Export one version of a key that is exportable."))
	route.Read(t, "backup/{name}", e.backup, route.Doc("Back a key up, in the clear."))
	route.Write(t, "restore", e.restore, route.Doc("Restore a key from a backup."))
	route.Write(t, "restore/{name}", e.restore, route.Doc("Restore a key from a backup under another name."))

	route.Read(t, "cache-config", e.readCache, route.Doc("Read how many keys are kept ready."))
	route.Write(t, "cache-config", e.writeCache, route.Doc("Change how many keys are kept ready."))
	route.Read(t, "config/keys", e.readKeysConfig, route.Doc("Read the settings of all keys."))
	route.Write(t, "config/keys", e.writeKeysConfig, route.Doc("Change the settings of all keys."))
}

type nameIn struct {
	Name string `json:"name" doc:"Name of the key."`
}

type listIn struct {
	After string `json:"after" doc:"List what comes after this name."`
	Limit int    `json:"limit" doc:"List so many at most; 0: all."`
}

type keysConfig struct {
	DisableUpsert bool `json:"disable_upsert"`
}

type keysConfigIn struct {
	DisableUpsert wire.Opt[bool] `json:"disable_upsert" doc:"Whether encrypting with a key that is not there is an error for everybody."`
}
