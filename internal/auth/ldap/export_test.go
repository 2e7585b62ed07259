package ldap

// What tests look at from outside.
var (
	ChildDN   = childDN
	SIDText   = sidText
	GroupName = groupName
	Plain     = plain
	Fold      = fold
)

// Filter renders a template with values, if it is one.
func Filter(template string, values map[string]string, vars ...string) (string, error) {
	f, err := parseFilter(template, vars...)
	if err != nil {
		return "", err
	}
	return f.render(values), nil
}

// Shape is a compiled filter without its values.
var Shape = shape
