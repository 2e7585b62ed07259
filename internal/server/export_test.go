package server

// The parts of the log that tests of it need.
var (
	NewLogger = newLogger
	OpenLog   = openLog
)
