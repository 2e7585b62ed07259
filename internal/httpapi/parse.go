package httpapi

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// incoming is a request with the memory that its body lies in.
type incoming struct {
	core.Request
	body *[]byte // of bodies; nil: not theirs
}

// bodies are the memory of larger bodies, for the endpoints that keep nothing
// of them (route.Request.Lend). Very large ones are let go.
var bodies sync.Pool // of *[]byte

const (
	poolBody = 1 << 10
	keepBody = 64 << 10
)

// recycle gives the body's memory to the next request.
func (in *incoming) recycle() {
	if in.body == nil || cap(*in.body) > keepBody {
		return
	}
	clear((*in.body)[:cap(*in.body)])
	bodies.Put(in.body)
	in.body = nil
}

// parse understands the request line, the headers and the body. It gives a
// request beside an error too, for the record.
func (h *Handler) parse(w http.ResponseWriter, r *http.Request) (in *incoming, err error) {
	in = &incoming{Request: core.Request{
		ID:        requestID(),
		Method:    r.Method,
		Path:      r.URL.Path[len(prefix):],
		Namespace: namespace(one(r.Header, "X-Vault-Namespace")),
		Token:     token(r.Header),
		Header:    r.Header,
		TLS:       r.TLS,
		Redact:    h.cfg.Redact,
	}}
	return in, h.read(in, w, r)
}

func (h *Handler) read(in *incoming, w http.ResponseWriter, r *http.Request) (err error) {
	req := &in.Request
	ctx := r.Context()
	req.Gone = func() bool { return ctx.Err() != nil }
	if req.Remote, err = h.cfg.Remote(r); err != nil {
		return err
	}
	if err := h.requestHeader(r); err != nil {
		return err
	}
	if req.Path, err = canonical(r.URL); err != nil {
		req.Path = r.URL.Path[len(prefix):]
		return err
	}
	if r.URL.RawQuery != "" {
		if req.Query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
			req.Query = nil
			return errs.Wrap(errs.Invalid, err, "the query cannot be read")
		}
	}
	if req.Op, err = operation(r.Method, req.Query); err != nil {
		return err
	}
	req.Access = h.access(req)
	if req.Op == wire.OpList && req.Path != "" && !strings.HasSuffix(req.Path, "/") {
		req.Path += "/"
	}
	if err := wrapping(req); err != nil {
		return err
	}
	if req.Op == wire.OpUpdate && one(r.Header, "Content-Type") == octetStream {
		if req.Octets, err = h.readBody(in, w, r); req.Octets == nil {
			req.Octets = []byte{} // no bytes are bytes
		}
		req.JSON = h.json
		return err
	}
	if req.Op == wire.OpUpdate || req.Op == wire.OpPatch {
		req.Body, err = h.body(in, w, r, req.Op)
	}
	return err
}

// requestHeader checks the header by which a client shows that it is one, and
// no page.
func (h *Handler) requestHeader(r *http.Request) error {
	if v := one(r.Header, "X-Vault-Request"); h.cfg.RequireHeader && v != "true" {
		return errs.New(errs.Precondition, "missing 'X-Vault-Request' header: send X-Vault-Request: true")
	}
	return nil
}

// access is what the listener decides about the token.
func (h *Handler) access(req *core.Request) core.Access {
	if req.Namespace != "" {
		return core.ByEndpoint
	}
	switch {
	case req.Op == wire.OpRead && within(h.cfg.Open, req.Path):
		return core.Open
	case within(h.cfg.Guarded, req.Path):
		return core.Guarded
	}
	return core.ByEndpoint
}

func within(paths []string, path string) bool {
	for _, p := range paths {
		if p == path || strings.HasSuffix(p, "/") && strings.HasPrefix(path, p) {
			return true
		}
	}
	return false
}

