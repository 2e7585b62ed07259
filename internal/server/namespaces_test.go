package server_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// tenants are a server with the namespaces a, a/b and c. In each of them and in
// the root there are a secret, a policy, a wrapped answer, and a token that is
// root there.
type tenants struct {
	*local
	tokens, accessors, wraps, entities map[string]string // by namespace, "" for the root
}

var namespacePaths = []string{"", "a", "a/b", "c"}

func startTenants(t *testing.T) *tenants {
	l := &tenants{startLocal(t, ""), map[string]string{}, map[string]string{}, map[string]string{}, map[string]string{}}
	for _, ns := range namespacePaths {
		if ns != "" {
			l.must("POST", "sys/namespaces/"+ns, `{"custom_metadata":{"of":"`+ns+`"}}`)
		}
		in := []string{"X-Vault-Namespace", ns}
		l.must("POST", "sys/mounts/secret", `{"type":"kv"}`, in...)
		l.must("POST", "secret/x", `{"in":"`+ns+`"}`, in...)
		l.must("POST", "sys/policies/acl/own", `{"policy":"path \"secret/*\" { capabilities = [\"read\"] }"}`, in...)
		l.must("POST", "sys/policies/password/own", `{"policy":"length = 20 rule \"charset\" { charset = \"abcde\" }"}`, in...)
		made := l.must("POST", "auth/token/create", `{"policies":["root"],"ttl":"1h"}`, in...).Auth
		l.tokens[ns], l.accessors[ns] = made.Token, made.Accessor
		l.wraps[ns] = l.must("POST", "sys/wrapping/wrap", `{"in":"`+ns+`"}`, append(in, "X-Vault-Wrap-TTL", "1h")...).Wrap.Token
		l.entities[ns], _ = l.must("POST", "identity/entity", `{"name":"one"}`, in...).Data["id"].(string)
	}
	return l
}

// within reports whether a namespace is another one or below it.
func within(ns, above string) bool {
	return above == "" || ns == above || strings.HasPrefix(ns, above+"/")
}

// TestNamespacesAreApart asks with each namespace's root token for everything
// in each namespace: it is root in its own and below, and nobody elsewhere.
func TestNamespacesAreApart(t *testing.T) {
	t.Parallel()
	l := startTenants(t)
	for _, of := range namespacePaths {
		for _, ns := range namespacePaths {
			for _, c := range []struct{ method, path, body string }{
				{"GET", "secret/x", ""},
				{"LIST", "secret", ""},
				{"POST", "secret/by", `{"a":"` + of + `"}`},
				{"GET", "sys/mounts", ""},
				{"POST", "sys/mounts/secret/tune", `{"description":"x"}`},
				{"GET", "sys/auth", ""},
				{"GET", "sys/policies/acl/own", ""},
				{"LIST", "sys/policies/acl", ""},
				{"POST", "sys/policies/acl/by", `{"policy":"path \"x\" { capabilities = [\"read\"] }"}`},
				{"GET", "sys/policies/password/own/generate", ""},
				{"POST", "auth/token/create", `{"policies":["own"],"ttl":"1m"}`},
				{"GET", "auth/token/lookup-self", ""},
				{"LIST", "auth/token/accessors", ""},
				{"POST", "auth/token/lookup", `{"token":"` + l.tokens[ns] + `"}`},
				{"POST", "auth/token/lookup-accessor", `{"accessor":"` + l.accessors[ns] + `"}`},
				{"POST", "auth/token/renew-accessor", `{"accessor":"` + l.accessors[ns] + `"}`},
				{"POST", "auth/token/roles/r", `{"allowed_policies":"own"}`},
				{"POST", "sys/capabilities-accessor", `{"accessor":"` + l.accessors[ns] + `","paths":["secret/x"]}`},
				{"POST", "sys/capabilities-self", `{"paths":["secret/x"]}`},
				{"LIST", "sys/leases/lookup/auth/token/create", ""},
				{"GET", "sys/internal/ui/mounts/secret", ""},
				{"GET", "sys/internal/ui/resultant-acl", ""},
				{"GET", "identity/entity/id/" + l.entities[ns], ""},
				{"LIST", "identity/entity/id", ""},
				{"POST", "sys/wrapping/lookup", `{"token":"` + l.wraps[ns] + `"}`},
				{"POST", "sys/namespaces/" + "new-" + strings.ReplaceAll(of, "/", "-"), ""},
			} {
				status, body := l.ask(c.method, c.path, l.tokens[of], c.body, "X-Vault-Namespace", ns)
				switch open := c.path == "sys/wrapping/lookup"; {
				case within(ns, of) && status/100 != 2:
					t.Errorf("%s %s in %q by a token of %q = %d %s", c.method, c.path, ns, of, status, body)
				case !within(ns, of) && !open && status != 403:
					t.Errorf("%s %s in %q by a token of %q = %d %s, want 403", c.method, c.path, ns, of, status, body)
				}
			}
		}
	}
}

