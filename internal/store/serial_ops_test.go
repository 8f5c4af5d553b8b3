package store_test

import (
	"fmt"
	"strconv"
	"strings"

	"isospin/internal/resource"
	"isospin/internal/store"
)

// op is one thing that a transaction does, and what it was told of it: in Have,
// and of some in N.
type op struct {
	Do, ID, To  string
	Way, N      int
	Have        string
	Used, Limit int
}

// operation is what an op does on the store and on the model.
type operation struct {
	store func(c *call, o *op) error
	// model sets the N that must have been told, and returns what Have may be, with " or " between.
	model func(w *world, o *op) string
}

var operations = map[string]operation{
	// What only reads.
	"get": {
		func(c *call, o *op) error { return o.seen(c.table.Get(c.Tx, o.ID)) },
		func(w *world, o *op) string { return w.text(o.ID) },
	},
	"show": {
		func(c *call, o *op) error { return o.seen(c.table.Show(c.Tx, o.ID, "")) },
		func(w *world, o *op) string { return w.text(o.ID) },
	},
	"list": {
		func(c *call, o *op) error {
			list, err := c.table.List(c.Tx, &resource.Query{Sort: []resource.SortKey{{Attribute: "id"}}}, "")
			for _, b := range list {
				o.Have += b.text() + "\n"
			}
			return err
		},
		func(w *world, _ *op) (text string) {
			for _, id := range sorted(w.boxes) {
				text += w.text(id) + "\n"
			}
			return text
		},
	},
	"exists": {
		func(c *call, o *op) error {
			is, err := c.Exists("SELECT 1 FROM item WHERE box_id = ?", o.ID)
			o.Have = fmt.Sprint(is)
			return err
		},
		func(w *world, o *op) string { return fmt.Sprint(len(w.in(o.ID)) > 0) },
	},
	"count": {
		func(c *call, o *op) error {
			return c.Row("SELECT COUNT(*) FROM item WHERE box_id = ?", []any{o.ID}, &o.N)
		},
		func(w *world, o *op) string {
			o.N = len(w.in(o.ID))
			return ""
		},
	},
	"places": {
		func(c *call, o *op) error {
			return pairs[int](c, o, "SELECT id, place FROM item WHERE place IS NOT NULL ORDER BY id")
		},
		func(w *world, _ *op) string { return listed(w.placed(), func(i item) any { return i.place }) },
	},
	"ties": {
		func(c *call, o *op) error {
			return pairs[string](c, o, "SELECT t.id, i.box_id FROM tie t JOIN item i ON i.id = t.item_id ORDER BY t.id")
		},
		func(w *world, _ *op) string {
			return listed(w.ties, func(item string) any { return w.items[item].box })
		},
	},
	"lates": {
		func(c *call, o *op) error { return pairs[string](c, o, "SELECT id, box_id FROM late ORDER BY id") },
		func(w *world, _ *op) string { return listed(w.lates, func(box string) any { return box }) },
	},
	"marks": {
		func(c *call, o *op) error { return c.Row("SELECT COALESCE(SUM(value), 0) FROM mark", nil, &o.N) },
		func(w *world, o *op) string {
			o.N = 0
			for _, value := range w.marks {
				o.N += value
			}
			return ""
		},
	},

	// Boxes, of which there are events.
	"box": {
		func(c *call, o *op) (err error) {
			b := &box{}
			if b.ID, b.UpdatedAt = o.ID, c.by; o.To != "" {
				b.Name = &o.To
			}
			done := true
			if o.Way%2 == 0 {
				err = c.table.Insert(c.Tx, b)
			} else {
				done, err = c.table.InsertIfAbsent(c.Tx, b)
			}
			return c.changed(o, o.ID, store.Created, o.told(number(done), err))
		},
		func(w *world, o *op) string {
			if _, there := w.boxes[o.ID]; there || w.taken(o.To, o.ID) {
				return []string{"duplicate", "none"}[o.Way%2]
			}
			b := box{}
			if b.ID, b.UpdatedAt = o.ID, w.by; o.To != "" {
				b.Name = &o.To
			}
			w.boxes[o.ID] = b
			w.changed(o.ID, store.Created)
			return "done"
		},
	},
	"value": {
		func(c *call, o *op) error { return c.revise(o, nil) },
		func(w *world, o *op) string { return w.revise(o, nil) },
	},
	"name": {
		func(c *call, o *op) error { return c.revise(o, &o.To) },
		func(w *world, o *op) string { return w.revise(o, &o.To) },
	},
	"drop": {
		func(c *call, o *op) (err error) {
			if o.Way%2 == 0 {
				is, failed := c.table.Delete(c.Tx, o.ID)
				err = o.told(number(is), failed)
			} else if is, failed := c.Exists("SELECT 1 FROM box WHERE id = ?", o.ID); failed == nil && is {
				err = c.write(o, o.Way/2, "DELETE FROM box WHERE id = ?", o.ID)
			} else {
				err = o.told(0, failed)
			}
			return c.changed(o, o.ID, store.Deleted, err)
		},
		func(w *world, o *op) string {
			if _, there := w.boxes[o.ID]; !there {
				return "none"
			}
			items := w.in(o.ID)
			if w.tied(items...) || w.atOnce && has(w.lates, o.ID) {
				return "referenced"
			}
			for _, id := range items {
				delete(w.items, id)
			}
			delete(w.boxes, o.ID)
			w.changed(o.ID, store.Deleted)
			return "done"
		},
	},

	// Items of boxes, which an event of the box tells of.
	"item": {
		func(c *call, o *op) error {
			var place any
			if o.N >= 0 {
				place = o.N
			}
			query := insertItem
			if o.Way == 3 {
				query += " ON CONFLICT DO NOTHING"
			}
			return c.touched(o, o.To, c.write(o, o.Way, query, o.ID, o.To, place))
		},
		func(w *world, o *op) string {
			may := w.insert(o.ID, o.To, o.N)
			if o.Way == 3 {
				may = strings.Replace(may, "duplicate", "none", 1)
			}
			return may
		},
	},
	"spare": {
		func(c *call, o *op) error {
			free, err := c.Spare("place", c.free)
			o.Have = "full"
			for i := 0; i < len(free) && err == nil && (i == 0 || o.Have == "duplicate"); i++ {
				o.N, _ = strconv.Atoi(free[i]) // it is one of ours
				err = c.write(o, o.Way, insertItem, o.ID, o.To, o.N)
			}
			return c.touched(o, o.To, err)
		},
		func(w *world, o *op) string {
			if o.Have != "full" {
				return w.insert(o.ID, o.To, o.N)
			}
			o.N += len(w.placed()) - places
			return "full"
		},
	},
	"tally": {
		func(c *call, o *op) (err error) {
			o.Used, o.Limit, err = c.Tally("item of "+o.To, "item", "box_limit", 1, func() (used, limit int, err error) {
				err = c.Row("SELECT (SELECT COUNT(*) FROM item WHERE box_id = ?), most FROM box_limit", []any{o.To}, &used, &limit)
				return used, limit, err
			})
			if o.Have = "full"; err == nil && o.Used < o.Limit {
				err = c.write(o, o.Way, insertItem, o.ID, o.To, nil)
			}
			return c.touched(o, o.To, err)
		},
		func(w *world, o *op) string {
			used := len(w.in(o.To))
			switch {
			case o.Limit != w.limit, o.Used < used, o.Used >= o.Limit && o.Used > used:
				return fmt.Sprintf("%d of %d", used, w.limit)
			case o.Used >= o.Limit:
				return "full"
			}
			return w.insert(o.ID, o.To, -1)
		},
	},
	"limit": {
		func(c *call, o *op) error { return c.Put("UPDATE box_limit SET most = ?", o.N) },
		func(w *world, o *op) string {
			w.limit = o.N
			return ""
		},
	},
	"remove": {
		func(c *call, o *op) error {
			var of string
			err := c.Row("SELECT box_id FROM item WHERE id = ?", []any{o.ID}, &of)
			if err != nil {
				return o.told(1, err)
			}
			return c.touched(o, of, c.write(o, o.Way, "DELETE FROM item WHERE id = ?", o.ID))
		},
		func(w *world, o *op) string {
			i, there := w.items[o.ID]
			switch {
			case !there:
				return "none"
			case w.tied(o.ID):
				return "referenced"
			}
			delete(w.items, o.ID)
			w.touch(i.box)
			return "done"
		},
	},
	"unplace": {
		func(c *call, o *op) error { return c.all(o, "UPDATE item SET place = NULL WHERE box_id = ?", o.ID) },
		func(w *world, o *op) string {
			items := w.in(o.ID)
			for _, id := range items {
				w.items[id] = item{o.ID, -1}
			}
			o.N = len(items)
			return ""
		},
	},

	// What refers to items, and what refers to boxes that may come later.
	"tie": {
		func(c *call, o *op) error {
			return c.write(o, o.Way, "INSERT INTO tie (id, item_id) VALUES (?, ?)", o.ID, o.To)
		},
		func(w *world, o *op) string {
			_, there := w.items[o.To]
			return refer(w.ties, o, there)
		},
	},
	"late": {
		func(c *call, o *op) error {
			return c.write(o, o.Way, "INSERT INTO late (id, box_id) VALUES (?, ?)", o.ID, o.To)
		},
		func(w *world, o *op) string { return refer(w.lates, o, true) },
	},
	"untie": {
		func(c *call, o *op) error { return c.write(o, o.Way, "DELETE FROM tie WHERE id = ?", o.ID) },
		func(w *world, o *op) string { return unrefer(w.ties, o) },
	},
	"unlate": {
		func(c *call, o *op) error { return c.write(o, o.Way, "DELETE FROM late WHERE id = ?", o.ID) },
		func(w *world, o *op) string { return unrefer(w.lates, o) },
	},

	// Marks, which nothing refers to.
	"mark": {
		func(c *call, o *op) error {
			otherwise := []string{"", "", " ON CONFLICT (id) DO UPDATE SET value = excluded.value", " ON CONFLICT DO NOTHING"}[o.Way]
			return c.write(o, o.Way, "INSERT INTO mark (id, value) VALUES (?, ?)"+otherwise, o.ID, o.N)
		},
		func(w *world, o *op) string {
			if _, there := w.marks[o.ID]; there && o.Way != 2 {
				return []string{"duplicate", "duplicate", "", "none"}[o.Way]
			}
			w.marks[o.ID] = o.N
			return "done"
		},
	},
	"two": {
		func(c *call, o *op) error {
			return c.write(o, o.Way, "INSERT INTO mark (id, value) VALUES (?, ?), (?, ?)", o.ID, o.N, o.To, o.N)
		},
		func(w *world, o *op) string {
			for _, id := range []string{o.ID, o.To} {
				if _, there := w.marks[id]; there {
					return "duplicate"
				}
			}
			w.marks[o.ID], w.marks[o.To] = o.N, o.N
			return "done"
		},
	},
	"many": {
		func(c *call, o *op) (err error) {
			for i := 0; i < o.N && err == nil; i++ {
				err = c.Put("INSERT INTO mark (id, value) VALUES (?, ?)", fmt.Sprintf("%s/%s/%d", c.by, o.ID, i), i)
			}
			return o.told(1, err)
		},
		func(w *world, o *op) string {
			for i := range o.N {
				w.marks[fmt.Sprintf("%s/%s/%d", w.by, o.ID, i)] = i
			}
			return "done"
		},
	},
	"sweep": {
		func(c *call, o *op) error { return c.all(o, "DELETE FROM mark") },
		func(w *world, o *op) string {
			o.N = len(w.marks)
			clear(w.marks)
			return ""
		},
	},
	"fail": {
		func(*call, *op) error { return errUndone },
		func(*world, *op) string { return "" },
	},
}

const insertItem = "INSERT INTO item (id, box_id, place) VALUES (?, ?, ?)"
