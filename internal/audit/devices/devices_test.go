package devices_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/audit/devices"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
)

type options = map[string]string

func TestNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.log")
	salt := secret.New("salt")
	plain := audit.Format{Salt: salt, HMACAccessor: true}
	tests := []struct {
		kind    string
		options options
		format  audit.Format
		unknown []string
	}{
		{"file", options{"file_path": path}, plain, nil},
		{"file", options{"path": path, "mode": "0000", "sync": "true"}, plain, nil},
		{"file", options{"file_path": "stdout", "log_raw": "true", "hmac_accessor": "false", "elide_list_responses": "1", "prefix": "p", "format": "json"},
			audit.Format{Salt: salt, Raw: true, ElideListings: true, Prefix: "p"}, nil},
		{"file", options{"file_path": path, "lograw": "true", "about": "x"}, plain, []string{"about", "lograw"}},
		{"socket", options{"address": "127.0.0.1:9090", "socket_type": "udp", "write_timeout": "5s"}, plain, nil},
		{"socket", options{"address": path, "socket_type": "unix", "write_timeout": "5"}, plain, nil},
		{"syslog", options{"facility": "LOCAL0", "tag": "x"}, plain, nil},
	}
	for _, tt := range tests {
		made, err := devices.New(tt.kind, tt.options, salt)
		if err != nil {
			t.Errorf("New(%q, %v) = %v, want no error", tt.kind, tt.options, err)
			continue
		}
		if made.Format != tt.format {
			t.Errorf("New(%q, %v) has format %+v, want %+v", tt.kind, tt.options, made.Format, tt.format)
		}
		if !slices.Equal(made.Unknown, tt.unknown) {
			t.Errorf("New(%q, %v) has unknown options %q, want %q", tt.kind, tt.options, made.Unknown, tt.unknown)
		}
		if err := made.Device.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestRefused(t *testing.T) {
	tests := []struct {
		kind    string
		options options
	}{
		{"none", nil},
		{"file", nil},
		{"file", options{"file_path": "x", "mode": "rw"}},
		{"file", options{"file_path": "x", "mode": "0755"}},
		{"file", options{"file_path": "x", "mode": "010600"}},
		{"file", options{"file_path": "x", "sync": "maybe"}},
		{"file", options{"file_path": "x", "log_raw": "maybe"}},
		{"file", options{"file_path": "x", "format": "jsonx"}},
		{"file", options{"file_path": "x", "format": "xml"}},
		{"file", options{"file_path": "x", "prefix": "a\nb"}},
		{"file", options{"file_path": "x", "filter": "mount_type == kv"}},
		{"socket", nil},
		{"socket", options{"address": "nowhere"}},
		{"socket", options{"address": "a:1", "socket_type": "sctp"}},
		{"socket", options{"socket_type": "unix"}},
		{"socket", options{"address": "a:1", "write_timeout": "-1s"}},
		{"syslog", options{"facility": "X"}},
	}
	for _, tt := range tests {
		if _, err := devices.New(tt.kind, tt.options, secret.New("salt")); !errs.Is(err, errs.Invalid) {
			t.Errorf("New(%q, %v) = %v, want Invalid", tt.kind, tt.options, err)
		}
	}
}
