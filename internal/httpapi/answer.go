package httpapi

import (
	"errors"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// Header values that every answer shares. net/http only reads them.
var (
	jsonType = []string{"application/json"}
	noStore  = []string{"no-store"}
)

// statuses maps kinds of error; it is the only place that does.
var statuses = map[errs.Kind]int{
	errs.Internal:         http.StatusInternalServerError,
	errs.Invalid:          http.StatusBadRequest,
	errs.Denied:           http.StatusForbidden,
	errs.NotFound:         http.StatusNotFound,
	errs.Unsupported:      http.StatusMethodNotAllowed,
	errs.UnsupportedMedia: http.StatusUnsupportedMediaType,
	errs.Precondition:     http.StatusPreconditionFailed,
	errs.TooLarge:         http.StatusRequestEntityTooLarge,
	errs.TooMany:          http.StatusTooManyRequests,
	errs.Unavailable:      http.StatusServiceUnavailable,
	errs.Upstream:         http.StatusBadGateway,
}

// StatusOf is the HTTP status for an error.
func StatusOf(err error) int { return statuses[errs.KindOf(err)] }

// buffers hold answers while they are written. A large one is let go.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 2<<10); return &b }}

const keepBuffer = 64 << 10

// answer encodes resp, asks whether the client is still there, and writes. It
// gives the status. req is nil for what is not the API's.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, req *core.Request, resp *core.Response) int {
	if streams(resp) {
		return stream(w, r, resp)
	}
	begun := false
	if resp.Sent != nil {
		defer func() {
			if !begun { // also when encoding panics
				resp.Sent(false)
			}
		}()
	}
	buf := buffers.Get().(*[]byte)
	status, body := encode((*buf)[:0], w.Header(), req, resp)
	if resp.Sent != nil {
		if r.Context().Err() != nil {
			return statusGone
		}
		begun = true
		resp.Sent(true)
	}
	send(w, r, status, body)
	if cap(body) <= keepBuffer {
		*buf = body[:0]
		buffers.Put(buf)
	}
	return status
}

// statusGone stands in the log for a request whose client had hung up: nginx's
// number, since there is none of HTTP's.
const statusGone = 499

// slowAnswer is how long a client may take over a large answer. Small ones go
// into the socket's buffer at once and need no clock.
const slowAnswer = 2 * time.Minute

// fitsOne is how large an answer's body may be to share net/http's buffer with
// its head.
const fitsOne = 3 << 10

func send(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	if len(body) >= 2048 { // below, net/http finds the length by itself
		w.Header()["Content-Length"] = []string{strconv.Itoa(len(body))}
		if len(body) > keepBuffer {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(slowAnswer))
		} else if g := gatheredOf(r); g != nil && len(body) > fitsOne {
			g.hold()
			defer func() {
				_ = http.NewResponseController(w).Flush()
				g.let()
			}()
		}
	}
	if status != http.StatusOK {
		w.WriteHeader(status)
	}
	if len(body) > 0 && status != http.StatusNoContent {
		_, _ = w.Write(body) // a client that has gone by now has begun its answer
	}
}

// encode fills the header and appends the body.
func encode(dst []byte, head http.Header, req *core.Request, resp *core.Response) (status int, body []byte) {
	head["Content-Type"] = jsonType
	maps.Copy(head, resp.Header)
	switch {
	case resp.Err != nil:
		return encodeError(dst, head, req, resp)
	case resp.Raw != nil:
		return encodeRaw(dst, head, resp.Raw)
	case resp.Data == nil && resp.Auth == nil && resp.Wrap == nil && resp.LeaseID == "" && len(resp.Warnings) == 0 &&
		(resp.Status == 0 || resp.Form == route.Bare):
		return route.SuccessStatus(resp.Status, false), dst
	case resp.Form == route.Bare && resp.Wrap == nil:
		return route.SuccessStatus(resp.Status, true), append(appendData(dst, resp.Data), '\n')
	case resp.Wrap != nil:
		return http.StatusOK, appendEnvelope(dst, &envelope{wrap: resp.Wrap, mountType: resp.MountType})
	}
	return route.SuccessStatus(resp.Status, true), appendEnvelope(dst, &envelope{
		id: idOf(req), resp: resp, data: resp.Data, warnings: resp.Warnings, mountType: resp.MountType,
	})
}

