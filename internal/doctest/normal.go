package doctest

import (
	"regexp"
	"strings"
)

// varying are the forms of what differs from run to run, in the order in which
// they are replaced: longer forms before those that are part of them.
var varying = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`hv[sbr]\.[A-Za-z0-9_-]{20,}`), "<token>"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "<uuid>"},
	{regexp.MustCompile(`\b([0-9a-f]{2}:){15,}[0-9a-f]{2}\b`), "<fingerprint>"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?(Z|UTC|[+-]\d\d(:?\d\d)?))?( [A-Z]{3,4})?`), "<time>"},
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\d\b`), "<date>"},
	{regexp.MustCompile(`\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun),? .{6,30}?\d\d:\d\d:\d\d[^\n|]*`), "<time>"},
	{regexp.MustCompile(`v-[A-Za-z0-9_]+-[A-Za-z0-9_-]+-[A-Za-z0-9]{8,}-\d{10}`), "<user>"},
	{regexp.MustCompile(`v-[a-z0-9]+(?:-[a-z0-9_]+)*-[A-Za-z0-9]{16,}`), "<user>"},
	{regexp.MustCompile(`\b\d+h\d+m\d+s\b|\b\d+m\d+s\b|\b\d+h\d+m\b`), "<duration>"},
	{regexp.MustCompile(`last used [0-9hms]+ ago`), "last used <duration> ago"},
	{regexp.MustCompile(`next try in [0-9hms]+`), "next try in <duration>"}, // drawn
	{regexp.MustCompile(`\b1[6-9]\d{8}\b`), "<unixtime>"},
	{regexp.MustCompile(`127\.0\.0\.1:\d{4,5}`), "<address>"},
	{regexp.MustCompile(`/tmp/[A-Za-z0-9._/-]+`), "<path>"},
	{regexp.MustCompile(`[+/]*\b[A-Za-z0-9+/_-]{40,}={0,2}`), "<key>"}, // unseal keys, digests, signatures
	{regexp.MustCompile(`[A-Za-z0-9_-]{19,40}`), ""},                   // see randomWord; a password may begin or end with a dash
	{regexp.MustCompile(`\b[0-9a-f]{8}\b`), "<hex>"},                   // the end of a mount's accessor
}

// Normalise replaces what varies from run to run, and the padding that depends
// on its length.
func Normalise(s string) string {
	for _, v := range varying {
		if v.to == "" {
			s = v.re.ReplaceAllStringFunc(s, randomWord)
		} else {
			s = v.re.ReplaceAllString(s, v.to)
		}
	}
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		l = strings.TrimRight(l, " \t")
		indent := len(l) - len(strings.TrimLeft(l, " "))
		l = l[:indent] + strings.Join(strings.Fields(l[indent:]), " ")
		lines[i] = rule.ReplaceAllString(l, "---")
	}
	return strings.TrimRight(strings.Join(lines, "\n"), "\n")
}

// rule is a line under a table's heading, as long as the longest value.
var rule = regexp.MustCompile(`-{3,}`)

// randomWord replaces a word only if it looks drawn at random: it has digits
// and both cases. Names that people choose stay.
func randomWord(w string) string {
	if strings.ContainsAny(w, "0123456789") && strings.ToLower(w) != w && strings.ToUpper(w) != w {
		return "<random>"
	}
	return w
}
