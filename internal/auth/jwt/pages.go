package jwt

import (
	"bytes"
	"html/template"
	"net/http"
	"net/url"
	"strings"

	"github.com/leasehold/leasehold/internal/route"
)

// page is what a browser sees that posted a provider's form. It loads nothing
// and runs nothing.
var page = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{.Title}}</title>
{{with .Onward}}<meta http-equiv="refresh" content="0; url={{.}}">{{end}}</head>
<body><h1>{{.Title}}</h1><p>{{.Text}}</p>{{with .Onward}}<p><a href="{{.}}">Go on</a></p>{{end}}</body></html>
`))

type pageText struct{ Title, Text, Onward string }

func render(status int, t pageText) *route.Raw {
	var b bytes.Buffer
	_ = page.Execute(&b, t) // three texts into a buffer
	return &route.Raw{Status: status, ContentType: "text/html; charset=utf-8", Body: b.Bytes(), Header: http.Header{
		"Content-Security-Policy": {"default-src 'none'"}, "Referrer-Policy": {"no-referrer"},
	}}
}

func failurePage(text string) *route.Raw {
	return render(http.StatusBadRequest, pageText{Title: strings.TrimSpace(failed), Text: text})
}

// onwardPage leads to where Vault's web interface ends logins. The state is in
// the address; the code stays in the store.
func onwardPage(m route.MountInfo, ns, state string) *route.Raw {
	q := url.Values{"code": {noCode}, "state": {state}}
	if ns == "" {
		ns = strings.TrimSuffix(m.NamespacePath, "/")
	}
	if ns != "" {
		q.Set("namespace", ns)
	}
	to := "/ui/vault/" + strings.Trim(m.Path, "/") + "/oidc/callback?" + q.Encode()
	return render(http.StatusOK, pageText{Title: "Logging in", Text: "The provider has answered.", Onward: to})
}
