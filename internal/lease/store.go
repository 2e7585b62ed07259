package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/leasehold/leasehold/internal/errs"
	"github.com/leasehold/leasehold/internal/lane"
	"github.com/leasehold/leasehold/internal/storage"
)

// What is stored, and under which keys:
//
//	lease/<ns>/<mount>/<path>/<hash>   row, JSON: one lease
//	own/<owner>/<lease key>            empty: the token owns that lease
//	name/<identity>/<user>             the lease key that reserved the name
//	due/<target>/<time>/l/<lease key>  empty: see package lane
//	count/…/<part>                     a number, see counts.go
//	held/<mount>/<group>/<holder>/<lease key>  empty: see caps.go
//	cred/<ns>/<mount>/<hash>           credential, JSON: see shared.go
//	share/<ns>/<mount>/<hash>          offer, JSON: see shared.go
//
// <lease key> is the row's key without "lease/". <owner> is the token's key,
// <ns>/<hash>: a token may own leases of namespaces below its own. <hash> is a
// keyed one-way function of the id's random part: who runs the store cannot
// tell the id.
const (
	rowPrefix  = "lease/"
	ownPrefix  = "own/"
	namePrefix = "name/"
	dueKind    = "l"
	rowVersion = 1
)

// row is a lease as it is stored. Version 1.
type row struct {
	V           int             `json:"v"`
	Random      string          `json:"r"` // the secret part of the id, for lists by operators
	Path        string          `json:"p"` // of the request, with the mount as it was then
	Epoch       uint64          `json:"e"` // of the mark
	Kind        string          `json:"k"`
	KindVersion int             `json:"kv"`
	Target      string          `json:"t"`
	Ref         json.RawMessage `json:"ref"`
	Owner       string          `json:"o,omitempty"` // keyed hash of the token; a batch token's parent, or none
	Names       []string        `json:"n,omitempty"`
	Group       string          `json:"g,omitempty"`
	Holder      string          `json:"h,omitempty"`  // who the cap counts it for, hashed; "" where there is none
	Cred        string          `json:"cr,omitempty"` // the key of the credential that it shares, without "cred/"
	Issued      time.Time       `json:"i"`
	MakeBy      time.Time       `json:"mb"`
	Expires     time.Time       `json:"x"`
	MaxExpires  time.Time       `json:"mx"`
	TTL         time.Duration   `json:"ttl"`
	Renewable   bool            `json:"rn,omitempty"`
	Renewed     time.Time       `json:"rw,omitzero"`
	Due         time.Time       `json:"d"` // the time in the due key
	Ending      *rowEnding      `json:"end,omitempty"`
}

// rowEnding is the ending mark: a lease that has it is never renewed, and
// reads as gone to clients.
type rowEnding struct {
	Cause       Cause     `json:"c"`
	Lapsed      bool      `json:"l,omitempty"` // the cause is a token that ran out; nobody revoked it
	At          time.Time `json:"at"`
	Failed      bool      `json:"f,omitempty"` // making is known to have failed: absent is absent
	Unknown     bool      `json:"u,omitempty"` // making had an unknown end: stays until make_by and settle
	Tries       int       `json:"n,omitempty"`
	Error       string    `json:"err,omitempty"`
	Irrevocable bool      `json:"irr,omitempty"`
}

// byTime says that a clock ends the lease, its own or its token's, and nobody
// asked for it. Such an end waits where clocks and stores are in doubt.
func (e *rowEnding) byTime() bool { return e.Cause == Expired || e.Lapsed }

// key is a row's key without the prefix, as due and owner keys carry it.
func leaseKey(ns, mount, path, hash string) string {
	return ns + "/" + mount + "/" + path + "/" + hash
}

func (r *row) dueKey(key string) string { return lane.Key(r.Target, r.Due, dueKind, key) }
func (r *row) ownKey(key string) string { return ownPrefix + r.Owner + "/" + key }
func (r *row) id() ID                   { return ID(r.Path + "/" + r.Random) }
func hashInKey(key string) string       { return key[strings.LastIndexByte(key, '/')+1:] }
func pathInKey(key string) string {
	_, rest, _ := strings.Cut(key, "/")
	_, rest, _ = strings.Cut(rest, "/")
	return rest[:max(strings.LastIndexByte(rest, '/'), 0)]
}

