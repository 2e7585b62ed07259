package mfa_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image/png"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leasehold/leasehold/internal/engine"
	"github.com/leasehold/leasehold/internal/engines/identity/mfa"
	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/wire"
)

func TestMethods(t *testing.T) {
	r := newRig(t)
	for _, bad := range []obj{
		{}, {"issuer": ""}, {"issuer": "x", "digits": 7}, {"issuer": "x", "skew": 2}, {"issuer": "x", "algorithm": "MD5"},
		{"issuer": "x", "period": 0}, {"issuer": "x", "period": "2h"}, {"issuer": "x", "key_size": 1}, {"issuer": "x", "key_size": 100000},
		{"issuer": "x", "qr_size": -1}, {"issuer": "x", "qr_size": 1 << 30}, {"issuer": "x", "max_validation_attempts": -1},
	} {
		r.do(400, wire.OpUpdate, "mfa/method/totp", bad)
	}
	id := r.method(obj{"method_name": "phone"})
	want := obj{
		"type": "totp", "id": id, "name": "phone", "namespace_id": "root", "namespace_path": "", "issuer": "Leasehold", "period": 30.0,
		"algorithm": "SHA1", "digits": 6.0, "skew": 1.0, "key_size": 20.0, "qr_size": 200.0, "max_validation_attempts": 5.0,
	}
	for _, path := range []string{"mfa/method/", "mfa/method/totp/"} {
		if got := r.do(200, wire.OpRead, path+id, nil); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s reads as %v, want %v", path, got, want)
		}
	}
	r.do(400, wire.OpUpdate, "mfa/method/totp", obj{"issuer": "x", "method_name": "phone"})
	r.do(204, wire.OpUpdate, "mfa/method/totp/"+id, obj{"method_name": "watch", "digits": 8})
	other := r.method(obj{"method_name": "phone"})
	r.do(400, wire.OpUpdate, "mfa/method/totp/none", obj{"issuer": "x"})
	for _, path := range []string{"mfa/method", "mfa/method/totp"} {
		if got := r.do(200, wire.OpList, path, nil); len(got["keys"].([]any)) != 2 || got["key_info"].(obj)[id].(obj)["name"] != "watch" {
			t.Errorf("LIST %s = %v", path, got)
		}
	}
	for _, kind := range []string{"duo", "okta", "pingid"} {
		r.do(400, wire.OpUpdate, "mfa/method/"+kind, obj{"method_name": "x"})
		r.do(400, wire.OpUpdate, "mfa/method/"+kind+"/"+id, obj{})
		r.do(404, wire.OpRead, "mfa/method/"+kind+"/"+id, nil)
		r.do(404, wire.OpList, "mfa/method/"+kind, nil)
		r.do(204, wire.OpDelete, "mfa/method/"+kind+"/"+id, nil)
	}
	r.do(204, wire.OpUpdate, "mfa/login-enforcement/e", obj{"mfa_method_ids": id, "auth_method_types": "userpass"})
	r.do(400, wire.OpDelete, "mfa/method/totp/"+id, nil)
	r.do(204, wire.OpDelete, "mfa/method/totp/"+other, nil)
	r.do(204, wire.OpDelete, "mfa/login-enforcement/e", nil)
	r.do(204, wire.OpDelete, "mfa/method/totp/"+id, nil)
	r.do(404, wire.OpList, "mfa/method", nil)
	r.method(obj{"method_name": "watch"}) // its name is free again
}

