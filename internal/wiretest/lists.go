package wiretest

import (
	"fmt"
	"os"
	"regexp"
	"strings"
)

var (
	stepID  = regexp.MustCompile("`([a-z0-9-]+-[0-9]{3})`")
	listRow = regexp.MustCompile("^\\| *((?:`[a-z0-9-]+-[0-9]{3}`[ ,]*)+) *\\|([^|]*)\\|")
)

// Listed reads the tables of a page whose first column names steps and whose
// second says why: id -> reason. A step without a reason, or listed twice, is
// an error.
func Listed(page string) (map[string]string, error) {
	text, err := os.ReadFile(page)
	if err != nil {
		return nil, err
	}
	list := map[string]string{}
	for line := range strings.Lines(string(text)) {
		row := listRow.FindStringSubmatch(line)
		if row == nil {
			continue
		}
		reason := strings.TrimSpace(row[2])
		for _, id := range stepID.FindAllStringSubmatch(row[1], -1) {
			if reason == "" {
				return nil, fmt.Errorf("%s: step %s has no reason", page, id[1])
			}
			if list[id[1]] != "" {
				return nil, fmt.Errorf("%s: step %s is listed twice", page, id[1])
			}
			list[id[1]] = reason
		}
	}
	return list, nil
}
