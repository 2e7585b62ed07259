// Package clienttest runs unmodified clients that people already have against
// our server: HashiCorp's and OpenBao's Go modules, and node-vault from npm.
// It has only tests. The two Go clients tell one story; openbao_test.go is made
// from vault_test.go by go generate.
package clienttest

//go:generate sh -c "(echo '// Code generated from vault_test.go by go generate. DO NOT EDIT.'; echo; sed -e 's|github.com/hashicorp/vault/api|github.com/openbao/openbao/api/v2|' -e 's|TestVault|TestOpenBao|g' -e 's|vaultClient|openBaoClient|g' vault_test.go) > openbao_test.go"
