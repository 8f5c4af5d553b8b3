package logging

import (
	"context"

	"isospin/internal/fault"
	"isospin/internal/resource"
)

// Type is a type of resources that can be logged.
type Type struct {
	Type string `json:"type"`
}

// types serves the loggable types, which are what they are.
type types struct {
	*resource.Resource
	encoder *resource.Encoder
}

func newTypes() *types {
	s := &types{Resource: &resource.Resource{
		Name: "loggable_resource", Collection: "loggable_resources", Path: "loggable-resources", Prefix: "/log", Older: true,
		Only: []resource.Operation{resource.List},
	}}
	s.Add(resource.Attribute{Name: "type", Flags: visible, Type: "string"})
	s.Service = s
	s.encoder = resource.NewModel[Type]().NewEncoder(s.Resource)
	return s
}

// List implements resource.Service.
func (s *types) List(context.Context, *resource.Query) ([]resource.Object, error) {
	return []resource.Object{&Type{Type: typeSecurityGroup}}, nil
}

// Get implements resource.Service; there is only the list.
func (s *types) Get(context.Context, string) (resource.Object, error) { return nil, unknown() }

// Create implements resource.Service.
func (s *types) Create(context.Context, []*resource.Body) ([]resource.Object, error) {
	return nil, unknown()
}

// Update implements resource.Service.
func (s *types) Update(context.Context, string, *resource.Body, resource.Match) (resource.Object, error) {
	return nil, unknown()
}

// Delete implements resource.Service.
func (s *types) Delete(context.Context, string, resource.Match) error { return unknown() }

func unknown() error {
	return fault.New(fault.NotFound, "HTTPNotFound", "The resource could not be found.")
}

// Encode implements resource.Service.
func (s *types) Encode(b []byte, o resource.Object, fields map[string]bool) []byte {
	return s.encoder.Append(b, o, fields)
}
