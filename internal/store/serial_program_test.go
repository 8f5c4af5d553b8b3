package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"

	"isospin/internal/resource"
	"isospin/internal/store"
)

var boxes = store.Schema{Module: "box", Steps: [][]string{{
	`CREATE TABLE box (id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(36) NOT NULL, description VARCHAR(255) NOT NULL, revision_number BIGINT NOT NULL,
		created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL, name VARCHAR(36) UNIQUE, value BIGINT NOT NULL)`,
	`CREATE TABLE item (id VARCHAR(36) PRIMARY KEY, box_id VARCHAR(36) NOT NULL REFERENCES box (id) ON DELETE CASCADE, place BIGINT UNIQUE)`,
	`CREATE TABLE tie (id VARCHAR(36) PRIMARY KEY, item_id VARCHAR(36) NOT NULL REFERENCES item (id))`,
	`CREATE TABLE late (id VARCHAR(36) PRIMARY KEY, box_id VARCHAR(36) NOT NULL REFERENCES box (id) DEFERRABLE INITIALLY DEFERRED)`,
	`CREATE TABLE mark (id VARCHAR(36) PRIMARY KEY, value BIGINT NOT NULL)`,
	`CREATE TABLE box_limit (id BIGINT PRIMARY KEY, most BIGINT NOT NULL)`,
	`INSERT INTO box_limit (id, most) VALUES (1, 5)`,
}}}

const (
	places     = 12
	firstLimit = 5
)

type box struct {
	resource.Standard
	Name  *string  `db:"name"`
	Value int64    `db:"value"`
	Items []string // of table item, in order
}

func (b *box) text() string {
	name := "nameless"
	if b.Name != nil {
		name = *b.Name
	}
	return fmt.Sprintf("%s %s %d, %d by %s %v", b.ID, name, b.Value, b.Revision, b.UpdatedAt, b.Items)
}

// program is one of those that use the database, with boxes in its memory.
type program struct {
	*store.Store
	table  *store.Table[box]
	mu     sync.Mutex
	memory map[string]*box
}

func newProgram(t *testing.T, connection string) *program {
	s, err := store.Open(t.Context(), store.Options{Connection: connection, Logger: slog.New(slog.DiscardHandler), Pool: store.Pool{Repeats: 1000}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Upgrade(t.Context(), boxes); err != nil {
		t.Fatal(err)
	}
	p := &program{Store: s, memory: map[string]*box{}}
	p.table = store.NewTable("box", store.TableOptions[box]{Children: []func(*store.Tx, []*box) error{func(tx *store.Tx, rows []*box) error {
		by := map[string]*box{}
		var ids []string
		for _, o := range rows {
			by[o.ID] = o
			ids = append(ids, o.ID)
		}
		return store.Gather(tx, "SELECT box_id, id FROM item WHERE %s ORDER BY box_id, id", "box_id", ids, func(scan func(...any) error) error {
			var box, id string
			err := scan(&box, &id)
			by[box].Items = append(by[box].Items, id)
			return err
		})
	}}})
	p.table.Recall(func(ids []string) []*box {
		p.mu.Lock()
		defer p.mu.Unlock()
		list := make([]*box, len(ids))
		for i, id := range ids {
			list[i] = p.memory[id]
		}
		return list
	})
	return p
}

// record is all that one transaction did, in its last run. Those that write
// emit it: the order of these events is that in which the model repeats them.
type record struct {
	ID  string
	Ops []op
	// begun and ended are times before and after it; failed: it has left nothing.
	begun, ended int64
	writes, view bool
	failed       error
	// own is what its closure returned.
	own error
}

var errUndone = errors.New("it ends with an error")

// do carries out an op of the transaction by.
func (p *program) do(tx *store.Tx, by string, o *op) error {
	o.Have = ""
	operation, ok := operations[o.Do]
	if !ok {
		return fmt.Errorf("there is no op %q", o.Do)
	}
	return operation.store(&call{tx, p, by}, o)
}

// change is a transaction that writes, or may; strict: it ends at the first refusal.
func (p *program) change(t *testing.T, r *rand.Rand, now func() int64, id string, calm bool) *record {
	c := &record{ID: id, writes: r.IntN(5) > 0}
	ops, strict, hangUp := plan(r, c.writes, calm), r.IntN(3) == 0, r.IntN(20) == 0
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.begun = now()
	c.failed = p.Tx(ctx, func(tx *store.Tx) error {
		c.Ops, c.own = nil, nil
		if c.writes {
			tx.Emit(store.Event{Kind: "tx", ID: id, Op: store.Created, RequestID: id, Object: c})
		}
		for _, o := range ops {
			err := p.do(tx, id, &o)
			if c.Ops = append(c.Ops, o); err == nil && strict && (o.Have == "duplicate" || o.Have == "referenced") {
				err = errUndone
			}
			if err != nil {
				c.own = err
				return err
			}
		}
		if hangUp { // should it have to be run again, nobody waits for it
			cancel()
		}
		return nil
	})
	c.ended = now()
	switch {
	case c.failed == nil && c.own == nil, errors.Is(c.failed, context.Canceled) && hangUp:
	case c.own == nil && errors.Is(c.failed, store.ErrReferenced): // at its commit
	case errors.Is(c.own, errUndone) && errors.Is(c.failed, errUndone):
	default:
		t.Errorf("%s: %v, its closure: %v\n%+v", id, c.failed, c.own, c.Ops)
	}
	return c
}

// read is a transaction that only reads. One of them fills the memory.
func (p *program) read(t *testing.T, r *rand.Rand, now func() int64, id string, _ bool) *record {
	c := &record{ID: id, view: true}
	ops := plan(r, false, false)
	ops = ops[:min(len(ops), 1+r.IntN(3))]
	view, fill := p.View, r.IntN(4) == 0
	if r.IntN(2) == 0 {
		view = p.ViewAtOnce
	}
	var list []*box
	c.begun = now()
	if err := view(context.Background(), func(tx *store.Tx) (err error) {
		c.Ops, list = nil, nil
		if fill {
			list, err = p.table.Select(tx, "")
		}
		for _, o := range ops {
			err = errors.Join(err, p.do(tx, id, &o))
			c.Ops = append(c.Ops, o)
		}
		return err
	}); err != nil {
		t.Errorf("%s: %v\n%+v", id, err, c.Ops)
	}
	c.ended = now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range list {
		p.memory[b.ID] = b
	}
	return c
}
