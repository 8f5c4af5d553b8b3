package collection

import (
	"context"
	"errors"
	"maps"

	"isospin/internal/resource"
	"isospin/internal/store"
)

// Parent says to what the objects of a sub-resource belong.
type Parent[T any] struct {
	// Member is the object's member with the parent's id, "policy_id". Required.
	Member string
	// Column of the table that has it. Required.
	Column string
	// Of is the parent of an object. Required.
	Of func(o *T) string
	// Enter fails unless the caller may see the parent. Required.
	Enter func(ctx context.Context, tx *store.Tx, id string) error
	// NotFound is the fault for an object that the parent does not have. Required.
	NotFound func(parentID, id string) error
}

// Within makes services of the objects of one parent: who may see the parent
// may see them. It is for resource.Resource.Within.
func (c *Collection[T, P]) Within(p Parent[T]) func(parentID string) resource.Service {
	return func(id string) resource.Service { return &within[T, P]{c, p, id} }
}

type within[T any, P Object[T]] struct {
	*Collection[T, P]
	parent Parent[T]
	id     string
}

// find returns an object of the parent.
func (w *within[T, P]) find(ctx context.Context, tx *store.Tx, id string) (*T, error) {
	if err := w.parent.Enter(ctx, tx, w.id); err != nil {
		return nil, err
	}
	o, err := w.Table.Get(tx, id)
	if errors.Is(err, store.ErrNoRow) || err == nil && w.parent.Of(o) != w.id {
		return nil, w.parent.NotFound(w.id, id)
	}
	return o, err
}

// Create implements resource.Service.
func (w *within[T, P]) Create(ctx context.Context, items []*resource.Body) ([]resource.Object, error) {
	below := make([]*resource.Body, len(items))
	for i, body := range items {
		b := *body
		b.Values = maps.Clone(body.Values)
		b.Values[w.parent.Member] = w.id
		below[i] = &b
	}
	var rows []*T
	err := w.Store.Tx(ctx, func(tx *store.Tx) (err error) {
		if err := w.parent.Enter(ctx, tx, w.id); err != nil {
			return err
		}
		rows, err = w.create(ctx, tx, below)
		return err
	})
	if err != nil {
		return nil, err
	}
	return w.present(ctx, rows...), nil
}

// Get implements resource.Service.
func (w *within[T, P]) Get(ctx context.Context, id string) (resource.Object, error) {
	var o *T
	err := w.Store.View(ctx, func(tx *store.Tx) (err error) {
		o, err = w.find(ctx, tx, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	return w.present(ctx, o)[0], nil
}

// List implements resource.Service.
func (w *within[T, P]) List(ctx context.Context, q *resource.Query) ([]resource.Object, error) {
	var rows []*T
	err := w.Store.View(ctx, func(tx *store.Tx) (err error) {
		if err := w.parent.Enter(ctx, tx, w.id); err != nil {
			return err
		}
		rows, err = w.Table.List(tx, q, "t."+w.parent.Column+" = ?", w.id)
		return err
	})
	if errors.Is(err, store.ErrNoRow) { // the marker
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return w.present(ctx, rows...), nil
}

// Update implements resource.Service.
func (w *within[T, P]) Update(ctx context.Context, id string, body *resource.Body, match resource.Match) (resource.Object, error) {
	return w.update(ctx, w.find, id, body, match)
}

// Delete implements resource.Service.
func (w *within[T, P]) Delete(ctx context.Context, id string, match resource.Match) error {
	return w.Store.Tx(ctx, func(tx *store.Tx) error {
		o, err := w.find(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := check(match, P(o).Base().Revision); err != nil {
			return err
		}
		return w.Options.Delete(ctx, tx, o)
	})
}
