package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// client is a keep-alive HTTP client of one server.
type client struct {
	base string // http://host:port/v1/
	http *http.Client
}

func newClient(addr string) *client {
	return &client{base: addr + "/v1/", http: &http.Client{
		Timeout: 2 * time.Minute,
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			MaxIdleConns:        1024,
			MaxIdleConnsPerHost: 1024,
			DisableCompression:  true,
		},
	}}
}

// statusError is an answer outside 2xx.
type statusError struct {
	code int
	body string
}

func (e *statusError) Error() string { return fmt.Sprintf("HTTP %d: %s", e.code, e.body) }

// raw sends one request and returns the whole answer.
func (c *client) raw(ctx context.Context, method, path, token string, body []byte) ([]byte, error) {
	var rd io.Reader
	if body != nil {
		rd = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, rd)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 != 2 {
		return nil, &statusError{resp.StatusCode, string(bytes.TrimSpace(out[:min(len(out), 300)]))}
	}
	return out, nil
}

// call sends in as JSON and decodes the answer into out; either may be nil.
func (c *client) call(ctx context.Context, method, path, token string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	resp, err := c.raw(ctx, method, path, token, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if out == nil || len(resp) == 0 {
		return nil
	}
	return json.Unmarshal(resp, out)
}

// obj is a request's body.
type obj map[string]any

// answer is the part of the envelope that the workloads read.
type answer struct {
	LeaseID string `json:"lease_id"`
	Data    struct {
		Keys     []string `json:"keys"`
		Username string   `json:"username"`
		Password string   `json:"password"`

		Ciphertext string `json:"ciphertext"`
		Signature  string `json:"signature"`
	} `json:"data"`
	Auth struct {
		ClientToken string `json:"client_token"`
	} `json:"auth"`
}
