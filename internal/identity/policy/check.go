package policy

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"sort"
	"strings"

	"isospin/internal/identity"
	"isospin/internal/resource/value"
)

// check is one node of a compiled expression.
type check interface {
	eval(e *evaluation) bool
	// cost orders the operands of and and or, whose order means nothing: what
	// the caller alone decides goes before what needs the object, and that
	// before what needs other objects.
	cost() int
}

const (
	free    = iota // a constant
	caller         // needs only who asks
	object         // needs the target
	another        // needs objects that the target names
)

type constant bool

func (c constant) eval(*evaluation) bool { return bool(c) }
func (c constant) cost() int             { return free }

type negation struct{ check check }

func (n *negation) eval(e *evaluation) bool { return !n.check.eval(e) }
func (n *negation) cost() int               { return n.check.cost() }

type conjunction struct{ checks []check }

func (c *conjunction) eval(e *evaluation) bool {
	for _, k := range c.checks {
		if !k.eval(e) {
			return false
		}
	}
	return true
}

func (c *conjunction) cost() int { return dearest(c.checks) }

type disjunction struct{ checks []check }

func (d *disjunction) eval(e *evaluation) bool {
	for _, k := range d.checks {
		if k.eval(e) {
			return true
		}
	}
	return false
}

func (d *disjunction) cost() int { return dearest(d.checks) }

func dearest(checks []check) int {
	most := free
	for _, c := range checks {
		most = max(most, c.cost())
	}
	return most
}

// reference is rule:name.
type reference struct {
	name string
	rule *rule // nil: there is none, and no default rule; then nobody passes
}

func (r *reference) eval(e *evaluation) bool { return r.rule != nil && r.rule.check.eval(e) }

func (r *reference) cost() int {
	if r.rule == nil {
		return free
	}
	return r.rule.cost
}

// role is role:name, without regard to case.
type role struct {
	template template
	text     string // lower case
	// number of the role among those of the rules; set when the name is fixed.
	number int
}

func (r *role) eval(e *evaluation) bool {
	if r.template.fixed() {
		return e.caller.roles[r.number]
	}
	name, ok := r.template.fill(e)
	return ok && slices.ContainsFunc(e.caller.who.Roles, func(have string) bool { return strings.EqualFold(have, name) })
}

func (r *role) cost() int { return r.template.cost() }

// fill puts the target's values in; false when the target lacks one.
func (t template) fill(e *evaluation) (string, bool) {
	if len(t) == 1 && !t[0].parameter {
		return t[0].text, true
	}
	var b strings.Builder
	for _, p := range t {
		if !p.parameter {
			b.WriteString(p.text)
			continue
		}
		v, ok := e.value(p.text)
		if !ok {
			return "", false
		}
		b.WriteString(value.Text(v))
	}
	return b.String(), true
}

func (t template) cost() int {
	if t.fixed() {
		return caller
	}
	return object
}

// owner is project_id:%(name)s: the caller's project is that of the target,
// or, with a name as in network:project_id, that of an object which it names.
type owner struct {
	name           string
	parent, member string // of a name with a colon
}

func newOwner(name string) *owner {
	o := &owner{name: name}
	o.parent, o.member, _ = strings.Cut(name, ":")
	if o.member == "" {
		o.parent = ""
	}
	return o
}

func (o *owner) eval(e *evaluation) bool {
	project := e.caller.who.ProjectID
	if project == "" {
		return false // who has no project owns nothing, not even what has no owner
	}
	v, ok := e.value(o.name)
	if !ok && o.parent != "" {
		v, ok = e.parentValue(o.parent, o.member)
	}
	if !ok {
		return false
	}
	text, isText := v.(string)
	return isText && text == project
}

func (o *owner) cost() int {
	if o.parent != "" {
		return another
	}
	return object
}

// field is field:collection:attribute=value.
type field struct {
	collection, attribute string
	value                 any
	text                  string
	pattern               *regexp.Regexp // of a value that begins with ~
	converter             string         // that value went through
}

