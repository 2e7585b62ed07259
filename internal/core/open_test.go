package core_test

import (
	"context"
	"testing"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/secret"
	"github.com/leasehold/leasehold/internal/storage/mem"
	"github.com/leasehold/leasehold/internal/wire"
)

// porch is an engine with a path for everybody and one for some.
type porch struct{}

func (porch) Routes(t *route.Table) {
	say := func(context.Context, *route.Request, route.None) (route.None, error) { return route.None{}, nil }
	route.Write(t, "open", say, route.Unauth())
	route.Write(t, "closed", say)
}

// TestWrongMethod asks for operations that paths do not have. Of a path that
// needs no token anybody is told so; of another, only who may ask.
func TestWrongMethod(t *testing.T) {
	r := openWith(t, mem.New(), map[string]engine.Factory{
		"secret/door": func(context.Context, engine.Env) (engine.Engine, error) { return porch{}, nil },
	})
	r.mount("door/", "door", nil)
	for _, tt := range []struct {
		path string
		tok  secret.String
		want errs.Kind
	}{
		{"door/open", secret.String{}, errs.Unsupported}, {"door/open", secret.New("none"), errs.Unsupported}, {"door/open", r.root, errs.Unsupported},
		{"door/closed", secret.String{}, errs.Denied}, {"door/closed", secret.New("none"), errs.Denied}, {"door/closed", r.root, errs.Unsupported},
		{"door/none", secret.String{}, errs.Denied}, {"door/none", r.root, errs.NotFound},
	} {
		if p := r.do(wire.OpRead, tt.path, tt.tok, ""); errs.KindOf(p.Err) != tt.want {
			t.Errorf("reading %s with the token %q = %v, want %v", tt.path, tt.tok.Reveal(), p.Err, tt.want)
		}
	}
}