func TestSecrets(t *testing.T) {
	r := newRig(t)
	id := r.method(nil)
	made := r.do(200, wire.OpUpdate, "mfa/method/totp/generate", obj{"method_id": id})
	picture, err := base64.StdEncoding.DecodeString(made["barcode"].(string))
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(picture))
	if err != nil || img.Bounds().Dx() != 200 || img.Bounds().Dy() != 200 {
		t.Errorf("the barcode is no PNG of 200 pixels: %v", err)
	}
	if u := made["url"].(string); !regexp.MustCompile(`^otpauth://totp/Leasehold:ann\?algorithm=SHA1&digits=6&issuer=Leasehold&period=30&secret=[A-Z2-7]{32}$`).MatchString(u) {
		t.Errorf("the URL is %s", u)
	}
	d := r.device(made)
	// A second one is not made, and the first goes on.
	if again := r.do(200, wire.OpUpdate, "mfa/method/totp/generate", obj{"method_id": id}); len(again) != 0 {
		t.Errorf("a second generate answers %v", again)
	}
	if err := r.prove(id, d.code(0)); err != nil {
		t.Errorf("the passcode of the first secret: %v", err)
	}
	r.do(400, wire.OpUpdate, "mfa/method/totp/generate", obj{"method_id": "none"})
	r.do(400, wire.OpUpdate, "mfa/method/totp/generate", obj{})
	r.do(400, wire.OpUpdate, "mfa/method/totp/admin-generate", obj{"method_id": id, "entity_id": "nobody"})
	r.do(400, wire.OpUpdate, "mfa/method/totp/admin-generate", obj{"method_id": id})

	r.do(204, wire.OpUpdate, "mfa/method/totp/admin-destroy", obj{"method_id": id, "entity_id": "ann"})
	if err := r.prove(id, d.code(1)); !errs.Is(err, errs.Denied) {
		t.Errorf("a passcode of a destroyed secret: %v, want it denied", err)
	}
	plain := r.method(obj{"qr_size": 0, "algorithm": "SHA512", "digits": 8, "period": 60, "key_size": 64})
	made = r.do(200, wire.OpUpdate, "mfa/method/totp/admin-generate", obj{"method_id": plain, "entity_id": "ann"})
	if _, has := made["barcode"]; has {
		t.Error("qr_size 0 answers a barcode")
	}
	if err := r.prove(plain, r.device(made).code(-1)); err != nil {
		t.Errorf("a passcode of 8 digits by SHA512, one step late: %v", err)
	}
}

// TestSmallestCodeFits: whatever the method's issuer, its QR code can be made
// or the sentence says what to do.
func TestSmallestCodeFits(t *testing.T) {
	r := newRig(t)
	id := r.method(obj{"issuer": strings.Repeat("x", 256), "key_size": 128, "qr_size": 100})
	r.do(400, wire.OpUpdate, "mfa/method/totp/generate", obj{"method_id": id})
	r.do(204, wire.OpUpdate, "mfa/method/totp/"+id, obj{"qr_size": 400})
	r.do(200, wire.OpUpdate, "mfa/method/totp/generate", obj{"method_id": id})
}

func TestPasscodes(t *testing.T) {
	r := newRig(t)
	id := r.method(nil)
	d := r.device(r.do(200, wire.OpUpdate, "mfa/method/totp/generate", obj{"method_id": id}))
	denied := func(what, code, why string) {
		t.Helper()
		if err := r.prove(id, code); !errs.Is(err, errs.Denied) || !strings.Contains(errs.Message(err), why) {
			t.Errorf("%s: %v, want it denied: %s", what, err, why)
		}
	}
	denied("a wrong one", d.wrong(), "failed to validate")
	denied("two steps old", d.code(-2), "failed to validate")
	denied("two steps ahead", d.code(2), "failed to validate")
	denied("none", "", "want one passcode")
	denied("a long one", strings.Repeat("1", 1<<16), "failed to validate")
	if err := r.prove(id, "passcode= "+d.code(0)); err != nil {
		t.Errorf("the present one: %v", err)
	}
	denied("the same again", d.code(0), "used already")
	denied("an older one after it", d.code(-1), "used already")
	if err := r.prove(id, d.code(1)); err != nil {
		t.Errorf("the next one: %v", err)
	}
	if err := r.engine.Prove(t.Context(), demand(id), engine.Shown{}); !errs.Is(err, errs.Denied) {
		t.Errorf("nothing shown: %v", err)
	}
	if err := r.engine.Prove(t.Context(), demand(id), engine.Shown{id: {d.code(0), d.code(1)}}); !errs.Is(err, errs.Denied) {
		t.Errorf("several shown: %v", err)
	}
}

// TestGuessingIsSlowedDown: after five wrong passcodes not even the right one
// counts for a while, and each round waits longer, whichever server is asked.
// TestDevicesOutliveTheirMethodsSettings: an app shows the passcodes that it was
// set up for, whatever the method says by then.
func TestDevicesOutliveTheirMethodsSettings(t *testing.T) {
	r := newRig(t)
	method := r.method(nil)
	before := r.device(r.do(200, wire.OpUpdate, "mfa/method/totp/generate", obj{"method_id": method}))
	if err := r.prove(method, before.code(0)); err != nil {
		t.Fatalf("at first: %v", err)
	}
	for _, change := range []obj{{"period": 60}, {"digits": 8}, {"algorithm": "SHA256"}, {"period": 10}} {
		r.do(204, wire.OpUpdate, "mfa/method/totp/"+method, change)
		r.pass(30 * time.Second)
		if err := r.prove(method, before.code(0)); err != nil {
			t.Errorf("after %v a passcode of an older device is refused: %v", change, err)
		}
	}
	r.do(204, wire.OpUpdate, "mfa/method/totp/admin-destroy", obj{"method_id": method, "entity_id": "ann"})
	after := r.device(r.do(200, wire.OpUpdate, "mfa/method/totp/generate", obj{"method_id": method}))
	if after.period != 10 || after.digits != 8 || after.alg != "SHA256" {
		t.Errorf("a new device is set up with %+v, want what the method says now", after)
	}
	if err := r.prove(method, after.code(0)); err != nil {
		t.Errorf("a passcode of the new device is refused: %v", err)
	}
}

