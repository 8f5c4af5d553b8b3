package store_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"isospin/internal/resource"
	"isospin/internal/store"
)

type row struct {
	ID     string  `db:"id"`
	Name   string  `db:"name"`
	Number *int    `db:"number"`
	Word   *string `db:"word"`
	tags   []string
}

var rowSchema = store.Schema{Module: "rows", Steps: [][]string{{
	`CREATE TABLE item (id VARCHAR(36) PRIMARY KEY, name VARCHAR(36) NOT NULL, number INTEGER, word VARCHAR(36))`,
	`CREATE TABLE tag (kind VARCHAR(64) NOT NULL, object_id VARCHAR(36) NOT NULL, tag VARCHAR(255) NOT NULL, PRIMARY KEY (object_id, kind, tag))`,
}}}

// compare is the order that a list must have: nulls first.
func (a *row) compare(b *row, keys []resource.SortKey) int {
	for _, k := range append(slices.Clone(keys), resource.SortKey{Attribute: "id"}) {
		c := 0
		switch k.Attribute {
		case "id":
			c = cmp.Compare(a.ID, b.ID)
		case "name":
			c = cmp.Compare(a.Name, b.Name)
		case "number":
			c = comparePointers(a.Number, b.Number)
		case "word":
			c = comparePointers(a.Word, b.Word)
		}
		if k.Desc {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

func comparePointers[T cmp.Ordered](a, b *T) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return -1
	case b == nil:
		return 1
	}
	return cmp.Compare(*a, *b)
}

// TestPages: pages forward and backward are the whole list, filtered and
// sorted, with every row once, whatever the keys, nulls and page sizes.
func TestPages(t *testing.T) { each(t, testPages) }

func testPages(t *testing.T, connection string) {
	table := store.NewTable[row]("item", store.TableOptions[row]{Kind: "item"})
	s := open(t, connection)
	if err := s.Upgrade(t.Context(), things, rowSchema); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SampledFrom([]string{"", "a", "b", "c", "B"})
		rows := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) *row {
			r := &row{Name: words.Draw(t, "name")}
			r.Number = rapid.Ptr(rapid.IntRange(0, 3), true).Draw(t, "number")
			r.Word = rapid.Ptr(words, true).Draw(t, "word")
			r.tags = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "z"}), 0, 3, rapid.ID[string]).Draw(t, "tags")
			return r
		}), 0, 14).Draw(t, "rows")
		if err := s.Tx(ctx, func(tx *store.Tx) error {
			for _, table := range []string{"item", "tag"} {
				if _, err := tx.Exec("DELETE FROM " + table); err != nil {
					return err
				}
			}
			for i, r := range rows {
				r.ID = fmt.Sprintf("%02d", (i*7)%100)
				if err := table.Insert(tx, r); err != nil {
					return err
				}
				if _, err := tx.Exec("INSERT INTO tag (kind, object_id, tag) VALUES ('other', ?, 'x') ON CONFLICT DO NOTHING", r.ID); err != nil {
					return err
				}
				for _, tag := range r.tags {
					if _, err := tx.Exec("INSERT INTO tag (kind, object_id, tag) VALUES ('item', ?, ?)", r.ID, tag); err != nil {
						return err
					}
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}

		var q resource.Query
		for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"id", "name", "number", "word"}), 0, 3, rapid.ID[string]).Draw(t, "keys") {
			q.Sort = append(q.Sort, resource.SortKey{Attribute: k, Desc: rapid.Bool().Draw(t, "desc")})
		}
		want := slices.Clone(rows)
		keep := func(f func(*row) bool) { want = slices.DeleteFunc(want, func(r *row) bool { return !f(r) }) }
		if rapid.Bool().Draw(t, "filtered") {
			values := rapid.SliceOfN(rapid.SampledFrom([]any{int64(0), int64(1), int64(2), nil}), 1, 3).Draw(t, "numbers")
			q.Filters = []resource.FilterBy{{Attribute: &resource.Attribute{Name: "number"}, Values: values}}
			keep(func(r *row) bool {
				return slices.ContainsFunc(values, func(v any) bool {
					if n, ok := v.(int64); ok {
						return r.Number != nil && int64(*r.Number) == n
					}
					return r.Number == nil
				})
			})
		}
		if rapid.Bool().Draw(t, "tagged") {
			c := resource.TagCondition{Any: rapid.Bool().Draw(t, "any"), Not: rapid.Bool().Draw(t, "not"),
				Tags: rapid.SliceOfN(rapid.SampledFrom([]string{"x", "y", "q"}), 1, 3).Draw(t, "wanted")}
			q.Tags = []resource.TagCondition{c}
			keep(func(r *row) bool {
				has := func(tag string) bool { return slices.Contains(r.tags, tag) }
				holds := slices.ContainsFunc(c.Tags, has)
				if !c.Any {
					holds = !slices.ContainsFunc(c.Tags, func(tag string) bool { return !has(tag) })
				}
				return holds != c.Not
			})
		}
		slices.SortFunc(want, func(a, b *row) int { return a.compare(b, q.Sort) })
		list := func(q resource.Query) (ids []string) {
			if err := s.View(ctx, func(tx *store.Tx) error {
				page, err := table.List(tx, &q, "")
				for _, r := range page {
					ids = append(ids, r.ID)
				}
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return ids
		}
		var ids []string
		for _, r := range want {
			ids = append(ids, r.ID)
		}
		q.Limit = rapid.IntRange(1, 5).Draw(t, "limit")
		for _, reverse := range []bool{false, true} {
			var all []string
			q.Marker, q.Reverse = "", reverse
			for range len(rows) + 2 {
				page := list(q)
				if len(page) == 0 {
					break
				}
				if reverse {
					all, q.Marker = append(slices.Clone(page), all...), page[0]
				} else {
					all, q.Marker = append(all, page...), page[len(page)-1]
				}
			}
			if !slices.Equal(all, ids) {
				t.Fatalf("pages (reverse: %v) are %v, the list is %v", reverse, all, ids)
			}
		}
	})
}
