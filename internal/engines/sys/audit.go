package sys

import (
	"context"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

// AuditDevices are the devices that take the records of all requests.
type AuditDevices interface {
	List(ctx context.Context) ([]AuditDevice, error)
	// Enable makes a device, opens it and writes a first record. What does
	// not work is errs.Invalid; options that mean nothing are named.
	Enable(ctx context.Context, d AuditDevice) (unknown []string, err error)
	// Disable closes a device. One that is not there is no error.
	Disable(ctx context.Context, path string) error
	// Hash is what input looks like in a device's records.
	Hash(ctx context.Context, path, input string) (string, error)
}

// AuditDevice is an enabled device.
type AuditDevice struct {
	Path        string // "file/"
	Type        string
	Description string
	Options     map[string]string
	Local       bool
}

// AuditHeaders are the request headers that stand in records.
type AuditHeaders interface {
	// Headers gives each name, in lower case, and whether its value is hashed.
	Headers(ctx context.Context) (map[string]bool, error)
	SetHeader(ctx context.Context, name string, hmac bool) error
	RemoveHeader(ctx context.Context, name string) error
}

func (e *Engine) auditRoutes(t *route.Table) {
	top, sudo := route.InForm(route.TopLevel), route.Sudo()
	route.Read(t, "audit", e.listAudit, top, sudo, route.Doc("List the audit devices."))
	route.Write(t, "audit/{path...}", e.enableAudit, sudo, route.Doc("Enable an audit device at a path."))
	route.Delete(t, "audit/{path...}", e.disableAudit, sudo, route.Doc("Disable an audit device."))
	route.Write(t, "audit-hash/{path...}", e.auditHash, top, route.Doc("Tell how a value looks in a device's records."))

	const headers = "config/auditing/request-headers"
	route.Read(t, headers, e.listAuditHeaders, top, sudo, route.Doc("List the request headers that are recorded."))
	folds := route.Folds(strings.ToLower)
	route.Read(t, headers+"/{header}", e.readAuditHeader, top, sudo, folds, route.Doc("Read whether a recorded header is hashed."))
	route.Write(t, headers+"/{header}", e.writeAuditHeader, sudo, folds, route.Doc("Record a request header."))
	route.Delete(t, headers+"/{header}", e.deleteAuditHeader, sudo, folds, route.Doc("Record a header no longer."))
}

type auditOut struct {
	Path        string            `json:"path"`
	Type        string            `json:"type"`
	Description string            `json:"description"`
	Options     map[string]string `json:"options"`
	Local       bool              `json:"local"`
}

func (e *Engine) listAudit(ctx context.Context, _ *route.Request, _ route.None) (map[string]auditOut, error) {
	devices, err := e.cfg.Audit.List(ctx)
	out := make(map[string]auditOut, len(devices))
	for _, d := range devices {
		out[d.Path] = auditOut(d)
	}
	return out, err
}

type enableAuditIn struct {
	Path        string  `json:"path"`
	Type        string  `json:"type" doc:"file, socket or syslog."`
	Description string  `json:"description" doc:"For people."`
	Options     wire.KV `json:"options" doc:"Options of the device, such as file_path."`
	Local       bool    `json:"local"`
}

func (e *Engine) enableAudit(ctx context.Context, req *route.Request, in enableAuditIn) (route.None, error) {
	if in.Type == "" {
		return route.None{}, errs.New(errs.Invalid, "the type of the audit device is missing: file, socket or syslog")
	}
	unknown, err := e.cfg.Audit.Enable(ctx, AuditDevice{
		Path: withSlash(in.Path), Type: in.Type, Description: in.Description, Options: in.Options, Local: in.Local,
	})
	if len(unknown) > 0 {
		req.Warn("the device ignored these options: %s", strings.Join(unknown, ", "))
	}
	return route.None{}, err
}

func (e *Engine) disableAudit(ctx context.Context, _ *route.Request, in pathIn) (route.None, error) {
	return route.None{}, e.cfg.Audit.Disable(ctx, withSlash(in.Path))
}

type auditHashIn struct {
	Path  string `json:"path"`
	Input string `json:"input" doc:"What to hash as the device does."`
}

type auditHashOut struct {
	Hash string `json:"hash"`
}

func (e *Engine) auditHash(ctx context.Context, _ *route.Request, in auditHashIn) (auditHashOut, error) {
	if in.Input == "" {
		return auditHashOut{}, errs.New(errs.Invalid, "the \"input\" parameter is empty")
	}
	h, err := e.cfg.Audit.Hash(ctx, withSlash(in.Path), in.Input)
	return auditHashOut{Hash: h}, err
}

type headerHMAC struct {
	HMAC bool `json:"hmac"`
}

type auditHeadersOut struct {
	Headers map[string]headerHMAC `json:"headers"`
}

func (e *Engine) listAuditHeaders(ctx context.Context, _ *route.Request, _ route.None) (auditHeadersOut, error) {
	headers, err := e.cfg.AuditHeaders.Headers(ctx)
	out := auditHeadersOut{Headers: make(map[string]headerHMAC, len(headers))}
	for name, hmac := range headers {
		out.Headers[name] = headerHMAC{hmac}
	}
	return out, err
}

type headerIn struct {
	Header string `json:"header" doc:"Name of the header."`
}

func (e *Engine) readAuditHeader(ctx context.Context, _ *route.Request, in headerIn) (map[string]headerHMAC, error) {
	headers, err := e.cfg.AuditHeaders.Headers(ctx)
	if err != nil {
		return nil, err
	}
	hmac, ok := headers[strings.ToLower(in.Header)]
	if !ok {
		return nil, errs.New(errs.Invalid, "Could not find header in config")
	}
	return map[string]headerHMAC{in.Header: {hmac}}, nil
}

type auditHeaderIn struct {
	headerIn
	HMAC bool `json:"hmac" doc:"Whether the header's value is hashed."`
}

func (e *Engine) writeAuditHeader(ctx context.Context, _ *route.Request, in auditHeaderIn) (route.None, error) {
	return route.None{}, e.cfg.AuditHeaders.SetHeader(ctx, strings.ToLower(in.Header), in.HMAC)
}

func (e *Engine) deleteAuditHeader(ctx context.Context, _ *route.Request, in headerIn) (route.None, error) {
	return route.None{}, e.cfg.AuditHeaders.RemoveHeader(ctx, strings.ToLower(in.Header))
}
