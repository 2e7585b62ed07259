package server

import (
	"runtime/debug"
	"strings"
)

// BuildVersion is what the build recorded of itself: the version under which
// `go install` fetched it, or "dev" with the commit it was built from.
func BuildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "dev"
	}
	// A build in a working tree calls itself v0.0.0-<time>-<commit>, or
	// (devel): no version that anybody gave it.
	if v, given := strings.CutPrefix(info.Main.Version, "v"); given && !strings.HasPrefix(v, "0.0.0-") && !strings.Contains(v, "+dirty") {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "dev-" + s.Value[:12]
		}
	}
	return "dev"
}
