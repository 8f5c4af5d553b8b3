package feed

import (
	"encoding/json"
	"fmt"
	"strings"

	"isospin/internal/store"
)

// Copy is the in-memory copy of the committed objects, by kind and id. Objects
// are immutable: a change puts another in their place.
type Copy struct {
	kinds map[string]*kind
	order []string
	texts texts
}

func (c *Copy) share(o any) {
	if s, ok := o.(Sharer); ok {
		s.Share(c.texts.share)
	}
}

// Sharer is an object many of whose texts are those of other objects too. Of
// many objects, these would be most of the copy.
type Sharer interface {
	// Share replaces texts by equal ones that share gives.
	Share(share func(string) string)
}

// texts are those that objects share.
type texts map[string]string

// maxTexts bounds how many texts are kept only because objects may come that have them too.
const maxTexts = 1 << 14

func (t texts) share(text string) string {
	if have, ok := t[text]; ok {
		return have
	}
	if len(t) >= maxTexts {
		clear(t)
	}
	text = strings.Clone(text)
	t[text] = text
	return text
}

type kind struct {
	objects map[string]any
	decode  func(data []byte) (any, error)
	load    func(tx *store.Tx, each func(id string, o any)) error
}

// Change is one committed change of one object. Old is nil for a new one, New for a deleted one.
type Change struct {
	Kind, ID string
	Old, New any
}

// Keep makes the hub keep the objects of a kind. load reads all of them when
// the hub starts, in the form that their events have. Objects are *T.
func Keep[T any](h *Hub, name string, load func(tx *store.Tx) ([]*T, error), id func(*T) string) {
	if h.copy.kinds[name] != nil {
		return
	}
	h.copy.order = append(h.copy.order, name)
	h.copy.kinds[name] = &kind{
		objects: map[string]any{},
		decode: func(data []byte) (any, error) {
			o := new(T)
			if err := json.Unmarshal(data, o); err != nil {
				return nil, err
			}
			return o, nil
		},
		load: func(tx *store.Tx, each func(string, any)) error {
			rows, err := load(tx)
			if err != nil {
				return fmt.Errorf("feed: %s: %w", name, err)
			}
			for _, o := range rows {
				each(id(o), o)
			}
			return nil
		},
	}
}

// Get returns the object of that kind and id, nil when there is none.
func Get[T any](c *Copy, name, id string) *T {
	k := c.kinds[name]
	if k == nil {
		return nil
	}
	o, _ := k.objects[id].(*T)
	return o
}

// Recall gives objects of a kind by their ids; none while the hub is busy with changes.
// Nobody may change them.
func Recall[T any](h *Hub, name string) func(ids []string) []*T {
	return func(ids []string) []*T {
		found := make([]*T, len(ids))
		k := h.copy.kinds[name]
		if k == nil || !h.mu.TryRLock() {
			return found
		}
		defer h.mu.RUnlock()
		for i, id := range ids {
			found[i], _ = k.objects[id].(*T)
		}
		return found
	}
}

// decode reads the object of an event; nil: nothing that is kept, or it is deleted. It needs no lock.
func (c *Copy) decode(e store.Event) (any, error) {
	k := c.kinds[e.Kind]
	if k == nil || e.Op == store.Deleted {
		return nil, nil
	}
	o, err := k.decode(e.Data)
	if err != nil {
		return nil, fmt.Errorf("event %d, %s %s: %w", e.Sequence, e.Kind, e.ID, err)
	}
	return o, nil
}

// apply puts an event's object in place and says what changed; false: nothing that is kept.
func (c *Copy) apply(e store.Event, o any) (Change, bool) {
	k := c.kinds[e.Kind]
	if k == nil || o == nil && e.Op != store.Deleted {
		return Change{}, false
	}
	ch := Change{Kind: e.Kind, ID: e.ID, Old: k.objects[e.ID], New: o}
	if o == nil {
		delete(k.objects, e.ID)
		return ch, ch.Old != nil
	}
	c.share(o)
	k.objects[e.ID] = o
	return ch, true
}