func idOf(req *core.Request) string {
	if req == nil {
		return ""
	}
	return req.ID
}

// encodeError writes the error's sentence, or an envelope where the error
// brought data: a deleted version answers 404 with its metadata. The cause is
// core's to log.
func encodeError(dst []byte, head http.Header, req *core.Request, resp *core.Response) (int, []byte) {
	status := StatusOf(resp.Err)
	if e := (*errs.Error)(nil); errors.As(resp.Err, &e) {
		if e.After > 0 {
			head["Retry-After"] = []string{strconv.FormatInt(int64((e.After+time.Second-1)/time.Second), 10)}
		}
		if e.Data != nil {
			return status, appendEnvelope(dst, &envelope{
				id: idOf(req), data: wire.OfAny(e.Data), warnings: resp.Warnings, mountType: resp.MountType,
			})
		}
	}
	dst = append(dst, `{"errors":[`...)
	if msg := errs.Message(resp.Err); msg != "" {
		dst = wire.AppendString(dst, msg)
	}
	return status, append(dst, "]}\n"...)
}

func encodeRaw(dst []byte, head http.Header, raw *route.Raw) (int, []byte) {
	if raw.ContentType != "" {
		head["Content-Type"] = []string{raw.ContentType}
	}
	maps.Copy(head, raw.Header)
	return route.SuccessStatus(raw.Status, len(raw.Body) > 0), append(dst, raw.Body...)
}

// envelope is what every answer has in common, absent parts being null.
type envelope struct {
	id        string
	resp      *core.Response // lease fields, auth and form; nil: none
	data      wire.Data
	wrap      *core.WrapInfo
	warnings  []string
	mountType string
}

func appendEnvelope(dst []byte, e *envelope) []byte {
	resp := e.resp
	if resp == nil {
		resp = &core.Response{}
	}
	dst = append(dst, `{"request_id":"`...)
	dst = append(dst, e.id...)
	dst = append(dst, `","lease_id":`...)
	dst = wire.AppendString(dst, resp.LeaseID)
	dst = append(dst, `,"renewable":`...)
	dst = strconv.AppendBool(dst, resp.Renewable)
	dst = append(dst, `,"lease_duration":`...)
	dst = strconv.AppendInt(dst, int64(resp.LeaseTTL/time.Second), 10)
	dst = append(dst, `,"data":`...)
	begin := len(dst)
	dst = appendData(dst, e.data)
	end := len(dst)
	dst = append(dst, `,"wrap_info":`...)
	if e.wrap == nil {
		dst = append(dst, "null"...)
	} else {
		dst = wire.Of(*e.wrap).AppendJSON(dst)
	}
	dst = append(dst, `,"warnings":`...)
	dst = appendWarnings(dst, e.warnings)
	dst = append(dst, `,"auth":`...)
	dst = appendData(dst, resp.Auth)
	dst = append(dst, `,"mount_type":`...)
	dst = wire.AppendString(dst, e.mountType)
	if resp.Form == route.TopLevel {
		dst = appendAgain(dst, begin, end)
	}
	return append(dst, "}\n"...)
}

func appendData(dst []byte, d wire.Data) []byte {
	if d == nil {
		return append(dst, "null"...)
	}
	return d.AppendJSON(dst)
}

func appendWarnings(dst []byte, warnings []string) []byte {
	if len(warnings) == 0 {
		return append(dst, "null"...)
	}
	for i, s := range warnings {
		dst = append(dst, "[,"[min(i, 1)])
		dst = wire.AppendString(dst, s)
	}
	return append(dst, ']')
}

// ours are the envelope's own members. Data of such a name is found under
// "data" alone.
var ours = map[string]bool{
	"request_id": true, "lease_id": true, "renewable": true, "lease_duration": true, "data": true,
	"wrap_info": true, "warnings": true, "auth": true, "mount_type": true,
}

// appendAgain repeats the members of the data at dst[begin:end] at the top
// level, as sys endpoints do for clients of either age.
func appendAgain(dst []byte, begin, end int) []byte {
	data := wire.Object(dst[begin:end:end])
	for name, value := range data.All() {
		if ours[name] {
			continue
		}
		dst = append(dst, ',')
		dst = append(wire.AppendString(dst, name), ':')
		dst = append(dst, value...)
	}
	return dst
}
