package postgres

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"

	"github.com/leasehold/leasehold/internal/secret"
)

// DefaultIterations is PostgreSQL's own count, which every client takes.
const DefaultIterations = 4096

// Verifier is what PostgreSQL stores of a password for SCRAM-SHA-256 (RFC
// 5802, RFC 7677): with it a server checks a login and nobody can log in. Sent
// in place of the password it keeps the password out of the server's log.
//
// Passwords of printable ASCII need no SASLprep; ours are generated so, and
// PostgreSQL takes any other as its plain bytes when preparing fails.
func Verifier(password secret.String, iterations int) (secret.String, error) {
	var salt [16]byte
	rand.Read(salt[:])
	return verifier(password.Reveal(), salt[:], iterations)
}

func verifier(password string, salt []byte, iterations int) (secret.String, error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return secret.String{}, fmt.Errorf("deriving a SCRAM verifier: %w", err)
	}
	clientKey := sum(salted, "Client Key")
	storedKey := sha256.Sum256(clientKey)
	serverKey := sum(salted, "Server Key")
	b64 := base64.StdEncoding.EncodeToString
	return secret.New("SCRAM-SHA-256$" + strconv.Itoa(iterations) + ":" + b64(salt) +
		"$" + b64(storedKey[:]) + ":" + b64(serverKey)), nil
}

func sum(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}
