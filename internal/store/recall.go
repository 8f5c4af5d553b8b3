package store

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"isospin/internal/resource"
)

// Recall lets List and Show take objects from memory instead of reading their
// rows and children. recall returns, in the order of ids, objects as events
// have them; nil: it has none. They may be old: of each row its revision, its
// time of change and what is derived are read, and an object that differs in
// the former two is not taken. It is called before the table is first used.
func (t *Table[T]) Recall(recall func(ids []string) []*T) { t.recall = recall }

// CompareRecalled makes List and Show read also what is recalled, and fail if
// it is not as it is stored. For tests.
func (t *Table[T]) CompareRecalled() { t.compare = true }

// head is what is read of a row whose object may be in memory.
type head struct {
	id, updated string
	revision    int64
	derived     []*string
}

// heads reads those of the rows of a query.
func (t *Table[T]) heads(tx *Tx, rest string, args ...any) ([]head, error) {
	var list []head
	var h head
	var id, updated cell
	var values []*string
	dest := []any{&id, &h.revision, &updated}
	for range t.derived {
		values = append(values, nil)
	}
	for i := range values {
		dest = append(dest, &values[i])
	}
	text := column{kind: reflect.TypeFor[string]()}
	id.c, updated.c = &text, &text
	id.f, updated.f = reflect.ValueOf(&h.id).Elem(), reflect.ValueOf(&h.updated).Elem()
	err := tx.Query(func(scan func(...any) error) error {
		if err := scan(dest...); err != nil {
			return err
		}
		h.derived = slices.Clone(values)
		list = append(list, h)
		return nil
	}, t.selectHead+" "+rest, args...)
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", t.name, err)
	}
	return list, nil
}

// of tells whether an object in memory is the one that is stored.
func (h *head) of(s *resource.Standard) bool {
	return s.Revision == h.revision && s.UpdatedAt == h.updated
}

// Show is Find for what is only shown: the object may come from memory, and only its Slots may be changed.
func (t *Table[T]) Show(tx *Tx, id, condition string, args ...any) (*T, error) {
	if t.recall == nil || tx.writable || tx.anew {
		return t.Find(tx, id, condition, args...)
	}
	known := t.recall([]string{id})[0]
	if known == nil {
		return t.Find(tx, id, condition, args...)
	}
	rest := "WHERE t.id = ?"
	if condition != "" {
		rest += " AND (" + condition + ")"
	}
	heads, err := t.heads(tx, rest, append([]any{id}, args...)...)
	if err != nil {
		return nil, err
	}
	if len(heads) == 0 {
		return nil, ErrNoRow
	}
	if !heads[0].of(standardOf(known)) {
		return t.Find(tx, id, condition, args...)
	}
	o := t.shown(known, heads[0])
	if t.compare {
		return o, t.compared(tx, []*T{o})
	}
	return o, nil
}

// selectShown is Select for what is only shown.
func (t *Table[T]) selectShown(tx *Tx, rest string, args ...any) ([]*T, error) {
	if t.recall == nil || tx.writable {
		return t.Select(tx, rest, args...)
	}
	heads, err := t.heads(tx, rest, args...)
	if err != nil || len(heads) == 0 {
		return nil, err
	}
	ids := make([]string, len(heads))
	for i := range heads {
		ids[i] = heads[i].id
	}
	rows := t.recall(ids)
	var missing []string
	at := map[string]int{}
	var recalled []*T
	for i, o := range rows {
		if o != nil && heads[i].of(standardOf(o)) {
			rows[i] = t.shown(o, heads[i])
			recalled = append(recalled, rows[i])
			continue
		}
		at[ids[i]] = i
		missing = append(missing, ids[i])
	}
	if t.compare {
		if err := t.compared(tx, recalled); err != nil {
			return nil, err
		}
	}
	for some := range slices.Chunk(missing, chunk) {
		in, values := tx.dialect.among("t.id", some)
		read, err := t.Select(tx, "WHERE "+in, values...)
		if err != nil {
			return nil, err
		}
		for _, o := range read {
			rows[at[standardOf(o).ID]] = o
		}
	}
	return rows, nil
}

// shown is an object of memory with what is derived, to be filled in by those who show it.
func (t *Table[T]) shown(known *T, h head) *T {
	o := *known
	v := reflect.ValueOf(&o).Elem()
	for _, index := range t.slots {
		s := v.FieldByIndex(index).Addr().Interface().(*resource.Slots)
		*s = maps.Clone(*s)
	}
	for i, set := range t.derived {
		set(&o, h.derived[i])
	}
	return &o
}

// text is an object as JSON in which an empty list is null.
func text(o any) string {
	b, err := json.Marshal(o)
	if err != nil {
		return err.Error()
	}
	return strings.ReplaceAll(string(b), ":[]", ":null")
}

// compared fails if objects are not as they are stored.
func (t *Table[T]) compared(tx *Tx, list []*T) error {
	for _, o := range list {
		stored, err := t.Get(tx, standardOf(o).ID)
		if err != nil {
			return err
		}
		have, want := text(o), text(stored)
		if have != want {
			return fmt.Errorf("table %s: what is in memory differs from what is stored:\n%s\n%s", t.name, have, want)
		}
	}
	return nil
}

func standardOf[T any](o *T) *resource.Standard { return any(o).(resource.Based).Base() }
