package cli

import (
	"cmp"
	"maps"
	"slices"
)

// sortedKeys is the keys of a map in order.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
