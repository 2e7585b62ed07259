package server_test

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/leasehold/leasehold/internal/route"
	"github.com/leasehold/leasehold/internal/token"
	"github.com/leasehold/leasehold/internal/wire"
)

// sensible are values with which endpoints get far, by the names of fields.
var sensible = map[string]string{
	"type": `"kv"`, "policy": `"path \"x\" { capabilities = [\"read\"] }"`, "plugin_name": `"postgresql-database-plugin"`,
	"connection_url": `"postgresql://{{username}}:{{password}}@localhost:1/x"`, "username": `"u"`, "password": `"p"`,
	"verify_connection": `false`, "allowed_roles": `"*"`, "db_name": `"x1"`, "creation_statements": `"CREATE ROLE x"`, "data": `{"a":"b"}`,
	"path": `"secret/a"`, "paths": `["secret/a"]`, "input": `"YQ=="`, "from": `"kv1"`, "to": `"kv9"`, "level": `"info"`, "token_type": `"service"`,
	"auth/token/type": `"service"`, "auth/token/policies": `["default"]`, "kv2/options": `{}`,
	"allowed_policies": `"default"`, "options": `{"version":"1"}`, "confirm": `true`, "versions": `[1]`,
}

// nastyValues are JSON texts that some field somewhere may not expect.
var nastyValues = []string{
	`""`, `null`, `true`, `-1`, `0`, `1e30`, `-1e400`, `9223372036854775807`, `18446744073709551616`, `0.5`, `[]`, `{}`, `[[[]]]`, `{"a":{"b":null}}`,
	`"9999999h"`, `"106751d23h47m16s"`, `"-5m"`, `"\u0000"`, `"\ud800"`, `"a/b"`, `"../x"`, `"*"`, `"{{x}}"`, "\"\xff\xfe\"", `"` + strings.Repeat("n", 3000) + `"`,
	`["` + strings.Repeat("n", 3000) + `"]`, `"` + strings.Repeat("é🔑", 300) + `"`, `"hvs.x.` + strings.Repeat("n", 1500) + `"`, `"auth/token/` + strings.Repeat("n", 1500) + `"`,
}

// nastyPaths are texts that a parameter of a path can be.
var nastyPaths = []string{
	strings.Repeat("n", 3000), strings.Repeat("n", 900), strings.Repeat("é🔑", 200), "a%20b", "*", "+", "%7B%7Bx%7D%7D", "%22", "%5C", "%25", "%C2%85", "%E2%80%AE", "-", "0", "%F0%9F%94%91",
}

