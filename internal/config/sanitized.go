package config

import (
	"crypto/tls"
	"time"
)

// Sanitized is what sys/config/state/sanitized tells of the configuration: no
// keys and no paths of keys. The names are Vault's; settings that it has and
// we do not are left out.
type Sanitized struct {
	APIAddr                   string              `json:"api_addr"`
	ClusterName               string              `json:"cluster_name"`
	DefaultLeaseTTL           int64               `json:"default_lease_ttl"` // seconds, like all times here
	DefaultMaxRequestDuration int64               `json:"default_max_request_duration"`
	DisableCache              bool                `json:"disable_cache"` // always false, like the next
	EnableUI                  bool                `json:"enable_ui"`
	HeaderHostname            bool                `json:"enable_response_header_hostname"`
	IntrospectionEndpoint     bool                `json:"introspection_endpoint"` // always false
	Lanes                     SanitizedLanes      `json:"lanes"`
	Listeners                 []SanitizedListener `json:"listeners"`
	LogFormat                 string              `json:"log_format"`
	LogLevel                  string              `json:"log_level"`
	LogRequestsLevel          string              `json:"log_requests_level"`
	MaxLeaseTTL               int64               `json:"max_lease_ttl"`
	MaxRestartGap             int64               `json:"max_restart_gap"`
	PIDFile                   string              `json:"pid_file"`
	RawStorageEndpoint        bool                `json:"raw_storage_endpoint"`
	ReportedVersion           string              `json:"reported_version"`
	Seals                     []SanitizedSeal     `json:"seals"`
	Storage                   SanitizedStorage    `json:"storage"`
	Telemetry                 SanitizedTelemetry  `json:"telemetry"`
	Tracing                   SanitizedTracing    `json:"tracing"`
}

// SanitizedLanes shows Lanes.
type SanitizedLanes struct {
	CreateWorkers int `json:"create_workers"`
	RevokeWorkers int `json:"revoke_workers"`
	Batch         int `json:"batch"`
}

// SanitizedListener shows a Listener.
type SanitizedListener struct {
	Type   string                  `json:"type"`
	Config SanitizedListenerConfig `json:"config"`
}

// SanitizedListenerConfig shows the settings of a Listener.
type SanitizedListenerConfig struct {
	Address            string `json:"address"`
	TLSDisable         bool   `json:"tls_disable"`
	TLSMinVersion      string `json:"tls_min_version,omitempty"`
	TLSMaxVersion      string `json:"tls_max_version,omitempty"`
	RequireClientCert  bool   `json:"tls_require_and_verify_client_cert,omitempty"`
	MaxRequestSize     int64  `json:"max_request_size,omitempty"`
	MaxRequestDuration int64  `json:"max_request_duration,omitempty"`
}

// SanitizedSeal shows the Seal.
type SanitizedSeal struct {
	Type     string `json:"type"`
	Disabled bool   `json:"disabled"`
}

// SanitizedStorage shows the Storage.
type SanitizedStorage struct {
	Type string `json:"type"`
}

// SanitizedTelemetry shows Telemetry.
type SanitizedTelemetry struct {
	DisableHostname         bool   `json:"disable_hostname"` // always true
	MetricsPrefix           string `json:"metrics_prefix"`
	PrometheusRetentionTime int64  `json:"prometheus_retention_time"`
}

// SanitizedTracing shows Tracing.
type SanitizedTracing struct {
	Endpoint    string  `json:"endpoint"`
	ServiceName string  `json:"service_name"`
	SampleRatio float64 `json:"sample_ratio"`
}

// Sanitized is the configuration without what must not be shown.
func (c *Config) Sanitized() Sanitized {
	s := Sanitized{
		APIAddr: c.APIAddr, ClusterName: c.ClusterName,
		DefaultLeaseTTL: seconds(c.DefaultLeaseTTL), DefaultMaxRequestDuration: seconds(c.MaxRequestDuration),
		HeaderHostname: c.ResponseHeaderHostname,
		Lanes:          SanitizedLanes{c.Lanes.Create, c.Lanes.Revoke, c.Lanes.Batch},
		Listeners:      []SanitizedListener{},
		LogFormat:      c.LogFormat, LogLevel: c.LogLevel, LogRequestsLevel: c.LogRequestsLevel,
		MaxLeaseTTL: seconds(c.MaxLeaseTTL), MaxRestartGap: seconds(c.MaxRestartGap),
		PIDFile: c.PIDFile, RawStorageEndpoint: c.RawStorageEndpoint, ReportedVersion: c.ReportedVersion,
		Seals:   []SanitizedSeal{{Type: c.Seal.Kind}},
		Storage: SanitizedStorage{c.Storage.Kind},
		Telemetry: SanitizedTelemetry{
			DisableHostname: true, MetricsPrefix: c.Telemetry.MetricsPrefix,
			PrometheusRetentionTime: seconds(c.Telemetry.PrometheusRetention),
		},
		Tracing: SanitizedTracing{c.Tracing.Endpoint, c.Tracing.Service, c.Tracing.Ratio},
	}
	for _, l := range c.Listeners {
		lc := SanitizedListenerConfig{
			Address: l.Address, TLSDisable: l.TLS == nil,
			MaxRequestSize: l.MaxRequestSize, MaxRequestDuration: seconds(l.MaxRequestDuration),
		}
		if l.TLS != nil {
			lc.TLSMinVersion, lc.TLSMaxVersion = tlsName(l.TLS.MinVersion), tlsName(l.TLS.MaxVersion)
			lc.RequireClientCert = l.TLS.RequireClientCert
		}
		s.Listeners = append(s.Listeners, SanitizedListener{l.Network, lc})
	}
	return s
}

func seconds(d time.Duration) int64 { return int64(max(d, 0) / time.Second) }

func tlsName(v uint16) string {
	switch v {
	case tls.VersionTLS12:
		return "tls12"
	case tls.VersionTLS13:
		return "tls13"
	}
	return ""
}