// TestNamesOfOthers names what belongs to another namespace in one's own: it is
// as unknown as anything, and nothing happens to it.
func TestNamesOfOthers(t *testing.T) {
	t.Parallel()
	l := startTenants(t)
	for _, of := range []string{"a", "a/b", "c"} {
		for _, other := range namespacePaths {
			mine := within(other, of)
			for _, c := range []struct {
				path, body  string
				own, others int // statuses
			}{
				{"auth/token/lookup", `{"token":"` + l.tokens[other] + `"}`, 200, 403},
				{"auth/token/renew", `{"token":"` + l.tokens[other] + `"}`, 200, 400},
				{"auth/token/lookup-accessor", `{"accessor":"` + l.accessors[other] + `"}`, 200, 400},
				{"auth/token/renew-accessor", `{"accessor":"` + l.accessors[other] + `"}`, 200, 400},
				{"sys/wrapping/lookup", `{"token":"` + l.wraps[other] + `"}`, 200, 400},
			} {
				want := c.others
				if mine {
					want = c.own
				}
				if status, body := l.ask("POST", c.path, l.tokens[of], c.body, "X-Vault-Namespace", of); status != want {
					t.Errorf("%s in %q of what is in %q = %d %s, want %d", c.path, of, other, status, body, want)
				}
			}
			if mine {
				continue
			}
			for _, c := range []struct{ path, body string }{
				{"auth/token/revoke", `{"token":"` + l.tokens[other] + `"}`},
				{"auth/token/revoke-orphan", `{"token":"` + l.tokens[other] + `"}`},
				{"auth/token/revoke-accessor", `{"accessor":"` + l.accessors[other] + `"}`},
				{"sys/capabilities-accessor", `{"accessor":"` + l.accessors[other] + `","paths":["secret/x"]}`},
				{"sys/wrapping/unwrap", `{"token":"` + l.wraps[other] + `"}`},
				{"sys/wrapping/rewrap", `{"token":"` + l.wraps[other] + `"}`},
				{"sys/leases/revoke-prefix/auth/token", ""},
			} {
				if status, body := l.ask("POST", c.path, l.tokens[of], c.body, "X-Vault-Namespace", of); strings.Contains(body, `"in"`) || strings.Contains(body, `"root"`) {
					t.Errorf("%s in %q of what is in %q = %d %s", c.path, of, other, status, body)
				}
				if c.path == "sys/leases/revoke-prefix/auth/token" {
					made := l.must("POST", "auth/token/create", `{"policies":["root"],"ttl":"1h"}`, "X-Vault-Namespace", of).Auth
					l.tokens[of], l.accessors[of] = made.Token, made.Accessor
				}
			}
			// A token from above works here, and one may ask what it can do.
			want := map[bool]int{true: 200, false: 400}[within(of, other)]
			if status, body := l.ask("POST", "sys/capabilities", l.tokens[of], `{"token":"`+l.tokens[other]+`","paths":["secret/x"]}`, "X-Vault-Namespace", of); status != want {
				t.Errorf("capabilities in %q of the token of %q = %d %s, want %d", of, other, status, body, want)
			}
			in := []string{"X-Vault-Namespace", other}
			if status, body := l.ask("GET", "secret/x", l.tokens[other], "", in...); status != 200 {
				t.Fatalf("the token of %q after requests in %q = %d %s", other, of, status, body)
			}
			if status, body := l.ask("POST", "sys/wrapping/lookup", "", `{"token":"`+l.wraps[other]+`"}`, in...); status != 200 {
				t.Fatalf("the wrapped answer of %q after requests in %q = %d %s", other, of, status, body)
			}
		}
	}
	for _, path := range []string{"c", "a", "../c", "a/../c"} {
		if status, _ := l.ask("GET", "sys/namespaces/"+path, l.tokens["a"], "", "X-Vault-Namespace", "a"); status != 404 && status != 400 {
			t.Errorf("namespace %q seen from a = %d", path, status)
		}
		l.ask("DELETE", "sys/namespaces/"+path, l.tokens["a"], "", "X-Vault-Namespace", "a")
	}
	l.must("GET", "sys/namespaces/c", "")
	l.must("GET", "sys/namespaces/a", "")
}

