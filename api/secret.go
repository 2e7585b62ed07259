package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Secret is the envelope of a reply. Its JSON form is that of Vault's clients:
// auth and wrap_info only where there are any.
type Secret struct {
	RequestID     string `json:"request_id"`
	LeaseID       string `json:"lease_id"`
	LeaseDuration int    `json:"lease_duration"` // seconds
	Renewable     bool   `json:"renewable"`
	// Data is the reply's own part, as it came: numbers keep their digits.
	Data     json.RawMessage `json:"data"`
	Warnings []string        `json:"warnings"`
	Auth     *Auth           `json:"auth,omitempty"`
	WrapInfo *WrapInfo       `json:"wrap_info,omitempty"`
}

// Auth is what a login, or the making or renewing of a token, answers.
type Auth struct {
	ClientToken      string            `json:"client_token"`
	Accessor         string            `json:"accessor"`
	Policies         []string          `json:"policies"`
	TokenPolicies    []string          `json:"token_policies"`
	IdentityPolicies []string          `json:"identity_policies"`
	Metadata         map[string]string `json:"metadata"`
	Orphan           bool              `json:"orphan"`
	EntityID         string            `json:"entity_id"`
	LeaseDuration    int               `json:"lease_duration"` // seconds; 0 never ends
	Renewable        bool              `json:"renewable"`
	MFARequirement   json.RawMessage   `json:"mfa_requirement"`
}

// WrapInfo tells where the wrapped reply can be had, once.
type WrapInfo struct {
	Token           string    `json:"token"`
	Accessor        string    `json:"accessor"`
	TTL             int       `json:"ttl"` // seconds
	CreationTime    time.Time `json:"creation_time"`
	CreationPath    string    `json:"creation_path"`
	WrappedAccessor string    `json:"wrapped_accessor,omitempty"`
}

// Decode puts the data into v, a pointer to a struct or map of the caller's.
func (s *Secret) Decode(v any) error {
	if s == nil || len(s.Data) == 0 || bytes.Equal(s.Data, []byte("null")) {
		return errors.New("the reply holds no data")
	}
	if err := json.Unmarshal(s.Data, v); err != nil {
		return fmt.Errorf("decoding the reply's data: %w", err)
	}
	return nil
}

// HasData reports whether the reply holds data other than null.
func (s *Secret) HasData() bool {
	return s != nil && len(s.Data) > 0 && !bytes.Equal(s.Data, []byte("null"))
}

// Duration is the lease's length; that of the token for a login.
func (s *Secret) Duration() time.Duration {
	if s.Auth != nil {
		return time.Duration(s.Auth.LeaseDuration) * time.Second
	}
	return time.Duration(s.LeaseDuration) * time.Second
}

// parseSecret reads an envelope. Replies without one (sys/seal-status and
// others outside the sealed part of the server) become data as a whole.
func parseSecret(body []byte) (*Secret, error) {
	var probe struct {
		Secret
		HasEnvelope *json.RawMessage `json:"request_id"`
	}
	if err := json.Unmarshal(body, &probe); err != nil {
		return nil, fmt.Errorf("the server's answer is not what an API server sends: %w", err)
	}
	if probe.HasEnvelope == nil {
		return &Secret{Data: body}, nil
	}
	// The outer request_id shadows the embedded one.
	s := probe.Secret
	if err := json.Unmarshal(*probe.HasEnvelope, &s.RequestID); err != nil {
		return nil, fmt.Errorf("the server's request_id: %w", err)
	}
	return &s, nil
}
