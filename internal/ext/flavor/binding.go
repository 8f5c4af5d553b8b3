package flavor

import (
	"context"
	"errors"

	"isospin/internal/core/collection"
	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// bindings serves the profiles of flavors.
type bindings struct {
	collection.ReadOnly
	of      *service
	encoder *resource.Encoder
}

// binding is a profile of a flavor, or the flavor: all that is shown is an id.
type binding struct {
	ID string `json:"id,omitempty"`
}

func newBindings(s *service) *bindings {
	b := &bindings{of: s}
	b.Resource = &resource.Resource{
		Name: "service_profile", Collection: "service_profiles", Path: "service_profiles", Older: true, NoPaging: true, NoSorting: true,
		Parent: s.flavors.Resource, Only: []resource.Operation{resource.Show, resource.List, resource.Create, resource.Delete},
		NotFound: "FlavorServiceProfileBindingNotFound", NotFoundText: "Service Profile %s is not associated with flavor .",
	}
	b.Resource.Add(resource.Attribute{Name: "id", Flags: post | visible, Required: true, Validate: resource.Rules{"type:uuid": nil}, Type: "string"})
	b.Resource.Service = b
	b.Resource.Within = func(flavorID string) resource.Service { return &within{b, flavorID} }
	b.encoder = resource.NewModel[binding]().NewEncoder(b.Resource)
	return b
}

// Get implements resource.Service; without a flavor there is none.
func (b *bindings) Get(_ context.Context, id string) (resource.Object, error) {
	return nil, notBound("", id)
}

// List implements resource.Service.
func (b *bindings) List(context.Context, *resource.Query) ([]resource.Object, error) { return nil, nil }

// Encode implements resource.Service.
func (b *bindings) Encode(out []byte, o resource.Object, fields map[string]bool) []byte {
	return b.encoder.Append(out, o, fields)
}

func notBound(flavorID, profileID string) error {
	return fault.New(fault.NotFound, "FlavorServiceProfileBindingNotFound", "Service Profile %s is not associated with flavor %s.", profileID, flavorID)
}

// within serves the profiles of one flavor.
type within struct {
	*bindings
	flavorID string
}

// Get implements resource.Service. As in Neutron, what is found shows nothing of itself.
func (w *within) Get(ctx context.Context, id string) (resource.Object, error) {
	err := w.of.core.Store.View(ctx, func(tx *store.Tx) error {
		var n int
		err := tx.Row("SELECT COUNT(*) FROM flavor_service_profile WHERE flavor_id = ? AND service_profile_id = ?", []any{w.flavorID, id}, &n)
		if err == nil && n == 0 {
			return notBound(w.flavorID, id)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return &binding{}, nil
}

// List implements resource.Service.
func (w *within) List(ctx context.Context, _ *resource.Query) ([]resource.Object, error) {
	list := []resource.Object{}
	err := w.of.core.Store.View(ctx, func(tx *store.Tx) error {
		f, err := w.of.flavors.Load(tx, w.flavorID)
		if err != nil {
			return err
		}
		for _, id := range f.Profiles {
			list = append(list, &binding{id})
		}
		return nil
	})
	return list, err
}

// Create implements resource.Service. As in Neutron, the answer is the flavor
// with what a profile has of it: its id.
func (w *within) Create(ctx context.Context, items []*resource.Body) ([]resource.Object, error) {
	list := make([]resource.Object, len(items))
	err := w.of.core.Store.Tx(ctx, func(tx *store.Tx) error {
		f, err := w.of.flavors.Load(tx, w.flavorID)
		if err != nil {
			return err
		}
		for i, item := range items {
			id, _ := item.Values["id"].(string)
			if _, err := w.of.profiles.Load(tx, id); err != nil {
				return err
			}
			if err := tx.Put("INSERT INTO flavor_service_profile (flavor_id, service_profile_id) VALUES (?, ?)", w.flavorID, id); err != nil {
				if errors.Is(err, store.ErrDuplicate) {
					return fault.New(fault.Conflict, "FlavorServiceProfileBindingExists", "Service Profile %s is already associated with flavor %s.", id, w.flavorID)
				}
				return err
			}
			f.Profiles = append(f.Profiles, id)
			list[i] = &binding{w.flavorID}
		}
		return w.of.flavors.Save(ctx, tx, f)
	})
	return list, err
}

// Delete implements resource.Service.
func (w *within) Delete(ctx context.Context, id string, _ resource.Match) error {
	return w.of.core.Store.Tx(ctx, func(tx *store.Tx) error {
		n, err := tx.Exec("DELETE FROM flavor_service_profile WHERE flavor_id = ? AND service_profile_id = ?", w.flavorID, id)
		if err != nil {
			return err
		}
		if n == 0 {
			return notBound(w.flavorID, id)
		}
		return w.of.flavors.Bump(ctx, tx, w.flavorID)
	})
}