// TestWaysToANamespace: a header, a path, and both together mean the same.
func TestWaysToANamespace(t *testing.T) {
	t.Parallel()
	l := startTenants(t)
	for _, c := range []struct{ header, path, in string }{
		{"", "secret/x", ""}, {"root", "secret/x", ""}, {"/", "secret/x", ""}, {"/root/", "secret/x", ""},
		{"a", "secret/x", "a"}, {"a/", "secret/x", "a"}, {"/a/", "secret/x", "a"}, {"", "a/secret/x", "a"}, {"root", "a/secret/x", "a"},
		{"a/b", "secret/x", "a/b"}, {"/a/b/", "secret/x", "a/b"}, {"", "a/b/secret/x", "a/b"}, {"a", "b/secret/x", "a/b"},
		{"c", "secret/x", "c"}, {"", "%63/secret/x", "c"},
	} {
		for _, tok := range []string{l.root, l.tokens[c.in]} {
			status, body := l.ask("GET", c.path, tok, "", "X-Vault-Namespace", c.header)
			if status != 200 || !strings.Contains(body, `"in":"`+c.in+`"`) {
				t.Errorf("GET %s with header %q = %d %s, want the secret of %q", c.path, c.header, status, body, c.in)
			}
		}
	}
	// None of these leads a token of a to the secret of c or of the root.
	for _, c := range []struct{ header, path string }{
		{"", "c/secret/x"}, {"c", "secret/x"}, {"/c/", "secret/x"}, {"", "a/../c/secret/x"}, {"a", "../c/secret/x"}, {"a/../c", "secret/x"},
		{"", "%63/secret/x"}, {"", "a%2f..%2fc/secret/x"}, {"", "C/secret/x"}, {"C", "secret/x"}, {"A", "secret/x"}, {"c ", "secret/x"},
		{"", "a/c/secret/x"}, {"a", "c/secret/x"}, {"a", "a/secret/x"}, {"root/c", "secret/x"}, {"a/root", "secret/x"}, {"", "root/secret/x"},
		{"", "a/root/secret/x"}, {"//c//", "secret/x"}, {"c\u200b", "secret/x"}, {"\uff43", "secret/x"}, {"", "\uff43/secret/x"}, {"a//b", "secret/x"},
		{".", "secret/x"}, {"a/.", "secret/x"}, {"", "./secret/x"}, {"", "secret/x"}, {"/", "secret/x"}, {"a%2f..", "secret/x"}, {"%63", "secret/x"},
	} {
		status, body := l.ask("GET", c.path, l.tokens["a"], "", "X-Vault-Namespace", c.header)
		if status == 200 || strings.Contains(body, `"in":"`) {
			t.Errorf("GET %s with header %q by a token of a = %d %s", c.path, c.header, status, body)
		}
	}
	list := l.must("LIST", "sys/namespaces", "").Data["keys"]
	if got := fmt.Sprint(list); got != "[a/ c/]" {
		t.Errorf("namespaces of the root = %s", got)
	}
	if got := fmt.Sprint(l.must("LIST", "sys/namespaces", "", "X-Vault-Namespace", "a").Data["keys"]); got != "[b/]" {
		t.Errorf("namespaces of a = %s", got)
	}
	if got := fmt.Sprint(l.must("GET", "sys/internal/ui/namespaces", "").Data["keys"]); got != "[a/ a/b/ c/]" {
		t.Errorf("namespaces for user interfaces = %s", got)
	}
	if in := l.must("GET", "b/auth/token/lookup-self", "", "X-Vault-Namespace", "a", "X-Vault-Token", l.tokens["a"]); in.Data["namespace_path"] != "a/" {
		t.Errorf("lookup-self tells namespace %v, want a/", in.Data["namespace_path"])
	}
}

