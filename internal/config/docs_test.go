package config_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/config"
)

// TestEveryKeyIsDocumented reads docs/configuration.md: each key that the
// tables know stands there, and each row of a table there names a key.
func TestEveryKeyIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var families []string // `tls_acme_…` stands for all that begin so
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z0-9_]+)(…?)[^`]*`").FindAllStringSubmatch(string(page), -1) {
		if named[m[1]] = true; m[2] != "" {
			families = append(families, m[1])
		}
	}
	known := map[string]bool{}
	for block, keys := range config.Keys() {
		for _, k := range keys {
			known[k] = true
			found := named[k]
			for _, f := range families {
				found = found || strings.HasPrefix(k, f)
			}
			// How Vault counts is a long list of keys that do nothing.
			if !found && !(block == "telemetry" && vaultsCounting[k]) {
				t.Errorf("docs/configuration.md does not name %s of %s", k, block)
			}
		}
	}
	for _, inner := range []string{
		"unauthenticated_metrics_access", "unauthenticated_pprof_access", "unauthenticated_in_flight_request_access",
		"unauthenticated_in_flight_requests_access",
	} {
		known[inner] = true // keys of blocks within a listener
	}
	for _, row := range regexp.MustCompile(`(?m)^\|[^|]*\|`).FindAllString(string(page), -1) {
		for _, m := range regexp.MustCompile("`([a-z0-9]+_[a-z0-9_]+)`").FindAllStringSubmatch(row, -1) {
			if !known[m[1]] {
				t.Errorf("docs/configuration.md has a row for %s, which nobody knows", m[1])
			}
		}
	}
}

var vaultsCounting = map[string]bool{
	"enable_hostname_label": true, "maximum_gauge_cardinality": true, "filter_default": true, "prefix_filter": true,
	"lease_metrics_epsilon": true, "num_lease_metrics_buckets": true, "add_lease_metrics_namespace_labels": true,
	"add_mount_point_rollback_metrics": true, "rollback_metrics_include_mount_point": true,
}
