package feed

import (
	"maps"
	"slices"

	"isospin/api/feed"
	"isospin/internal/store"
)

// Parts is a projection of a kind that is told only as part of other objects.
// It marks nothing: whatever changes a part makes a new generation of what it
// belongs to.
type Parts[T any] struct {
	kind string
	// owner and id are of a part.
	owner, id func(*T) string
	// byOwner: owner → part → present.
	byOwner map[string]map[string]struct{}
}

// KeepParts keeps the objects of a kind, which are parts of owners.
func KeepParts[T any](h *Hub, kind string, load func(*store.Tx) ([]*T, error), id, owner func(*T) string) *Parts[T] {
	p := &Parts[T]{kind: kind, owner: owner, id: id, byOwner: map[string]map[string]struct{}{}}
	Keep(h, kind, load, id)
	h.Project(p)
	return p
}

// Of are the parts of an owner, in the order of their ids.
func (p *Parts[T]) Of(c *Copy, owner string) []*T {
	var parts []*T
	for _, id := range slices.Sorted(maps.Keys(p.byOwner[owner])) {
		if o := Get[T](c, p.kind, id); o != nil {
			parts = append(parts, o)
		}
	}
	return parts
}

// Apply implements Projection.
func (p *Parts[T]) Apply(_ *Copy, ch Change, _ Marker) {
	if ch.Kind != p.kind {
		return
	}
	if old, _ := ch.Old.(*T); old != nil {
		owner := p.owner(old)
		delete(p.byOwner[owner], p.id(old))
		if len(p.byOwner[owner]) == 0 {
			delete(p.byOwner, owner)
		}
	}
	if now, _ := ch.New.(*T); now != nil {
		owner := p.owner(now)
		if p.byOwner[owner] == nil {
			p.byOwner[owner] = map[string]struct{}{}
		}
		p.byOwner[owner][p.id(now)] = struct{}{}
	}
}

// Keys implements Projection; there are no objects of its own.
func (*Parts[T]) Keys(*Copy, string, func(Key)) {}

// Render implements Projection.
func (*Parts[T]) Render(*Copy, string, Key) *feed.Object { return nil }

// Delta implements Projection.
func (*Parts[T]) Delta(*Copy, string, Key, map[string]struct{}, *feed.ServerMessage) uint64 { return 0 }