func TestGuessingIsSlowedDown(t *testing.T) {
	r := newRig(t)
	other, _ := r.open()
	id := r.method(nil)
	d := r.device(r.do(200, wire.OpUpdate, "mfa/method/totp/generate", obj{"method_id": id}))
	for round, wait := range []time.Duration{90 * time.Second, 3 * time.Minute, 6 * time.Minute} {
		for i := range 5 {
			e := r.engine
			if i%2 == 1 {
				e = other
			}
			if err := e.Prove(t.Context(), demand(id), engine.Shown{id: {d.wrong()}}); !errs.Is(err, errs.Denied) || strings.Contains(err.Error(), "exceeded") {
				t.Fatalf("round %d, wrong passcode %d: %v", round, i, err)
			}
		}
		if err := r.prove(id, d.code(0)); !errs.Is(err, errs.Denied) || !strings.Contains(err.Error(), "exceeded") {
			t.Fatalf("round %d: the right passcode after five wrong ones: %v", round, err)
		}
		r.pass(wait - time.Second)
		if err := r.prove(id, d.code(0)); !errs.Is(err, errs.Denied) {
			t.Fatalf("round %d: a second before the wait of %s is over: %v", round, wait, err)
		}
		r.pass(time.Second)
	}
	if err := r.prove(id, d.code(0)); err != nil {
		t.Fatalf("after the wait: %v", err)
	}
	for range 5 { // a success begins anew
		_ = r.prove(id, d.wrong())
	}
	r.pass(90 * time.Second)
	if err := r.prove(id, d.code(0)); err != nil {
		t.Errorf("after a first round: %v", err)
	}
}

// TestPasscodesCountOnce shows one passcode many times at the same moment, to
// two servers.
func TestPasscodesCountOnce(t *testing.T) {
	r := newRig(t)
	other, _ := r.open()
	id := r.method(obj{"max_validation_attempts": 100})
	d := r.device(r.do(200, wire.OpUpdate, "mfa/method/totp/generate", obj{"method_id": id}))
	var ok atomic.Int32
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			e := []*mfa.Engine{r.engine, other}[i%2]
			if err := e.Prove(t.Context(), demand(id), engine.Shown{id: {d.code(0)}}); err == nil {
				ok.Add(1)
			} else if !errs.Is(err, errs.Denied) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := ok.Load(); n != 1 {
		t.Errorf("one passcode counted %d times, want once", n)
	}
}

