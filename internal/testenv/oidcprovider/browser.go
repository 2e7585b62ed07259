package oidcprovider

import (
	"context"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// Browser stands in for a person's browser: it follows redirects and sends the
// forms that pages hold. Client is what it asks with; nil: http.DefaultClient.
type Browser struct{ Client *http.Client }

var (
	formTag  = regexp.MustCompile(`<form method="post" action="([^"]*)">`)
	inputTag = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// Visit goes to an address and on, until a page has neither a redirect nor a
// form, and gives that page.
func (b Browser) Visit(ctx context.Context, addr string) (status int, page string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, addr, nil)
	for range 3 {
		if err != nil {
			return 0, "", err
		}
		if status, page, err = b.do(req); err != nil {
			return 0, "", err
		}
		m := formTag.FindStringSubmatch(page)
		if m == nil {
			return status, page, nil
		}
		values := url.Values{}
		for _, in := range inputTag.FindAllStringSubmatch(page, -1) {
			values.Set(html.UnescapeString(in[1]), html.UnescapeString(in[2]))
		}
		req, err = http.NewRequestWithContext(ctx, http.MethodPost, html.UnescapeString(m[1]), strings.NewReader(values.Encode()))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
	}
	return 0, "", fmt.Errorf("%s leads from form to form", addr)
}

func (b Browser) do(req *http.Request) (int, string, error) {
	c := b.Client
	if c == nil {
		c = http.DefaultClient
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}
