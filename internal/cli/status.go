package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/leasehold/leasehold/api"
)

// sealStatus is sys/seal-status; the fields below "replies" come from
// sys/leader. The order is that of the JSON output.
type sealStatus struct {
	Type             string `json:"type"`
	Initialized      bool   `json:"initialized"`
	Sealed           bool   `json:"sealed"`
	Threshold        int    `json:"t"`
	Shares           int    `json:"n"`
	Progress         int    `json:"progress"`
	Nonce            string `json:"nonce"`
	Version          string `json:"version"`
	LeaseholdVersion string `json:"leasehold_version,omitempty"`
	BuildDate        string `json:"build_date"`
	Migration        bool   `json:"migration"`
	ClusterName      string `json:"cluster_name,omitempty"`
	ClusterID        string `json:"cluster_id,omitempty"`
	RecoverySeal     bool   `json:"recovery_seal"`
	StorageType      string `json:"storage_type,omitempty"`

	leaderStatus
}

type leaderStatus struct {
	HAEnabled     bool      `json:"ha_enabled"`
	IsSelf        bool      `json:"is_self,omitempty"`
	ActiveTime    time.Time `json:"active_time,omitzero"`
	LeaderAddress string    `json:"leader_address,omitempty"`
}

func statusCommand() *command {
	return &command{
		name: "status", max: 0,
		short: "Tell whether the server is sealed",
		long: "Tells how the server is. Exit code 0: unsealed, 2: sealed, 1: no answer. " +
			"No token is needed.",
		example: []string{"leasehold status"},
		run: func(ctx context.Context, c *call) error {
			st, err := c.sealStatus(ctx)
			if captured(err) {
				return err // only printed, as it was asked for
			}
			if err != nil {
				c.report(step(err, "checking seal status"))
				return exitStatus(exitLocal)
			}
			if err := c.printStatus(st); err != nil {
				return err
			}
			if !st.Sealed {
				return nil
			}
			if next := st.next(); next != "" && c.format == formatTable {
				c.note("\n%s", next)
			}
			return exitStatus(exitServer)
		},
	}
}

// next is what opens a server that is sealed.
func (st *sealStatus) next() string {
	switch {
	case !st.Initialized:
		return "The server is new: \"leasehold operator init\" makes its keys and the first token."
	case st.RecoverySeal:
		return "The seal did not open the server; its log has the cause. Recovery keys do: \"leasehold operator unseal\"."
	}
	return fmt.Sprintf("%d of its key shares open the server, one at a time: \"leasehold operator unseal\".", st.Threshold)
}

func (c *call) sealStatus(ctx context.Context) (*sealStatus, error) {
	cl, err := c.client()
	if err != nil {
		return nil, err
	}
	st := new(sealStatus)
	if err := get(ctx, cl, "sys/seal-status", st); err != nil {
		return nil, err
	}
	if st.Sealed {
		return st, nil
	}
	return st, get(ctx, cl, "sys/leader", &st.leaderStatus)
}

// get reads what answers without a token and without an envelope, once.
func get(ctx context.Context, cl *api.Client, path string, v any) error {
	resp, err := cl.WithWrapTTL("").Do(ctx, &api.Request{Method: http.MethodGet, Path: path, NoRetry: true})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(resp.Body, v); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", path, err)
	}
	return nil
}

func (c *call) printStatus(st *sealStatus) error {
	t := newTable("Key", "Value")
	if st.RecoverySeal {
		t.row("Recovery Seal Type", st.Type)
	} else {
		t.row("Seal Type", st.Type)
	}
	t.row("Initialized", st.Initialized)
	t.row("Sealed", st.Sealed)
	prefix := ""
	if st.RecoverySeal {
		prefix = "Recovery "
	}
	t.row("Total "+prefix+"Shares", st.Shares)
	t.row("Threshold", st.Threshold)
	if st.Sealed && st.Initialized {
		t.row("Unseal Progress", fmt.Sprintf("%d/%d", st.Progress, st.Threshold))
		t.row("Unseal Nonce", st.Nonce)
	}
	t.row("Version", st.Version)
	if st.LeaseholdVersion != "" {
		t.row("Leasehold Version", st.LeaseholdVersion)
	}
	if st.BuildDate != "" {
		t.row("Build Date", st.BuildDate)
	}
	t.row("Storage Type", st.StorageType)
	if st.ClusterName != "" {
		t.row("Cluster Name", st.ClusterName)
	}
	if st.ClusterID != "" {
		t.row("Cluster ID", st.ClusterID)
	}
	t.row("HA Enabled", st.HAEnabled)
	if st.HAEnabled {
		mode := "standby"
		if st.IsSelf {
			mode = "active"
		}
		t.row("HA Mode", mode)
		t.row("Active Node Address", st.LeaderAddress)
		if !st.ActiveTime.IsZero() {
			t.row("Active Since", st.ActiveTime.Format(time.RFC3339Nano))
		}
	}
	return c.printTable(t, st)
}
