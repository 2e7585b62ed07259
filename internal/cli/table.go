package cli

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// table is lines of cells, the first being the heads. Columns stand four
// spaces apart and an empty cell reads n/a, as in Vault's tables.
type table struct{ rows [][]string }

func newTable(heads ...string) *table { return &table{rows: [][]string{heads}} }

// bareTable has no heads.
func bareTable() *table { return &table{} }

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// row adds a line of a Key/Value table.
func (t *table) row(key string, v any) { t.add(key, fmt.Sprint(v)) }

func (t *table) write(w io.Writer, heads bool) {
	rows := t.rows
	if heads {
		line := make([]string, len(rows[0]))
		for i, h := range rows[0] {
			line[i] = strings.Repeat("-", utf8.RuneCountInString(h))
		}
		rows = append([][]string{rows[0], line}, rows[1:]...)
	}
	var width []int
	for _, r := range rows {
		for i, cell := range r {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(orNA(cell)))
		}
	}
	for _, r := range rows {
		var b strings.Builder
		for i, cell := range r {
			cell = orNA(cell)
			b.WriteString(cell)
			if i < len(r)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell)+4))
			}
		}
		fmt.Fprintln(w, b.String())
	}
}

func orNA(s string) string {
	if s == "" {
		return "n/a"
	}
	return s
}

// shortDuration writes 768h, 1h30m, 45s: what time.Duration writes without
// its trailing zeros.
func shortDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func shortSeconds(n int) string { return shortDuration(time.Duration(n) * time.Second) }

// heading is "==== Data ====", about as wide as the table below it.
func heading(title string, width int) string {
	n := width - len(title) - 2
	if n <= 0 {
		n = 4
	}
	side := strings.Repeat("=", (n+1)/2)
	return side + " " + title + " " + side
}