// TestPoliciesAcrossNamespaces: a token's policies are those of its namespace,
// and their paths are seen from there.
func TestPoliciesAcrossNamespaces(t *testing.T) {
	t.Parallel()
	l := startTenants(t)
	a, b := []string{"X-Vault-Namespace", "a"}, []string{"X-Vault-Namespace", "a/b"}
	policy := func(in []string, name, text string) {
		l.must("POST", "sys/policies/acl/"+name, object(map[string]any{"policy": text}), in...)
	}
	policy(a, "down", `path "b/secret/*" { capabilities = ["read"] } path "b/sys/capabilities-self" { capabilities = ["update"] } path "b/auth/token/create" { capabilities = ["update"] }`)
	policy(a, "admin", `path "b/auth/token/create" { capabilities = ["update", "sudo"] }`)
	policy(b, "down", `path "secret/x" { capabilities = ["read"] }`)
	token := func(in []string, tok, body string) (int, string) {
		status, text := l.ask("POST", "auth/token/create", tok, body, in...)
		_, rest, _ := strings.Cut(text, `"client_token":"`)
		made, _, _ := strings.Cut(rest, `"`)
		if status != 200 {
			made = text
		}
		return status, made
	}
	_, down := token(a, l.tokens["a"], `{"policies":["down"]}`)
	_, admin := token(a, l.tokens["a"], `{"policies":["admin"]}`)
	for _, c := range []struct {
		in     []string
		path   string
		status int
	}{
		{b, "secret/x", 200}, {a, "b/secret/x", 200}, {a, "secret/x", 403}, {b, "b/secret/x", 403}, {b, "sys/mounts", 403},
	} {
		if status, body := l.ask("GET", c.path, down, "", c.in...); status != c.status {
			t.Errorf("GET %s in %s = %d %s, want %d", c.path, c.in[1], status, body, c.status)
		}
	}
	if status, body := l.ask("POST", "sys/capabilities-self", down, `{"paths":["secret/x","b/secret/x"]}`, b...); status != 200 ||
		!strings.Contains(body, `"secret/x":["read"]`) || !strings.Contains(body, `"b/secret/x":["deny"]`) {
		t.Errorf("capabilities in a/b = %d %s", status, body)
	}
	for _, c := range []struct {
		tok, body string
		status    int
		want      string // policies
	}{
		{down, `{"policies":["down"]}`, 400, ""}, // no sudo: the name means another policy here
		{admin, `{"policies":["down"]}`, 200, "default down"},
		{admin, `{}`, 200, "default"},
		{admin, `{"policies":["root"]}`, 400, ""},
		{l.tokens["a"], `{"policies":["root"],"ttl":"1m"}`, 200, "root"}, // who is root above is so here
		{l.tokens["a"], `{}`, 200, "default"},
	} {
		status, made := token(b, c.tok, c.body)
		if status != c.status {
			t.Errorf("create %s in a/b = %d %s, want %d", c.body, status, made, c.status)
			continue
		}
		if status != 200 {
			continue
		}
		var names []string
		list, _ := l.must("GET", "auth/token/lookup-self", "", append(slices.Clone(b), "X-Vault-Token", made)...).Data["policies"].([]any)
		for _, n := range list {
			names = append(names, fmt.Sprint(n))
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("create %s in a/b has %s, want %s", c.body, got, c.want)
		}
	}
	// A token ends with its parent, in whatever namespace that is.
	_, parent := token(a, l.tokens["a"], `{"policies":["root"],"ttl":"1h"}`)
	_, child := token(b, parent, `{"policies":["root"],"ttl":"1h"}`)
	l.must("POST", "auth/token/revoke", `{"token":"`+parent+`"}`)
	if status, body := l.ask("GET", "secret/x", child, "", b...); status != 403 {
		t.Errorf("the child of a revoked token = %d %s, want 403", status, body)
	}
	if status, body := l.ask("POST", "cubbyhole/x", l.tokens["a"], `{"a":"b"}`, b...); status != 400 || !strings.Contains(body, "own namespace") {
		t.Errorf("a cubbyhole in another namespace = %d %s, want 400", status, body)
	}
}

