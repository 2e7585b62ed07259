package statements

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxBytes bounds the text of one set of statements.
const MaxBytes = 1 << 20

// expand undoes the forms in which clients give statements: each entry is SQL,
// a JSON array of such, or either of them in base64.
func expand(given []string) ([]string, error) {
	var out []string
	total := 0
	for _, s := range given {
		if total += len(s); total > MaxBytes {
			return nil, fmt.Errorf("statements are limited to %d bytes", MaxBytes)
		}
		if plain, ok := decodeBase64(s); ok {
			s = plain
		}
		list := []string{s}
		if strings.HasPrefix(strings.TrimSpace(s), "[") {
			var l []string
			if json.Unmarshal([]byte(s), &l) == nil {
				list = l
			}
		}
		for _, s := range list {
			if strings.ContainsRune(s, 0) || !utf8.ValidString(s) {
				return nil, fmt.Errorf("statements are UTF-8 text without NUL characters")
			}
			out = append(out, s)
		}
	}
	return out, nil
}

// decodeBase64 tells base64 from SQL: no statement is one word, and what is
// inside the base64 of one has white space. Tools break base64 into lines.
func decodeBase64(s string) (string, bool) {
	s = strings.TrimSpace(s)
	if len(s) < 8 || strings.ContainsAny(s, " \t;") {
		return "", false
	}
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil || !utf8.Valid(b) || !strings.ContainsAny(string(b), " \t\n") {
		return "", false
	}
	return string(b), true
}

// split cuts SQL into statements at its semicolons, dropping empty ones. A
// semicolon in quotes, comments, parentheses or the body of a function written
// as BEGIN ATOMIC ... END ends nothing.
func split(sql string) ([]string, error) {
	tokens, err := lex(sql, 0, len(sql))
	if err != nil {
		return nil, err
	}
	var out []string
	var words []string // of the statement so far, the first few
	start, parens, begins, real := 0, 0, 0, false
	flush := func(end int) {
		if real {
			out = append(out, strings.Trim(sql[start:end], " \t\n\r\f\v"))
		}
		words, parens, begins, real = nil, 0, 0, false
	}
	for _, t := range tokens {
		text := sql[t.start:t.end]
		switch t.kind {
		case comment:
			continue
		case word:
			upper := strings.ToUpper(text)
			if len(words) < 4 {
				words = append(words, upper)
			}
			if parens == 0 && makesRoutine(words) { // within them it may be a column's name
				switch {
				case upper == "BEGIN" || begins > 0 && upper == "CASE":
					begins++
				case begins > 0 && upper == "END":
					begins--
				}
			}
		case symbol:
			switch text {
			case "(":
				parens++
			case ")":
				parens--
			case ";":
				if parens <= 0 && begins == 0 {
					flush(t.start)
					start = t.end
					continue
				}
			}
		}
		real = true
	}
	flush(len(sql))
	return out, nil
}

// makesRoutine reports whether a statement begins CREATE [OR REPLACE] FUNCTION
// or PROCEDURE.
func makesRoutine(words []string) bool {
	if len(words) < 2 || words[0] != "CREATE" {
		return false
	}
	for _, w := range words[1:] {
		if w == "FUNCTION" || w == "PROCEDURE" {
			return true
		}
	}
	return false
}

// transactionControl refuses what would end or replace the transaction that we
// run the statements in: the mark and the time check belong to the same one.
func transactionControl(sql string, tokens []token) error {
	var words []string
	for _, t := range tokens {
		if t.kind == comment {
			continue
		}
		if t.kind != word || len(words) == 2 {
			break
		}
		words = append(words, strings.ToUpper(sql[t.start:t.end]))
	}
	if len(words) == 0 {
		return nil
	}
	second := ""
	if len(words) > 1 {
		second = words[1]
	}
	switch words[0] {
	case "BEGIN", "START", "COMMIT", "END", "ABORT":
	case "ROLLBACK":
		if second == "TO" {
			return nil
		}
	case "PREPARE":
		if second != "TRANSACTION" {
			return nil
		}
	default:
		return nil
	}
	return fmt.Errorf("%s is not allowed: the statements of one call run in one transaction that is ours", words[0])
}

// wantsData refuses COPY ... FROM STDIN. Nobody sends the data, so that the
// server would wait for us until the creation's time is over, and the silence
// would count against the connection, and so against all other roles.
func wantsData(sql string, tokens []token) error {
	before := ""
	for _, t := range tokens {
		if t.kind == comment {
			continue
		}
		text := strings.ToUpper(sql[t.start:t.end])
		switch {
		case before == "" && text != "COPY":
			return nil
		case before == "FROM" && text == "STDIN":
			return fmt.Errorf("COPY ... FROM STDIN is not allowed: nobody sends the data")
		}
		before = text
	}
	return nil
}
