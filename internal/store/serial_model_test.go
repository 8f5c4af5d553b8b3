package store_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"isospin/internal/store"
)

// world is the model: all that is stored, and what the transaction by has done
// to boxes, as far as its events depend on it.
type world struct {
	atOnce bool // a deletion is refused at once by a key that is looked at late
	boxes  map[string]box
	items  map[string]item
	ties   map[string]string // id to item
	lates  map[string]string // id to box
	marks  map[string]int
	limit  int

	by          string
	first, last map[string]store.Op
	made        map[string]bool // and has created it
}

type item struct {
	box   string
	place int // negative: none
}

func newWorld(atOnce bool) *world {
	return &world{atOnce: atOnce, boxes: map[string]box{}, items: map[string]item{}, ties: map[string]string{}, lates: map[string]string{}, marks: map[string]int{}, limit: firstLimit}
}

// next is the same world for another transaction.
func (w *world) next(by string) *world {
	c := *w
	c.boxes, c.items, c.ties, c.lates, c.marks = maps.Clone(w.boxes), maps.Clone(w.items), maps.Clone(w.ties), maps.Clone(w.lates), maps.Clone(w.marks)
	c.by, c.first, c.last, c.made = by, map[string]store.Op{}, map[string]store.Op{}, map[string]bool{}
	return &c
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// has tells whether something refers to the id.
func has(m map[string]string, id string) bool {
	return slices.Contains(slices.Collect(maps.Values(m)), id)
}

// text is what is told of a box.
func (w *world) text(id string) string {
	b, ok := w.boxes[id]
	if !ok {
		return "none"
	}
	b.Items = w.in(id)
	return b.text()
}

// in are the items of a box.
func (w *world) in(box string) (ids []string) {
	for _, id := range sorted(w.items) {
		if w.items[id].box == box {
			ids = append(ids, id)
		}
	}
	return ids
}

// taken: another box has the name.
func (w *world) taken(name, id string) bool {
	for other, b := range w.boxes {
		if other != id && b.Name != nil && *b.Name == name {
			return true
		}
	}
	return false
}

func (w *world) changed(id string, what store.Op) {
	if w.first[id] == "" {
		w.first[id] = what
	}
	w.last[id] = what
	w.made[id] = w.made[id] || what == store.Created
}

func (w *world) touch(id string) {
	b := w.boxes[id]
	b.Revision, b.UpdatedAt = b.Revision+1, w.by
	w.boxes[id] = b
	w.changed(id, store.Updated)
}

// revise is what call.revise does.
func (w *world) revise(o *op, name *string) string {
	b, there := w.boxes[o.ID]
	if !there {
		return "none"
	}
	o.N = int(b.Value)
	if name != nil {
		if w.taken(*name, o.ID) {
			return "duplicate"
		}
		b.Name = name
	}
	b.Value++
	w.boxes[o.ID] = b
	w.touch(o.ID)
	return "done"
}

// insert is of an item; place is negative when it has none.
func (w *world) insert(id, box string, place int) string {
	var refused []string
	_, there := w.items[id]
	for _, i := range w.placed() {
		there = there || i.place == place
	}
	if there {
		refused = append(refused, "duplicate")
	}
	if _, ok := w.boxes[box]; !ok {
		refused = append(refused, "referenced")
	}
	if refused == nil {
		w.items[id] = item{box, place}
		w.touch(box)
		return "done"
	}
	return strings.Join(refused, " or ")
}

func refer(from map[string]string, o *op, there bool) string {
	if _, ok := from[o.ID]; ok {
		return "duplicate"
	}
	if !there {
		return "referenced"
	}
	from[o.ID] = o.To
	return "done"
}

func unrefer(from map[string]string, o *op) string {
	if _, ok := from[o.ID]; !ok && o.Way%2 == 1 { // Put does not tell
		return "none"
	}
	delete(from, o.ID)
	return "done"
}

func (w *world) tied(items ...string) bool {
	return slices.ContainsFunc(items, func(id string) bool { return has(w.ties, id) })
}

// placed are the items that have a place.
func (w *world) placed() map[string]item {
	placed := maps.Clone(w.items)
	maps.DeleteFunc(placed, func(_ string, i item) bool { return i.place < 0 })
	return placed
}

// listed is what pairs tells.
func listed[V any](m map[string]V, value func(V) any) string {
	list := []string{}
	for _, id := range sorted(m) {
		list = append(list, fmt.Sprint(id, ":", value(m[id])))
	}
	return fmt.Sprint(list)
}

// repeat is the world after a transaction; an error tells what was not as it is here.
func (w *world) repeat(r *record) (*world, error) {
	w = w.next(r.ID)
	for i, o := range r.Ops {
		want := o
		may := operations[o.Do].model(w, &want)
		if !slices.Contains(strings.Split(may, " or "), o.Have) || want.N != o.N {
			return nil, fmt.Errorf("op %d %+v: may be %q, %d", i, o, may, want.N)
		}
	}
	missing := false
	for _, id := range w.lates {
		_, ok := w.boxes[id]
		missing = missing || !ok
	}
	// What one that writes leaves to be missing, another one of the same commit may bring: only the commit looks.
	if refused := r.own == nil && r.failed != nil; refused && !missing || missing && r.view {
		return nil, fmt.Errorf("at the end a box is missing: %v; it ended with %v", missing, r.failed)
	}
	return w, nil
}

// events are those that the transaction must have, beside its own.
func (w *world) events() (list []string) {
	for id, first := range w.first {
		switch last := w.last[id]; {
		case first == store.Created && last == store.Deleted:
		case last == store.Updated && w.made[id]:
			list = append(list, id+" create")
		default:
			list = append(list, id+" "+string(last))
		}
	}
	slices.Sort(list)
	return list
}
