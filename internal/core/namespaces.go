package core

import (
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/token"
)

// A namespace is a row and a liveness key; everything that belongs to it has
// its id in its keys. The root's id is fixed.
//
//	alive/n/<id>
const namespaceLivePrefix = "alive/n/"

// NamespaceLiveKey is the liveness key of a namespace.
func NamespaceLiveKey(id string) string { return namespaceLivePrefix + id }

// namespaceOf finds the namespace of a request by its header. Only the root
// exists yet: it is meant by no header, "/" and "root".
func (u *unsealed) namespaceOf(header, path string) (id, rest string, err error) {
	switch strings.Trim(header, "/") {
	case "", "root":
		return token.RootNamespace, path, nil
	}
	return "", "", errs.New(errs.NotFound, "there is no namespace %q", header)
}
