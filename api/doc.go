// Package api is the Go client of a Leasehold server. It speaks the HTTP API
// of HashiCorp Vault, so it works with Vault and OpenBao as well, and it
// imports nothing but the standard library.
//
//	cfg, err := api.ConfigFromEnv(os.Getenv) // LEASEHOLD_ADDR or VAULT_ADDR, …
//	client, err := api.New(cfg)
//	secret, err := client.Read(ctx, "database/creds/readonly", nil)
//	var login struct{ Username, Password string }
//	err = secret.Decode(&login)
//
// A reply is a [Secret]: its envelope is typed, its data stays JSON until
// Decode puts it into a struct of the caller's. A refusal is an [*Error] with
// the status and the server's sentences. A [Renewer] keeps a lease or a token
// alive and says in time when it must be replaced.
package api
