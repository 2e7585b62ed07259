package route

import "context"

// RoleOf says which of the method's roles a login asks for, from what the
// endpoint was sent, so that quotas can be set on one role. Nothing has been
// proved yet when it is asked, and it tells nobody anything. "" is no role.
func RoleOf[In any](fn func(ctx context.Context, req *Request, in In) (string, error)) Option {
	decode := decoderOf[In]()
	return func(e *Endpoint) {
		e.role = func(ctx context.Context, req *Request) (string, error) {
			in, _, err := decode(req)
			if err != nil {
				return "", nil // the login itself says what is wrong with it
			}
			return fn(ctx, req, in)
		}
	}
}

// HasRole reports whether the endpoint was declared with RoleOf.
func (e *Endpoint) HasRole() bool { return e.role != nil }

// KnownRole is the name of a role as the engine knows it: see Folds.
func (e *Endpoint) KnownRole(name string) string {
	if e.known == nil {
		return name
	}
	return e.known(name)
}

// Role is the role that a login asks for, or "".
func (e *Endpoint) Role(ctx context.Context, req *Request) (string, error) {
	if e.role == nil {
		return "", nil
	}
	return e.role(ctx, req)
}
