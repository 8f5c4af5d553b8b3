package segmentrange

import (
	"context"

	"isospin/internal/resource"
	"isospin/internal/store"
)

// fill works out what is only shown: the ids in use and the free ones.
func (s *service) fill(ctx context.Context, objects []resource.Object) error {
	ids := make([]string, len(objects))
	by := make(map[string]*Range, len(objects))
	for i, o := range objects {
		r := o.(*Range)
		r.Used = map[int]string{}
		if r.ProjectID != "" {
			r.Owner = &r.ProjectID
		}
		ids[i], by[r.ID] = r.ID, r
	}
	err := s.Store.View(ctx, func(tx *store.Tx) error {
		return store.Child(tx, `SELECT r.id, a.segmentation_id, n.project_id FROM network_segment_range r
			JOIN segment_allocation a ON a.network_type = r.network_type AND a.physical_network = r.physical_network AND a.segmentation_id BETWEEN r.minimum AND r.maximum
			JOIN network_segment g ON g.id = a.segment_id JOIN network n ON n.id = g.network_id WHERE %s`, "r.id", ids, func(scan func(...any) error) error {
			var id, project string
			var number int
			if err := scan(&id, &number, &project); err != nil {
				return err
			}
			by[id].Used[number] = project
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, r := range by {
		r.Available = []int{}
		for id := r.Minimum; id <= r.Maximum && len(r.Available) < listed; id++ {
			if _, used := r.Used[id]; !used {
				r.Available = append(r.Available, id)
			}
		}
	}
	return nil
}

func (s *service) filled(ctx context.Context, o resource.Object, err error) (resource.Object, error) {
	if err != nil {
		return nil, err
	}
	return o, s.fill(ctx, []resource.Object{o})
}

// Get implements resource.Service.
func (s *service) Get(ctx context.Context, id string) (resource.Object, error) {
	o, err := s.Collection.Get(ctx, id)
	return s.filled(ctx, o, err)
}

// List implements resource.Service.
func (s *service) List(ctx context.Context, q *resource.Query) ([]resource.Object, error) {
	list, err := s.Collection.List(ctx, q)
	if err != nil {
		return nil, err
	}
	return list, s.fill(ctx, list)
}

// Create implements resource.Service.
func (s *service) Create(ctx context.Context, items []*resource.Body) ([]resource.Object, error) {
	list, err := s.Collection.Create(ctx, items)
	if err != nil {
		return nil, err
	}
	return list, s.fill(ctx, list)
}

// Update implements resource.Service.
func (s *service) Update(ctx context.Context, id string, body *resource.Body, match resource.Match) (resource.Object, error) {
	o, err := s.Collection.Update(ctx, id, body, match)
	return s.filled(ctx, o, err)
}
