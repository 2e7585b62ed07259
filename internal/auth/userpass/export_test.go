package userpass

import "github.com/leasehold/leasehold/internal/engine"

// SetCompare replaces how a password is compared with a hash.
func SetCompare(e engine.Engine, compare func(hash, password []byte) error) {
	e.(*Engine).compare = compare
}

// CheckHash judges a hash made elsewhere, for fuzzing.
var CheckHash = checkHash
