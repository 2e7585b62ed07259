package policy

import (
	"slices"
	"time"

	"github.com/leasehold/leasehold/internal/wire"
)

// ResultantACL is a whole Set as sys/internal/ui/resultant-acl answers it.
type ResultantACL struct {
	Root bool `json:"root"`
	// Paths of rules; none for root. In GlobPaths the paths without a + stand
	// without their asterisk, as prefixes; those with one as they are written.
	ExactPaths map[string]PathACL `json:"exact_paths"`
	GlobPaths  map[string]PathACL `json:"glob_paths"`
}

// PathACL is what is granted on one path. TTLs are whole seconds.
type PathACL struct {
	Capabilities       []string                `json:"capabilities"`
	MinWrappingTTL     int64                   `json:"min_wrapping_ttl,omitempty"`
	MaxWrappingTTL     int64                   `json:"max_wrapping_ttl,omitempty"`
	AllowedParameters  map[string][]wire.Value `json:"allowed_parameters,omitempty"`
	DeniedParameters   map[string][]wire.Value `json:"denied_parameters,omitempty"`
	RequiredParameters []string                `json:"required_parameters,omitempty"`
}

// ResultantACL lists what the Set grants, for user interfaces.
func (s *Set) ResultantACL() ResultantACL {
	r := ResultantACL{Root: s.root, ExactPaths: map[string]PathACL{}, GlobPaths: map[string]PathACL{}}
	for _, x := range []*index{s.shared, s.bound} {
		if x == nil {
			continue
		}
		for path, e := range x.exact {
			r.ExactPaths[path] = e.grant.acl()
		}
		for _, e := range x.byKey {
			path := e.pattern.text()
			if len(e.pattern.runs) > 1 && e.pattern.glob {
				path += "*"
			}
			r.GlobPaths[path] = e.grant.acl()
		}
	}
	return r
}

func (g grant) acl() PathACL {
	a := PathACL{
		Capabilities:   g.caps.Names(),
		MinWrappingTTL: int64(g.minWrap / time.Second),
		MaxWrappingTTL: int64(g.maxWrap / time.Second),
	}
	if c := g.params; c != nil {
		a.AllowedParameters = jsonValues(c.allowed)
		a.DeniedParameters = jsonValues(c.denied)
		a.RequiredParameters = slices.Clone(c.required)
	}
	return a
}

func jsonValues(all map[string][]value) map[string][]wire.Value {
	out := make(map[string][]wire.Value, len(all))
	for name, values := range all {
		list := make([]wire.Value, len(values))
		for i, v := range values {
			list[i] = v.json
		}
		out[name] = list
	}
	return out
}
