package store_test

import (
	"fmt"
	"slices"
	"testing"

	"isospin/internal/store"
)

// TestEnded: which objects have ended of those that were there is found out in
// pieces, however much else has happened and however many they are.
func TestEnded(t *testing.T) { each(t, testEnded) }

func testEnded(t *testing.T, connection string) {
	s := open(t, connection)
	emit := func(list ...store.Event) {
		t.Helper()
		if err := s.Tx(t.Context(), func(tx *store.Tx) error {
			for _, e := range list {
				tx.Emit(e)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	bed := func(op store.Op, id, room string) store.Event {
		return store.Event{Kind: "bed", ID: id, Op: op, Object: map[string]string{"id": id, "room_id": room}}
	}
	const there = 70
	var begin []store.Event
	for i := range there {
		begin = append(begin, bed(store.Created, fmt.Sprint("there", i), "mine"))
	}
	emit(begin...)
	var since int64
	if err := s.View(t.Context(), func(tx *store.Tx) (err error) { since, err = tx.LastSequence(); return err }); err != nil {
		t.Fatal(err)
	}
	// Much else: other kinds, others' beds, and beds that have come later.
	events := 0
	var want []string
	for round := range 10 {
		var list []store.Event
		for i := range 500 {
			id := fmt.Sprintf("%d.%d", round, i)
			list = append(list, store.Event{Kind: "chair", ID: "c" + id, Op: store.Deleted, Object: map[string]string{"room_id": "mine"}}, bed(store.Deleted, "other"+id, "theirs"))
		}
		for i := range there / 10 {
			id := fmt.Sprint("there", round*there/10+i)
			list, want = append(list, bed(store.Deleted, id, "mine")), append(want, id)
		}
		emit(list...)
		emit(bed(store.Created, fmt.Sprint("later", round), "mine"))
		emit(bed(store.Deleted, fmt.Sprint("later", round), "mine"))
		emit(bed(store.Created, fmt.Sprint("there", round), "mine")) // once more, under its former id
		emit(bed(store.Deleted, fmt.Sprint("there", round), "mine"))
		events += len(list) + 4
	}
	const limit = 20
	var got []string
	pages, rows := 0, 0
	for after, more := since, true; more; pages++ {
		var page []store.Event
		var next int64
		if err := s.View(t.Context(), func(tx *store.Tx) (err error) {
			page, next, err = tx.Ended("bed", "mine", since, after, limit)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if len(page) > limit || next != 0 && next <= after || pages > events {
			t.Fatalf("after %d there are %d events; it goes on after %d", after, len(page), next)
		}
		for _, e := range page {
			got = append(got, e.ID)
		}
		rows += len(page)
		after, more = next, next != 0
	}
	if !slices.Equal(got, want) {
		t.Errorf("ended have\n%v\nnot\n%v", got, want)
	}
	// Of 10,000 events no row is read that is not asked for, in pieces of 4096 or of the limit.
	if most := events/4096 + there/limit + 2; rows != there || pages > most || pages < 3 {
		t.Errorf("of %d events %d rows were read, in %d pieces; must be %d in no more than %d", events, rows, pages, there, most)
	}
}
