package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
)

// evaluation is one decision on its way.
type evaluation struct {
	ctx     context.Context
	rules   *rules
	caller  *callerView
	target  *target
	parents *parents
	from    Parents

	// missing are objects that must be read before the decision counts.
	missing []parentKey
	// absent is set when an object that the target names is not there.
	absent error
	// err is why there can be no decision.
	err error
}

func (e *evaluation) rule(l *rule) bool { return l != nil && l.check.eval(e) }

// decide evaluates until nothing is missing.
func (e *evaluation) decide(pass func() bool) (bool, error) {
	for {
		e.missing, e.absent = e.missing[:0], nil
		ok := pass()
		if e.err != nil {
			return false, e.err
		}
		if len(e.missing) == 0 {
			return ok, nil
		}
		if err := e.parents.fetch(e.ctx, e.from, e.missing); err != nil {
			return false, err
		}
	}
}

// target is what is decided about.
type target struct {
	resource *resource.Resource
	body     *resource.Body
	params   map[string]string
	// load reads the stored object; nil: there is none, or it is in object.
	load   func(context.Context) (resource.Object, error)
	object resource.Object
}

// value is an attribute of the target: what the path or the body says, else
// what is stored. Neutron shows rules only a part of the stored attributes on updates;
// here they see all, so that a rule means the same for every action.
func (e *evaluation) value(name string) (any, bool) {
	t := e.target
	if name == "project_id" {
		name = "tenant_id" // one attribute
	}
	// The path goes first: a body must not talk its way into another parent.
	if v, ok := t.params[name]; ok {
		return v, true
	}
	if name == "tenant_id" {
		if v, ok := t.params["project_id"]; ok {
			return v, true
		}
	}
	if t.body != nil {
		if v, ok := t.body.Values[name]; ok {
			return v, true
		}
	}
	if t.object == nil && t.load != nil && e.err == nil {
		t.object, e.err = t.load(e.ctx)
		t.load = nil
	}
	if t.object == nil || t.resource == nil {
		return nil, false
	}
	return valueOf(t.resource, t.object, name)
}

// valueOf is an attribute of a stored object.
func valueOf(r *resource.Resource, o resource.Object, name string) (any, bool) {
	if b, ok := o.(resource.Based); ok {
		switch name {
		case "tenant_id", "project_id":
			return b.Base().ProjectID, true
		case "id":
			return b.Base().ID, true
		}
	}
	if v, ok := r.Service.(resource.Valuer); ok {
		return v.Value(o, name)
	}
	var members map[string]any
	if err := json.Unmarshal(r.Service.Encode(nil, o, map[string]bool{name: true}), &members); err != nil {
		return nil, false
	}
	v, ok := members[name]
	return v, ok
}

// Parents reads what rules must know of objects that targets name: the
// network of a port, the security group of a rule.
type Parents interface {
	// Parents returns those objects of a resource (its singular name) that are
	// there, by id, whoever asks, as the caller's project sees them.
	Parents(ctx context.Context, resource string, ids []string) (map[string]Parent, error)
	// Absent is the fault for an object that is not there.
	Absent(resource, id string) error
}

// Parent gives the attributes of one such object.
type Parent func(attribute string) (v any, ok bool)

type parentKey struct{ resource, id string }

// parents keeps what was read for one request. An entry without a Parent is
// of an object that is not there.
type parents struct {
	mu   sync.Mutex
	byID map[parentKey]Parent
}

type memoKey struct{}

func parentsOf(ctx context.Context) *parents {
	p, ok := identity.Memo(ctx).Load(memoKey{})
	if !ok {
		p, _ = identity.Memo(ctx).LoadOrStore(memoKey{}, &parents{byID: map[parentKey]Parent{}})
	}
	return p.(*parents)
}

func (r *rules) viewOf(ctx context.Context) *callerView {
	v, ok := identity.Memo(ctx).Load(r)
	if !ok {
		v, _ = identity.Memo(ctx).LoadOrStore(r, r.view(identity.From(ctx)))
	}
	return v.(*callerView)
}

