package config

import (
	"maps"
	"slices"
)

// Keys are all keys that the tables know, by block.
func Keys() map[string][]string {
	out := map[string][]string{}
	for block, keys := range map[string]interface{ keys() []string }{
		"top": topFields, "storage": storageFields, "listener": listenerFields, "seal": sealFields, "seal transit": sealTransitFields, "lanes": laneFields,
		"telemetry": telemetryFields, "tracing": tracingFields, "user_lockout": lockoutFields,
	} {
		out[block] = keys.keys()
	}
	return out
}

func (f fields[T]) keys() []string { return slices.Sorted(maps.Keys(f)) }
