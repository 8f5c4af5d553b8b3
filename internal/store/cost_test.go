package store_test

import (
	"log/slog"
	"testing"

	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

// TestCost: the beginning of a transaction goes with its first statement, and its events with the commit.
func TestCost(t *testing.T) {
	for kind, want := range map[string][2]int{storetest.PostgreSQL: {3, 2}, storetest.MariaDB: {4, 4}} {
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
			if err := s.Tx(t.Context(), add("a")); err != nil {
				t.Fatal(err)
			}
			if last.Statements != want[0] || last.RoundTrips != want[1] || last.Attempts != 1 || !last.Writable {
				t.Errorf("%+v, must be %v", last, want)
			}
		})
	}
}
