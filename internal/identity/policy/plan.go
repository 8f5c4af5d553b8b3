package policy

import (
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"isospin/internal/resource"
	"isospin/internal/resource/value"
	"isospin/internal/rest"
)

// plan is what an action on a resource involves, found out once.
type plan struct {
	action string
	rule   *rule // of the action; nil: nobody passes
	// attributes with rules of their own on this action, in order of declaration.
	attributes []attributePlan
	// shown are attributes that not everybody sees; only of get.
	shown []shownPlan
}

// attributePlan is the rule on one attribute of a body.
type attributePlan struct {
	attribute *resource.Attribute
	name      string // create_port:fixed_ips
	rule      *rule
	// keys of an object attribute that have rules of their own.
	keys []string
}

type shownPlan struct {
	attribute string
	rule      *rule
}

type planKey struct {
	action   string
	resource *resource.Resource
}

func (r *rules) planOf(action string, res *resource.Resource) *plan {
	key := planKey{action, res}
	if p, ok := r.plans.Load(key); ok {
		return p.(*plan)
	}
	p := &plan{action: action, rule: r.named(action)}
	if res != nil {
		verb, _, _ := strings.Cut(action, "_")
		for _, a := range res.Attributes() {
			name := action + ":" + a.Name
			switch {
			case verb == "get":
				// Here, no rule means that everybody sees it.
				if l := r.byName[name]; l != nil {
					p.shown = append(p.shown, shownPlan{a.Name, l})
				}
			case verb != "delete" && a.Flags.Has(resource.EnforcePolicy):
				p.attributes = append(p.attributes, attributePlan{attribute: a, name: name, rule: r.named(name), keys: specified(a)})
			}
		}
	}
	r.plans.Store(key, p)
	return p
}

// specified are the keys that an object attribute is declared with.
func specified(a *resource.Attribute) []string {
	for name, spec := range a.Validate {
		if !strings.HasPrefix(name, "type:dict") {
			continue
		}
		switch spec := spec.(type) {
		case map[string]any:
			return slices.Sorted(maps.Keys(spec))
		case resource.Rules:
			return slices.Sorted(maps.Keys(spec))
		}
	}
	return nil
}

// each calls f for every attribute that the body sets explicitly: on create,
// to another value than its default; on update, by naming it. subs are the
// rules on the attribute's own keys. It ends, false, when f returns false.
func (p *plan) each(t *rest.Target, f func(of *attributePlan, subs []string) bool) bool {
	values, create := p.values(t)
	if values == nil {
		return true
	}
	for i := range p.attributes {
		of := &p.attributes[i]
		v, there := values[of.attribute.Name]
		if !there || t.Body != nil && !t.Body.Given[of.attribute.Name] {
			continue
		}
		if create && of.attribute.Default != resource.Unspecified && reflect.DeepEqual(v, of.attribute.Default) {
			continue
		}
		var subs []string
		switch v := v.(type) {
		case map[string]any:
			for _, key := range of.keys {
				if _, sent := v[key]; sent {
					subs = append(subs, of.name+":"+key)
				}
			}
		case []any:
			for _, item := range v {
				members, _ := item.(map[string]any)
				for _, key := range slices.Sorted(maps.Keys(members)) {
					subs = append(subs, of.name+":"+key)
				}
			}
		}
		if !f(of, subs) {
			return false
		}
	}
	return true
}

// values are what the client sent: of a create or update body, or of the
// document of a member action, bare or as {"<resource>": {…}}.
func (p *plan) values(t *rest.Target) (values map[string]any, create bool) {
	if t.Body != nil {
		return t.Body.Values, strings.HasPrefix(p.action, "create_")
	}
	document, _ := t.Document.(map[string]any)
	if inner, ok := document[nameOf(t.Resource)].(map[string]any); ok {
		return inner, false
	}
	return document, false
}

func nameOf(r *resource.Resource) string {
	if r == nil {
		return ""
	}
	return r.Name
}

// text writes the rules that an action needed, as Neutron does.
func (p *plan) text(t *rest.Target) string {
	text := "rule:" + p.action
	p.each(t, func(of *attributePlan, subs []string) bool {
		own := "rule:" + of.name
		if len(subs) > 0 {
			own = "(" + own + " and (rule:" + strings.Join(subs, " and rule:") + "))"
		}
		text = "(" + text + " and " + own + ")"
		return true
	})
	return text
}

// listText is a list of texts as Python shows it.
func listText(texts []string) string {
	list := make([]any, len(texts))
	for i, t := range texts {
		list[i] = t
	}
	return value.Text(list)
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
