package httpapi

import (
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/leasehold/leasehold/internal/errs"
)

const prefix = "/v1/"

func underAPI(path string) bool { return strings.HasPrefix(path, prefix) }

// cleanURL gives the path that a client is sent to when it wrote a slash too
// many, or "".
func cleanURL(u *url.URL) string {
	if !strings.Contains(u.Path, "//") {
		return ""
	}
	to := u.EscapedPath()
	for strings.Contains(to, "//") {
		to = strings.ReplaceAll(to, "//", "/")
	}
	if u.RawQuery != "" {
		to += "?" + u.RawQuery
	}
	return to
}

// canonical is the path behind /v1/, decoded once. A path that could mean two
// things is refused: an encoded slash is a slash to one reader and a letter to
// the next, and a policy must be sure.
func canonical(u *url.URL) (string, error) {
	path := u.Path[len(prefix):]
	if u.RawPath != "" && hasEncodedSlash(u.RawPath) {
		return "", errs.New(errs.Invalid, "the path has an encoded slash (%%2f); slashes can only part segments")
	}
	if strings.Contains(path, "..") || strings.HasPrefix(path, "./") || strings.Contains(path, "/./") || strings.HasSuffix(path, "/.") {
		return "", errs.New(errs.Invalid, "relative paths not supported")
	}
	plain := true
	for i := range len(path) {
		c := path[i]
		if c < ' ' || c == 0x7f {
			return "", errs.New(errs.Invalid, "the path has a control character")
		}
		plain = plain && c < utf8.RuneSelf
	}
	if !plain && !utf8.ValidString(path) {
		return "", errs.New(errs.Invalid, "the path is not UTF-8")
	}
	return path, nil
}

func hasEncodedSlash(raw string) bool {
	for {
		_, after, ok := strings.Cut(raw, "%2")
		if !ok {
			return false
		}
		if after != "" && (after[0] == 'f' || after[0] == 'F') {
			return true
		}
		raw = after
	}
}
