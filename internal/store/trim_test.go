package store_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"isospin/internal/store"
)

// TestTrim: what is older than a time goes, and the floor says up to where; of
// some kinds the last state of what is still there stays. What was done by
// whom is kept, and found by object.
func TestTrim(t *testing.T) { each(t, testTrim) }

func testTrim(t *testing.T, connection string) {
	s := open(t, connection)
	if err := s.Upgrade(t.Context(), things); err != nil {
		t.Fatal(err)
	}
	at := int64(0)
	write := func(kind, id string, op store.Op) {
		t.Helper()
		at++
		if err := s.Tx(t.Context(), func(tx *store.Tx) error {
			tx.Emit(store.Event{Kind: kind, ID: id, Op: op, Revision: at, UserID: "u", UserProject: "p", At: at, Object: at})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range []struct {
		kind, id string
		op       store.Op
	}{
		{"kept", "a", store.Created}, {"kept", "a", store.Updated}, {"kept", "b", store.Created}, {"plain", "a", store.Created}, {"kept", "b", store.Deleted},
		{"kept", "c", store.Created}, {"plain", "a", store.Updated}, {"kept", "c", store.Updated}, {"plain", "d", store.Created},
	} {
		write(e.kind, e.id, e.op)
	}
	view := func() (have []string, floor int64, sequences []int64) {
		t.Helper()
		if err := s.View(t.Context(), func(tx *store.Tx) (err error) {
			events, err := tx.Events(0, 100)
			if err != nil {
				return err
			}
			have, sequences = nil, nil
			for _, e := range events {
				if e.UserID != "u" || e.UserProject != "p" {
					t.Errorf("event %+v", e)
				}
				have, sequences = append(have, fmt.Sprintf("%s %s %d", e.Kind, e.ID, e.Revision)), append(sequences, e.Sequence)
			}
			floor, err = tx.Floor()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return have, floor, sequences
	}
	all, floor, sequences := view()
	if len(all) != 9 || floor >= sequences[0] {
		t.Fatalf("%v, floor %d, sequences %v", all, floor, sequences)
	}
	if err := s.View(t.Context(), func(tx *store.Tx) error {
		of, err := tx.EventsOf("kept", "a", 0, 10)
		if err != nil || len(of) != 2 || of[0].Sequence != sequences[0] || of[1].Sequence != sequences[1] {
			t.Errorf("events of a: %v, %v", of, err)
		}
		if of, err = tx.EventsOf("kept", "a", sequences[0], 1); err != nil || len(of) != 1 || of[0].Op != store.Updated {
			t.Errorf("events of a after the first: %v, %v", of, err)
		}
		before, err := tx.EventBefore("kept", "a", sequences[8])
		if err != nil || before.Sequence != sequences[1] {
			t.Errorf("before: %v, %v", before, err)
		}
		if _, err := tx.EventBefore("kept", "a", sequences[0]); !errors.Is(err, store.ErrNoRow) {
			t.Errorf("before the first: %v", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, trim := range []struct {
		before int64
		limit  int
		more   bool
		floor  int
		want   []string
	}{
		{7, 4, true, 3, []string{"kept a 2", "kept b 3", "kept b 5", "kept c 6", "plain a 7", "kept c 8", "plain d 9"}},
		{7, 4, false, 5, []string{"kept a 2", "kept c 6", "plain a 7", "kept c 8", "plain d 9"}},
		{7, 4, false, 5, []string{"kept a 2", "kept c 6", "plain a 7", "kept c 8", "plain d 9"}},
		{100, 1, true, 6, []string{"kept a 2", "kept c 6", "kept c 8", "plain d 9"}},
		{100, 1, true, 7, []string{"kept a 2", "kept c 8", "plain d 9"}},
		{100, 1, false, 7, []string{"kept a 2", "kept c 8", "plain d 9"}},
	} {
		if err := s.Tx(t.Context(), func(tx *store.Tx) error {
			more, err := tx.TrimEvents(trim.before, trim.limit, "kept", "other")
			if more != trim.more {
				t.Errorf("older than %d: there is more: %v; want %v", trim.before, more, trim.more)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		have, floor, _ := view()
		if !slices.Equal(have, trim.want) || floor != sequences[trim.floor] {
			t.Errorf("older than %d: %v, floor %d; want %v, %d", trim.before, have, floor, trim.want, sequences[trim.floor])
		}
	}
}
