package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"isospin/internal/store"
)

var families = store.Schema{Module: "family", Steps: [][]string{{
	`CREATE TABLE parent (id VARCHAR(36) PRIMARY KEY, name VARCHAR(36) UNIQUE, value BIGINT NOT NULL)`,
	`CREATE TABLE child (id VARCHAR(36) PRIMARY KEY, parent_id VARCHAR(36) NOT NULL REFERENCES parent (id) ON DELETE CASCADE)`,
	`INSERT INTO parent (id, name, value) VALUES ('a', 'a', 1)`, `INSERT INTO child (id, parent_id) VALUES ('c', 'a')`,
}}}

// TestRemembers: what a writing transaction reads is what was committed last,
// whoever has committed it, and what it has itself written; nothing stays of
// what was undone.
func TestRemembers(t *testing.T) { each(t, testRemembers) }

func testRemembers(t *testing.T, connection string) {
	var ours, theirs *store.Store
	for _, s := range []**store.Store{&ours, &theirs} {
		*s = open(t, connection)
		if err := (*s).Upgrade(t.Context(), families); err != nil {
			t.Fatal(err)
		}
	}
	read := func(tx *store.Tx, query string) (n int64) {
		t.Helper()
		if err := tx.Row(query, nil, &n); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		return n
	}
	value := func(tx *store.Tx) int64 { return read(tx, "SELECT value FROM parent WHERE id = 'a'") }
	tx := func(s *store.Store, do func(tx *store.Tx) error) {
		t.Helper()
		if err := s.Tx(t.Context(), do); err != nil {
			t.Fatal(err)
		}
	}
	want := func(n int64) {
		t.Helper()
		for range 3 { // from the third on nobody else has written, and it is remembered
			var have int64 // in the run that is committed
			tx(ours, func(tx *store.Tx) error {
				have = value(tx)
				return tx.Put("UPDATE child SET id = id WHERE id = 'c'")
			})
			if have != n {
				t.Errorf("it reads %d, not %d", have, n)
			}
		}
	}
	set := func(s *store.Store, n int64, result error) {
		t.Helper()
		if err := s.Tx(t.Context(), func(tx *store.Tx) error {
			if err := tx.Put("UPDATE parent SET value = ? WHERE id = 'a'", n); err != nil {
				return err
			}
			if have := value(tx); have != n {
				t.Errorf("it has written %d and reads %d", n, have)
			}
			return result
		}); !errors.Is(err, result) {
			t.Fatal(err)
		}
	}
	want(1)
	set(ours, 2, nil)
	want(2)
	for n := range int64(5) {
		set(theirs, 10+n, nil)
		want(10 + n)
	}
	refused := errors.New("refused")
	set(ours, 20, refused)
	want(14)
	set(theirs, 21, refused)
	want(14)
	tx(ours, func(tx *store.Tx) error {
		if n := read(tx, "SELECT COUNT(*) FROM child"); n != 1 {
			t.Errorf("%d children", n)
		}
		if err := tx.Put("DELETE FROM parent WHERE id = 'a'"); err != nil {
			return err
		}
		if n := read(tx, "SELECT COUNT(*) FROM child"); n != 0 {
			t.Errorf("%d children of what is gone", n)
		}
		return nil
	})
}

// TestPut: a write that is refused after all is told where it happened, and
// neither that nor those that share its turn leave anything behind.
func TestPut(t *testing.T) { each(t, testPut) }

func testPut(t *testing.T, connection string) {
	s := open(t, connection)
	if err := s.Upgrade(t.Context(), families); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	taken := errors.New("the name is taken")
	for i := range 40 {
		all.Go(func() {
			id := fmt.Sprintf("%02d", i)
			name, result := id, error(nil)
			if i%8 == 3 {
				name, result = "a", taken
			}
			err := s.Tx(context.Background(), func(tx *store.Tx) error {
				if err := tx.Put("INSERT INTO child (id, parent_id) VALUES (?, 'a')", id); err != nil {
					return err
				}
				err := tx.Put("INSERT INTO parent (id, name, value) VALUES (?, ?, 0)", id, name)
				if store.Duplicate(err, "parent", "name") {
					return taken
				}
				tx.Emit(store.Event{Kind: "parent", ID: id, Op: store.Created})
				return err
			})
			if !errors.Is(err, result) || result == nil && err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	all.Wait()
	if err := s.View(t.Context(), func(tx *store.Tx) error {
		var parents, children int
		if err := tx.Row("SELECT COUNT(*) FROM parent", nil, &parents); err != nil {
			return err
		}
		if err := tx.Row("SELECT COUNT(*) FROM child", nil, &children); err != nil {
			return err
		}
		events, err := tx.Events(0, 100)
		if parents != 36 || children != 36 || len(events) != 35 {
			t.Errorf("%d parents, %d children, %d events", parents, children, len(events))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestTurns: two programs that write at the same time read what the other has committed, exactly.
func TestTurns(t *testing.T) { each(t, testTurns) }

func testTurns(t *testing.T, connection string) {
	var all sync.WaitGroup
	const clients, times = 4, 25
	for range 2 {
		s, err := store.Open(t.Context(), store.Options{Connection: connection, Logger: slog.New(slog.DiscardHandler), Pool: store.Pool{Repeats: 1000}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		if err := s.Upgrade(t.Context(), counters); err != nil {
			t.Fatal(err)
		}
		for range clients {
			all.Go(func() {
				for range times {
					if err := s.Tx(context.Background(), func(tx *store.Tx) error {
						var n int64
						if err := tx.Row("SELECT value FROM counter WHERE id = ?", []any{"one"}, &n); err != nil {
							return err
						}
						return tx.Put("UPDATE counter SET value = ? WHERE id = ?", n+1, "one")
					}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
	if err := open(t, connection).View(t.Context(), func(tx *store.Tx) error {
		var n int64
		err := tx.Row("SELECT value FROM counter WHERE id = 'one'", nil, &n)
		if n != 2*clients*times {
			t.Errorf("%d were counted, not %d", n, 2*clients*times)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestRemembersLittle: what has changed is also noticed by who has forgotten, by
// its own writing, all that was remembered.
func TestRemembersLittle(t *testing.T) { each(t, testRemembersLittle) }

func testRemembersLittle(t *testing.T, connection string) {
	ours, theirs := open(t, connection), open(t, connection)
	for _, s := range []*store.Store{ours, theirs} {
		if err := s.Upgrade(t.Context(), counters); err != nil {
			t.Fatal(err)
		}
	}
	add := func(s *store.Store, n int64) (value int64) {
		t.Helper()
		if err := s.Tx(t.Context(), func(tx *store.Tx) error {
			if err := tx.Row("SELECT value FROM counter WHERE id = 'one'", nil, &value); err != nil || n == 0 {
				return err
			}
			value += n
			return tx.Put("UPDATE counter SET value = ? WHERE id = 'one'", value)
		}); err != nil {
			t.Fatal(err)
		}
		return value
	}
	for range 3 { // in the third of its turns nobody else had written
		add(ours, 0)
	}
	add(theirs, 1)
	if value := add(ours, 10); value != 11 {
		t.Errorf("it has counted to %d, not 11", value)
	}
}
