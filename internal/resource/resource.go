package resource

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	"isospin/internal/resource/value"
)

// Resource is one collection of the API and what serves it.
type Resource struct {
	// Name is the singular, the key of one object in a body: "security_group".
	Name string
	// Collection is the key of a list in a body: "security_groups".
	Collection string
	// Path is the URL segment as documented: "security-groups". Clients may write _ for -.
	Path string
	// Prefix of the URL between version and Path, e.g. "/qos". Usually empty.
	Prefix string
	// Parent is set on a sub-resource: each of its objects belongs to one of the
	// parent's, and is found below it. The object has the parent's id as its
	// member "<parent>_id", which need not be an attribute.
	Parent *Resource
	// Within returns the service of the objects that belong to one parent.
	// Required with Parent; Service then is that of the objects of all parents.
	Within func(parentID string) Service
	// Only names the operations that are served: Show, List, Create, Update, Delete. nil: all.
	Only []Operation
	// Older: served by Neutron's older request path, which words some errors differently.
	Older bool
	// NativePaging: a marker that does not exist is a 404 of this resource.
	NativePaging bool
	NoPaging     bool
	NoSorting    bool
	// NoBulk: a create body with a list is refused.
	NoBulk bool
	// Standard: has created_at, updated_at, description, revision_number.
	Standard bool
	// Taggable: has the tags sub-resource.
	Taggable bool
	// Quota is the name of the quota that limits it; empty: none.
	Quota string
	// NotFound is the exception class of an absent object, e.g. "PortNotFound".
	NotFound string
	// NotFoundText has one %s for the id.
	NotFoundText string

	// Checker converts and validates attributes where that depends on
	// configuration; nil is Neutron's defaults.
	Checker *value.Checker // optional

	Service Service
	// Shared returns the projects ("*": all) that may see an object beside its
	// own, by what the object itself says. It agrees with what the service
	// lists; where it is nil, only Through opens objects to other projects.
	Shared func(o Object) []string // optional
	// Through names the object on whose account an object may be seen.
	Through *Through // optional
	// Key, of a sub-resource, is what names its objects below their parent
	// instead of their id.
	Key *Key // optional
	// Untold: what becomes of its objects is not told as such, because other
	// objects' changes make and end them too. They have no watch and no history.
	Untold bool
	// Aside are attributes that change without the object, such as the rules of
	// a group or when an agent was last heard of. Changes leave them out.
	Aside []string // optional
	// Cascade deletes an object with what is on it, for DELETE …?cascade=true; nil: there is no such thing.
	Cascade func(ctx context.Context, id string, match Match) error // optional
	Actions []Action

	attributes []*Attribute
	byName     map[string]*Attribute
}

// Through says that an object is seen on account of another, whose id it has
// as an attribute.
type Through struct {
	Kind      string // required: the other resource's name
	Attribute string // required
	// Owner: only by the project that owns the other; else by all that may see it.
	Owner bool // optional
}

// Key names objects below their parent.
type Key struct {
	Attribute string // required: its value is in the path
	// ID is the object's id. Required.
	ID func(parentID, key string) string
}

// Operation is one of the five calls that resources serve.
type Operation string

const (
	Show   Operation = "show"
	List   Operation = "list"
	Create Operation = "create"
	Update Operation = "update"
	Delete Operation = "delete"
)

// Serves tells whether clients may call the operation at all.
func (r *Resource) Serves(o Operation) bool { return r.Only == nil || slices.Contains(r.Only, o) }

// URL is the path of the collection below the version; the ids of parents are
// parameters: "/qos/policies/{policy_id}/bandwidth_limit_rules".
func (r *Resource) URL() string {
	if r.Parent == nil {
		return r.Prefix + "/" + r.Path
	}
	return r.Parent.URL() + "/{" + r.Parent.Name + "_id}/" + r.Path
}

// PolicyAction is the name of an action in policy files: verb is get, create,
// update or delete, and sub-resources put the parent in:
// create_policy_bandwidth_limit_rule.
func (r *Resource) PolicyAction(verb string) string {
	if r.Parent == nil {
		return verb + "_" + r.Name
	}
	return verb + "_" + r.Parent.Name + "_" + r.Name
}

// Add declares attributes; extensions add theirs to resources of others. It
// panics when a name is there already: two owners of one attribute are a
// mistake in the program.
func (r *Resource) Add(attributes ...Attribute) *Resource {
	if r.byName == nil {
		r.byName = map[string]*Attribute{}
	}
	for _, a := range attributes {
		if r.byName[a.Name] != nil {
			panic(fmt.Sprintf("resource %s: attribute %s is declared twice", r.Name, a.Name))
		}
		r.attributes = append(r.attributes, &a)
		r.byName[a.Name] = &a
	}
	return r
}

