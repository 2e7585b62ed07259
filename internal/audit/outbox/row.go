package outbox

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/audit"
	"github.com/leasehold/leasehold/internal/secret"
)

// rowVersion is the version of row. A row of another one is left alone.
const rowVersion = 1

// row is what is stored: the records of one Append. Lease ids and names stand
// in it in clear, under the barrier's encryption, because each device hashes
// them with a salt of its own when the record is delivered.
type row struct {
	Version int      `json:"v"`
	Records []record `json:"r"`
}

type record struct {
	Time          time.Time `json:"t"`
	Kind          string    `json:"k,omitempty"`
	Operation     string    `json:"op,omitempty"`
	Cause         string    `json:"c,omitempty"`
	Outcome       string    `json:"out,omitempty"`
	Namespace     string    `json:"ns,omitempty"`
	NamespacePath string    `json:"nsp,omitempty"`
	MountPoint    string    `json:"mp,omitempty"`
	MountType     string    `json:"mt,omitempty"`
	MountAccessor string    `json:"ma,omitempty"`
	MountClass    string    `json:"mc,omitempty"`
	MountVersion  string    `json:"mv,omitempty"`
	Path          string    `json:"p,omitempty"`
	LeaseID       string    `json:"l,omitempty"`
	Target        string    `json:"tg,omitempty"`
	Credential    string    `json:"cr,omitempty"`
	TokenAccessor string    `json:"ta,omitempty"`
	Error         string    `json:"e,omitempty"`
}

func encode(records []audit.Stored, now time.Time) ([]byte, error) {
	r := row{Version: rowVersion, Records: make([]record, len(records))}
	for i, s := range records {
		if s.Time.IsZero() {
			s.Time = now
		}
		r.Records[i] = record{
			Time: s.Time, Kind: s.Kind, Operation: s.Operation, Cause: s.Cause, Outcome: s.Outcome,
			Namespace: s.Namespace.ID, NamespacePath: s.Namespace.Path,
			MountPoint: s.Mount.Point, MountType: s.Mount.Type, MountAccessor: s.Mount.Accessor,
			MountClass: s.Mount.Class, MountVersion: s.Mount.Version,
			Path: s.Path, LeaseID: s.LeaseID.Reveal(), Target: s.Target, Credential: s.Credential.Reveal(),
			TokenAccessor: s.TokenAccessor, Error: s.Error,
		}
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encoding audit record: %w", err)
	}
	return b, nil
}

// decode appends the records of the row at key. A record's id is its place:
// lane, number and index.
func decode(to []audit.Stored, key string, value []byte) ([]audit.Stored, error) {
	var r row
	if err := json.Unmarshal(value, &r); err != nil {
		return to, err
	}
	if r.Version != rowVersion {
		return to, fmt.Errorf("version %d, want %d", r.Version, rowVersion)
	}
	place := strings.TrimPrefix(key, rowPrefix)
	for i, s := range r.Records {
		to = append(to, audit.Stored{
			ID:   fmt.Sprintf("%s/%d", place, i),
			Time: s.Time, Kind: s.Kind, Operation: s.Operation, Cause: s.Cause, Outcome: s.Outcome,
			Namespace: audit.Namespace{ID: s.Namespace, Path: s.NamespacePath},
			Mount: audit.Mount{
				Point: s.MountPoint, Type: s.MountType, Accessor: s.MountAccessor,
				Class: s.MountClass, Version: s.MountVersion,
			},
			Path: s.Path, LeaseID: secret.New(s.LeaseID), Target: s.Target, Credential: secret.New(s.Credential),
			TokenAccessor: s.TokenAccessor, Error: s.Error,
		})
	}
	return to, nil
}
