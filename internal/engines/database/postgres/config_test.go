package postgres_test

import (
	"testing"

	"github.com/leasehold/leasehold/internal/engines/database/postgres"
)

// TestRedacted: no part of a password that stands in a connection_url is shown,
// in whatever way the driver takes it.
func TestRedacted(t *testing.T) {
	for url, want := range map[string]string{
		"postgresql://{{username}}:{{password}}@h:5432/db?sslmode=disable": "postgresql://{{username}}:{{password}}@h:5432/db?sslmode=disable",
		"postgresql://a:s3cret@h/db":                                       "postgresql://a:%2A%2A%2A%2A%2A@h/db",
		"postgresql://h/db?user=a&password=s3cret":                         "postgresql://h/db?password=%2A%2A%2A%2A%2A&user=a",
		"postgresql://h/db?pass%77ord=s3cret":                              "postgresql://h/db?password=%2A%2A%2A%2A%2A",
		"host=h user={{username}} password={{password}}":                   "host=h user={{username}} password={{password}}",
		"host=h password='{{password}}' dbname=d":                          "host=h password='{{password}}' dbname=d",
		"host=h password=s3cret dbname=d":                                  "host=h password=***** dbname=d",
		"host=h password = s3cret dbname=d":                                "host=h password =***** dbname=d",
		"host=h password='s3cret and more' dbname=d":                       "host=h password=***** dbname=d",
		`host=h password='s3\' cret' sslpassword=t\ ail x=y`:               "host=h password=***** sslpassword=***** x=y",
		`password='s3\\' dbname='a b'`:                                     "password=***** dbname='a b'",
		"password={{password}}s3cret":                                      "password=*****",
		"host=h password='s3cret":                                          "host=h password=*****",
		"nonsense":                                                         "nonsense",
	} {
		if got := postgres.Redacted(url); got != want {
			t.Errorf("Redacted(%q) = %q, want %q", url, got, want)
		}
	}
}
