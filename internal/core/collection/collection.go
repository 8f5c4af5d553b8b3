// Package collection is what all collections of the API have in common below
// the HTTP edge: one transaction for each call, standard attributes, revisions
// and If-Match, tags, quotas, visibility and events. The domain packages give
// it a table and their rules.
//
// It must not know HTTP, nor the rules of any resource.
package collection

import (
	"context"
	"errors"
	"time"

	"isospin/internal/fault"
	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Object is a pointer to a struct that embeds resource.Standard.
type Object[T any] interface {
	*T
	resource.Based
}

// Collection serves one resource whose objects are of type T.
type Collection[T any, P Object[T]] struct {
	Options[T]
	model   *resource.Model
	encoder *resource.Encoder
}

// Options of New.
type Options[T any] struct {
	Store    *store.Store       // required
	Resource *resource.Resource // required
	Table    *store.Table[T]    // required

	// Create makes the object that the body describes: fills in what the
	// client left open, checks it, and calls Insert. Required.
	Create func(ctx context.Context, tx *store.Tx, o *T, body *resource.Body) error
	// CheckAll checks the objects of one request together, before the first is created, when set.
	CheckAll func(ctx context.Context, tx *store.Tx, rows []*T) error
	// Update brings the stored object old to want, and calls Save. Required with updatable attributes.
	Update func(ctx context.Context, tx *store.Tx, old, want *T, body *resource.Body) error
	// Delete checks that the object may go, and calls Remove. Required unless clients cannot delete.
	Delete func(ctx context.Context, tx *store.Tx, o *T) error
	// BeforeList runs before each list, in a transaction of its own, when set.
	BeforeList func(ctx context.Context, q *resource.Query) error
	// Scope is the condition on alias t that keeps rows which the caller may see. Default: those of the caller's project.
	Scope func(ctx context.Context) (string, []any)
	// Present fills in what depends on who asks.
	Present func(ctx context.Context, rows []*T)
	// Quota limits creation. nil: none.
	Quota Quota
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Quota refuses what exceeds a project's limits.
type Quota interface {
	// Reserve makes sure that n more objects of the resource fit into the project's quota, in this transaction.
	Reserve(ctx context.Context, tx *store.Tx, resource, project string, n int) error
}

// New returns a collection and makes it the resource's service.
func New[T any, P Object[T]](o Options[T]) *Collection[T, P] {
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Collection[T, P]{Options: o, model: resource.NewModel[T]()}
	o.Resource.Service = c
	return c
}

// Kind is the name of the collection's objects in events.
func (c *Collection[T, P]) Kind() string { return c.Resource.Name }

// NotFound is the fault for an object that is not there.
func (c *Collection[T, P]) NotFound(id string) error {
	return fault.New(fault.NotFound, c.Resource.NotFound, c.Resource.NotFoundText, id)
}

// Insert stores a new object with fresh standard attributes and emits its
// event. An id that is set already is kept.
func (c *Collection[T, P]) Insert(ctx context.Context, tx *store.Tx, o *T) error {
	s := P(o).Base()
	if s.ID == "" {
		s.ID = resource.NewID()
	}
	s.CreatedAt = resource.Stamp(c.Now())
	s.UpdatedAt = s.CreatedAt
	if err := c.Table.Insert(tx, o); err != nil {
		return err
	}
	c.emit(ctx, tx, o, store.Created)
	return nil
}

// Save stores a changed object: a new revision, and an event.
func (c *Collection[T, P]) Save(ctx context.Context, tx *store.Tx, o *T) error {
	s := P(o).Base()
	s.Revision++
	s.UpdatedAt = resource.Stamp(c.Now())
	if err := c.Table.Update(tx, o); err != nil {
		if errors.Is(err, store.ErrNoRow) {
			return c.NotFound(s.ID)
		}
		return err
	}
	c.emit(ctx, tx, o, store.Updated)
	return nil
}

// Remove deletes an object and emits its event.
func (c *Collection[T, P]) Remove(ctx context.Context, tx *store.Tx, o *T) error {
	s := P(o).Base()
	there, err := c.Table.Delete(tx, s.ID)
	if err != nil {
		return err
	}
	if !there {
		return c.NotFound(s.ID)
	}
	if c.Resource.Taggable {
		if err := tx.Put("DELETE FROM tag WHERE kind = ? AND object_id = ?", c.Kind(), s.ID); err != nil {
			return err
		}
	}
	c.emit(ctx, tx, o, store.Deleted)
	return nil
}

func (c *Collection[T, P]) emit(ctx context.Context, tx *store.Tx, o *T, op store.Op) {
	s, who := P(o).Base(), identity.From(ctx)
	tx.Emit(store.Event{
		Kind: c.Kind(), ID: s.ID, Op: op, Revision: s.Revision, ProjectID: s.ProjectID,
		RequestID: who.RequestID, UserID: who.UserID, UserProject: who.ProjectID, At: c.Now().UnixMilli(), Object: o,
	})
}

// Changed emits the event of an object whose row was not stored by Save but with others.
func (c *Collection[T, P]) Changed(ctx context.Context, tx *store.Tx, o *T) {
	c.emit(ctx, tx, o, store.Updated)
}

// Bump gives an object a new revision because something of its children
// changed, and emits its event with what is stored now.
func (c *Collection[T, P]) Bump(ctx context.Context, tx *store.Tx, id string) error {
	o, err := c.Load(tx, id)
	if err != nil {
		return err
	}
	return c.Save(ctx, tx, o)
}

// Load returns an object whoever asks; NotFound when there is none.
func (c *Collection[T, P]) Load(tx *store.Tx, id string) (*T, error) {
	o, err := c.Table.Get(tx, id)
	if errors.Is(err, store.ErrNoRow) {
		return nil, c.NotFound(id)
	}
	return o, err
}

// Find returns an object that the caller may see; NotFound when there is none.
func (c *Collection[T, P]) Find(ctx context.Context, tx *store.Tx, id string) (*T, error) {
	return c.find(ctx, tx, id, c.Table.Find)
}

func (c *Collection[T, P]) find(ctx context.Context, tx *store.Tx, id string, in func(tx *store.Tx, id, condition string, args ...any) (*T, error)) (*T, error) {
	scope, args := c.scope(ctx)
	o, err := in(tx, id, scope, args...)
	if errors.Is(err, store.ErrNoRow) {
		return nil, c.NotFound(id)
	}
	return o, err
}

func (c *Collection[T, P]) scope(ctx context.Context) (string, []any) {
	who := identity.From(ctx)
	if who.SeesAll() {
		return "", nil
	}
	if c.Scope != nil {
		return c.Scope(ctx)
	}
	return "t.project_id = ?", []any{who.ProjectID}
}

func (c *Collection[T, P]) present(ctx context.Context, rows ...*T) []resource.Object {
	if c.Present != nil {
		c.Present(ctx, rows)
	}
	objects := make([]resource.Object, len(rows))
	for i, o := range rows {
		objects[i] = P(o)
	}
	return objects
}

// Get implements resource.Service.
func (c *Collection[T, P]) Get(ctx context.Context, id string) (resource.Object, error) {
	var o *T
	err := c.Store.ViewAtOnce(ctx, func(tx *store.Tx) (err error) {
		o, err = c.find(ctx, tx, id, c.Table.Show)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.present(ctx, o)[0], nil
}

// List implements resource.Service.
func (c *Collection[T, P]) List(ctx context.Context, q *resource.Query) ([]resource.Object, error) {
	if c.BeforeList != nil {
		if err := c.BeforeList(ctx, q); err != nil {
			return nil, err
		}
	}
	scope, args := c.scope(ctx)
	var rows []*T
	err := c.Store.View(ctx, func(tx *store.Tx) (err error) {
		rows, err = c.Table.List(tx, q, scope, args...)
		return err
	})
	if errors.Is(err, store.ErrNoRow) { // the marker
		if c.Resource.NativePaging {
			return nil, c.NotFound(q.Marker)
		}
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return c.present(ctx, rows...), nil
}

// Create implements resource.Service.
func (c *Collection[T, P]) create(ctx context.Context, tx *store.Tx, items []*resource.Body) ([]*T, error) {
	rows := make([]*T, len(items))
	counts := map[string]int{}
	for i, body := range items {
		rows[i] = new(T)
		if err := c.model.Apply(c.Resource, P(rows[i]), body); err != nil {
			return nil, fault.InvalidInput("%v", err)
		}
		counts[P(rows[i]).Base().ProjectID]++
	}
	if c.Quota != nil && c.Resource.Quota != "" {
		for project, n := range counts {
			if err := c.Quota.Reserve(ctx, tx, c.Resource.Quota, project, n); err != nil {
				return nil, err
			}
		}
	}
	if c.CheckAll != nil {
		if err := c.CheckAll(ctx, tx, rows); err != nil {
			return nil, err
		}
	}
	for i, o := range rows {
		if err := c.Options.Create(ctx, tx, o, items[i]); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// Create implements resource.Service.
func (c *Collection[T, P]) Create(ctx context.Context, items []*resource.Body) ([]resource.Object, error) {
	var rows []*T
	err := c.Store.Tx(ctx, func(tx *store.Tx) (err error) {
		rows, err = c.create(ctx, tx, items)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.present(ctx, rows...), nil
}

// Update implements resource.Service.
func (c *Collection[T, P]) Update(ctx context.Context, id string, body *resource.Body, match resource.Match) (resource.Object, error) {
	return c.update(ctx, c.Find, id, body, match)
}

// update changes the object that find finds.
func (c *Collection[T, P]) update(ctx context.Context, find func(context.Context, *store.Tx, string) (*T, error), id string, body *resource.Body, match resource.Match) (resource.Object, error) {
	if c.Options.Update == nil {
		return nil, c.cannot("update")
	}
	var want *T
	err := c.Store.Tx(ctx, func(tx *store.Tx) error {
		old, err := find(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := check(match, P(old).Base().Revision); err != nil {
			return err
		}
		want = new(T)
		*want = *old
		c.model.Detach(P(want))
		if err := c.model.Apply(c.Resource, P(want), body); err != nil {
			return fault.InvalidInput("%v", err)
		}
		return c.Options.Update(ctx, tx, old, want, body)
	})
	if err != nil {
		return nil, err
	}
	return c.present(ctx, want)[0], nil
}

// Delete implements resource.Service.
func (c *Collection[T, P]) Delete(ctx context.Context, id string, match resource.Match) error {
	return c.DeleteAfter(ctx, id, match, nil)
}

// DeleteAfter is Delete after something else (nil: nothing) in the same transaction.
func (c *Collection[T, P]) DeleteAfter(ctx context.Context, id string, match resource.Match, before func(ctx context.Context, tx *store.Tx, o *T) error) error {
	if c.Options.Delete == nil {
		return c.cannot("delete")
	}
	return c.Store.Tx(ctx, func(tx *store.Tx) error {
		o, err := c.Find(ctx, tx, id)
		if err != nil {
			return err
		}
		if err := check(match, P(o).Base().Revision); err != nil {
			return err
		}
		if before != nil {
			if err := before(ctx, tx, o); err != nil {
				return err
			}
		}
		return c.Options.Delete(ctx, tx, o)
	})
}

// cannot is the fault for what the resource's API does not have.
func (c *Collection[T, P]) cannot(verb string) error {
	return fault.New(fault.NotImplemented, "HTTPNotImplemented", "%s %s using API is not supported.", c.Resource.Name, verb)
}

func check(match resource.Match, revision int64) error {
	if match.Revision != nil && *match.Revision != revision {
		return fault.New(fault.PreconditionFailed, "RevisionNumberConstraintFailed",
			"Constrained to %d, but current revision is %d", *match.Revision, revision)
	}
	return nil
}

// Seal prepares rendering; call it once all extensions have declared their attributes.
func (c *Collection[T, P]) Seal() { c.encoder = c.model.NewEncoder(c.Resource) }

// Encode implements resource.Service.
func (c *Collection[T, P]) Encode(b []byte, o resource.Object, fields map[string]bool) []byte {
	return c.encoder.Append(b, o, fields)
}

// Value implements resource.Valuer.
func (c *Collection[T, P]) Value(o resource.Object, attribute string) (any, bool) {
	return c.model.Value(o, attribute)
}