func TestEnforcements(t *testing.T) {
	r := newRig(t)
	id := r.method(obj{"method_name": "phone"})
	for _, bad := range []obj{
		{"auth_method_types": "userpass"}, {"mfa_method_ids": id}, {"mfa_method_ids": "none", "auth_method_types": "userpass"},
		{"mfa_method_ids": "", "auth_method_types": "userpass"},
		// What is not there would keep nobody out.
		{"mfa_method_ids": id, "auth_method_accessors": "acc1,acc"}, {"mfa_method_ids": id, "auth_method_types": "userpas"},
		{"mfa_method_ids": id, "identity_group_ids": "g"},
		{"mfa_method_ids": id, "identity_entity_ids": "nobody"}, {"mfa_method_ids": id, "identity_entity_ids": "merged"},
	} {
		r.do(400, wire.OpUpdate, "mfa/login-enforcement/e", bad)
	}
	needs := func(l engine.FactorLogin) string {
		t.Helper()
		d, err := r.engine.Demand(t.Context(), l)
		if err != nil {
			return "refused"
		}
		if d == nil {
			return "nothing"
		}
		var names []string
		for name, c := range d.Constraints {
			if len(c.Any) != 1 || c.Any[0] != (route.MFAMethod{Type: "totp", ID: id, UsesPasscode: true, Name: "phone"}) {
				t.Errorf("the constraint %s = %+v", name, c)
			}
			names = append(names, name)
		}
		return strings.Join(names, " ")
	}
	login := engine.FactorLogin{Accessor: "acc1", Type: "userpass", Who: ann}
	if got := needs(login); got != "nothing" {
		t.Errorf("without enforcements a login needs %s", got)
	}
	for _, tc := range []struct {
		field, value string
		no           engine.FactorLogin
	}{
		{"auth_method_accessors", "acc1", engine.FactorLogin{Accessor: "acc2", Type: "userpass", Who: ann}},
		{"auth_method_types", "userpass", engine.FactorLogin{Accessor: "acc1", Type: "ldap", Who: ann}},
		{"identity_entity_ids", "ann", engine.FactorLogin{Accessor: "acc1", Type: "userpass", Who: bob}},
		{"identity_group_ids", "g1", engine.FactorLogin{Accessor: "acc1", Type: "userpass", Who: bob}},
	} {
		r.do(204, wire.OpUpdate, "mfa/login-enforcement/e", obj{"mfa_method_ids": id, tc.field: tc.value})
		if got := needs(login); got != "e" {
			t.Errorf("by %s the login needs %s", tc.field, got)
		}
		if got := needs(tc.no); got != "nothing" {
			t.Errorf("by %s another login needs %s", tc.field, got)
		}
		r.do(204, wire.OpDelete, "mfa/login-enforcement/e", nil)
	}
	r.do(204, wire.OpUpdate, "mfa/login-enforcement/e", obj{"mfa_method_ids": id, "auth_method_types": []string{"ldap", "userpass", "ldap"}})
	if got := needs(engine.FactorLogin{Accessor: "acc1", Type: "userpass"}); got != "refused" {
		t.Errorf("a login without an entity needs %s, want it refused", got)
	}
	got := r.do(200, wire.OpRead, "mfa/login-enforcement/e", nil)
	eid, _ := got["id"].(string)
	want := obj{
		"name": "e", "id": eid, "namespace_id": "root", "namespace_path": "", "mfa_method_ids": []any{id}, "auth_method_accessors": []any{},
		"auth_method_types": []any{"ldap", "userpass"}, "identity_group_ids": []any{}, "identity_entity_ids": []any{},
	}
	if len(eid) != 36 || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the enforcement reads as %v, want %v", got, want)
	}
	// A name that changes is told of at once.
	r.do(204, wire.OpUpdate, "mfa/method/totp/"+id, obj{"method_name": "watch"})
	if d, err := r.engine.Demand(t.Context(), login); err != nil || d.Constraints["e"].Any[0].Name != "watch" {
		t.Errorf("after renaming the method a login needs %+v, %v", d, err)
	}
	if got := r.do(200, wire.OpList, "mfa/login-enforcement", nil); fmt.Sprint(got["keys"]) != "[e]" {
		t.Errorf("LIST = %v", got)
	}
}

// TestSeveralConstraints: all must be met, each by any of its methods, and one
// passcode can meet two.
func TestSeveralConstraints(t *testing.T) {
	r := newRig(t)
	a, b := r.method(obj{"method_name": "a"}), r.method(obj{"method_name": "b"})
	da := r.device(r.do(200, wire.OpUpdate, "mfa/method/totp/generate", obj{"method_id": a}))
	db := r.device(r.do(200, wire.OpUpdate, "mfa/method/totp/generate", obj{"method_id": b}))
	ma, mb := route.MFAMethod{ID: a, Name: "a"}, route.MFAMethod{ID: b, Name: "b"}
	prove := func(shown engine.Shown, of ...[]route.MFAMethod) error {
		d := &engine.Demand{EntityID: "ann", Constraints: map[string]route.MFAConstraint{}}
		for i, any := range of {
			d.Constraints[fmt.Sprint(i)] = route.MFAConstraint{Any: any}
		}
		return r.engine.Prove(t.Context(), d, shown)
	}
	both, onlyA, onlyB := []route.MFAMethod{ma, mb}, []route.MFAMethod{ma}, []route.MFAMethod{mb}
	if err := prove(engine.Shown{"b": {db.code(0)}}, both); err != nil {
		t.Errorf("one of two methods, by its name: %v", err)
	}
	if err := prove(engine.Shown{a: {da.code(0)}}, onlyA, both); err != nil {
		t.Errorf("one passcode for two constraints: %v", err)
	}
	if err := prove(engine.Shown{a: {da.code(1)}}, onlyA, onlyB); !errs.Is(err, errs.Denied) {
		t.Errorf("one of two constraints: %v", err)
	}
	r.pass(time.Minute)
	if err := prove(engine.Shown{a: {da.wrong()}, b: {db.code(0)}}, both); err != nil {
		t.Errorf("a wrong and a right passcode where any counts: %v", err)
	}
	if err := prove(engine.Shown{a: {da.code(0)}}, nil); !errs.Is(err, errs.Denied) {
		t.Errorf("a constraint without methods: %v, want it denied", err)
	}
}