// TestMountsStayInTheirNamespace: a mount is not moved to another namespace,
// whichever way that is asked for.
func TestMountsStayInTheirNamespace(t *testing.T) {
	t.Parallel()
	l := startTenants(t)
	for _, c := range []struct{ ns, from, to, want string }{
		{"", "secret", "a/moved", "is a namespace"},
		{"", "a/secret", "moved", "is a namespace"},
		{"", "a/secret", "c/moved", "is a namespace"},
		{"a", "secret", "b/moved", "is a namespace"},
		{"a", "c/secret", "moved", "no matching mount"},
	} {
		status, body := l.ask("POST", "sys/remount", l.root, object(map[string]any{"from": c.from, "to": c.to}), "X-Vault-Namespace", c.ns)
		if status != 400 || !strings.Contains(body, c.want) {
			t.Errorf("remount from %s to %s in %q = %d %s, want 400 with %q", c.from, c.to, c.ns, status, body, c.want)
		}
	}
	l.must("POST", "sys/remount", `{"from":"secret","to":"moved"}`, "X-Vault-Namespace", "a")
	l.must("GET", "moved/x", "", "X-Vault-Namespace", "a")
	if n := l.must("GET", "sys/leases/count?include_child_namespaces=true", "").Data["lease_count"]; n != 0.0 {
		t.Errorf("%v leases, want none", n)
	}
}

// TestServersOwn: what is the server's and not a namespace's answers in the
// root alone, and says so.
func TestServersOwn(t *testing.T) {
	t.Parallel()
	l := startTenants(t)
	for _, c := range []struct{ method, path string }{
		{"POST", "sys/seal"}, {"POST", "sys/init"}, {"POST", "sys/unseal"}, {"POST", "sys/step-down"}, {"GET", "sys/key-status"}, {"POST", "sys/rotate"},
		{"GET", "sys/ha-status"}, {"POST", "sys/rekey/init"}, {"GET", "sys/generate-root"}, {"GET", "sys/audit"}, {"POST", "sys/audit/file"},
		{"POST", "sys/audit-hash/file"}, {"GET", "sys/config/cors"}, {"GET", "sys/config/auditing/request-headers"}, {"GET", "sys/config/state/sanitized"},
		{"GET", "sys/metrics"}, {"GET", "sys/host-info"}, {"GET", "sys/in-flight-req"}, {"GET", "sys/loggers"}, {"GET", "sys/pprof/heap"},
		{"LIST", "sys/raw"}, {"LIST", "sys/version-history"}, {"POST", "sys/leases/tidy"}, {"GET", "sys/leases/fence"},
	} {
		for _, way := range []struct{ header, prefix string }{{"a/b", ""}, {"", "a/b/"}, {"a", "b/"}} {
			if way.header == "" && (c.path == "sys/init" || c.path == "sys/unseal") {
				continue // there is no such endpoint behind a namespace
			}
			status, body := l.ask(c.method, way.prefix+c.path, l.root, "", "X-Vault-Namespace", way.header)
			if status != 404 || !strings.Contains(body, "root namespace") && way.prefix == "" {
				t.Errorf("%s %s%s in %q = %d %s, want 404", c.method, way.prefix, c.path, way.header, status, body)
			}
		}
	}
	for _, path := range []string{"sys/health", "sys/seal-status", "sys/leader"} {
		if status, body := l.ask("GET", path, "", "", "X-Vault-Namespace", "a"); status != 200 {
			t.Errorf("%s with a namespace = %d %s", path, status, body)
		}
	}
}