// one is a header's first value. name is in canonical form.
func one(h http.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func token(h http.Header) secret.String {
	if t := one(h, "X-Vault-Token"); t != "" {
		return secret.New(t)
	}
	scheme, t, ok := strings.Cut(one(h, "Authorization"), " ")
	if ok && strings.EqualFold(scheme, "Bearer") {
		return secret.New(strings.TrimSpace(t))
	}
	return secret.String{}
}

// namespace folds the ways in which clients name the root.
func namespace(s string) string {
	if s == "" {
		return s
	}
	if s = strings.Trim(s, "/"); s == "root" {
		return ""
	}
	return s
}

// operation maps the method. What says that a GET is a LIST or asks for help
// is taken out of the query.
func operation(method string, q url.Values) (wire.Op, error) {
	switch method {
	case http.MethodGet, http.MethodHead:
		if takeTrue(q, "help") {
			return wire.OpHelp, nil
		}
		if takeTrue(q, "list") {
			return wire.OpList, nil
		}
		return wire.OpRead, nil
	case http.MethodPost, http.MethodPut:
		return wire.OpUpdate, nil
	case http.MethodDelete:
		return wire.OpDelete, nil
	case http.MethodPatch:
		return wire.OpPatch, nil
	case "LIST":
		return wire.OpList, nil
	}
	return wire.OpNone, errs.New(errs.Unsupported, "unsupported method")
}

func takeTrue(q url.Values, name string) bool {
	if len(q) == 0 {
		return false
	}
	if yes, err := strconv.ParseBool(q.Get(name)); err != nil || !yes {
		return false
	}
	delete(q, name)
	return true
}

func wrapping(req *core.Request) error {
	if s := one(req.Header, "X-Vault-Wrap-Ttl"); s != "" {
		d, err := wire.ParseTTL(strings.Trim(s, `"`))
		if err != nil {
			return errs.New(errs.Invalid, "X-Vault-Wrap-TTL: %v", err)
		}
		req.WrapTTL = d
	}
	if req.WrapTTL > 0 && strings.EqualFold(one(req.Header, "X-Vault-Wrap-Format"), "jwt") {
		req.WrapFormat = "jwt"
	}
	if s := one(req.Header, "X-Vault-Policy-Override"); s != "" {
		yes, err := strconv.ParseBool(s)
		if err != nil {
			return errs.New(errs.Invalid, "X-Vault-Policy-Override: expected true or false")
		}
		req.PolicyOverride = yes
	}
	return nil
}

// body reads the JSON object of a write. It is JSON whatever the content type
// says, except that a form which does not look like JSON is read as one.
func (h *Handler) body(in *incoming, w http.ResponseWriter, r *http.Request, op wire.Op) ([]byte, error) {
	form := false
	if ct := one(r.Header, "Content-Type"); op == wire.OpPatch {
		if err := mergePatch(ct); err != nil {
			return nil, err
		}
	} else {
		form = strings.HasPrefix(ct, "application/x-www-form-urlencoded")
	}
	raw, err := h.readBody(in, w, r)
	if err != nil {
		return nil, err
	}
	if trimmed := trimSpace(raw); form && len(trimmed) > 0 && trimmed[0] != '{' && trimmed[0] != '[' {
		return formBody(raw)
	}
	return h.json(raw)
}

// octetStream says that a body is bytes, for the endpoints that take them. For
// others it is JSON, as with any content type.
const octetStream = "application/octet-stream"

func trimSpace(raw []byte) []byte { return bytes.TrimLeft(raw, " \t\r\n") }

// json is a body as a checked object; nil for an empty one.
func (h *Handler) json(raw []byte) ([]byte, error) {
	trimmed := trimSpace(raw)
	if len(trimmed) == 0 {
		return nil, nil
	}
	if err := h.checkBody(trimmed); err != nil {
		return nil, err
	}
	return trimmed, nil
}

func mergePatch(contentType string) error {
	const want = "application/merge-patch+json"
	if contentType == want {
		return nil
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return errs.New(errs.Invalid, "%v", err)
	}
	if kind != want {
		return errs.New(errs.UnsupportedMedia, "PATCH requires Content-Type of %s, provided %s", want, kind)
	}
	return nil
}

// readBody reads all of the body, within the limit. Memory follows what has
// arrived, not what the header promises.
func (h *Handler) readBody(in *incoming, w http.ResponseWriter, r *http.Request) (raw []byte, err error) {
	if r.ContentLength > h.cfg.MaxBody {
		w.Header().Set("Connection", "close")
		return nil, h.tooLarge()
	}
	if r.ContentLength == 0 {
		return nil, nil
	}
	const first = 16 << 10
	size := int64(first)
	if n := r.ContentLength; n > 0 && n < first {
		size = n + 1 // room to meet the end without growing
	}
	if size >= poolBody {
		if in.body, _ = bodies.Get().(*[]byte); in.body == nil {
			in.body = new([]byte)
		}
		raw = (*in.body)[:0]
		defer func() { *in.body = raw }() // it may have grown
	}
	raw = slices.Grow(raw, int(size))
	from := http.MaxBytesReader(w, r.Body, h.cfg.MaxBody)
	for {
		n, err := from.Read(raw[len(raw):cap(raw)])
		raw = raw[:len(raw)+n]
		if err == io.EOF {
			return raw, nil
		}
		if err != nil {
			var over *http.MaxBytesError
			if errors.As(err, &over) {
				return nil, h.tooLarge()
			}
			return nil, errs.Wrap(errs.Invalid, err, "the request's body ended early or came too slowly")
		}
		if len(raw) == cap(raw) {
			raw = append(raw, make([]byte, len(raw))...)[:len(raw)]
		}
	}
}

func (h *Handler) tooLarge() error {
	return errs.New(errs.TooLarge, "the request's body is over the limit of %d bytes", h.cfg.MaxBody)
}

func (h *Handler) checkBody(raw []byte) error {
	if err := wire.CheckDepth(raw, h.cfg.MaxDepth); err != nil {
		return errs.New(errs.Invalid, "failed to decode JSON input: %v", err)
	}
	if v := wire.Value(raw); v.Kind() != wire.Obj && v.Kind() != wire.Null {
		return errs.New(errs.Invalid, "failed to decode JSON input: expected an object, got %s", v.Kind())
	}
	return nil
}

// formBody turns a form into the object that it stands for.
func formBody(raw []byte) ([]byte, error) {
	values, err := url.ParseQuery(string(raw))
	if err != nil {
		return nil, errs.New(errs.Invalid, "the request's form cannot be read")
	}
	return wire.Append(nil, formFields(values)), nil
}

// formFields makes a list of what was sent more than once.
func formFields(values url.Values) map[string]wire.Value {
	out := make(map[string]wire.Value, len(values))
	for k, v := range values {
		if len(v) == 1 {
			out[k] = wire.Quote(v[0])
		} else {
			out[k] = wire.Append(nil, v)
		}
	}
	return out
}

// requestID is a random (version 4) UUID. It names a request in logs and is
// no secret; the generator is the runtime's own, seeded by the system's.
func requestID() string {
	const hexDigits = "0123456789abcdef"
	hi, lo := rand.Uint64(), rand.Uint64()
	hi = hi&^0xf000 | 0x4000
	lo = lo&^(3<<62) | 2<<62
	var b [36]byte
	n := 0
	for i := range 16 {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b[n] = '-'
			n++
		}
		word := hi
		if i >= 8 {
			word = lo
		}
		c := byte(word >> (56 - 8*(i%8)))
		b[n], b[n+1] = hexDigits[c>>4], hexDigits[c&15]
		n += 2
	}
	return string(b[:])
}
