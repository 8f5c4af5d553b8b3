package store_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"isospin/internal/store"
)

var limited = store.Schema{Module: "limited", Steps: [][]string{{
	`CREATE TABLE quota (project_id VARCHAR(36) PRIMARY KEY, quota_limit BIGINT NOT NULL)`,
	`CREATE TABLE occupant (id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(36) NOT NULL, place BIGINT UNIQUE)`,
	`INSERT INTO quota (project_id, quota_limit) VALUES ('p', 40)`,
}}}

var errFull = errors.New("the limit is reached")

// TestTally: many writers of two programs, which remember what they have
// counted, stop at the limit and not before it, also when it changes.
func TestTally(t *testing.T) { each(t, testTally) }

func testTally(t *testing.T, connection string) {
	var stores [2]*store.Store
	for i := range stores {
		stores[i] = open(t, connection)
		if err := stores[i].Upgrade(t.Context(), limited); err != nil {
			t.Fatal(err)
		}
	}
	add := func(s *store.Store, id string) error {
		return s.Tx(t.Context(), func(tx *store.Tx) error {
			used, limit, err := tx.Tally("occupant p", "occupant", "quota", 1, func() (used, limit int, err error) {
				err = tx.Row("SELECT (SELECT quota_limit FROM quota WHERE project_id = 'p'), COUNT(*) FROM occupant WHERE project_id = 'p'", nil, &limit, &used)
				return used, limit, err
			})
			if err != nil {
				return err
			}
			if used >= limit {
				return errFull
			}
			return tx.Put("INSERT INTO occupant (id, project_id) VALUES (?, ?)", id, "p")
		})
	}
	fill := func(round string, want int) {
		t.Helper()
		var all sync.WaitGroup
		for w := range 8 {
			all.Go(func() {
				for n := range 10 {
					if err := add(stores[w%2], fmt.Sprint(round, w, "-", n)); err != nil && !errors.Is(err, errFull) {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if n := count(t, stores[0], "SELECT COUNT(*) FROM occupant"); n != want {
			t.Errorf("%d things, not %d", n, want)
		}
	}
	change := func(statement string) {
		t.Helper()
		if err := stores[1].Tx(t.Context(), func(tx *store.Tx) error { return tx.Put(statement) }); err != nil {
			t.Fatal(err)
		}
	}
	fill("a", 40)
	change("UPDATE quota SET quota_limit = 55")
	fill("b", 55)
	change("DELETE FROM occupant WHERE id LIKE 'a%'")
	fill("c", 55)
}

func count(t *testing.T, s *store.Store, query string) (n int) {
	t.Helper()
	if err := s.View(t.Context(), func(tx *store.Tx) error { return tx.Row(query, nil, &n) }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSpare: two programs hand out all places there are, each once, however
// many of them they remember as free.
func TestSpare(t *testing.T) { each(t, testSpare) }

func testSpare(t *testing.T, connection string) {
	const places = 150
	var all sync.WaitGroup
	for p := range 2 {
		s := open(t, connection)
		if err := s.Upgrade(t.Context(), limited); err != nil {
			t.Fatal(err)
		}
		for w := range 4 {
			all.Go(func() {
				for n := 0; ; n++ {
					err := s.Tx(t.Context(), func(tx *store.Tx) error { return take(tx, fmt.Sprint(p, "-", w, "-", n), places) })
					if errors.Is(err, errFull) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	all.Wait()
	s := open(t, connection)
	if n := count(t, s, "SELECT COUNT(DISTINCT place) FROM occupant"); n != places {
		t.Errorf("%d of %d places are taken", n, places)
	}
}

// take gives a occupant a place of its own.
func take(tx *store.Tx, id string, places int) error {
	free, err := tx.Spare("place", func(n int) ([]string, error) {
		used := map[int]bool{}
		if err := tx.Query(func(scan func(...any) error) error {
			var at int
			err := scan(&at)
			used[at] = true
			return err
		}, "SELECT place FROM occupant"); err != nil {
			return nil, err
		}
		var free []string
		for at := 0; at < places && len(free) < n; at++ {
			if !used[at] {
				free = append(free, fmt.Sprint(at))
			}
		}
		return free, nil
	})
	if err != nil {
		return err
	}
	for _, text := range free {
		var at int
		if _, err := fmt.Sscan(text, &at); err != nil {
			return err
		}
		if err := tx.Put("INSERT INTO occupant (id, project_id, place) VALUES (?, ?, ?)", id, "p", at); !errors.Is(err, store.ErrDuplicate) {
			return err
		}
	}
	return errFull
}

// TestExists: that there is a row is remembered while rows are only added, and no longer.
func TestExists(t *testing.T) { each(t, testExists) }

func testExists(t *testing.T, connection string) {
	var stores [2]*store.Store
	for i := range stores {
		stores[i] = open(t, connection)
		if err := stores[i].Upgrade(t.Context(), limited); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want bool) {
		t.Helper()
		for range 3 {
			if err := stores[0].Tx(t.Context(), func(tx *store.Tx) error {
				is, err := tx.Exists("SELECT 1 FROM occupant WHERE project_id = ?", "p")
				if err == nil && is != want {
					return fmt.Errorf("it is %v that there is one", is)
				}
				if err != nil {
					return err
				}
				return tx.Put("UPDATE quota SET quota_limit = quota_limit + 1")
			}); err != nil {
				t.Error(err)
			}
		}
	}
	check(false)
	for _, s := range stores {
		for _, statement := range []string{"INSERT INTO occupant (id, project_id) VALUES ('x', 'p')", "INSERT INTO occupant (id, project_id) VALUES ('y', 'q')", "DELETE FROM occupant WHERE id = 'x'", "DELETE FROM occupant"} {
			if err := s.Tx(t.Context(), func(tx *store.Tx) error { return tx.Put(statement) }); err != nil {
				t.Fatal(err)
			}
			check(statement[0] == 'I')
		}
	}
}

// TestViewAtOnce: what asks once and what asks again both read what is there, in one state.
func TestViewAtOnce(t *testing.T) { each(t, testViewAtOnce) }

func testViewAtOnce(t *testing.T, connection string) {
	s := open(t, connection)
	if err := s.Upgrade(t.Context(), limited); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-ended:
				return
			default:
			}
			if err := s.Tx(t.Context(), func(tx *store.Tx) error {
				if err := tx.Put("INSERT INTO occupant (id, project_id) VALUES (?, 'p')", fmt.Sprint(n)); err != nil {
					return err
				}
				return tx.Put("UPDATE quota SET quota_limit = quota_limit + 1")
			}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	for n := range 50 {
		var things, limit int
		if err := s.ViewAtOnce(t.Context(), func(tx *store.Tx) error {
			if err := tx.Row("SELECT COUNT(*) FROM occupant", nil, &things); err != nil || n%2 == 0 {
				return err
			}
			return tx.Row("SELECT quota_limit FROM quota", nil, &limit)
		}); err != nil {
			t.Fatal(err)
		}
		if n%2 == 1 && limit != 40+things {
			t.Errorf("%d things and the limit %d are of two states", things, limit)
		}
	}
	if err := s.ViewAtOnce(t.Context(), func(*store.Tx) error { return errFull }); !errors.Is(err, errFull) {
		t.Errorf("the closure's error is %v", err)
	}
	close(ended)
	writer.Wait()
}