func parseField(text, match string) (check, error) {
	collection, rest, ok := strings.Cut(match, ":")
	attribute, wanted, ok2 := strings.Cut(rest, "=")
	if !ok || !ok2 || collection == "" || attribute == "" {
		return nil, fmt.Errorf("%q: the match must be collection:attribute=value", text)
	}
	f := &field{collection: collection, attribute: attribute, text: wanted, value: wanted}
	if pattern, isPattern := strings.CutPrefix(wanted, "~"); isPattern {
		var err error
		// Python's match is anchored at the beginning.
		if f.pattern, err = regexp.Compile(`^(?:` + pattern + `)`); err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
	}
	return f, nil
}

// convert brings the value into the attribute's normal form.
func (f *field) convert(converter string) error {
	if converter == "" || converter == f.converter || f.pattern != nil {
		return nil
	}
	v, err := value.Convert(converter, f.text)
	if err != nil {
		return fmt.Errorf("field:%s:%s=%s: %w", f.collection, f.attribute, f.text, err)
	}
	f.value, f.converter = v, converter
	return nil
}

// ofNetwork are attributes of a network that its parts are checked by.
func (f *field) ofNetwork() bool {
	switch f.collection + ":" + f.attribute {
	case "networks:shared", "subnets:shared", "subnets:router:external":
		return true
	}
	return false
}

func (f *field) eval(e *evaluation) bool {
	v, ok := e.value(f.attribute)
	if !ok && f.ofNetwork() {
		v, ok = e.parentValue("network", f.attribute)
	}
	if !ok || v == nil {
		return false
	}
	if f.pattern != nil {
		return f.pattern.MatchString(value.Text(v))
	}
	switch want := f.value.(type) {
	case bool:
		have, isBool := v.(bool)
		return isBool && have == want
	case string:
		if have, isText := v.(string); isText {
			return have == want
		}
		// No converter is known of: as its text.
		return f.converter == "" && value.Text(v) == want
	}
	return reflect.DeepEqual(v, f.value)
}

func (f *field) cost() int {
	if f.ofNetwork() {
		return another
	}
	return object
}

// generic compares a literal, or something known of the caller, with the
// target's values filled into a text.
type generic struct {
	literal    *string
	credential func(*identity.Context) []string
	template   template
}

func (g *generic) eval(e *evaluation) bool {
	text, ok := g.template.fill(e)
	if !ok {
		return false
	}
	if g.literal != nil {
		return *g.literal == text
	}
	return slices.Contains(g.credential(e.caller.who), text)
}

func (g *generic) cost() int { return g.template.cost() }

// credentials are what may stand on the left of a generic check. What a caller
// does not have matches nothing, not even an empty text.
var credentials = map[string]func(*identity.Context) []string{
	"user_id":           func(c *identity.Context) []string { return known(c.UserID) },
	"user_domain_id":    func(c *identity.Context) []string { return known(c.UserDomainID) },
	"project_domain_id": func(c *identity.Context) []string { return known(c.ProjectDomainID) },
	"domain_id":         func(c *identity.Context) []string { return known(c.DomainID) },
	"system_scope":      func(c *identity.Context) []string { return known(c.SystemScope) },
	"roles":             func(c *identity.Context) []string { return c.Roles },
	"service_user_id":   func(c *identity.Context) []string { return known(c.ServiceUserID) },
	"service_roles":     func(c *identity.Context) []string { return c.ServiceRoles },
	"is_admin": func(c *identity.Context) []string {
		if c.Admin {
			return []string{"True"}
		}
		return []string{"False"}
	},
}

func known(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// walk calls f for a check and all below it, but not for rules it refers to.
func walk(c check, f func(check)) {
	f(c)
	switch c := c.(type) {
	case *negation:
		walk(c.check, f)
	case *conjunction:
		for _, k := range c.checks {
			walk(k, f)
		}
	case *disjunction:
		for _, k := range c.checks {
			walk(k, f)
		}
	}
}

// order puts cheap operands first.
func order(c check) {
	walk(c, func(c check) {
		var list []check
		switch c := c.(type) {
		case *conjunction:
			list = c.checks
		case *disjunction:
			list = c.checks
		}
		sort.SliceStable(list, func(i, j int) bool { return list[i].cost() < list[j].cost() })
	})
}
