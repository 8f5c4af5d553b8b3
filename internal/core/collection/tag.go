package collection

import (
	"context"
	"slices"

	"isospin/internal/fault"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// TagSchema is the one table of all objects' tags.
var TagSchema = store.Schema{Module: "core/tag", Steps: [][]string{{
	`CREATE TABLE tag (
		kind VARCHAR(64) NOT NULL, object_id VARCHAR(36) NOT NULL, tag VARCHAR(255) NOT NULL,
		PRIMARY KEY (object_id, kind, tag))`,
}}}

// MaxTags is the greatest number of tags of one object.
const MaxTags = 50

// Tagged fills in the tags of objects of a kind; a child of their table.
func Tagged[T any, P Object[T]](kind string) func(tx *store.Tx, rows []*T) error {
	return func(tx *store.Tx, rows []*T) error {
		ids := make([]string, len(rows))
		at := make(map[string]*resource.Standard, len(rows))
		for i, o := range rows {
			s := P(o).Base()
			ids[i], at[s.ID] = s.ID, s
		}
		return store.Gather(tx, "SELECT object_id, kind, tag FROM tag WHERE %s ORDER BY object_id, tag", "object_id", ids, func(scan func(...any) error) error {
			var id, k, tag string
			if err := scan(&id, &k, &tag); err != nil {
				return err
			}
			if s := at[id]; s != nil && k == kind {
				s.Tags = append(s.Tags, tag)
			}
			return nil
		})
	}
}

// StoreTags makes the stored tags of an object be want.
func StoreTags(tx *store.Tx, kind, id string, have, want []string) error {
	for _, tag := range have {
		if !slices.Contains(want, tag) {
			if err := tx.Put("DELETE FROM tag WHERE kind = ? AND object_id = ? AND tag = ?", kind, id, tag); err != nil {
				return err
			}
		}
	}
	for _, tag := range want {
		if !slices.Contains(have, tag) {
			if err := tx.Put("INSERT INTO tag (kind, object_id, tag) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", kind, id, tag); err != nil {
				return err
			}
		}
	}
	return nil
}

// SetTags implements resource.Tagger. A change of tags is a change of the object.
func (c *Collection[T, P]) SetTags(ctx context.Context, id string, change func(have []string) ([]string, error)) ([]string, error) {
	var tags []string
	err := c.Store.Tx(ctx, func(tx *store.Tx) error {
		o, err := c.findTagged(ctx, tx, id)
		if err != nil {
			return err
		}
		s := P(o).Base()
		want, err := change(slices.Clone(s.Tags))
		if err != nil {
			return err
		}
		slices.Sort(want)
		want = slices.Compact(want)
		if len(want) > MaxTags {
			return fault.New(fault.Invalid, "BadRequest", "Bad %s request: The number of tags exceed the per-resource limit of %d.", c.Resource.Collection, MaxTags)
		}
		tags = want
		if slices.Equal(s.Tags, want) {
			return nil
		}
		if err := StoreTags(tx, c.Kind(), id, s.Tags, want); err != nil {
			return err
		}
		s.Tags = want
		return c.Save(ctx, tx, o)
	})
	return tags, err
}

// Tags implements resource.Tagger.
func (c *Collection[T, P]) Tags(ctx context.Context, id string) ([]string, error) {
	var tags []string
	err := c.Store.View(ctx, func(tx *store.Tx) error {
		o, err := c.findTagged(ctx, tx, id)
		if err == nil {
			tags = P(o).Base().Tags
		}
		return err
	})
	return tags, err
}

func (c *Collection[T, P]) findTagged(ctx context.Context, tx *store.Tx, id string) (*T, error) {
	o, err := c.Find(ctx, tx, id)
	if fault.IsKind(err, fault.NotFound) {
		return nil, fault.New(fault.NotFound, "TagResourceNotFound", "Resource %s %s could not be found.", c.Resource.Collection, id)
	}
	return o, err
}
