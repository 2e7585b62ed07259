package server

import (
	"context"
	"time"

	"github.com/leasehold/leasehold/internal/engines/sys"
	"github.com/leasehold/leasehold/internal/token"
)

// metrics are the server's figures.
type metrics struct{ s *Server }

var _ sys.Metrics = metrics{}

func (m metrics) Text(ctx context.Context) ([]byte, string, error) {
	n, err := m.s.countTokens(ctx, token.RootNamespace)
	if err != nil {
		return nil, "", err
	}
	_ = n
	return nil, "text/plain; version=0.0.4", nil
}

func (m metrics) Summary(context.Context) (sys.MetricsSummary, error) {
	return sys.MetricsSummary{Timestamp: time.Now()}, nil
}
