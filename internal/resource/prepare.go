package resource

import (
	"reflect"
	"sort"
	"strings"

	"isospin/internal/fault"
	"isospin/internal/resource/value"
)

// Caller is what body checks must know of who asks.
type Caller struct {
	ProjectID string
	// SetProject: may create for other projects.
	SetProject bool
}

// PrepareCreate checks one object of a create body and brings it into normal
// form, in Neutron's order: project, unknown names, defaults, conversion,
// validation. The first error wins.
func (r *Resource) PrepareCreate(item map[string]any, caller Caller) (*Body, error) {
	if err := r.unifyProject(item, caller, true); err != nil {
		return nil, err
	}
	if err := r.refuseUnknown(item); err != nil {
		return nil, err
	}
	for _, a := range r.attributes {
		_, given := item[a.Name]
		if given && !a.Flags.Has(Post) {
			return nil, fault.BadRequest("Attribute '%s' not allowed in POST", a.Name)
		}
		if !given && a.Required && a.Flags.Has(Post) {
			return nil, fault.BadRequest("Failed to parse request. Required attribute '%s' not specified", a.Name)
		}
	}
	body := &Body{Values: make(map[string]any, len(r.attributes)), Given: make(map[string]bool, len(item))}
	for _, a := range r.attributes {
		v, given := item[a.Name]
		if given {
			body.Given[a.Name] = true
		} else if !a.Flags.Has(Post) || a.Default == Unspecified {
			continue
		} else {
			v = a.Default
		}
		v, err := a.check(r.checker(), v, given)
		if err != nil {
			return nil, err
		}
		body.Values[a.Name] = v
	}
	return body, nil
}

// PrepareUpdate checks the object of an update body. Absent attributes stay as they are.
func (r *Resource) PrepareUpdate(item map[string]any, caller Caller) (*Body, error) {
	if err := r.unifyProject(item, caller, false); err != nil {
		return nil, err
	}
	if err := r.refuseUnknown(item); err != nil {
		return nil, err
	}
	for _, a := range r.attributes {
		if _, given := item[a.Name]; given && !a.Flags.Has(Put) {
			return nil, fault.BadRequest("Cannot update read-only attribute %s", a.Name)
		}
	}
	body := &Body{Values: make(map[string]any, len(item)), Given: make(map[string]bool, len(item))}
	for _, a := range r.attributes {
		v, given := item[a.Name]
		if !given {
			continue
		}
		v, err := a.check(r.checker(), v, true)
		if err != nil {
			return nil, err
		}
		body.Given[a.Name] = true
		body.Values[a.Name] = v
	}
	return body, nil
}

// checker has the configuration that checks of the resource depend on.
func (r *Resource) checker() *value.Checker {
	if r.Checker == nil {
		return &value.Checker{}
	}
	return r.Checker
}

func (a *Attribute) check(c *value.Checker, v any, given bool) (any, error) {
	var err error
	if a.Convert != "" {
		if v, err = c.Convert(a.Convert, v); err != nil {
			return nil, err
		}
	}
	if !given {
		return v, nil
	}
	for name, args := range a.Validate {
		reason, err := c.Validate(name, args, v)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			return nil, fault.BadRequest("Invalid input for %s. Reason: %s.", a.Name, reason)
		}
	}
	return v, nil
}

// unifyProject makes tenant_id and project_id one: tenant_id inside.
func (r *Resource) unifyProject(item map[string]any, caller Caller, create bool) error {
	if r.byName["tenant_id"] == nil {
		return nil
	}
	project, hasProject := item["project_id"]
	tenant, hasTenant := item["tenant_id"]
	if hasProject && hasTenant && !reflect.DeepEqual(project, tenant) {
		return fault.BadRequest("'project_id' and 'tenant_id' do not match")
	}
	delete(item, "project_id")
	if hasProject {
		item["tenant_id"] = project
	}
	if !create {
		return nil
	}
	if !hasProject && !hasTenant {
		if caller.ProjectID == "" {
			// In Neutron's words, which know of one reason only: a token may have no project, too.
			return fault.BadRequest("Running without keystone AuthN requires that project_id is specified")
		}
		item["tenant_id"] = caller.ProjectID
		return nil
	}
	if item["tenant_id"] != caller.ProjectID && !caller.SetProject {
		return fault.BadRequest("Specifying 'project_id' other than the authenticated project in request is not allowed for the current user.")
	}
	return nil
}

func (r *Resource) refuseUnknown(item map[string]any) error {
	var unknown []string
	for name := range item {
		if r.byName[name] == nil {
			unknown = append(unknown, name)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	sort.Strings(unknown)
	return fault.BadRequest("Unrecognized attribute(s) '%s'", strings.Join(unknown, ", "))
}

// Values converts the values of a query string filter.
func (a *Attribute) Values(texts []string) ([]any, error) {
	values := make([]any, 0, len(texts))
	for _, t := range texts {
		var v any = t
		if a.Convert != "" {
			var err error
			if v, err = value.Convert(a.Convert, t); err != nil {
				return nil, err
			}
		}
		values = append(values, v)
	}
	return values, nil
}
