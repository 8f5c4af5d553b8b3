package watch

import (
	"context"
	"errors"

	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Past is one change of an object.
type Past struct {
	store.Event
	// Object is as it was after the change; before it, if it was deleted.
	Object resource.Object
	// Before is the object before the change: nil when it was not there, or
	// when that is not kept, or not for the caller to see.
	Before resource.Object
}

// HistoryRequest says whose history is wanted.
type HistoryRequest struct {
	Resource *resource.Resource // required
	ID       string             // required
	// Parent is the id of the object to which it belongs, of a sub-resource.
	Parent string
	// Since is the sequence after which changes are wanted.
	Since int64
	// Limit of changes; required.
	Limit int
}

// History returns the changes of an object that the context's caller may see,
// oldest first, and where more begin, 0 at the end. What is gone is NotFound
// once nothing of it is kept.
func (s *Service) History(ctx context.Context, q HistoryRequest) (list []Past, next int64, err error) {
	r, id := q.Resource, q.ID
	if r.Key != nil {
		id = r.Key.ID(q.Parent, q.ID)
	}
	var events []store.Event
	var former *store.Event
	err = s.options.Store.View(ctx, func(tx *store.Tx) (err error) {
		former = nil
		if events, err = tx.EventsOf(r.Name, id, q.Since, q.Limit+1); err != nil || len(events) == 0 {
			return err
		}
		e, err := tx.EventBefore(r.Name, id, events[0].Sequence)
		if errors.Is(err, store.ErrNoRow) {
			return nil
		}
		former = &e
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	if len(events) > q.Limit {
		events = events[:q.Limit]
		next = events[q.Limit-1].Sequence
	}
	ctx = caller(ctx)
	var before resource.Object
	if former != nil && former.Op != store.Deleted {
		if before, err = s.shown(ctx, q, former); err != nil {
			return nil, 0, err
		}
	}
	for i := range events {
		o, err := s.shown(ctx, q, &events[i])
		if err != nil {
			return nil, 0, err
		}
		if o != nil {
			list = append(list, Past{Event: events[i], Object: o, Before: before})
		}
		if before = o; events[i].Op == store.Deleted {
			before = nil
		}
	}
	if len(list) == 0 {
		// Nothing of it is kept, or nothing is for the caller.
		service := r.Service
		if r.Parent != nil {
			service = r.Within(q.Parent)
		}
		o, err := service.Get(ctx, q.ID)
		if err != nil {
			return nil, 0, err
		}
		visible, err := s.visible(ctx, r, o)
		if err != nil {
			return nil, 0, err
		}
		if !visible {
			return nil, 0, fault.New(fault.NotFound, "HTTPNotFound", "The resource could not be found.")
		}
	}
	return list, next, nil
}

// shown is the object of an event, nil unless the caller may see it.
func (s *Service) shown(ctx context.Context, q HistoryRequest, e *store.Event) (resource.Object, error) {
	r := q.Resource
	a, err := accessOf(r, e)
	if err != nil {
		return nil, err
	}
	sees, err := s.sees(ctx, identity.From(ctx), r, &a, now)
	if err != nil || !sees {
		return nil, err
	}
	o, err := decode(ctx, r, e)
	if err != nil {
		return nil, err
	}
	if parentOf(r, o) != q.Parent {
		return nil, nil
	}
	visible, err := s.visible(ctx, r, o)
	if err != nil {
		return nil, err
	}
	if !visible {
		// As it was before its end, it is not to be decided about, either.
		if lost, err := s.orphan(ctx, r, &access{through: a.through, gone: true}); err != nil || !lost {
			return nil, err
		}
	}
	return o, nil
}
