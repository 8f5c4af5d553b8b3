package store_test

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

// TestForesee: what several closures ask one after the other is asked in as
// many round trips as the one that asks most, and answered as without.
func TestForesee(t *testing.T) { each(t, testForesee) }

func testForesee(t *testing.T, connection string) {
	var last store.Cost
	s, err := store.Open(t.Context(), store.Options{Connection: connection, Logger: slog.New(slog.DiscardHandler), Trace: func(c store.Cost) {
		if c.Writable {
			last = c
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Upgrade(t.Context(), limited); err != nil {
		t.Fatal(err)
	}
	const n = 100
	if err := s.Tx(t.Context(), func(tx *store.Tx) error {
		for i := range n {
			if err := tx.Put("INSERT INTO occupant (id, project_id, place) VALUES (?, ?, ?)", fmt.Sprint(i), fmt.Sprint("p", i%2), i); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var answers []string
	// Closures of all kinds: what they ask next depends on what they were answered, what
	// they have written, and what those before them have.
	closures := []func(tx *store.Tx) error{
		func(tx *store.Tx) error { // two questions, the second of the answer to the first
			var project string
			var count int
			if err := errors.Join(tx.Row("SELECT project_id FROM occupant WHERE id = ?", []any{"7"}, &project),
				tx.Row("SELECT COUNT(*) FROM occupant WHERE project_id = ?", []any{project}, &count)); err != nil {
				return err
			}
			answers = append(answers, fmt.Sprint(project, count))
			return nil
		},
		func(tx *store.Tx) error { // more rows than are remembered
			var all []int
			err := tx.Query(func(scan func(...any) error) error {
				var place int
				err := scan(&place)
				all = append(all, place)
				return err
			}, "SELECT place FROM occupant ORDER BY place")
			answers = append(answers, fmt.Sprint(all))
			return err
		},
		func(tx *store.Tx) error { // an answer that its own writing changes
			if err := tx.Put("UPDATE occupant SET place = ? WHERE id = ?", 1000, "1"); err != nil {
				return err
			}
			var place int
			err := tx.Row("SELECT place FROM occupant WHERE id = ?", []any{"1"}, &place)
			answers = append(answers, fmt.Sprint(place))
			return err
		},
		func(tx *store.Tx) error { // and that of the one before it
			var place int
			err := tx.Row("SELECT MAX(place) FROM occupant WHERE id <> ?", []any{"nobody"}, &place)
			answers = append(answers, fmt.Sprint(place))
			return err
		},
		func(tx *store.Tx) error { // an error
			err := tx.Row("SELECT place FROM occupant WHERE id = ?", []any{"nobody"}, new(int))
			answers = append(answers, fmt.Sprint(err))
			return nil
		},
		func(tx *store.Tx) error { // what is not written twice
			n, err := tx.Exec("INSERT INTO occupant (id, project_id, place) VALUES ('new', 'p', 2000)")
			answers = append(answers, fmt.Sprint(n))
			return err
		},
	}
	errUndo := errors.New("undo")
	for range 3 {
		for _, foresee := range []bool{false, true} {
			answers = nil
			if err := s.Tx(t.Context(), func(tx *store.Tx) error {
				if foresee {
					if err := tx.Foresee(closures...); err != nil {
						return err
					}
				}
				answers = nil
				for _, do := range closures {
					if err := do(tx); err != nil {
						return err
					}
				}
				return errUndo
			}); !errors.Is(err, errUndo) {
				t.Fatal(err)
			}
			all := make([]int, n)
			for i := range all {
				all[i] = i
			}
			if want := []string{"p150", fmt.Sprint(all), "1000", "1000", "no row", "1"}; !slices.Equal(answers, want) {
				t.Fatalf("foreseen %v: %v, not %v", foresee, answers, want)
			}
		}
	}
	if strings.HasPrefix(connection, storetest.SQLite) {
		return
	}
	// Six closures with one question each, that nobody has asked before.
	for number, want := range []int{7, 2} {
		var questions []func(tx *store.Tx) error
		for i := range 6 {
			questions = append(questions, func(tx *store.Tx) error {
				return tx.Row("SELECT place FROM occupant WHERE id = ?", []any{fmt.Sprint(10 + 10*number + i)}, new(int))
			})
		}
		if err := s.Tx(t.Context(), func(tx *store.Tx) error {
			if number > 0 {
				if err := tx.Foresee(questions...); err != nil {
					return err
				}
			}
			for _, do := range questions {
				if err := do(tx); err != nil {
					return err
				}
			}
			return tx.Put("UPDATE occupant SET place = 3000 WHERE id = '0'")
		}); err != nil {
			t.Fatal(err)
		}
		if last.RoundTrips != want {
			t.Errorf("%d round trips, not %d", last.RoundTrips, want)
		}
	}
}
