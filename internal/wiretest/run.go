package wiretest

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Target is what a transcript runs against.
type Target struct {
	Addr     string   // of a server, http://host:port
	Root     string   // its root token
	Postgres *url.URL // a PostgreSQL superuser, for transcripts that need one
	MySQL    *url.URL
}

// Result says how one step went. No differences means it passed.
type Result struct {
	Step  *Step
	Diffs []string
}

// Run replays every step of t in order. A step that depends on a variable
// which an earlier one failed to capture fails as "blocked".
func Run(t *Transcript, target Target) ([]Result, error) {
	r := &runner{
		addr: strings.TrimRight(target.Addr, "/"),
		vars: map[string]any{"root": target.Root},
		client: &http.Client{
			Timeout:       60 * time.Second,
			Transport:     &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	defer r.client.CloseIdleConnections()
	r.vars["addr"] = r.addr
	for _, need := range t.Needs {
		switch {
		case need == "postgres" && target.Postgres != nil:
			r.pg = r.database("pg", target.Postgres)
		case need == "mysql" && target.MySQL != nil:
			r.my = r.database("mysql", target.MySQL)
		case need == "uninitialized":
		default:
			return nil, fmt.Errorf("%s needs %s", t.Area, need)
		}
	}
	var results []Result
	for _, s := range t.Steps {
		diffs, err := r.run(s)
		if err != nil {
			diffs = append(diffs, err.Error())
		}
		results = append(results, Result{Step: s, Diffs: diffs})
	}
	return results, nil
}

// runner carries the variables from step to step.
type runner struct {
	addr   string
	client *http.Client
	vars   map[string]any
	pg     *url.URL
	my     *url.URL
}

// database makes variables of a database's address and superuser.
func (r *runner) database(prefix string, u *url.URL) *url.URL {
	pw, _ := u.User.Password()
	r.vars[prefix+"_host"], r.vars[prefix+"_port"] = u.Hostname(), u.Port()
	r.vars[prefix+"_addr"] = u.Host
	r.vars[prefix+"_user"], r.vars[prefix+"_password"] = u.User.Username(), pw
	r.vars[prefix+"_db"] = strings.Trim(u.Path, "/")
	return u
}

// run carries out one step, repeating it until it matches when it asks to.
func (r *runner) run(s *Step) ([]string, error) {
	deadline := time.Now().Add(time.Duration(s.RetryS * float64(time.Second)))
	for {
		ans, err := r.once(s)
		var diffs []string
		if err == nil && s.Expect != nil {
			diffs = r.compare(s, ans)
		}
		if (err == nil && len(diffs) == 0) || !time.Now().Before(deadline) {
			if err == nil {
				err = r.save(s, ans)
			}
			return diffs, err
		}
		time.Sleep(250 * time.Millisecond)
	}
}

func (r *runner) once(s *Step) (*Answer, error) {
	switch s.Kind {
	case "", "http":
		return r.http(s)
	case "sleep":
		args, err := r.args(s)
		if err != nil {
			return nil, err
		}
		d, err := time.ParseDuration(args["for"])
		time.Sleep(d)
		return &Answer{}, err
	case "sql":
		return r.sql(s)
	case "set":
		for k, v := range s.Args {
			e, err := r.expand(v)
			if err != nil {
				return nil, err
			}
			r.vars[k] = e
		}
		return &Answer{}, nil
	}
	args, err := r.args(s)
	if err != nil {
		return nil, err
	}
	out, err := check(s.Kind, args)
	if err != nil {
		return nil, err
	}
	return &Answer{Format: "json", Body: out}, nil
}

func (r *runner) args(s *Step) (map[string]string, error) {
	m := map[string]string{}
	for k, v := range s.Args {
		e, err := r.expand(v)
		if err != nil {
			return nil, err
		}
		if str, ok := e.(string); ok {
			m[k] = str
		} else {
			b, _ := json.Marshal(e)
			m[k] = string(b)
		}
	}
	return m, nil
}

func (r *runner) http(s *Step) (*Answer, error) {
	q := s.Request
	path, err := r.expandString(q.Path)
	if err != nil {
		return nil, err
	}
	var body io.Reader
	if q.Raw != "" {
		raw, err := r.expandString(q.Raw)
		if err != nil {
			return nil, err
		}
		body = strings.NewReader(raw)
	} else if q.Body != nil {
		b, err := r.expand(q.Body)
		if err != nil {
			return nil, err
		}
		enc, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(enc)
	}
	req, err := http.NewRequest(q.Method, r.addr+path, body)
	if err != nil {
		return nil, err
	}
	if q.Token != "" {
		tok, err := r.expandString(q.Token)
		if err != nil {
			return nil, err
		}
		req.Header.Set("X-Vault-Token", tok)
	}
	req.Header.Set("X-Vault-Request", "true")
	for k, v := range q.Headers {
		v, err := r.expandString(v)
		if err != nil {
			return nil, err
		}
		req.Header.Set(k, v)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	a := &Answer{Status: resp.StatusCode, Headers: map[string]string{}}
	for _, h := range []string{"Content-Type", "Cache-Control", "Location", "Retry-After", "Allow", "Replay-Nonce", "Link", "Last-Modified", "WWW-Authenticate"} {
		if v := resp.Header.Get(h); v != "" {
			a.Headers[h] = v
		}
	}
	a.Format, a.Body = classify(raw, resp.Header.Get("Content-Type"))
	return a, nil
}

// sql runs a statement through the database's own command-line client.
func (r *runner) sql(s *Step) (*Answer, error) {
	args, err := r.args(s)
	if err != nil {
		return nil, err
	}
	var cmd *exec.Cmd
	switch args["engine"] {
	case "postgres":
		user, pw := args["user"], args["password"]
		if user == "" {
			user = r.pg.User.Username()
			pw, _ = r.pg.User.Password()
		}
		db := args["db"]
		if db == "" {
			db = strings.Trim(r.pg.Path, "/")
		}
		cmd = exec.Command("psql", "-X", "-q", "-tA", "-v", "ON_ERROR_STOP=1", "-h", r.pg.Hostname(), "-p", r.pg.Port(), "-U", user, "-d", db, "-c", args["query"])
		cmd.Env = append(os.Environ(), "PGPASSWORD="+pw, "PGCONNECT_TIMEOUT=5")
	case "mysql":
		user, pw := args["user"], args["password"]
		if user == "" {
			user = r.my.User.Username()
			pw, _ = r.my.User.Password()
		}
		bin := "mariadb"
		if _, err := exec.LookPath(bin); err != nil {
			bin = "mysql"
		}
		cmd = exec.Command(bin, "--no-defaults", "--protocol=tcp", "-h", r.my.Hostname(), "-P", r.my.Port(), "-u", user, "-N", "-B", "-e", args["query"])
		cmd.Env = append(os.Environ(), "MYSQL_PWD="+pw)
	default:
		return nil, fmt.Errorf("unknown engine %q", args["engine"])
	}
	out, err := cmd.Output()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		return nil, err
	}
	res := map[string]any{"ok": err == nil}
	if err == nil {
		res["rows"] = strings.TrimSpace(string(out))
	}
	return &Answer{Format: "json", Body: res}, nil
}

func (r *runner) save(s *Step, a *Answer) error {
	var missing []string
	for name, path := range s.Save {
		var v any
		var ok bool
		switch {
		case path == "body":
			v, ok = a.Body, a.Body != nil
		case strings.HasPrefix(path, "header:"):
			h, found := a.Headers[strings.TrimPrefix(path, "header:")]
			v, ok = h, found
		default:
			v, ok = lookup(a.Body, path)
		}
		if !ok || v == nil {
			missing = append(missing, path)
			continue
		}
		r.vars[name] = v
	}
	if missing != nil {
		return fmt.Errorf("answer has no %s", strings.Join(missing, ", "))
	}
	return nil
}