// TestNamespaceLock closes a namespace and what is below it to everybody but
// who has the key.
func TestNamespaceLock(t *testing.T) {
	t.Parallel()
	l := startTenants(t)
	key, _ := l.must("POST", "sys/namespaces/api-lock/lock/a", "").Data["unlock_key"].(string)
	for ns, want := range map[string]int{"": 200, "a": 503, "a/b": 503, "c": 200} {
		if status, body := l.ask("GET", "secret/x", l.root, "", "X-Vault-Namespace", ns); status != want {
			t.Errorf("secret of %q = %d %s, want %d", ns, status, body, want)
		}
	}
	if status, _ := l.ask("POST", "sys/namespaces/api-lock/lock/a", l.root, ""); status != 400 {
		t.Errorf("locking again = %d, want 400", status)
	}
	for _, c := range []struct {
		path, body, ns string
		want           int
	}{
		{"sys/namespaces/api-lock/unlock/a", `{"unlock_key":"no"}`, "", 400},
		{"sys/namespaces/api-lock/unlock", `{"unlock_key":"no"}`, "a", 400},
		{"sys/namespaces/api-lock/unlock", `{"unlock_key":"` + key + `"}`, "a", 204},
		{"sys/namespaces/api-lock/unlock", `{"unlock_key":"` + key + `"}`, "a", 400},
		{"sys/namespaces/api-lock/lock", ``, "", 400},
	} {
		if status, body := l.ask("POST", c.path, l.tokens[c.ns], c.body, "X-Vault-Namespace", c.ns); status != c.want {
			t.Errorf("%s %s in %q = %d %s, want %d", c.path, c.body, c.ns, status, body, c.want)
		}
	}
	if status, body := l.ask("GET", "secret/x", l.tokens["a/b"], "", "X-Vault-Namespace", "a/b"); status != 200 {
		t.Errorf("secret of a/b = %d %s after unlocking", status, body)
	}
}

// TestDeletedNamespace goes through a deletion over the wire.
func TestDeletedNamespace(t *testing.T) {
	t.Parallel()
	l := startTenants(t)
	if status, body := l.ask("DELETE", "sys/namespaces/a", l.root, ""); status != 400 || !strings.Contains(body, "child namespaces") {
		t.Errorf("DELETE of a namespace with another below it = %d %s, want 400", status, body)
	}
	for _, path := range []string{"a/b", "a"} {
		if got := l.must("DELETE", "sys/namespaces/"+path, "").Data["status"]; got != "in-progress" {
			t.Errorf("DELETE %s = %v, want in-progress", path, got)
		}
	}
	for _, ns := range []string{"a", "a/b"} {
		if status, _ := l.ask("GET", "sys/namespaces/"+ns, l.root, ""); status != 404 {
			t.Errorf("namespace %s after its deletion = %d, want 404", ns, status)
		}
		if status, _ := l.ask("GET", "secret/x", l.tokens[ns], "", "X-Vault-Namespace", ns); status != 404 {
			t.Errorf("secret of %s after its deletion = %d, want 404", ns, status)
		}
		if status, _ := l.ask("GET", "secret/x", l.tokens[ns], ""); status != 403 {
			t.Errorf("the token of %s after its deletion = %d, want 403", ns, status)
		}
		if status, _ := l.ask("POST", "auth/token/lookup", l.root, `{"token":"`+l.tokens[ns]+`"}`); status != 403 {
			t.Errorf("looking up the token of %s after its deletion = %d, want 403", ns, status)
		}
	}
	if status, body := l.ask("DELETE", "sys/namespaces/a", l.root, ""); status != 200 || !strings.Contains(body, "does not exist") {
		t.Errorf("DELETE again = %d %s", status, body)
	}
	l.must("POST", "sys/namespaces/a", "")
	if status, _ := l.ask("GET", "secret/x", l.root, "", "X-Vault-Namespace", "a"); status != 404 {
		t.Errorf("a new namespace has the secret of an old one: %d", status)
	}
}

