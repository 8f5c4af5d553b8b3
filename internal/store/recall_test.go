package store_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"isospin/internal/resource"
	"isospin/internal/store"
)

type kept struct {
	resource.Standard
	Name  string         `json:"name" db:"name"`
	Slots resource.Slots `json:"slots" db:"slots,json"`
	// Owner is read of another table.
	Owner *string  `json:"-"`
	Parts []string `json:"parts"`
}

var keptSchema = store.Schema{Module: "kept", Steps: [][]string{{
	`CREATE TABLE kept (id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(36) NOT NULL, description VARCHAR(255) NOT NULL, revision_number BIGINT NOT NULL,
		created_at VARCHAR(32) NOT NULL, updated_at VARCHAR(32) NOT NULL, name VARCHAR(255) NOT NULL, slots TEXT NOT NULL)`,
	`CREATE TABLE kept_part (kept_id VARCHAR(36) NOT NULL, name VARCHAR(255) NOT NULL, PRIMARY KEY (kept_id, name))`,
	`CREATE TABLE kept_owner (project_id VARCHAR(36) PRIMARY KEY, name VARCHAR(36) NOT NULL)`,
}}}

// keptTable has its objects in a memory that tests fill.
func keptTable(memory map[string]*kept) *store.Table[kept] {
	table := store.NewTable[kept]("kept", store.TableOptions[kept]{Children: []func(*store.Tx, []*kept) error{func(tx *store.Tx, rows []*kept) error {
		by := map[string]*kept{}
		var ids []string
		for _, o := range rows {
			by[o.ID] = o
			ids = append(ids, o.ID)
		}
		return store.Gather(tx, "SELECT kept_id, name FROM kept_part WHERE %s ORDER BY kept_id, name", "kept_id", ids, func(scan func(...any) error) error {
			var id, name string
			err := scan(&id, &name)
			by[id].Parts = append(by[id].Parts, name)
			return err
		})
	}}})
	table.Derive("o.name", "LEFT JOIN kept_owner o ON o.project_id = t.project_id", func(o *kept, owner *string) { o.Owner = owner })
	table.Recall(func(ids []string) []*kept {
		found := make([]*kept, len(ids))
		for i, id := range ids {
			found[i] = memory[id]
		}
		return found
	})
	return table
}

// TestRecall: what is shown is what is stored, whatever is in memory, and
// comes from there if that has the same revision and time.
func TestRecall(t *testing.T) { each(t, testRecall) }