// Attributes returns all attributes in the order of declaration.
func (r *Resource) Attributes() []*Attribute { return r.attributes }

// Attribute returns the attribute of that name, nil if there is none. tenant_id
// and project_id are one attribute.
func (r *Resource) Attribute(name string) *Attribute {
	if name == "project_id" {
		name = "tenant_id"
	}
	return r.byName[name]
}

// Object is a pointer to a typed object of a resource.
type Object any

// Service is what the HTTP edge asks of a resource. Every method runs in one
// transaction of its own and returns faults (package fault) as errors.
type Service interface {
	// Create makes all objects or none.
	Create(ctx context.Context, items []*Body) ([]Object, error)
	Get(ctx context.Context, id string) (Object, error)
	// List returns one page. more tells whether another follows in the direction of the query.
	List(ctx context.Context, q *Query) ([]Object, error)
	Update(ctx context.Context, id string, body *Body, match Match) (Object, error)
	Delete(ctx context.Context, id string, match Match) error
	// Encode appends the object's wire form, with the members of fields (all visible ones when nil).
	Encode(b []byte, o Object, fields map[string]bool) []byte
}

// Valuer is a Service that gives single attributes of its objects.
type Valuer interface {
	// Value returns an attribute in normal form (nil, bool, int64, float64,
	// string, []any, map[string]any); false when the object has none such.
	// Lists and maps must not be changed.
	Value(o Object, attribute string) (any, bool)
}

// Tagger is a Service whose objects carry tags.
type Tagger interface {
	// SetTags replaces, adds or removes tags of one object: change gets the
	// present tags and returns the wanted ones.
	SetTags(ctx context.Context, id string, change func(have []string) ([]string, error)) ([]string, error)
	Tags(ctx context.Context, id string) ([]string, error)
}

// Match is a condition on the stored revision (If-Match); nil is none.
type Match struct{ Revision *int64 }

// Body is a checked request body: attributes in normal form.
type Body struct {
	// Values by attribute name, defaults included, Unspecified ones absent.
	Values map[string]any
	// Given names the attributes that the client sent.
	Given map[string]bool
}

// Has tells whether the client sent the attribute.
func (b *Body) Has(name string) bool { return b.Given[name] }

// Action is a call on one object (PUT /routers/{id}/add_router_interface).
// Calls on anything else are Routes.
type Action struct {
	Method string
	Name   string
	// Do gets the decoded body (nil when there is none) and returns what is to be shown, nil for an empty answer.
	Do func(ctx context.Context, id string, body any) (any, error)
	// Status of success; 0 is 200.
	Status int
}

// Shown is what an action returns to show an object as every answer does: with
// what the caller may see of it.
type Shown struct{ Object Object }

// Registry holds all resources, routes and extensions of a running server.
type Registry struct {
	resources  []*Resource
	routes     []Route
	byPath     map[string]*Resource
	extensions map[string]Extension
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	return &Registry{byPath: map[string]*Resource{}, extensions: map[string]Extension{}}
}

// Add registers a resource under its path; a duplicate panics.
func (r *Registry) Add(res *Resource) {
	key := strings.ReplaceAll(res.URL(), "-", "_")
	if r.byPath[key] != nil {
		panic("resource " + key + " is registered twice")
	}
	r.byPath[key] = res
	r.resources = append(r.resources, res)
}

// AddExtension registers extensions; a duplicate alias panics.
func (r *Registry) AddExtension(extensions ...Extension) {
	for _, e := range extensions {
		if _, ok := r.extensions[e.Alias]; ok {
			panic("extension " + e.Alias + " is registered twice")
		}
		r.extensions[e.Alias] = e
	}
}

// Resources returns all resources in the order of registration.
func (r *Registry) Resources() []*Resource { return r.resources }

// Lookup finds a resource by its URL path below the version, e.g. "/security-groups".
func (r *Registry) Lookup(path string) *Resource {
	return r.byPath[strings.ReplaceAll(path, "-", "_")]
}

// Named finds a resource by its singular name.
func (r *Registry) Named(name string) *Resource {
	for _, res := range r.resources {
		if res.Name == name {
			return res
		}
	}
	return nil
}

// Extensions returns all extensions by alias.
func (r *Registry) Extensions() []Extension {
	var all []Extension
	for _, e := range r.extensions {
		all = append(all, e)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Alias < all[j].Alias })
	return all
}

// Extension returns the extension of that alias.
func (r *Registry) Extension(alias string) (Extension, bool) {
	e, ok := r.extensions[alias]
	return e, ok
}

// Check returns an error when an extension requires one that is not there.
func (r *Registry) Check() error {
	for _, e := range r.Extensions() {
		for _, need := range e.Requires {
			if _, ok := r.extensions[need]; !ok {
				return fmt.Errorf("extension %s requires %s, which is not loaded", e.Alias, need)
			}
		}
	}
	return nil
}
