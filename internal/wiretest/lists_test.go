package wiretest_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/leasehold/leasehold/internal/wiretest"
)

func TestListed(t *testing.T) {
	for _, c := range []struct {
		name, page string
		want       map[string]string
		wantErr    bool
	}{
		{"tables only", "text `kv1-001`\n\n| steps | reason |\n|---|---|\n| `kv1-002` `auth-token-003` | because |\n", map[string]string{"kv1-002": "because", "auth-token-003": "because"}, false},
		{"no reason", "| `kv1-002` |  |\n", nil, true},
		{"twice", "| `kv1-002` | a |\n| `kv1-002` | b |\n", nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "page.md")
			if err := os.WriteFile(file, []byte(c.page), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := wiretest.Listed(file)
			if (err != nil) != c.wantErr {
				t.Fatalf("Listed = %v, want an error: %v", err, c.wantErr)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("Listed differs (-want +got):\n%s", diff)
			}
		})
	}
}
