package httpapi

import "net/http"

// StatusHeaders are headers for the answers of some statuses. Of several that
// set the same header the most exact counts: "404" before "4xx" before
// "default".
type StatusHeaders struct {
	Status string // "default", "4xx" or "404"
	Header http.Header
}

// statusWriter adds the headers that an answer's status asks for.
type statusWriter struct {
	http.ResponseWriter
	headers []StatusHeaders
	begun   bool
}

func (w *statusWriter) WriteHeader(status int) {
	w.begin(status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	w.begin(http.StatusOK)
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// begin adds the headers, before the first byte.
func (w *statusWriter) begin(status int) {
	if w.begun {
		return
	}
	w.begun = true
	code := [3]byte{byte('0' + status/100), byte('0' + status/10%10), byte('0' + status%10)}
	head := w.Header()
	for _, want := range []string{"default", string(code[:1]) + "xx", string(code[:])} {
		for _, h := range w.headers {
			if h.Status != want {
				continue
			}
			for name, values := range h.Header {
				head[name] = values
			}
		}
	}
}
