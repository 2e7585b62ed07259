package doctest_test

import (
	"bytes"
	"context"
	"flag"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/doctest"
	"github.com/leasehold/leasehold/internal/leaseholdtest"
	"github.com/leasehold/leasehold/internal/testenv"
)

var update = flag.Bool("update", false, "rewrite the outputs on the pages")

func TestMain(m *testing.M) { testenv.Main(m) }

const root = "../.."

// pages are all that people read: what stands at the top, and all of docs/.
func pages(t *testing.T) []string {
	t.Helper()
	out := []string{filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md"), filepath.Join(root, "examples", "README.md")}
	examples, err := filepath.Glob(filepath.Join(root, "examples", "*", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, examples...)
	err = filepath.WalkDir(filepath.Join(root, "docs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(path, ".md") {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestPages runs every page.
func TestPages(t *testing.T) {
	for _, file := range pages(t) {
		name, _ := filepath.Rel(root, file)
		t.Run(name, func(t *testing.T) { runPage(t, file) })
	}
}

// TestIndex: a page that the index does not name is found by nobody.
func TestIndex(t *testing.T) {
	docs := filepath.Join(root, "docs")
	index, err := os.ReadFile(filepath.Join(docs, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range pages(t) {
		name, err := filepath.Rel(docs, file)
		if err != nil {
			t.Fatal(err)
		}
		if name = filepath.ToSlash(name); name == "README.md" || strings.HasPrefix(name, "../") {
			continue
		}
		if !strings.Contains(string(index), "]("+name+")") {
			t.Errorf("docs/README.md does not name %s", name)
		}
	}
}

// TestLinks follows the links between pages, to their headings too.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading := regexp.MustCompile(`(?m)^#+ +(.+)$`)
	notInAnchors := regexp.MustCompile(`[^a-z0-9 _-]`)
	anchors := func(text string) map[string]bool {
		out := map[string]bool{}
		for _, m := range heading.FindAllStringSubmatch(text, -1) {
			out[strings.ReplaceAll(notInAnchors.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
		}
		return out
	}
	for _, file := range pages(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			path, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(path, "://") {
				continue
			}
			target := file
			if path != "" {
				target = filepath.Join(filepath.Dir(file), path)
			}
			there, err := os.ReadFile(target)
			if st, serr := os.Stat(target); serr == nil && st.IsDir() {
				there, err = nil, nil
			}
			if err != nil {
				t.Errorf("%s links to %s, which is not there", file, m[1])
			} else if anchor != "" && !anchors(string(there))[anchor] {
				t.Errorf("%s links to %s, which has no such heading", file, m[1])
			}
		}
	}
}

func runPage(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page, err := doctest.Parse(string(text))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if len(page.Steps) == 0 {
		return
	}
	lab := newLab(t, page)
	outputs := make([]*string, len(page.Steps))
	changed := false
	for i, s := range page.Steps {
		got, ok := lab.do(t, file, s)
		if !ok {
			break // what follows builds on it
		}
		if !s.Compare {
			continue
		}
		want := doctest.Normalise(s.Output)
		if diff := cmp.Diff(want, doctest.Normalise(got)); diff != "" {
			if *update {
				outputs[i], changed = &got, true
				continue
			}
			t.Errorf("%s:%d: %s  shows other output than the page (-page +now; -update rewrites it):\n%s", file, s.Line, s.Text, diff)
		}
	}
	if changed {
		if err := os.WriteFile(file, []byte(page.Rewrite(outputs)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// lab is what one page runs in.
type lab struct {
	shell *doctest.Shell
	dir   string
	in    *strings.Replacer // the page's addresses to the lab's
	out   *strings.Replacer // and back
}

func newLab(t *testing.T, page *doctest.Page) *lab {
	t.Helper()
	binary, err := leaseholdtest.Build(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{dir: t.TempDir()}
	env := []string{"HOME=" + l.dir, "PATH=" + filepath.Dir(binary) + ":" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC", "NO_COLOR=1"}
	var pairs []string
	switch page.Server {
	case "":
	case "own":
		// The page starts its server itself, and may stop and start it.
		port := freePort(t)
		pairs = append(pairs, "127.0.0.1:8200", "127.0.0.1:"+port, "0.0.0.0:8200", "0.0.0.0:"+port)
		for _, d := range []string{"/etc/leasehold", "/var/lib/leasehold", "/var/log/leasehold"} {
			if err := os.MkdirAll(l.dir+d, 0o700); err != nil {
				t.Fatal(err)
			}
			pairs = append(pairs, d, l.dir+d)
		}
	default:
		srv := leaseholdtest.Start(t, leaseholdtest.Config{Dev: page.Server == "dev"})
		env = append(env, "VAULT_ADDR="+srv.Addr, "VAULT_TOKEN="+srv.Root)
		pairs = append(pairs, "127.0.0.1:8200", strings.TrimPrefix(srv.Addr, "http://"))
	}
	if page.Postgres {
		pg := testenv.Postgres(t, testenv.Config{})
		pg.Exec(t, "postgres", `CREATE ROLE postgres SUPERUSER LOGIN PASSWORD 'postgres'`)
		host, port, _ := strings.Cut(pg.Addr(), ":")
		env = append(env, "PGHOST="+host, "PGPORT="+port, "PGUSER=postgres", "PGPASSWORD=postgres", "PGDATABASE=postgres")
		if psql, err := pg.Psql(); err != nil {
			t.Fatal(err)
		} else {
			env[1] += ":" + filepath.Dir(psql)
		}
		pairs = append(pairs, "127.0.0.1:5432", pg.Addr(), `"127.0.0.1", port 5432`, `"127.0.0.1", port `+port)
	}
	if page.LDAP {
		dir := testenv.Slapd(t, testenv.SlapdConfig{LDIF: directory})
		pairs = append(pairs, "127.0.0.1:389", dir.Addr())
		if err := os.WriteFile(filepath.Join(l.dir, "directory-ca.pem"), []byte(dir.CA), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var back []string
	for i := 0; i < len(pairs); i += 2 {
		back = append(back, pairs[i+1], pairs[i])
	}
	l.in, l.out = strings.NewReplacer(pairs...), strings.NewReplacer(back...)
	if l.shell, err = doctest.NewShell(l.dir, t.TempDir(), env); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.shell.Close)
	return l
}

// directory is who is in the LDAP server of pages.
const directory = `dn: ou=people,dc=example,dc=org
objectClass: organizationalUnit
ou: people

dn: ou=groups,dc=example,dc=org
objectClass: organizationalUnit
ou: groups

dn: uid=ann,ou=people,dc=example,dc=org
objectClass: inetOrgPerson
uid: ann
cn: Ann Archer
sn: Archer
userPassword: correct-horse

dn: cn=leasehold,dc=example,dc=org
objectClass: inetOrgPerson
cn: leasehold
sn: leasehold
userPassword: looks-people-up

dn: cn=developers,ou=groups,dc=example,dc=org
objectClass: groupOfNames
cn: developers
member: uid=ann,ou=people,dc=example,dc=org
`

// freePort is a port of 127.0.0.1 that nobody uses at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// do carries out one step and says whether the page can go on.
func (l *lab) do(t *testing.T, file string, s *doctest.Step) (string, bool) {
	t.Helper()
	text := l.in.Replace(s.Text)
	if s.File != "" {
		path := filepath.Join(l.dir, s.File)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return "", true
	}
	out, code, err := l.shell.Run(t.Context(), text, s.Script)
	out = l.out.Replace(out)
	switch {
	case err != nil:
		t.Errorf("%s:%d: %s: %v\n%s", file, s.Line, s.Text, err, out)
	case code != s.Exit:
		t.Errorf("%s:%d: %s: ended with code %d, want %d\n%s", file, s.Line, s.Text, code, s.Exit, out)
	default:
		return out, true
	}
	return out, false
}

func TestParse(t *testing.T) {
	page, err := doctest.Parse("<!-- doctest: server=dev pg=yes -->\n\n<!-- doctest: file=a.hcl -->\n```hcl\nx = 1\n```\n" +
		"```console\n$ echo one\none\n$ cat <<E\n> two\n> E\ntwo\n```\n\n```sh\necho three\n```\n\n```text\nthree\n```\n" +
		"<!-- doctest: skip because it needs a browser -->\n```sh\nfirefox\n```\n```go\nfmt.Println()\n```\n")
	if err != nil {
		t.Fatal(err)
	}
	if page.Server != "dev" || !page.Postgres {
		t.Errorf("page needs server %q, PostgreSQL %v; want dev and true", page.Server, page.Postgres)
	}
	type step struct {
		File, Text, Output string
		Script             bool
	}
	var got []step
	for _, s := range page.Steps {
		got = append(got, step{s.File, s.Text, s.Output, s.Script})
	}
	want := []step{
		{File: "a.hcl", Text: "x = 1\n"},
		{Text: "echo one\n", Output: "one\n"},
		{Text: "cat <<E\ntwo\nE\n", Output: "two\n"},
		{Text: "echo three\n", Output: "three\n", Script: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse differs (-want +got):\n%s", diff)
	}
	other := "uno\n"
	rewritten := page.Rewrite([]*string{nil, &other, nil, nil})
	if !strings.Contains(rewritten, "$ echo one\nuno\n$ cat") || !strings.Contains(rewritten, "firefox") {
		t.Errorf("Rewrite gave %q", rewritten)
	}
	for _, bad := range []string{
		"<!-- doctest: skip -->\n```sh\n```\n",
		"<!-- doctest: colour=red -->\n",
		"```sh\nnever closed\n",
		"```console\nno command\n```\n",
		"<!-- doctest: exit=1 -->\nwords between\n```sh\nfalse\n```\n",
	} {
		if _, err := doctest.Parse(bad); err == nil {
			t.Errorf("Parse(%q) = no error, want one", bad)
		}
	}
}

func TestNormalise(t *testing.T) {
	for _, c := range []struct{ a, b string }{
		{"token hvs.CAESIJ9vY0abcdefghijklmn", "token    hvs.another0123456789ABCDEFGHIJ"},
		{"lease_id  database/creds/ro/Yl1QxH3bV6kQzWc0aB9dEfGh", "lease_id  database/creds/ro/aB9dEfGhYl1QxH3bV6kQzWc0"},
		{"expire_time  2026-11-23T03:15:00.123456789Z", "expire_time  2027-01-02T13:15:00Z"},
		{"ttl 59m58s", "ttl 59m57s"},
		{"Key 1: +Fj2mZk1rWq9T0bY7cD3eX5vL8nP4sA6gH1iJ0kU2o=", "Key 1: Yb8Fj2mZk1rWq9T0bY7cD3eX5vL8nP4sA6gH1iJ0kU2o="},
		{"password  -u75epRrL72w2A7Ow30h", "password  D8TjyRp1ql-grNeyCRl-"},
		{"Key  Value\n---  -----", "Key      Value\n---      -------"},
	} {
		if x, y := doctest.Normalise(c.a), doctest.Normalise(c.b); x != y {
			t.Errorf("Normalise(%q) = %q, Normalise(%q) = %q, want them equal", c.a, x, c.b, y)
		}
	}
	for _, c := range []struct{ a, b string }{
		{"lease_duration 1h", "lease_duration 2h"},
		{"policies [default]", "policies [root]"},
		{"Success! Data written to: database/config/a", "Success! Data written to: database/config/b"},
		{"a-long-name-that-somebody-chose", "another-long-name-somebody-chose"},
	} {
		if doctest.Normalise(c.a) == doctest.Normalise(c.b) {
			t.Errorf("Normalise makes %q and %q the same", c.a, c.b)
		}
	}
}

func TestShell(t *testing.T) {
	sh, err := doctest.NewShell(t.TempDir(), t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer sh.Close()
	for _, c := range []struct {
		text   string
		script bool
		out    string
		code   int
	}{
		{"export GREETING=hello; mkdir d; cd d", false, "", 0},
		{"echo $GREETING; basename $PWD", false, "hello\nd\n", 0},
		{"false", false, "", 1},
		{"echo one\nfalse\necho two", true, "one\n", 1},
		{"echo one\necho two >&2", true, "one\ntwo\n", 0},
		{"cat <<E\ntext\nE", false, "text\n", 0},
		{"if then", false, "", 2},
		{"echo still here", false, "still here\n", 0},
	} {
		out, code, err := sh.Run(context.Background(), c.text, c.script)
		if err != nil {
			t.Fatalf("Run(%q): %v", c.text, err)
		}
		if code != c.code || c.code < 2 && !bytes.Equal([]byte(out), []byte(c.out)) {
			t.Errorf("Run(%q) = %q, code %d; want %q, code %d", c.text, out, code, c.out, c.code)
		}
	}
}
