package collection

import (
	"context"

	"isospin/internal/fault"
	"isospin/internal/resource"
)

// ReadOnly refuses what clients cannot do with objects that are derived from
// others. Embed it in their resource.Service.
type ReadOnly struct {
	Resource *resource.Resource // required
}

func (r ReadOnly) cannot(verb string) error {
	return fault.New(fault.NotImplemented, "HTTPNotImplemented", "%s %s using API is not supported.", r.Resource.Name, verb)
}

// Create implements resource.Service.
func (r ReadOnly) Create(context.Context, []*resource.Body) ([]resource.Object, error) {
	return nil, r.cannot("create")
}

// Update implements resource.Service.
func (r ReadOnly) Update(context.Context, string, *resource.Body, resource.Match) (resource.Object, error) {
	return nil, r.cannot("update")
}

// Delete implements resource.Service.
func (r ReadOnly) Delete(context.Context, string, resource.Match) error {
	return r.cannot("delete")
}