// mark is what the login of a lease carries: its own, or its credential's.
func (r *row) mark(instance, key string) string {
	if r.Cred != "" {
		key = r.Cred
	}
	return Origin{Instance: instance, Epoch: r.Epoch}.mark(hashInKey(key))
}

func mountInKey(key string) (ns, mount string) {
	ns, rest, _ := strings.Cut(key, "/")
	mount, _, _ = strings.Cut(rest, "/")
	return ns, mount
}

// decodeRow reads a row. Its error is always a *storage.CorruptError, as a
// damaged row's is: both are quarantined alike.
func decodeRow(key string, b []byte) (*row, error) {
	r := new(row)
	err := json.Unmarshal(b, r)
	if err == nil && r.V > rowVersion {
		err = fmt.Errorf("it has version %d, written by a newer server", r.V)
	}
	if err != nil {
		return nil, &storage.CorruptError{Key: key, Err: err}
	}
	return r, nil
}

// isBadRow reports whether an error is of one row that cannot be read. It is
// left where it is, and nothing else stops for it.
func isBadRow(err error) bool {
	var bad *storage.CorruptError
	return errors.As(err, &bad)
}

func getRow(tx storage.Reader, key string) (*row, error) {
	b, err := tx.Get(rowPrefix + key)
	if err != nil || b == nil {
		return nil, err
	}
	return decodeRow(key, b)
}

func putRow(tx storage.Tx, key string, r *row) error {
	r.V = rowVersion
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return tx.Put(rowPrefix+key, b)
}

// putDue moves the row's due key to a time, or later where the lane has
// already read past it. now is our clock. The row itself must be written
// afterwards.
func (r *row) putDue(tx storage.Tx, key string, at, now time.Time) error {
	if !r.Due.IsZero() {
		if err := tx.Delete(r.dueKey(key)); err != nil {
			return err
		}
	}
	at, err := lane.Later(tx, r.Target, at, now)
	if err != nil {
		return err
	}
	r.Due = at.Round(0)
	return tx.Put(r.dueKey(key), nil)
}

// Mount is where a lease id's path leads.
type Mount struct {
	Namespace, ID string
	Path          string // with the trailing slash, as in lease ids
	// Former says that the mount has another path now, and another mount may
	// have this one: it stands for what was issued there alone.
	Former bool
}

// Record is the audit record of the end of a lease. It is stored in the
// transaction that ends it and delivered at least once.
type Record struct {
	Time      time.Time
	Namespace string
	MountID   string
	Path      string // of the lease, without its secret part
	ID        ID     // hashed in the log
	Cause     Cause
	Target    string
	Issued    time.Time
	Error     string // of the last try, when an operator had it forgotten
}

// Config is what a Store is made of.
type Config struct {
	Store  storage.Backend
	Lanes  *lane.Set
	Origin Origin
	// Hash is the store's keyed one-way function for lease ids.
	Hash func(string) [32]byte
	// Kind finds a mount's kind of lease, of ending mounts too.
	Kind func(mountID, kind string) (AnyKind, bool)
	// Mounts gives the mounts, ending ones included, whose path (now or
	// formerly) begins with prefix or is a prefix of it.
	Mounts func(ns, prefix string) []Mount
	// Alive reports whether a token and all its ancestors live. Nil: always.
	Alive func(ctx context.Context, ns, owner string) (bool, error)
	// Record stores the audit records of the ends of one transaction, if a
	// device is enabled.
	Record func(tx storage.Tx, target string, recs []Record) error
	// Fenced reports that expiry waits (package core, clocks and restores).
	Fenced func() bool
	// Part is this writer's part of the counts, 0 to 15.
	Part int
	Now  func() time.Time
	Log  *slog.Logger
}

// Store holds the leases of one unsealed server. It keeps nothing in memory
// but who waits for an ending and what is being made at the moment, and figures.
type Store struct {
	cfg     Config
	waits   waits
	turns   turns
	counted counted
	making  making
}

// New makes a store. Its Handler does the lanes' work of kind "l".
func New(cfg Config) *Store {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{cfg: cfg}
}

// DueKind is the kind under which lanes hand out leases.
const DueKind = dueKind

