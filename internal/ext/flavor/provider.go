package flavor

import (
	"context"

	"isospin/internal/core"
	"isospin/internal/core/collection"
	"isospin/internal/fault"
	"isospin/internal/resource"
)

// providers serves the list of service providers.
type providers struct {
	collection.ReadOnly
	from    *core.ServiceProviders
	encoder *resource.Encoder
}

func newProviders(from *core.ServiceProviders) *providers {
	p := &providers{from: from}
	p.Resource = &resource.Resource{
		Name: "service_provider", Collection: "service_providers", Path: "service-providers", Older: true,
		NoBulk: true, NoPaging: true, NoSorting: true,
		NotFound: "HTTPNotFound", NotFoundText: "The resource could not be found.",
		Only: []resource.Operation{resource.Show, resource.List},
	}
	p.Resource.Add(
		resource.Attribute{Name: "service_type", Flags: visible, Type: "string"},
		resource.Attribute{Name: "name", Flags: visible, Type: "string"},
		resource.Attribute{Name: "default", Flags: visible, Type: "bool"},
	)
	p.Resource.Service = p
	p.encoder = resource.NewModel[core.ServiceProvider]().NewEncoder(p.Resource)
	return p
}

// Get implements resource.Service; providers have no ids.
func (p *providers) Get(context.Context, string) (resource.Object, error) {
	return nil, fault.New(fault.NotFound, "HTTPNotFound", "The resource could not be found.")
}

// List implements resource.Service.
func (p *providers) List(context.Context, *resource.Query) ([]resource.Object, error) {
	list := []resource.Object{}
	for _, o := range p.from.All() {
		list = append(list, &o)
	}
	return list, nil
}

// Encode implements resource.Service.
func (p *providers) Encode(b []byte, o resource.Object, fields map[string]bool) []byte {
	return p.encoder.Append(b, o, fields)
}
