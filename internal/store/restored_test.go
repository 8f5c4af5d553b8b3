package store_test

import (
	"context"
	"slices"
	"testing"

	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

// TestRestoredElsewhere: a dump that is loaded into another PostgreSQL server,
// whose transactions have lower numbers, goes on after its own events.
func TestRestoredElsewhere(t *testing.T) {
	connection := storetest.NewOf(t, storetest.PostgreSQL)
	s := open(t, connection)
	if err := s.Tx(t.Context(), add("a")); err != nil {
		t.Fatal(err)
	}
	// As if they were of a server that has seen many more transactions.
	if err := s.Tx(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec("UPDATE event SET seq = seq + ?", int64(1)<<50)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var before int64
	last := func(s *store.Store) (n int64) {
		t.Helper()
		if err := s.View(context.Background(), func(tx *store.Tx) (err error) {
			n, err = tx.LastSequence()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before = last(s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, connection)
	if err := s.Tx(t.Context(), add("b")); err != nil {
		t.Fatal(err)
	}
	if after := last(s); after <= before {
		t.Errorf("the next event has number %d, after %d", after, before)
	}
	if _, events := stored(t, s); !slices.Equal(events, []string{"a", "b"}) {
		t.Errorf("events in order: %v", events)
	}
}
