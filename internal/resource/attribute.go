package resource

import "isospin/internal/fault"

// Flags say what clients may do with an attribute.
type Flags uint16

const (
	Post             Flags = 1 << iota // may be given on create
	Put                                // may be given on update
	Visible                            // shown in answers
	RequiredByPolicy                   // policy checks need its stored value
	EnforcePolicy                      // has a policy rule of its own
	Filter                             // may be filtered by in lists
	Sort                               // may be a sort key
	PrimaryKey                         // identifies the object
)

// Has tells whether all of want are set.
func (f Flags) Has(want Flags) bool { return f&want == want }

type unspecified struct{}

// Unspecified is the default of an attribute that, when absent, stays absent:
// it is neither converted nor validated, and the service decides.
var Unspecified any = unspecified{}

// Rules names validators of the API contract with their arguments, e.g.
// {"type:string": 255}. See package value.
type Rules map[string]any

// Attribute is one member of a resource's wire form.
type Attribute struct {
	Name  string
	Flags Flags
	// Required: must be in the body of a create. Only with Post.
	Required bool
	// Default is the value of an absent attribute on create; nil is JSON null.
	Default any
	// Convert and ConvertList name converters of the API contract; ConvertList
	// is applied to the whole list of a filter's values.
	Convert     string
	ConvertList string
	Validate    Rules
	// Unsortable and Unfilterable are what lists answer that are sorted or filtered by
	// an attribute whose flags say that they may: Neutron's definition has the flag,
	// its table no such column. nil: they may.
	Unsortable, Unfilterable error
	// Type is the JSON type for documents: string, bool, int, timestamp, object,
	// list<string>, list<object>; several with | between, as in "string|null".
	Type string
}

// NoColumn is the answer to lists that are sorted by an attribute that Neutron's
// table of that name lacks.
func NoColumn(table, attribute string) error {
	return fault.New(fault.Invalid, "BadRequest", "Bad %s request: '%s' is an invalid attribute for sort key.", table, attribute)
}

// NoField is the answer to lists that are filtered by an attribute that Neutron
// does not keep with the object.
func NoField(attribute string) error {
	return fault.InvalidInput("'%s' is not supported for filtering", attribute)
}

// Extension is a named addition to the API, as GET /v2.0/extensions lists it.
type Extension struct {
	Alias       string
	Name        string
	Description string
	// Updated is the date of the definition, e.g. "2012-07-20T10:00:00-00:00".
	Updated string
	// Requires lists aliases that must be there too.
	Requires []string
}
