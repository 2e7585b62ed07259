// A shop that keeps card numbers in PostgreSQL and cannot read them there: the
// column holds ciphertexts, and the key that opens them stays in Transit.
//
//	transit-column -db DSN add NAME CARD    encrypt and insert
//	transit-column -db DSN list             decrypt all, one request for many rows
//	transit-column -db DSN rewrap           after the key was rotated: bring old rows up to date
package main

import (
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"log"
	"os"
	"path"

	"github.com/jackc/pgx/v5"

	"github.com/leasehold/leasehold/api"
)

func main() {
	log.SetFlags(0)
	key := flag.String("key", "transit/shop", "mount and name of the key")
	db := flag.String("db", "", "the database; empty: as PGHOST and the rest say")
	flag.Parse()
	if err := run(context.Background(), *key, *db, flag.Args()); err != nil {
		log.Fatal(err)
	}
}

type shop struct {
	vault *api.Client
	db    *pgx.Conn
	mount string
	key   string
}

func run(ctx context.Context, key, dsn string, args []string) error {
	cfg, err := api.ConfigFromEnv(os.Getenv)
	if err != nil {
		return err
	}
	s := &shop{mount: path.Dir(key), key: path.Base(key)}
	if s.vault, err = api.New(cfg); err != nil {
		return err
	}
	if s.db, err = pgx.Connect(ctx, dsn); err != nil {
		return err
	}
	defer s.db.Close(ctx)
	if _, err := s.db.Exec(ctx, `CREATE TABLE IF NOT EXISTS customers (name text PRIMARY KEY, card text NOT NULL)`); err != nil {
		return err
	}
	switch {
	case len(args) == 3 && args[0] == "add":
		return s.add(ctx, args[1], args[2])
	case len(args) == 1 && args[0] == "list":
		return s.list(ctx)
	case len(args) == 1 && args[0] == "rewrap":
		return s.rewrap(ctx)
	}
	return fmt.Errorf("usage: transit-column [-key=MOUNT/KEY] [-db=DSN] add NAME CARD | list | rewrap")
}

// item is one of a batch, and its result.
type item struct {
	Plaintext  string `json:"plaintext,omitempty"`
	Ciphertext string `json:"ciphertext,omitempty"`
	Context    string `json:"context,omitempty"`
	Error      string `json:"error,omitempty"`
}

// about is the context of a row: its key is derived from the row's own name, so
// that a ciphertext which somebody copies into another row does not open there.
func about(name string) string {
	return base64.StdEncoding.EncodeToString([]byte("customers/card/" + name))
}

// batch sends many items at once and gives their results in the same order.
func (s *shop) batch(ctx context.Context, operation string, items []item) ([]item, error) {
	secret, err := s.vault.Write(ctx, s.mount+"/"+operation+"/"+s.key, map[string]any{
		"batch_input":                   items,
		"partial_failure_response_code": 200, // what fails says so itself
	})
	if err != nil {
		return nil, err
	}
	var out struct {
		Results []item `json:"batch_results"`
	}
	if err := secret.Decode(&out); err != nil {
		return nil, err
	}
	for i, r := range out.Results {
		if r.Error != "" {
			return nil, fmt.Errorf("%s of item %d: %s", operation, i, r.Error)
		}
	}
	return out.Results, nil
}

func (s *shop) add(ctx context.Context, name, card string) error {
	sealed, err := s.batch(ctx, "encrypt", []item{{Plaintext: base64.StdEncoding.EncodeToString([]byte(card)), Context: about(name)}})
	if err != nil {
		return err
	}
	_, err = s.db.Exec(ctx, `INSERT INTO customers VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET card = excluded.card`, name, sealed[0].Ciphertext)
	if err == nil {
		fmt.Printf("added %s\n", name)
	}
	return err
}

type row struct{ Name, Card string }

// rows are the next rows after a name whose card matches, 1,000 at most.
func (s *shop) rows(ctx context.Context, after, unlike string) ([]row, error) {
	found, err := s.db.Query(ctx, `SELECT name, card FROM customers WHERE name > $1 AND card NOT LIKE $2 ORDER BY name LIMIT 1000`, after, unlike)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, pgx.RowToStructByPos[row])
}

func (s *shop) list(ctx context.Context) error {
	for after := ""; ; {
		rows, err := s.rows(ctx, after, "")
		if err != nil || len(rows) == 0 {
			return err
		}
		items := make([]item, len(rows))
		for i, r := range rows {
			items[i] = item{Ciphertext: r.Card, Context: about(r.Name)}
		}
		opened, err := s.batch(ctx, "decrypt", items)
		if err != nil {
			return err
		}
		for i, r := range rows {
			card, err := base64.StdEncoding.DecodeString(opened[i].Plaintext)
			if err != nil {
				return err
			}
			fmt.Printf("%s %s\n", r.Name, card)
			after = r.Name
		}
	}
}

// rewrap brings rows of older versions up to date. It never sees a card: its
// token needs transit/rewrap/… alone. A row that somebody changes meanwhile is
// left as they made it.
func (s *shop) rewrap(ctx context.Context) error {
	secret, err := s.vault.Read(ctx, s.mount+"/keys/"+s.key, nil)
	if err != nil {
		return err
	}
	var key struct {
		Latest int `json:"latest_version"`
	}
	if err := secret.Decode(&key); err != nil {
		return err
	}
	done := 0
	for after := ""; ; {
		rows, err := s.rows(ctx, after, fmt.Sprintf("vault:v%d:%%", key.Latest))
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			fmt.Printf("rewrapped %d rows\n", done)
			return nil
		}
		items := make([]item, len(rows))
		for i, r := range rows {
			items[i] = item{Ciphertext: r.Card, Context: about(r.Name)}
		}
		renewed, err := s.batch(ctx, "rewrap", items)
		if err != nil {
			return err
		}
		var changes pgx.Batch
		for i, r := range rows {
			changes.Queue(`UPDATE customers SET card = $1 WHERE name = $2 AND card = $3`, renewed[i].Ciphertext, r.Name, r.Card)
			after = r.Name
		}
		if err := s.db.SendBatch(ctx, &changes).Close(); err != nil {
			return err
		}
		done += len(rows)
	}
}
