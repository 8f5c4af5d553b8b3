package policy

import (
	"fmt"
	"strings"
	"testing"
)

// write shows how an expression was understood, with all parentheses.
func write(c check) string {
	list := func(checks []check, operator string) string {
		var parts []string
		for _, k := range checks {
			parts = append(parts, write(k))
		}
		return "(" + strings.Join(parts, " "+operator+" ") + ")"
	}
	switch c := c.(type) {
	case constant:
		return map[constant]string{true: "@", false: "!"}[c]
	case *negation:
		return "not " + write(c.check)
	case *conjunction:
		return list(c.checks, "and")
	case *disjunction:
		return list(c.checks, "or")
	case *reference:
		return "rule:" + c.name
	case *role:
		return fmt.Sprintf("role:%v", c.template)
	case *owner:
		return "owner:" + c.name
	case *field:
		if c.pattern != nil {
			return fmt.Sprintf("field:%s:%s~%s", c.collection, c.attribute, c.pattern)
		}
		return fmt.Sprintf("field:%s:%s=%v", c.collection, c.attribute, c.value)
	case *generic:
		if c.literal != nil {
			return fmt.Sprintf("%q:%v", *c.literal, c.template)
		}
		return fmt.Sprintf("known:%v", c.template)
	}
	return "?"
}

func TestParse(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "@"},
		{"@", "@"},
		{"!", "!"},
		{"(!)", "!"},
		{"rule:a", "rule:a"},
		{"rule:a or rule:b and rule:c", "(rule:a or (rule:b and rule:c))"},
		{"rule:a and rule:b or rule:c", "((rule:a and rule:b) or rule:c)"},
		{"not rule:a and rule:b", "(not rule:a and rule:b)"},
		{"not not rule:a", "not not rule:a"},
		{"not (rule:a or rule:b)", "not (rule:a or rule:b)"},
		{"rule:a and not rule:b or rule:c", "((rule:a and not rule:b) or rule:c)"},
		{"(rule:a or rule:b) and rule:c", "((rule:a or rule:b) and rule:c)"},
		{"((rule:a) or (rule:b and (rule:c)))", "(rule:a or (rule:b and rule:c))"},
		{"rule:a AND rule:b Or rule:c", "((rule:a and rule:b) or rule:c)"},
		{" rule:a\n or\trule:b ", "(rule:a or rule:b)"},
		{"( rule:a )", "rule:a"},
		{"project_id:%(project_id)s", "owner:project_id"},
		{"(tenant_id:%(network:project_id)s)", "owner:network:project_id"},
		{"field:networks:router:external=True", "field:networks:router:external=True"},
		{"field:port:device_owner=~^network:", "field:port:device_owner~^(?:^network:)"},
		{"field:port:name=~^(a|b)c", "field:port:name~^(?:^(a|b)c)"},
		{"field:rbac_policy:target_tenant=*", "field:rbac_policy:target_tenant=*"},
		{"'a b':%(c)s", `"a b":[{c true}]`},
		{"True:%(shared)s", `"True":[{shared true}]`},
		{"user_id:%(user_id)s", "known:[{user_id true}]"},
		{"is_admin:True or role:admin", "(known:[{True false}] or role:[{admin false}])"},
		{"role:x%(y)s%%", "role:[{x false} {y true} {% false}]"},
	} {
		got, err := parse(c.text)
		if err != nil {
			t.Errorf("%q: %v", c.text, err)
		} else if write(got) != c.want {
			t.Errorf("%q is %s; want %s", c.text, write(got), c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ text, why string }{
		{"   ", "white space"},
		{"rule:a rule:b", `"and" or "or"`},
		{"rule:a or", "ends where a check should be"},
		{"or rule:a", `"or" where a check`},
		{"not", "ends where"},
		{"()", `")" where a check`},
		{"(rule:a", `a ")" is missing`},
		{"rule:a)", `without a "("`},
		{"role", "no check"},
		{":x", "no check"},
		{"'a'", "no check"},
		{"'a:%(b)s", "not closed"},
		{"http://example.org/%(name)s", "not supported"},
		{"https://example.org", "not supported"},
		{"project_id:abc", "must be %(name)s"},
		{"field:networks", "collection:attribute=value"},
		{"field:networks:shared", "collection:attribute=value"},
		{"field:port:name=~(", "missing closing"},
		{"role:%s", `"%" must begin`},
		{"role:%(a", `"%" must begin`},
		{"color:red", `called "color"`},
		{strings.Repeat("(", 100) + "@" + strings.Repeat(")", 100), "nests deeper"},
		{strings.Repeat("not ", 100) + "@", "nests deeper"},
	} {
		if got, err := parse(c.text); err == nil {
			t.Errorf("%q was taken for %s", c.text, write(got))
		} else if !strings.Contains(err.Error(), c.why) {
			t.Errorf("%q: %v; want it to say %q", c.text, err, c.why)
		}
	}
}