// Draft draws the identity of a lease to be made for a request at path; see
// NewDraft for the suffix.
func (s *Store) Draft(path, suffix string) *Draft {
	return NewDraft(path, suffix, s.cfg.Origin, s.cfg.Hash)
}

// NamespaceOf is the namespace in a lease's id: what follows the last dot of
// its random part. "" is the root, or no id.
func NamespaceOf(id ID) string {
	_, ns, _ := strings.Cut(string(id[strings.LastIndexByte(string(id), '/')+1:]), ".")
	return strings.TrimSuffix(ns, "/")
}

// Info is a lease as people and programs may see it.
type Info struct {
	ID          ID
	Namespace   string
	MountID     string
	Path        string
	Target      string
	Owner       string
	Issued      time.Time
	Expires     time.Time
	MaxExpires  time.Time
	Renewed     time.Time
	TTL         time.Duration
	Renewable   bool
	Ending      bool
	Cause       Cause
	Irrevocable bool
	Error       string    // the target's, of the last try
	NextTry     time.Time // when ending is tried again
	Tries       int

	key string
}

func (r *row) info(key string) Info {
	ns, mount := mountInKey(key)
	in := Info{
		ID: r.id(), Namespace: ns, MountID: mount, Path: r.Path, Target: r.Target, Owner: r.Owner,
		Issued: r.Issued, Expires: r.Expires, MaxExpires: r.MaxExpires, Renewed: r.Renewed, TTL: r.TTL,
		Renewable: r.Renewable, key: key,
	}
	if e := r.Ending; e != nil {
		in.Ending, in.Cause, in.Irrevocable, in.Error, in.Tries = true, e.Cause, e.Irrevocable, e.Error, e.Tries
		in.NextTry = r.Due
	}
	return in
}

// errNoLease is what clients read for an unknown, ended or ending lease.
func errNoLease() error { return errs.New(errs.Invalid, "invalid lease") }

// find reads a lease by its id: nil when there is none.
func (s *Store) find(ctx context.Context, ns string, id ID) (key string, r *row, err error) {
	keys := s.keysOf(ns, id)
	err = s.cfg.Store.View(ctx, func(v storage.View) error {
		for _, k := range keys {
			got, err := getRow(v, k)
			if err != nil {
				return err
			}
			if got != nil {
				key, r = k, got
				return nil
			}
		}
		return nil
	})
	return key, r, err
}

// keysOf are the keys that an id may be stored under: one for each mount that
// has or had its path.
func (s *Store) keysOf(ns string, id ID) []string {
	text := strings.Trim(string(id), "/")
	i := strings.LastIndexByte(text, '/')
	if i < 0 {
		return nil
	}
	path, hash := text[:i], hashOf(s.cfg.Hash, text[i+1:])
	var keys []string
	for _, m := range s.cfg.Mounts(ns, path+"/") {
		if rel, ok := strings.CutPrefix(path+"/", m.Path); ok {
			keys = append(keys, leaseKey(ns, m.ID, strings.TrimSuffix(rel, "/"), hash))
		}
	}
	return keys
}

// Lookup gives a live lease: one whose ending has begun, or whose owner's has,
// is unknown to clients already.
func (s *Store) Lookup(ctx context.Context, ns string, id ID) (Info, error) {
	key, r, err := s.find(ctx, ns, id)
	if err != nil {
		return Info{}, err
	}
	if err := s.live(ctx, ns, r); err != nil {
		return Info{}, err
	}
	return r.info(key), nil
}

// live is nil for a lease that clients may use.
func (s *Store) live(ctx context.Context, ns string, r *row) error {
	if r == nil || r.Ending != nil || !r.Expires.After(s.cfg.Now()) {
		return errNoLease()
	}
	if r.Owner == "" || s.cfg.Alive == nil {
		return nil
	}
	ok, err := s.cfg.Alive(ctx, ns, r.Owner)
	if err == nil && !ok {
		err = errNoLease()
	}
	return err
}

// errRetry makes the caller draw another identity: a name is taken.
var errNameTaken = errors.New("lease: a name is reserved by another lease")

// IsNameClash reports whether Commit refused because another lease has
// reserved a name; the handler is asked again with a fresh Draft.
func IsNameClash(err error) bool { return errors.Is(err, errNameTaken) }

func parseCount(b []byte) int64 {
	n, _ := strconv.ParseInt(string(b), 10, 64)
	return n
}
