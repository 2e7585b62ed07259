package httpapi_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/leasehold/leasehold/internal/core"
	"github.com/leasehold/leasehold/internal/httpapi"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

type health struct {
	Initialized bool   `json:"initialized"`
	Sealed      bool   `json:"sealed"`
	Standby     bool   `json:"standby"`
	Time        int64  `json:"server_time_utc"`
	Version     string `json:"version"`
	ClusterName string `json:"cluster_name"`
	ClusterID   string `json:"cluster_id"`
}

var healthy = health{Initialized: true, Time: 1767323045, Version: "1.20.0", ClusterName: "vault-cluster-x", ClusterID: "0b1c9c2e-7e0f-4a3c-9d5e-0123456789ab"}

// BenchmarkHandler measures what the handler adds to a bare one, without the
// network.
func BenchmarkHandler(b *testing.B) {
	answer := wire.Append(nil, healthy)
	kv := wire.Object(`{"data":{"user":"alice","password":"x"},"metadata":{"version":1}}`)
	cases := []struct {
		name string
		h    http.Handler
	}{
		{"bare", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(answer)
		})},
		{"health", httpapi.New(httpapi.Config{Core: coreFunc(func(context.Context, *core.Request) *core.Response {
			return &core.Response{Form: route.Bare, Data: wire.Of(healthy)}
		})})},
		{"envelope", httpapi.New(httpapi.Config{Core: coreFunc(func(context.Context, *core.Request) *core.Response {
			return &core.Response{Data: kv, MountType: "kv"}
		})})},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			r := httptest.NewRequest("GET", "/v1/sys/health", nil)
			r.Header.Set("X-Vault-Token", "hvs.CAESIJx")
			w := &discard{header: http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				clear(w.header)
				c.h.ServeHTTP(w, r)
			}
		})
	}
}

type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}
