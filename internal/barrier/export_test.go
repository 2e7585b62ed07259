package barrier

// SetMaxSeals makes subkeys wear out early.
func SetMaxSeals(n uint64) (restore func()) {
	old := maxSeals
	maxSeals = n
	return func() { maxSeals = old }
}
