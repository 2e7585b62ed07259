package server

import (
	"context"

	"github.com/leasehold/leasehold/internal/audit/devices"
	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/secret"
)

// makeDevice makes an audit device for core.
func makeDevice(typ string, options map[string]string, salt secret.String) (core.MadeDevice, error) {
	m, err := devices.New(typ, options, salt)
	return core.MadeDevice{Device: m.Device, Format: m.Format}, err
}

// auditDevices are core's audit devices.
type auditDevices struct{ c *core.Core }

var (
	_ sys.AuditDevices = auditDevices{}
	_ sys.AuditHeaders = auditDevices{}
)

func (a auditDevices) List(ctx context.Context) ([]sys.AuditDevice, error) {
	list, err := a.c.AuditDevices(ctx)
	out := make([]sys.AuditDevice, len(list))
	for i, d := range list {
		out[i] = sys.AuditDevice{Path: d.Path, Type: d.Type, Description: d.Description, Options: d.Options, Local: d.Local}
	}
	return out, err
}

func (a auditDevices) Enable(ctx context.Context, d sys.AuditDevice) (unknown []string, err error) {
	made, err := devices.New(d.Type, d.Options, secret.String{})
	if err != nil {
		return nil, err
	}
	return made.Unknown, a.c.EnableAudit(ctx, core.AuditDevice{
		Path: d.Path, Type: d.Type, Description: d.Description, Options: d.Options, Local: d.Local,
	})
}

func (a auditDevices) Disable(ctx context.Context, path string) error {
	return a.c.DisableAudit(ctx, path)
}

func (a auditDevices) Hash(_ context.Context, path, input string) (string, error) {
	return a.c.AuditHash(path, input)
}

func (a auditDevices) Headers(context.Context) (map[string]bool, error) {
	list, err := a.c.AuditHeaders()
	out := make(map[string]bool, len(list))
	for _, h := range list {
		out[h.Name] = h.HMAC
	}
	return out, err
}

func (a auditDevices) SetHeader(ctx context.Context, name string, hmac bool) error {
	return a.c.SetAuditHeader(ctx, core.AuditHeader{Name: name, HMAC: hmac}, false)
}

func (a auditDevices) RemoveHeader(ctx context.Context, name string) error {
	return a.c.SetAuditHeader(ctx, core.AuditHeader{Name: name}, true)
}
