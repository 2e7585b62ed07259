package config

// Storage is where the server keeps everything.
type Storage struct {
	Pos       Pos
	Kind      string // "embedded" or "inmem"; empty: none was written
	Path      string // of the embedded store's directory; never empty there
	CacheSize int64  // bytes of the embedded store's block cache; zero: 16 MiB
}

var storageFields = fields[Storage]{
	"path":       str(func(s *Storage) *string { return &s.Path }),
	"cache_size": size(func(s *Storage) *int64 { return &s.CacheSize }),
}

// What to write instead of Vault's kinds of storage.
const (
	useEmbedded = `write storage "embedded" { path = "/var/lib/leasehold" }, with a directory of its own`
	oneMachine  = "the store is part of the server; " + useEmbedded
	otherStores = "stores that others run are not supported yet; " + useEmbedded
)

// otherStorage says for each of Vault's kinds what to write instead.
func otherStorage(kind string) (instead string, known bool) {
	switch kind {
	case "raft", "file":
		return oneMachine, true
	case "inmem_ha", "inmem_transactional", "inmem_transactional_ha":
		return `write storage "inmem" {}`, true
	case "aerospike", "alicloudoss", "azure", "cassandra", "cockroachdb", "consul", "couchdb", "dynamodb", "etcd", "foundationdb", "gcs",
		"manta", "mssql", "mysql", "oci", "postgresql", "s3", "spanner", "swift", "zookeeper":
		return otherStores, true
	}
	return "", false
}

func readStorage(d *decoder, m member, to *Config) {
	all := d.blocks(m)
	if len(all) > 1 {
		d.fail(all[1].pos, "there is one storage only, and it is at %s", all[0].pos)
	}
	if len(all) != 1 {
		return
	}
	b := all[0]
	s := Storage{Pos: b.pos, Kind: b.label}
	switch b.label {
	case "embedded":
		readMembers(d, "storage embedded", storageFields, b.body, &s)
		if s.Path == "" {
			d.fail(b.pos, `storage "embedded" needs a path: the directory to keep everything in`)
		}
	case "inmem":
		readMembers(d, "storage inmem", fields[Storage]{}, b.body, &s)
	default:
		instead, known := otherStorage(b.label)
		if !known {
			instead = `there are storage "embedded" { path = ... } and storage "inmem" {}`
		}
		d.fail(b.pos, "storage %q is not available: %s", b.label, instead)
		return
	}
	to.Storage = s
}
