//go:build race

package core_test

// Under the race detector pools forget what they hold, at random.
func init() { poolsForget = true }