// TestNoRequestIsOurFault sends each endpoint values that it may not expect. A
// request that cannot be carried out is the caller's fault, and answered so.
func TestNoRequestIsOurFault(t *testing.T) {
	t.Parallel()
	l := startLocal(t, "raw_storage_endpoint = true")
	for path, body := range map[string]string{
		"sys/mounts/kv1":      `{"type":"kv"}`,
		"sys/mounts/kv2":      `{"type":"kv","options":{"version":"2"}}`,
		"sys/mounts/database": `{"type":"database"}`,
	} {
		l.must("POST", path, body)
	}
	l.must("POST", "kv1/x1", `{"a":"b"}`)
	l.must("POST", "kv2/data/x1", `{"data":{"a":"b"}}`)
	l.must("POST", "database/config/x1", `{"plugin_name":"postgresql-database-plugin","connection_url":"postgresql://{{username}}:{{password}}@localhost:1/x","verify_connection":false,"allowed_roles":"*"}`)
	l.must("POST", "database/roles/x1", `{"db_name":"x1","creation_statements":"CREATE ROLE \"{{name}}\""}`)
	l.must("POST", "auth/token/roles/x1", `{"allowed_policies":"default"}`)

	tables, err := l.core.Tables(t.Context(), token.RootNamespace)
	if err != nil {
		t.Fatal(err)
	}
	// What an engine's own target refuses or does not answer is no fault of ours.
	upstream := map[string]bool{}
	said, taken, asked := map[string]bool{}, map[string]int{}, 0
	ask := func(ep *route.Endpoint, name, what, path string, fields map[string]string) {
		var status int
		var body string
		if ep.Op == wire.OpUpdate || ep.Op == wire.OpPatch {
			var b strings.Builder
			for i, f := range slices.Sorted(maps.Keys(fields)) {
				b.WriteString([]string{",", "{"}[b2i(i == 0)] + `"` + f + `":` + fields[f])
			}
			if len(fields) > 0 {
				b.WriteString("}")
			}
			status, body = l.ask(methods[ep.Op], path, l.root, b.String())
		} else {
			q := url.Values{}
			for f, v := range fields {
				q.Set(f, strings.Trim(v, `"`))
			}
			status, body = l.ask(methods[ep.Op], path+"?"+q.Encode(), l.root, "")
		}
		asked++
		if status/100 == 2 {
			taken[name]++
		}
		if status < 500 || status == 502 && upstream[name] || said[name+what] {
			return
		}
		said[name+what] = true
		t.Errorf("%s with %s = %d %.200s", name, what, status, body)
	}
	for _, name := range []string{"read creds/{name}", "update config/{name}", "update rotate-root/{name}", "update reset/{name}", "update reload/{plugin}", "update doctor/{name}", "read doctor/{name}"} {
		upstream["database/ "+name] = true
	}
	for _, mount := range slices.Sorted(maps.Keys(tables)) {
		tables[mount].Walk(func(ep *route.Endpoint) {
			name := mount + " " + ep.Op.String() + " " + ep.Pattern
			if notWalked[name] != "" || strings.Contains(ep.Pattern, "pprof") || name == "sys/ delete mounts/{path...}" {
				return
			}
			types := fieldTypes(ep.In)
			fields := map[string]string{}
			var params []string
			pathWith := func(param, value string) string {
				segments := strings.Split(ep.Pattern, "/")
				params = params[:0]
				for i, s := range segments {
					if p, ok := strings.CutPrefix(s, "{"); ok {
						p = strings.TrimRight(p, "}?.")
						params = append(params, p)
						segments[i] = "x1"
						if p == param {
							segments[i] = value
						}
					}
				}
				return mount + strings.Join(segments, "/")
			}
			path := pathWith("", "")
			if mount == "kv2/" { // the walk has turned it on
				l.must("POST", "kv2/config", `{"cas_required":false}`)
				l.must("POST", "kv2/metadata/x1", `{"cas_required":false}`)
			}
			for f := range types {
				v, ok := sensible[mount+f]
				if !ok {
					v, ok = sensible[f]
				}
				if ok && !slices.Contains(params, f) {
					fields[f] = v
				}
			}
			ask(ep, name, "nothing special", path, fields)
			for f := range types {
				if slices.Contains(params, f) {
					continue
				}
				good, had := fields[f]
				for _, v := range nastyValues {
					fields[f] = v
					ask(ep, name, f+" = "+v[:min(len(v), 40)], path, fields)
				}
				if delete(fields, f); had {
					fields[f] = good
				}
			}
			for _, p := range slices.Clone(params) {
				for _, v := range nastyPaths {
					ask(ep, name, "{"+p+"} = "+v[:min(len(v), 40)], pathWith(p, v), fields)
				}
			}
		})
	}
	for _, name := range []string{"auth/token/ update create", "auth/token/ update create/{role_name}", "kv2/ update data/{path...}", "sys/ update mounts/{path...}", "database/ update roles/{name}"} {
		if taken[name] < 5 {
			t.Errorf("%s took %d requests of all: has the walk lost its way?", name, taken[name])
		}
	}
	if asked < 5000 {
		t.Errorf("%d requests were made: has the walk lost its way?", asked)
	}
	status, body := l.ask("GET", "sys/health", "", "")
	if !json.Valid([]byte(body)) || status != 200 {
		t.Errorf("afterwards sys/health = %d %s", status, body)
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
