package httpapi

import (
	"io"
	"maps"
	"net/http"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/route"
)

// streams reports whether an answer's body has no end yet.
func streams(resp *core.Response) bool {
	return resp.Err == nil && resp.Raw != nil && resp.Raw.Stream != nil
}

// stream writes a body for as long as there is one, and the client is there.
// It may take days: the limits of time for requests do not hold, the one for
// taking an answer holds for each piece.
func stream(w http.ResponseWriter, r *http.Request, resp *core.Response) int {
	head := w.Header()
	maps.Copy(head, resp.Header)
	maps.Copy(head, resp.Raw.Header)
	head["Content-Type"] = []string{resp.Raw.ContentType}
	status := route.SuccessStatus(resp.Raw.Status, true)
	w.WriteHeader(status)
	ctl := http.NewResponseController(w)
	// Else net/http takes the silence of a client for its end.
	_ = ctl.SetReadDeadline(time.Time{})
	if ctl.Flush() == nil {
		_ = resp.Raw.Stream(r.Context(), pieces{w, ctl}) // the client has gone, or all was said
	}
	_ = ctl.SetWriteDeadline(time.Time{})
	return status
}

// pieces sends each Write at once.
type pieces struct {
	w   io.Writer
	ctl *http.ResponseController
}

func (p pieces) Write(b []byte) (int, error) {
	if err := p.ctl.SetWriteDeadline(time.Now().Add(slowAnswer)); err != nil {
		return 0, err
	}
	n, err := p.w.Write(b)
	if err == nil {
		err = p.ctl.Flush()
	}
	return n, err
}