func testRecall(t *testing.T, connection string) {
	s := open(t, connection)
	if err := s.Upgrade(t.Context(), keptSchema); err != nil {
		t.Fatal(err)
	}
	memory := map[string]*kept{}
	table := keptTable(memory)
	const n = 2500 // more than are asked for at once
	project := func(i int) string { return string("pq"[i%2]) }
	id := func(i int) string { return fmt.Sprintf(`it's "%04d\, {NULL}`, i) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.Tx(t.Context(), func(tx *store.Tx) error {
		for i := range n {
			o := &kept{Standard: resource.Standard{ID: id(i), ProjectID: project(i), Revision: int64(i), CreatedAt: "then", UpdatedAt: "now"}, Name: "stored", Slots: resource.Slots{"a": []byte(`1`)}}
			if err := errors.Join(table.Insert(tx, o), tx.Put("INSERT INTO kept_part (kept_id, name) VALUES (?, ?)", o.ID, "part")); err != nil {
				return err
			}
		}
		return tx.Put("INSERT INTO kept_owner (project_id, name) VALUES ('p', ''), ('q', '')")
	}))
	// One object in memory tells by its name that it comes from there.
	known := func(i int, change func(*kept)) {
		o := &kept{Standard: resource.Standard{ID: id(i), ProjectID: project(i), Revision: int64(i), CreatedAt: "then", UpdatedAt: "now"}, Name: "in memory", Slots: resource.Slots{"a": []byte(`1`)}, Parts: []string{"part"}}
		change(o)
		memory[o.ID] = o
	}
	for i := range n {
		switch i % 5 {
		case 0, 1:
			known(i, func(*kept) {})
		case 2:
			known(i, func(o *kept) { o.Revision++ })
		case 3:
			known(i, func(o *kept) { o.UpdatedAt = "later" })
		}
	}
	before := text(memory)
	check := func(o *kept, i int, owner string) {
		t.Helper()
		owner += project(i)
		want := &kept{Standard: resource.Standard{ID: id(i), ProjectID: project(i), Revision: int64(i), CreatedAt: "then", UpdatedAt: "now"}, Name: "stored", Slots: resource.Slots{"a": []byte(`1`)}, Owner: &owner, Parts: []string{"part"}}
		if i%5 < 2 {
			want.Name = "in memory"
		}
		if !reflect.DeepEqual(o, want) {
			t.Fatalf("%d: %+v, not %+v", i, o, want)
		}
		o.Slots["b"] = []byte(`2`) // as what is shown with it
	}
	list := func(owner string) {
		t.Helper()
		var rows []*kept
		must(s.View(t.Context(), func(tx *store.Tx) (err error) {
			rows, err = table.List(tx, &resource.Query{Sort: []resource.SortKey{{Attribute: "id", Desc: true}}}, "t.project_id IN (?, 'q')", "p")
			return err
		}))
		if len(rows) != n {
			t.Fatalf("%d rows", len(rows))
		}
		for i, o := range slices.Backward(rows) {
			check(o, n-1-i, owner)
		}
	}
	show := func(id string, condition string, args ...any) (o *kept, err error) {
		err = s.ViewAtOnce(t.Context(), func(tx *store.Tx) (err error) {
			o, err = table.Show(tx, id, condition, args...)
			return err
		})
		return o, err
	}
	for _, owner := range []string{"first", "second"} { // derived, it needs no revision
		must(s.Tx(t.Context(), func(tx *store.Tx) error { return tx.Put("UPDATE kept_owner SET name = ? || project_id", owner) }))
		list(owner)
		for i := range 10 {
			o, err := show(id(i), "t.project_id = ?", project(i))
			must(err)
			check(o, i, owner)
		}
	}
	if after := text(memory); after != before {
		t.Error("what is in memory has changed")
	}
	for i := range 5 {
		if _, err := show(id(i), "t.project_id = ?", "another"); !errors.Is(err, store.ErrNoRow) {
			t.Errorf("%d: an object that the caller may not see: %v", i, err)
		}
	}
	// Who writes reads what is stored.
	must(s.Tx(t.Context(), func(tx *store.Tx) error {
		o, err := table.Show(tx, id(0), "")
		if err == nil && o.Name != "stored" {
			err = fmt.Errorf("%+v", o)
		}
		return err
	}))
	must(s.Tx(t.Context(), func(tx *store.Tx) error { return tx.Put("DELETE FROM kept") }))
	for i := range 5 {
		if _, err := show(id(i), ""); !errors.Is(err, store.ErrNoRow) {
			t.Errorf("%d: an object that is deleted: %v", i, err)
		}
	}
}

func text(memory map[string]*kept) string {
	var b strings.Builder
	for _, o := range memory {
		fmt.Fprintf(&b, "%v", *o)
	}
	lines := strings.Split(b.String(), "{{")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestCompareRecalled: an object in memory that is not as it is stored is found.
func TestCompareRecalled(t *testing.T) { each(t, testCompareRecalled) }

func testCompareRecalled(t *testing.T, connection string) {
	s := open(t, connection)
	if err := s.Upgrade(t.Context(), keptSchema); err != nil {
		t.Fatal(err)
	}
	memory := map[string]*kept{"a": {Standard: resource.Standard{ID: "a"}, Name: "as it is stored", Parts: []string{}}}
	table := keptTable(memory)
	table.CompareRecalled()
	list := func() error {
		return s.View(t.Context(), func(tx *store.Tx) error {
			_, err := table.List(tx, &resource.Query{}, "")
			return err
		})
	}
	show := func() error {
		return s.View(t.Context(), func(tx *store.Tx) error {
			_, err := table.Show(tx, "a", "")
			return err
		})
	}
	if err := s.Tx(t.Context(), func(tx *store.Tx) error { return table.Insert(tx, memory["a"]) }); err != nil {
		t.Fatal(err)
	}
	for _, read := range []func() error{list, show} {
		if err := read(); err != nil {
			t.Error(err)
		}
	}
	memory["a"].Parts = []string{"b"}
	for _, read := range []func() error{list, show} {
		if err := read(); err == nil || !strings.Contains(err.Error(), "differs from what is stored") {
			t.Errorf("%v", err)
		}
	}
}
