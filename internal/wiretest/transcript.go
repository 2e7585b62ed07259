// Package wiretest replays recorded HTTP exchanges of a reference server
// against ours and says, step by step, whether the answers match.
//
// testdata/transcripts holds the recordings, one file per area of the API; a
// file is an ordered list of steps that share variables. What a step may
// expect, and the placeholders that stand for what differs from run to run,
// are described in CONTRIBUTING.md under "Recorded exchanges".
package wiretest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
)

// Transcript is one file: an ordered list of steps that share variables.
type Transcript struct {
	Area      string   `json:"area"`
	Reference string   `json:"reference,omitempty"`
	Needs     []string `json:"needs,omitempty"` // postgres, mysql, uninitialized
	Notes     string   `json:"notes,omitempty"`
	Steps     []*Step  `json:"steps"`
}

// Step is one request (kind "http") or one check.
type Step struct {
	ID       string            `json:"id"`
	Title    string            `json:"title,omitempty"`
	Kind     string            `json:"kind,omitempty"` // http (default), sql, sleep, set, or one of check's
	Request  *Request          `json:"request,omitempty"`
	Args     map[string]any    `json:"args,omitempty"`
	RetryS   float64           `json:"retry_s,omitempty"` // repeat until the expectation holds
	Save     map[string]string `json:"save,omitempty"`    // variable -> path in the answer
	Expect   *Answer           `json:"expect,omitempty"`
	Optional []string          `json:"optional,omitempty"` // paths that may be absent or differ
}

// Request is sent as it stands, after variables have been filled in.
type Request struct {
	Method  string            `json:"method"`
	Path    string            `json:"path"`
	Token   string            `json:"token,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Body    any               `json:"body,omitempty"`
	Raw     string            `json:"raw,omitempty"`
}

// Answer is what came back, or what should.
type Answer struct {
	Status int `json:"status,omitempty"`
	// StatusAny is for faults that the reference answers with a 5xx of its own.
	StatusAny []int             `json:"status_any,omitempty"`
	Headers   map[string]string `json:"headers,omitempty"`
	Format    string            `json:"format,omitempty"` // json, empty, text, pem, der-cert, der-crl, bytes
	Body      any               `json:"body,omitempty"`
}

// Load reads one transcript. Numbers keep their digits.
func Load(file string) (*Transcript, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var t Transcript
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&t); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &t, nil
}

// Label names a step for people.
func (s *Step) Label() string {
	l := s.Title
	if s.Request != nil {
		l = s.Request.Method + " " + s.Request.Path
		if s.Title != "" {
			l += "  (" + s.Title + ")"
		}
	} else if l == "" {
		l = s.Kind
	}
	return l
}
