//go:build race

package transit_test

// The race detector has pools forget what they hold, and so more is allocated.
func init() { raced = true }
