package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client sends requests to one server. It is safe for concurrent use; With…
// methods return changed copies that share its connections.
type Client struct {
	cfg   Config
	base  *url.URL
	http  *http.Client
	sleep func(context.Context, time.Duration) error
}

// New makes a client. Nothing is sent yet.
func New(cfg Config) (*Client, error) {
	base, socket, err := cfg.base()
	if err != nil {
		return nil, err
	}
	hc := cfg.HTTPClient
	if hc == nil {
		if hc, err = cfg.newHTTPClient(socket); err != nil {
			return nil, err
		}
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.MaxRetries == 0 {
		cfg.MaxRetries = defaultRetries
	}
	cfg.Headers = cfg.Headers.Clone()
	return &Client{cfg: cfg, base: base, http: hc, sleep: sleep}, nil
}

// Address is the server's address as configured.
func (c *Client) Address() string {
	if c.cfg.Address == "" {
		return DefaultAddress
	}
	return c.cfg.Address
}

// Token is the token that requests carry.
func (c *Client) Token() string { return c.cfg.Token }

// WithToken is the same client with another token; "" sends none.
func (c *Client) WithToken(token string) *Client {
	return c.with(func(cfg *Config) { cfg.Token = token })
}

// WithNamespace is the same client in another namespace.
func (c *Client) WithNamespace(ns string) *Client {
	return c.with(func(cfg *Config) { cfg.Namespace = ns })
}

// WithWrapTTL is the same client asking for wrapped replies; "" for plain ones.
func (c *Client) WithWrapTTL(ttl string) *Client {
	return c.with(func(cfg *Config) { cfg.WrapTTL = ttl })
}

// WithHTTPClient is the same client over other connections.
func (c *Client) WithHTTPClient(hc *http.Client) *Client {
	n := c.with(func(*Config) {})
	n.http = hc
	return n
}

// HTTPClient is what requests are sent with.
func (c *Client) HTTPClient() *http.Client { return c.http }

func (c *Client) with(change func(*Config)) *Client {
	n := *c
	change(&n.cfg)
	return &n
}

// Request is one call of the API.
type Request struct {
	Method string     // GET, LIST, PUT, POST, PATCH, DELETE
	Path   string     // below /v1/, unescaped: "secret/data/app"
	Query  url.Values // nil for none
	Body   any        // marshalled as JSON; json.RawMessage is sent as it is; nil for none
	Header http.Header

	// Timeout of this request in place of Config.Timeout; 0 keeps that.
	Timeout time.Duration
	// NoRetry sends the request once, whatever happens.
	NoRetry bool
	// Statuses beside 2xx whose body is the answer: sys/health and its kind.
	Accept []int
	// Into takes the body of a 2xx as it comes, in place of Response.Body; nil
	// for none. It is for answers that go on, so say a Timeout, or -1 for none.
	Into io.Writer
}

// Response is an answer before anything was made of its body.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
	// CertificateEnds is when the server's certificate does; zero without TLS.
	CertificateEnds time.Time
}

// Secret parses the body's envelope; nil for an empty body.
func (r *Response) Secret() (*Secret, error) {
	if len(bytes.TrimSpace(r.Body)) == 0 {
		return nil, nil
	}
	return parseSecret(r.Body)
}

// Read reads a path. What is not there is an *Error with status 404.
func (c *Client) Read(ctx context.Context, path string, query url.Values) (*Secret, error) {
	return c.secret(ctx, &Request{Method: http.MethodGet, Path: path, Query: query})
}

// List answers the keys below a path; an empty list is status 404.
func (c *Client) List(ctx context.Context, path string) ([]string, error) {
	s, err := c.secret(ctx, &Request{Method: "LIST", Path: path})
	if err != nil {
		return nil, err
	}
	var out struct{ Keys []string }
	return out.Keys, s.Decode(&out)
}

// Write writes a path. The secret is nil where the server answers nothing.
func (c *Client) Write(ctx context.Context, path string, body any) (*Secret, error) {
	return c.secret(ctx, &Request{Method: http.MethodPut, Path: path, Body: body})
}

// Patch changes parts of what is at a path (JSON merge patch).
func (c *Client) Patch(ctx context.Context, path string, body any) (*Secret, error) {
	return c.secret(ctx, &Request{Method: http.MethodPatch, Path: path, Body: body})
}

// Delete deletes a path. Deleting what is not there is no error.
func (c *Client) Delete(ctx context.Context, path string, query url.Values) (*Secret, error) {
	return c.secret(ctx, &Request{Method: http.MethodDelete, Path: path, Query: query})
}

