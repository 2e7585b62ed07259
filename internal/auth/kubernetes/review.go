package kubernetes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/wire"
)

// question and answer are the two sides of a TokenReview
// (authentication.k8s.io/v1).
type question struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Spec       struct {
		Token     secret.String `json:"token"`
		Audiences []string      `json:"audiences,omitempty"`
	} `json:"spec"`
}

type answer struct {
	Status struct {
		Authenticated bool     `json:"authenticated"`
		Audiences     []string `json:"audiences"`
		Error         string   `json:"error"`
		User          struct {
			Username string `json:"username"`
			UID      string `json:"uid"`
		} `json:"user"`
	} `json:"status"`
}

// errReviewer says that we may not ask, which is the configuration's fault.
var errReviewer = errors.New("the API server refused the question")

const maxReview = 1 << 20

// review asks the API server whose a token is. audiences are those that it may
// be for; must, unless empty, is one that the answer has to confirm.
func (s *apiServer) review(ctx context.Context, token secret.String, audiences []string, must string) (account, error) {
	asker := s.reviewer
	if asker.IsZero() { // an account that may ask can ask about itself
		asker = token
	}
	q := question{APIVersion: "authentication.k8s.io/v1", Kind: "TokenReview"}
	q.Spec.Token, q.Spec.Audiences = token, audiences
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.host+"/apis/authentication.k8s.io/v1/tokenreviews", bytes.NewReader(wire.Marshal(&q)))
	if err != nil {
		return account{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", "Bearer "+asker.Reveal())
	resp, err := s.client.Do(req)
	if err != nil {
		return account{}, errSilent(err)
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReview))
	if err != nil {
		return account{}, errSilent(err)
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return account{}, fmt.Errorf("%w with %d", errReviewer, resp.StatusCode)
	case resp.StatusCode == http.StatusTooManyRequests, resp.StatusCode >= 500, resp.StatusCode < 200, resp.StatusCode >= 300 && resp.StatusCode < 400:
		return account{}, errSilent(fmt.Errorf("the API server at %s answered a TokenReview with %d", s.host, resp.StatusCode))
	case resp.StatusCode >= 400:
		return account{}, fmt.Errorf("the API server answered the TokenReview with %d", resp.StatusCode)
	}
	var a answer
	if err := wire.Unmarshal(reply, &a); err != nil {
		return account{}, errSilent(fmt.Errorf("the API server at %s answered a TokenReview with something else: %w", s.host, err))
	}
	return a.account(must)
}

func errSilent(cause error) error {
	return errs.Wrap(errs.Upstream, cause, "the cluster's API server did not answer as it should; try again, and see the server's log for the cause")
}

// account is whom the API server takes the token to be of.
func (a *answer) account(must string) (account, error) {
	s := &a.Status
	switch {
	case s.Error != "":
		return account{}, errors.New("lookup failed: " + clip(s.Error))
	case !s.Authenticated:
		return account{}, errors.New("lookup failed: service account jwt not valid")
	case must != "" && !slices.Contains(s.Audiences, must):
		return account{}, errors.New("lookup failed: the API server does not confirm the audience")
	}
	parts := strings.Split(s.User.Username, ":")
	if len(parts) != 4 || parts[0] != "system" || parts[1] != "serviceaccount" {
		return account{}, errors.New("lookup failed: the token is of no service account")
	}
	return account{namespace: parts[2], name: parts[3], uid: s.User.UID}, nil
}

// clip keeps what the API server says short enough for a log.
func clip(s string) string {
	const most = 300
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}
