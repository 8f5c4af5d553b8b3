package store_test

import (
	"log/slog"
	"testing"

	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

// TestCost: what a transaction puts goes with its beginning, its events and the commit.
func TestCost(t *testing.T) {
	for kind, want := range map[string][2]int{storetest.PostgreSQL: {5, 1}, storetest.MariaDB: {4, 1}} {
		t.Run(kind, func(t *testing.T) {
			var last store.Cost
			s, err := store.Open(t.Context(), store.Options{Connection: storetest.NewOf(t, kind), Logger: slog.New(slog.DiscardHandler), Trace: func(c store.Cost) { last = c }})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { s.Close() })
			if err := s.Upgrade(t.Context(), things); err != nil {
				t.Fatal(err)
			}
			if err := s.Tx(t.Context(), func(tx *store.Tx) error {
				tx.Emit(store.Event{Kind: "thing", ID: "a", Op: store.Created})
				return tx.Put("INSERT INTO thing (id, name) VALUES ('a', 'a')")
			}); err != nil {
				t.Fatal(err)
			}
			if last.Statements != want[0] || last.RoundTrips != want[1] || last.Attempts != 1 || !last.Writable {
				t.Errorf("%+v, must be %v", last, want)
			}
		})
	}
}
