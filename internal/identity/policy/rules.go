package policy

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"isospin/internal/identity"
)

// defaultsJSON are the rules that hold where no file says otherwise: those of
// Neutron 2026.1 and its stadium, with their names, expressions and scopes.
//
//go:embed defaults.json
var defaultsJSON []byte

// standard is a rule of defaultsJSON.
type standard struct {
	Name  string `json:"name"`
	Check string `json:"check"`
	// Scope are the kinds of tokens that may ask: project, system, domain. None: all.
	Scope []string `json:"scope"`
	// Deprecated is what held in earlier releases.
	Deprecated *struct {
		// Name, when it was another.
		Name  string `json:"name"`
		Check string `json:"check"`
	} `json:"deprecated"`
}

var standards = sync.OnceValues(func() ([]standard, error) {
	var list []standard
	err := json.Unmarshal(defaultsJSON, &list)
	return list, err
})

// rule is a named expression.
type rule struct {
	name  string
	check check
	scope []string
	cost  int

	state linkState
}

type linkState int

const (
	unlinked linkState = iota
	linking
	linked
)

// rules are all rules in force. They are immutable.
type rules struct {
	byName map[string]*rule
	// fallback is the rule for names without one; nil: nobody passes.
	fallback *rule
	// roles numbers the roles that are named, in lower case.
	roles map[string]int
	// enforceScope: a token of another scope than the rule's is refused.
	enforceScope bool
	// adminsPass: administrators are not checked.
	adminsPass bool
	// plans caches what an action on a resource involves.
	plans sync.Map
}

// settings of compile.
type settings struct {
	fallback       string // name of the rule for names without one
	enforceScope   bool
	newDefaults    bool
	convertersOf   func(collection, attribute string) string
	overrides      []override // of files, in order; the last of a name wins
	warnDeprecated func(file string, line int, old, new string)
}

// override is one rule of a file.
type override struct {
	name, text string
	file       string
	line       int
}

// compile parses and links the standards and what overrides them. The error
// names everything that is wrong, with file and line.
func compile(s settings) (*rules, error) {
	all, err := standards()
	if err != nil {
		return nil, fmt.Errorf("default rules: %w", err)
	}
	r := &rules{byName: make(map[string]*rule, len(all)), roles: map[string]int{}, enforceScope: s.enforceScope, adminsPass: !s.newDefaults}
	var wrong []error
	own := map[string]override{}
	for _, o := range s.overrides {
		own[o.name] = o
	}
	places := map[string]override{}
	for _, d := range all {
		o, overridden := own[d.Name]
		if !overridden && d.Deprecated != nil && d.Deprecated.Name != "" {
			if old, ok := own[d.Deprecated.Name]; ok && old.text != "rule:"+d.Name {
				o, overridden = old, true
				if s.warnDeprecated != nil {
					s.warnDeprecated(old.file, old.line, d.Deprecated.Name, d.Name)
				}
			}
		}
		expression := d.Check
		if overridden {
			expression = o.text
			places[d.Name] = o
		}
		c, err := parse(expression)
		if err != nil {
			wrong = append(wrong, place(o, d.Name, err))
			continue
		}
		if !overridden && !s.newDefaults && d.Deprecated != nil && d.Deprecated.Check != d.Check {
			old, err := parse(d.Deprecated.Check)
			if err != nil {
				wrong = append(wrong, place(o, d.Name, err))
				continue
			}
			c = &disjunction{[]check{c, old}}
		}
		r.byName[d.Name] = &rule{name: d.Name, check: c, scope: d.Scope}
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if _, done := places[name]; done || r.byName[name] != nil {
			continue
		}
		o := own[name]
		c, err := parse(o.text)
		if err != nil {
			wrong = append(wrong, place(o, name, err))
			continue
		}
		r.byName[name] = &rule{name: name, check: c}
		places[name] = o
	}
	r.fallback = r.byName[s.fallback]
	for _, name := range slices.Sorted(maps.Keys(r.byName)) {
		if err := r.link(r.byName[name], nil, s.convertersOf); err != nil {
			wrong = append(wrong, place(places[name], name, err))
		}
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	return r, nil
}

func place(o override, name string, err error) error {
	if o.file == "" {
		return fmt.Errorf("policy rule %q: %w", name, err)
	}
	return fmt.Errorf("%s:%d: policy rule %q: %w", o.file, o.line, name, err)
}

// link resolves references to other rules, numbers roles and converts values.
func (r *rules) link(l *rule, path []string, converterOf func(collection, attribute string) string) error {
	switch l.state {
	case linked:
		return nil
	case linking:
		return fmt.Errorf("it refers to itself: %s", strings.Join(append(path, l.name), " -> "))
	}
	l.state = linking
	path = append(path, l.name)
	var wrong error
	walk(l.check, func(c check) {
		switch c := c.(type) {
		case *reference:
			if c.rule = r.named(c.name); c.rule == nil {
				return
			}
			if err := r.link(c.rule, path, converterOf); err != nil && wrong == nil {
				wrong = err
			}
		case *role:
			if c.template.fixed() {
				n, ok := r.roles[c.text]
				if !ok {
					n = len(r.roles)
					r.roles[c.text] = n
				}
				c.number = n
			}
		case *field:
			if converterOf != nil {
				if err := c.convert(converterOf(c.collection, c.attribute)); err != nil && wrong == nil {
					wrong = err
				}
			}
		}
	})
	l.state = linked
	order(l.check)
	l.cost = l.check.cost()
	return wrong
}

// named is the rule of that name, else the fallback.
func (r *rules) named(name string) *rule {
	if l := r.byName[name]; l != nil {
		return l
	}
	return r.fallback
}

// callerView is what rules see of a caller, made once in a request.
type callerView struct {
	who *identity.Context
	// roles by number.
	roles []bool
	scope string
}

func (r *rules) view(who *identity.Context) *callerView {
	v := &callerView{who: who, roles: make([]bool, len(r.roles)), scope: "project"}
	for _, have := range who.Roles {
		if n, ok := r.roles[strings.ToLower(have)]; ok {
			v.roles[n] = true
		}
	}
	switch {
	case who.SystemScope != "":
		v.scope = "system"
	case who.DomainID != "":
		v.scope = "domain"
	}
	return v
}