// TestNamespaceInTheLog: records name the namespace by its id and path.
func TestNamespaceInTheLog(t *testing.T) {
	t.Parallel()
	l := startTenants(t)
	logs := l.audit()
	l.must("GET", "b/secret/x", "", "X-Vault-Namespace", "a")
	id, _ := l.must("GET", "sys/namespaces/a/b", "").Data["id"].(string)
	text := textOf(t, logs.hashed)
	if want := `"namespace":{"id":"` + id + `","path":"a/b/"}`; strings.Count(text, want) < 2 {
		t.Errorf("the log has not %s:\n%s", want, text)
	}
	l.ask("POST", "a/b/sys/leases/renew/secret/x/0123456789abcdefghijABCD."+id, l.root, "")
	l.ask("POST", "nowhere/sys/leases/renew/secret/x/0123456789abcdefghijABCD", l.root, "", "X-Vault-Namespace", "none")
	if text := textOf(t, logs.hashed); strings.Contains(text, "0123456789abcdefghijABCD") {
		t.Errorf("the log shows a lease's id:\n%s", text)
	}
}

func textOf(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestEntityFollowsItsTokensBelow: a token that somebody has made in a namespace
// below is somebody's there, too, and refused when they are.
func TestEntityFollowsItsTokensBelow(t *testing.T) {
	t.Parallel()
	l := startLocal(t, "")
	l.must("POST", "sys/namespaces/below", "")
	below := []string{"X-Vault-Namespace", "below"}
	l.policy("maker", "below/auth/token/create", `"update", "sudo"`)
	ann := l.entityToken("ann", "maker", "default")
	id, _ := l.must("GET", "auth/token/lookup-self", "", "X-Vault-Token", ann).Data["entity_id"].(string)
	method, _ := l.must("POST", "identity/mfa/method/totp", `{"issuer": "Leasehold"}`, below...).Data["method_id"].(string)
	l.must("POST", "sys/policies/acl/mfa", `{"policy": "path \"identity/mfa/method/totp/generate\" { capabilities = [\"update\"] }"}`, below...)
	for _, typ := range []string{"service", "batch"} {
		kid := l.must("POST", "auth/token/create", `{"policies": "default,mfa", "ttl": "1h", "type": "`+typ+`"}`, append(below, "X-Vault-Token", ann)...).Auth.Token
		if _, body := l.ask("GET", "auth/token/lookup-self", kid, "", below...); id == "" || !strings.Contains(body, `"entity_id":"`+id+`"`) {
			t.Errorf("the %s token below = %s, want that of %s", typ, body, id)
		}
		if status, body := l.ask("POST", "identity/mfa/method/totp/generate", kid, `{"method_id": "`+method+`"}`, below...); status != 400 {
			t.Errorf("a second factor there for somebody from above = %d %s, want 400", status, body)
		}
		l.must("POST", "identity/entity/id/"+id, `{"disabled": true}`)
		if status, body := l.ask("GET", "auth/token/lookup-self", kid, "", below...); status != 403 {
			t.Errorf("the %s token below of somebody who is disabled = %d %s, want 403", typ, status, body)
		}
		l.must("POST", "identity/entity/id/"+id, `{"disabled": false}`)
	}
}
