package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Error is a request that the server refused.
type Error struct {
	Method string   // as sent: GET, PUT, LIST, …
	URL    string   // without the query
	Status int      // HTTP status
	Errors []string // the server's sentences; none for a plain "not there"

	// Secret is the reply's envelope where the refusal carries one: a deleted
	// version of a KV secret answers 404 with its metadata. Usually nil.
	Secret *Secret

	body string // what came instead of JSON
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Error making API request.\n\nURL: %s %s\nCode: %d. ", e.Method, e.URL, e.Status)
	switch {
	case e.body != "":
		fmt.Fprintf(&b, "Raw Message:\n\n%s", strings.TrimSpace(e.body))
	default:
		b.WriteString("Errors:\n\n")
		for i, s := range e.Errors {
			if i > 0 {
				b.WriteByte('\n')
			}
			fmt.Fprintf(&b, "* %s", s)
		}
	}
	return b.String()
}

// StatusOf is the HTTP status that err reports, or 0 if no answer came.
func StatusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// IsNotFound reports whether the server says that nothing is there.
func IsNotFound(err error) bool { return StatusOf(err) == http.StatusNotFound }
