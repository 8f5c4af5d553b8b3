package rest

import (
	"context"

	"isospin/internal/fault"
	"isospin/internal/resource"
)

// Enforcer decides what the caller of a context may do and see. It names
// actions as policy files do: get_port, create_port, add_router_interface.
type Enforcer interface {
	// Enforce returns nil when the caller may do the action, a Forbidden fault
	// when not. Rules on attributes (create_port:fixed_ips) follow from the
	// target's resource and body.
	Enforce(ctx context.Context, action string, target *Target) error
	// Visible returns those of the objects that the caller may see, in their order.
	Visible(ctx context.Context, r *resource.Resource, objects []resource.Object) []resource.Object
	// Fields returns the members of the object that are shown: those of fields
	// (nil: all) that the caller may see.
	Fields(ctx context.Context, r *resource.Resource, o resource.Object, fields map[string]bool) map[string]bool
}

// Target is what an action is about.
type Target struct {
	// Resource is nil for routes of no resource.
	Resource *resource.Resource
	// Body of a create or update, else nil.
	Body *resource.Body
	// Document is the decoded body of a member action, else nil.
	Document any
	// Params are the path's parameters of a route of no resource; of a
	// sub-resource, the parent's id, by "<parent>_id".
	Params map[string]string

	id     string
	object resource.Object
	// within is the service of the parent's objects; nil: the resource's.
	within resource.Service
}

// Object returns the stored object, read when first asked for; nil on create
// and for routes of no resource. Its errors are those of the service.
func (t *Target) Object(ctx context.Context) (resource.Object, error) {
	if t.object != nil || t.id == "" {
		return t.object, nil
	}
	service := t.within
	if service == nil {
		service = t.Resource.Service
	}
	o, err := service.Get(ctx, t.id)
	if err != nil {
		return nil, err
	}
	t.object = o
	return o, nil
}

// AllowAll is the Enforcer of auth_strategy = noauth: everybody is an administrator.
type AllowAll struct{}

// Enforce implements Enforcer.
func (AllowAll) Enforce(context.Context, string, *Target) error { return nil }

// Visible implements Enforcer.
func (AllowAll) Visible(_ context.Context, _ *resource.Resource, objects []resource.Object) []resource.Object {
	return objects
}

// Seen is Visible for watches.
func (AllowAll) Seen(_ context.Context, _ *resource.Resource, objects []resource.Object) ([]resource.Object, error) {
	return objects, nil
}

// Shown is Fields for watches.
func (AllowAll) Shown(_ context.Context, _ *resource.Resource, _ resource.Object, fields map[string]bool) (map[string]bool, error) {
	return fields, nil
}

// Assume is for watches; nothing depends on it.
func (AllowAll) Assume(ctx context.Context, _ *resource.Resource, _ resource.Object) context.Context {
	return ctx
}

// Fields implements Enforcer.
func (AllowAll) Fields(_ context.Context, _ *resource.Resource, _ resource.Object, fields map[string]bool) map[string]bool {
	return fields
}

// enforce is Enforce for an action on an existing object: a refusal becomes
// "not found" when the caller may not even see the object.
func (c *call) enforce(action string, target *Target) error {
	err := c.edge.Enforcer.Enforce(c.ctx, action, target)
	if !fault.IsKind(err, fault.Forbidden) {
		return err
	}
	see := Target{Resource: target.Resource, Params: target.Params, id: target.id, object: target.object, within: target.within}
	if seen := c.edge.Enforcer.Enforce(c.ctx, target.Resource.PolicyAction("get"), &see); seen != nil {
		if fault.IsKind(seen, fault.Forbidden) {
			return notFound()
		}
		return seen
	}
	// The older path admits that an object is there only to its own project,
	// though others may see it when it is shared.
	if target.Resource.Older && target.Body != nil {
		if target.Resource.Attribute("tenant_id") == nil && target.Resource.Parent == nil {
			return notFound() // nobody's
		}
		o, fetched := see.Object(c.ctx)
		if based, ok := o.(resource.Based); fetched == nil && ok && based.Base().ProjectID != c.who.ProjectID {
			return notFound()
		}
	}
	return err
}