// RenewLease extends a lease; 0 asks for the default.
func (c *Client) RenewLease(ctx context.Context, id string, increment time.Duration) (*Secret, error) {
	return c.Write(ctx, "sys/leases/renew", struct {
		LeaseID   string `json:"lease_id"`
		Increment int    `json:"increment,omitempty"`
	}{id, int(increment / time.Second)})
}

// RenewSelf extends the client's own token; 0 asks for the default.
func (c *Client) RenewSelf(ctx context.Context, increment time.Duration) (*Secret, error) {
	return c.Write(ctx, "auth/token/renew-self", struct {
		Increment int `json:"increment,omitempty"`
	}{int(increment / time.Second)})
}

// Unwrap fetches what a wrapping token holds. It can be done once.
func (c *Client) Unwrap(ctx context.Context, token string) (*Secret, error) {
	return c.WithToken(token).WithWrapTTL("").Write(ctx, "sys/wrapping/unwrap", nil)
}

func (c *Client) secret(ctx context.Context, r *Request) (*Secret, error) {
	resp, err := c.Do(ctx, r)
	if err != nil {
		return nil, err
	}
	return resp.Secret()
}

// Do sends a request and reads its answer. Anything but 2xx and r.Accept is an
// *Error. Requests that are safe to repeat are, after a failure of the
// connection, 429 and 5xx (but 501).
func (c *Client) Do(ctx context.Context, r *Request) (*Response, error) {
	timeout := r.Timeout
	if timeout == 0 {
		timeout = c.cfg.Timeout
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	body, err := marshalBody(r.Body)
	if err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		resp, err := c.once(ctx, r, body)
		if try >= c.cfg.MaxRetries || r.NoRetry || !worthRepeating(r, resp, err) {
			if err != nil {
				return nil, err
			}
			return resp, resp.refusal(r, c.url(r))
		}
		if err := c.sleep(ctx, retryDelay(try, resp)); err != nil {
			return nil, err
		}
	}
}

func (c *Client) once(ctx context.Context, r *Request, body []byte) (*Response, error) {
	u := c.url(r)
	u.RawQuery = r.Query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.Method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	c.setHeaders(req, r, body != nil)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var raw []byte
	if r.Into != nil && resp.StatusCode/100 == 2 {
		_, err = io.Copy(r.Into, resp.Body)
	} else {
		raw, err = io.ReadAll(resp.Body)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	out := &Response{Status: resp.StatusCode, Header: resp.Header, Body: raw}
	if resp.TLS != nil && len(resp.TLS.PeerCertificates) > 0 {
		out.CertificateEnds = resp.TLS.PeerCertificates[0].NotAfter
	}
	return out, nil
}

func (c *Client) setHeaders(req *http.Request, r *Request, hasBody bool) {
	for _, set := range []http.Header{c.cfg.Headers, r.Header} {
		for k, v := range set {
			req.Header[http.CanonicalHeaderKey(k)] = v
		}
	}
	req.Header.Set("X-Vault-Request", "true")
	if c.cfg.Token != "" {
		req.Header.Set("X-Vault-Token", c.cfg.Token)
	}
	if c.cfg.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", c.cfg.Namespace)
	}
	if c.cfg.WrapTTL != "" {
		req.Header.Set("X-Vault-Wrap-TTL", c.cfg.WrapTTL)
	}
	if hasBody {
		ct := "application/json"
		if req.Method == http.MethodPatch {
			ct = "application/merge-patch+json"
		}
		if req.Header.Get("Content-Type") == "" {
			req.Header.Set("Content-Type", ct)
		}
	}
}

func (c *Client) url(r *Request) *url.URL {
	u := *c.base
	u.Path += "/v1/" + strings.TrimLeft(r.Path, "/")
	return &u
}

// marshalBody keeps raw JSON as it is, so that numbers keep their digits, and
// leaves <, > and & in texts alone.
func marshalBody(v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case json.RawMessage:
		return v, nil
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// refusal is the error that the answer stands for, or nil.
func (r *Response) refusal(req *Request, u *url.URL) error {
	if r.Status >= 200 && r.Status < 300 {
		return nil
	}
	for _, s := range req.Accept {
		if s == r.Status {
			return nil
		}
	}
	e := &Error{Method: req.Method, URL: u.String(), Status: r.Status}
	var reply struct {
		Errors *[]string
		Data   json.RawMessage
	}
	switch err := json.Unmarshal(r.Body, &reply); {
	case len(r.Body) == 0:
	case err != nil:
		e.body = string(r.Body)
	case reply.Errors != nil:
		e.Errors = *reply.Errors
	case len(reply.Data) > 0:
		e.Secret, _ = parseSecret(r.Body) // the error stands without it
	default:
		e.body = string(r.Body)
	}
	return e
}