// fetch reads objects, those of one resource at once.
func (p *parents) fetch(ctx context.Context, from Parents, keys []parentKey) error {
	byResource := map[string][]string{}
	wanted := map[parentKey]bool{}
	for _, k := range keys {
		if !wanted[k] {
			wanted[k] = true
			byResource[k.resource] = append(byResource[k.resource], k.id)
		}
	}
	for name, ids := range byResource {
		found, err := from.Parents(ctx, name, ids)
		if err != nil {
			return err
		}
		p.mu.Lock()
		for _, id := range ids {
			p.byID[parentKey{name, id}] = found[id]
		}
		p.mu.Unlock()
	}
	return nil
}

// extended are the resources that routes below them, which say ext_parent, are of.
var extended = []string{"floatingip", "router", "local_ip", "policy"}

// parentValue is an attribute of the object that the target names by
// <parent>_id. Until that is read, there is no value, and it is missing.
func (e *evaluation) parentValue(parent, attribute string) (any, bool) {
	if r := e.target.resource; parent == "ext_parent" && r != nil && r.Parent != nil {
		parent = r.Parent.Name
	}
	id := ""
	if parent == "ext_parent" {
		for _, name := range extended {
			if id = e.text("ext_parent_" + name + "_id"); id == "" {
				id = e.text(name + "_id")
			}
			if id != "" {
				parent = name
				break
			}
		}
	} else {
		id = e.text(parent + "_id")
	}
	if id == "" || e.parents == nil {
		return nil, false
	}
	key := parentKey{parent, id}
	e.parents.mu.Lock()
	p, read := e.parents.byID[key]
	e.parents.mu.Unlock()
	switch {
	case !read:
		e.missing = append(e.missing, key)
		return nil, false
	case p == nil:
		e.absent = e.from.Absent(key.resource, key.id)
		return nil, false
	}
	return p(attribute)
}

func (e *evaluation) text(name string) string {
	v, _ := e.value(name)
	s, _ := v.(string)
	return s
}

// services are the Parents that a registry's services know.
type services struct{ registry *resource.Registry }

// errNoResource: a mistake in a rule, which does not go away by itself.
var errNoResource = errors.New("there is no such resource")

// Parents implements Parents: one query for all ids.
func (s services) Parents(ctx context.Context, name string, ids []string) (map[string]Parent, error) {
	r := s.registry.Named(name)
	if r == nil {
		return nil, fmt.Errorf("a policy rule asks for the owner of a %s, and %w", name, errNoResource)
	}
	// As the caller's project, since whether something is shared depends on
	// that; as an administrator, since who asks may not see what decides.
	ctx = identity.With(ctx, &identity.Context{ProjectID: identity.From(ctx).ProjectID, Admin: true, RequestID: identity.From(ctx).RequestID})
	found := make(map[string]Parent, len(ids))
	parent := func(o resource.Object) Parent {
		return func(attribute string) (any, bool) { return valueOf(r, o, attribute) }
	}
	if len(ids) == 1 {
		o, err := r.Service.Get(ctx, ids[0])
		if err != nil && !fault.IsKind(err, fault.NotFound) {
			return nil, err
		}
		if err == nil {
			found[ids[0]] = parent(o)
		}
		return found, nil
	}
	const most = 500 // ids in one query
	for len(ids) > 0 {
		n := min(len(ids), most)
		values := make([]any, n)
		for i, id := range ids[:n] {
			values[i] = id
		}
		objects, err := r.Service.List(ctx, &resource.Query{Filters: []resource.FilterBy{{Attribute: r.Attribute("id"), Values: values}}})
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			if id, ok := valueOf(r, o, "id"); ok {
				if text, isText := id.(string); isText {
					found[text] = parent(o)
				}
			}
		}
		ids = ids[n:]
	}
	return found, nil
}

// Absent implements Parents.
func (s services) Absent(name, id string) error {
	r := s.registry.Named(name)
	if r == nil || r.NotFound == "" {
		return fault.New(fault.NotFound, "HTTPNotFound", "The resource could not be found.")
	}
	return fault.New(fault.NotFound, r.NotFound, r.NotFoundText, id)
}
