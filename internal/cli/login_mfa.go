package cli

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/leasehold/leasehold/api"
)

// mfaRequirement stands in a login's answer in place of a token.
type mfaRequirement struct {
	ID          string `json:"mfa_request_id"`
	Constraints map[string]struct {
		Any []mfaMethod `json:"any"`
	} `json:"mfa_constraints"`
}

type mfaMethod struct {
	Type         string `json:"type"`
	ID           string `json:"id"`
	UsesPasscode bool   `json:"uses_passcode"`
	Name         string `json:"name"`
}

// mfaOf is what a login still needs; nil if it is complete.
func mfaOf(a *api.Auth) *mfaRequirement {
	if a == nil || a.ClientToken != "" || len(a.MFARequirement) == 0 {
		return nil
	}
	var r *mfaRequirement
	if err := json.Unmarshal(a.MFARequirement, &r); err != nil {
		return nil
	}
	return r
}

// validation is what completes a login: passcodes by the ids of their methods.
type validation struct {
	Request string              `json:"mfa_request_id"`
	Payload map[string][]string `json:"mfa_payload"`
}

// secondFactor completes a login that needs passcodes, by asking for them. On
// nobody's terminal it says what is to be done, and gives the login back as it
// is.
func (c *call) secondFactor(ctx context.Context, s *api.Secret) (*api.Secret, error) {
	r := mfaOf(s.Auth)
	if r == nil {
		return s, nil
	}
	if !isTerminal(c.cfg.Stdin) || c.common.nonInteractive {
		c.note("%s\n", wrap("The login needs a second factor. Show the passcode of one method of each constraint below: log in again with -mfa=METHOD:PASSCODE, "+
			"or write them to sys/mfa/validate together with the mfa_request_id.", 78))
		return s, nil
	}
	payload := map[string][]string{}
	for _, name := range sortedKeys(r.Constraints) {
		if err := c.askFactor(name, r.Constraints[name].Any, payload); err != nil {
			return nil, err
		}
	}
	cl, err := c.client()
	if err != nil {
		return nil, err
	}
	resp, err := cl.WithToken("").Do(ctx, &api.Request{
		Method: http.MethodPut, Path: "sys/mfa/validate", Body: validation{r.ID, payload},
	})
	if err != nil {
		return nil, step(err, "validating the second factor")
	}
	done, err := resp.Secret()
	if err == nil && done == nil {
		err = localf("The login brought no token")
	}
	return done, err
}

// askFactor asks for the passcode of one of a constraint's methods, unless it
// was asked for already.
func (c *call) askFactor(constraint string, methods []mfaMethod, payload map[string][]string) error {
	for _, m := range methods {
		if _, asked := payload[m.ID]; asked {
			return nil
		}
	}
	i := slices.IndexFunc(methods, func(m mfaMethod) bool { return m.UsesPasscode })
	if i < 0 {
		return localf("The login needs a second factor for %q that is no passcode, which this command cannot show", constraint)
	}
	name := methods[i].Name
	if name == "" {
		name = methods[i].ID
	}
	code, err := c.ask("Passcode of the "+strings.ToUpper(methods[i].Type)+" method "+name+" (will be hidden):", true)
	if err != nil {
		return err
	}
	payload[methods[i].ID] = []string{code}
	return nil
}

// addTo adds to a table what a login still needs.
func (r *mfaRequirement) addTo(t *table) {
	t.row("mfa_request_id", r.ID)
	for _, name := range sortedKeys(r.Constraints) {
		for _, m := range r.Constraints[name].Any {
			begin := "mfa_constraint_" + name + "_" + m.Type
			t.row(begin+"_id", m.ID)
			t.row(begin+"_uses_passcode", m.UsesPasscode)
			t.row(begin+"_name", m.Name)
		}
	}
}
