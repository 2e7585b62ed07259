package embedded

import "github.com/cockroachdb/pebble/v2"

// OpenWith is Open for a Leasehold with other migrations.
func OpenWith(opts Options, steps ...func(*pebble.DB) error) (*Store, error) {
	var ms []migration
	for _, s := range steps {
		ms = append(ms, s)
	}
	return open(opts, ms)
}
