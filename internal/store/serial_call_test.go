package store_test

import (
	"errors"
	"fmt"
	"strconv"

	"isospin/internal/store"
)

// call is what an op has of the store: the transaction, whose id is by.
type call struct {
	*store.Tx
	*program
	by string
}

// all is Exec; what is told is how many rows there were.
func (c *call) all(o *op, query string, args ...any) error {
	n, err := c.Exec(query, args...)
	o.N = int(n)
	return err
}

// write is Put or Exec.
func (c *call) write(o *op, way int, query string, args ...any) error {
	if way%2 == 0 {
		return o.told(1, c.Put(query, args...))
	}
	return o.told(c.Exec(query, args...))
}

// changed emits an event of the box, if that is done.
func (c *call) changed(o *op, id string, what store.Op, err error) error {
	if err == nil && o.Have == "done" {
		c.Emit(store.Event{Kind: "box", ID: id, Op: what, RequestID: c.by})
	}
	return err
}

// touched is for a box of which something else has changed.
func (c *call) touched(o *op, id string, err error) error {
	if c.changed(o, id, store.Updated, err) == nil && o.Have == "done" {
		err = c.Put("UPDATE box SET revision_number = revision_number + 1, updated_at = ? WHERE id = ?", c.by, id)
	}
	return err
}

// revise counts the value of a box up, and may give it a name.
func (c *call) revise(o *op, name *string) error {
	var err error
	if o.Way%2 == 0 {
		b, failed := c.table.Get(c.Tx, o.ID)
		if failed == nil {
			o.N = int(b.Value)
			b.Revision, b.UpdatedAt, b.Value = b.Revision+1, c.by, b.Value+1
			if name != nil {
				b.Name = name
			}
			failed = c.table.Update(c.Tx, b)
		}
		err = o.told(1, failed)
	} else if failed := c.Row("SELECT value FROM box WHERE id = ?", []any{o.ID}, &o.N); failed != nil {
		err = o.told(1, failed)
	} else {
		query, args := "UPDATE box SET revision_number = revision_number + 1, updated_at = ?, value = ?", []any{c.by, o.N + 1}
		if name != nil {
			query, args = query+", name = ?", append(args, *name)
		}
		err = c.write(o, o.Way/2, query+" WHERE id = ?", append(args, o.ID)...)
	}
	return c.changed(o, o.ID, store.Updated, err)
}

// free finds places that no item has.
func (c *call) free(n int) (free []string, err error) {
	used := map[int]bool{}
	err = c.Query(func(scan func(...any) error) error {
		var at int
		err := scan(&at)
		used[at] = true
		return err
	}, "SELECT place FROM item WHERE place IS NOT NULL")
	for at := 0; at < places && len(free) < n; at++ {
		if !used[at] {
			free = append(free, strconv.Itoa(at))
		}
	}
	return free, err
}

// pairs tells of a query's rows.
func pairs[V any](c *call, o *op, query string) error {
	list := []string{}
	err := c.Query(func(scan func(...any) error) error {
		var id string
		var value V
		err := scan(&id, &value)
		list = append(list, fmt.Sprint(id, ":", value))
		return err
	}, query)
	o.Have = fmt.Sprint(list)
	return err
}

// number of rows.
func number(is bool) int64 {
	if is {
		return 1
	}
	return 0
}

// told is of a statement that constraints may refuse.
func (o *op) told(n int64, err error) error {
	switch {
	case errors.Is(err, store.ErrDuplicate):
		o.Have = "duplicate"
	case errors.Is(err, store.ErrReferenced):
		o.Have = "referenced"
	case errors.Is(err, store.ErrNoRow) || err == nil && n == 0:
		o.Have = "none"
	default:
		o.Have = "done"
		return err
	}
	return nil
}

// seen is told of a box.
func (o *op) seen(b *box, err error) error {
	if err = o.told(1, err); err == nil && o.Have == "done" {
		o.Have = b.text()
	}
	return err
}
