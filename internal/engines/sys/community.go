package sys

import (
	"context"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
)

// communityRoutes tell clients that ask what Vault's community edition tells
// them: that there is no replication, nothing to try out, and no count of
// clients that somebody would have to pay for.
func (e *Engine) communityRoutes(t *route.Table) {
	route.Read(t, "experiments", experiments, route.Doc("List the experiments: there are none."))
	route.Read(t, "replication/status", replication, route.Unauth(), route.Doc("Tell about replication: it is disabled."))
	for _, kind := range []string{"dr", "performance"} {
		route.Read(t, "replication/"+kind+"/status", replicationOf, route.Unauth(), route.Doc("Tell about replication: it is disabled."))
	}
}

type experimentsOut struct {
	Available []string `json:"available"`
	Enabled   []string `json:"enabled"`
}

func experiments(context.Context, *route.Request, route.None) (experimentsOut, error) {
	return experimentsOut{}, nil
}

type replicationMode struct {
	Mode string `json:"mode"`
}

// replicationOut has the mode alone, as the community edition tells it, and by
// kind, as Enterprise does.
type replicationOut struct {
	replicationMode
	DR          replicationMode `json:"dr"`
	Performance replicationMode `json:"performance"`
}

var noReplication = replicationMode{"disabled"}

func replication(context.Context, *route.Request, route.None) (replicationOut, error) {
	return replicationOut{noReplication, noReplication, noReplication}, nil
}

func replicationOf(context.Context, *route.Request, route.None) (replicationMode, error) {
	return noReplication, nil
}

// clientCountRoutes answer what a server says that counts no clients.
func (e *Engine) clientCountRoutes(t *route.Table) {
	route.Read(t, "internal/counters/requests", noRequestCounter, route.Doc("Removed: sys/metrics counts requests."))
	route.Read(t, "internal/counters/config", clientCounting, route.Doc("Tell whether clients are counted: they are not."))
	route.Write(t, "internal/counters/config", countClients, route.Doc("Say whether clients are counted: it cannot be enabled."))
	for _, path := range []string{"activity", "activity/monthly", "activity/export"} {
		route.Read(t, "internal/counters/"+path, noClientCount, route.Doc("Count the clients: there are no figures."))
	}
}

func noRequestCounter(context.Context, *route.Request, route.None) (route.None, error) {
	return route.None{}, errs.New(errs.NotFound, "the functionality has been removed on this path: sys/metrics counts requests")
}

type clientCountingOut struct {
	Enabled   string `json:"enabled"`
	Available bool   `json:"queries_available"`
	Report    int    `json:"default_report_months"`
	Retention int    `json:"retention_months"`
}

// clientCounting says how many months are kept and reported: none.
func clientCounting(context.Context, *route.Request, route.None) (clientCountingOut, error) {
	return clientCountingOut{Enabled: "default-disabled"}, nil
}

type countClientsIn struct {
	Enabled   string `json:"enabled" doc:"disable or default: clients are not counted."`
	Report    int    `json:"default_report_months" doc:"Without meaning: nothing is counted."`
	Retention int    `json:"retention_months" doc:"Without meaning: nothing is counted."`
}

func countClients(_ context.Context, req *route.Request, in countClientsIn) (route.None, error) {
	switch in.Enabled {
	case "enable":
		return route.None{}, errs.New(errs.Invalid, "clients are not counted: sys/internal/counters/entities and tokens count who there is")
	case "", "disable", "default":
	default:
		return route.None{}, errs.New(errs.Invalid, `unrecognized value for "enabled": it is enable, disable or default`)
	}
	if in.Report != 0 || in.Retention != 0 {
		req.Warn("clients are not counted: default_report_months and retention_months have no meaning")
	}
	return route.None{}, nil
}

type clientCountIn struct {
	Start     string `json:"start_time" doc:"Begin of the time to report about."`
	End       string `json:"end_time" doc:"Its end."`
	Namespace string `json:"limit_namespaces"`
	Format    string `json:"format"`
}

// noClientCount has no content, as where nothing was counted in the time asked
// for.
func noClientCount(context.Context, *route.Request, clientCountIn) (route.None, error) {
	return route.None{}, nil
}
