package store_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"isospin/internal/store"
)

var counters = store.Schema{Module: "counter", Steps: [][]string{{
	`CREATE TABLE counter (id VARCHAR(36) PRIMARY KEY, value BIGINT NOT NULL)`,
	`INSERT INTO counter (id, value) VALUES ('one', 0)`,
	`CREATE TABLE mark (id VARCHAR(36) PRIMARY KEY)`,
}}}

// TestOrder: while many transactions wait between their first write and their
// commit, and some are undone, two readers that pause see each committed event
// exactly once, in one order, which is that of the changes of one object.
func TestOrder(t *testing.T) { each(t, testOrder) }

func testOrder(t *testing.T, connection string) {
	var stores []*store.Store // as many programs
	for range 2 {
		s, err := store.Open(t.Context(), store.Options{Connection: connection, Logger: slog.New(slog.DiscardHandler), Pool: store.Pool{Repeats: 1000}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		if err := s.Upgrade(t.Context(), things, counters); err != nil {
			t.Fatal(err)
		}
		stores = append(stores, s)
	}
	refused := errors.New("refused")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var committed atomic.Int64
	written := make(chan struct{})
	follow := func(s *store.Store) (got []store.Event) {
		signal, end := s.Follow()
		defer end()
		var after int64
		for {
			select {
			case <-written:
				if len(got) == int(committed.Load()) {
					return got
				}
			default:
			}
			var page []store.Event
			if err := s.View(ctx, func(tx *store.Tx) (err error) {
				page, err = tx.Events(after, 7)
				return err
			}); err != nil {
				t.Error(err)
				return got
			}
			for _, e := range page {
				got, after = append(got, e), e.Sequence
			}
			if len(page) == 7 {
				continue
			}
			time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond) // a reader that pauses
			select {
			case <-signal:
			case <-written:
			case <-ctx.Done():
				t.Errorf("%d events of %d came in time", len(got), committed.Load())
				return got
			}
		}
	}
	var readers, writers sync.WaitGroup
	seen := make([][]store.Event, 2)
	for i := range seen {
		readers.Go(func() { seen[i] = follow(stores[i]) })
	}
	for i := range 200 {
		writers.Go(func() {
			err := stores[i%len(stores)].Tx(ctx, func(tx *store.Tx) error {
				id := fmt.Sprintf("%03d", i)
				// The first write gives the transaction its number.
				if _, err := tx.Exec("INSERT INTO mark (id) VALUES (?)", id); err != nil {
					return err
				}
				time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond)
				if i%10 == 0 {
					return refused
				}
				if i%4 == 1 { // some change the same object
					if _, err := tx.Exec("UPDATE counter SET value = value + 1 WHERE id = ?", "one"); err != nil {
						return err
					}
					var value int64
					if err := tx.Row("SELECT value FROM counter WHERE id = ?", []any{"one"}, &value); err != nil {
						return err
					}
					tx.Emit(store.Event{Kind: "counter", ID: "one", Op: store.Updated, Revision: value})
				}
				tx.Emit(store.Event{Kind: "mark", ID: id, Op: store.Created})
				return nil
			})
			switch {
			case i%10 == 0 && !errors.Is(err, refused), i%10 != 0 && err != nil:
				t.Errorf("writer %d: %v", i, err)
			case i%10 != 0:
				committed.Add(1)
				if i%4 == 1 {
					committed.Add(1)
				}
			}
		})
	}
	writers.Wait()
	close(written)
	readers.Wait()
	var value int64
	unique := map[string]bool{}
	for i, e := range seen[0] {
		if i > 0 && e.Sequence <= seen[0][i-1].Sequence {
			t.Errorf("event %d comes after %d", e.Sequence, seen[0][i-1].Sequence)
		}
		if e.Kind == "counter" {
			if value++; e.Revision != value {
				t.Errorf("change %d of the counter comes where %d must", e.Revision, value)
			}
			continue
		}
		if unique[e.ID] {
			t.Errorf("event of %s came twice", e.ID)
		}
		unique[e.ID] = true
	}
	if int64(len(seen[0])) != committed.Load() || !slices.EqualFunc(seen[0], seen[1], func(a, b store.Event) bool { return a.Sequence == b.Sequence && a.ID == b.ID }) {
		t.Errorf("%d were committed; the readers saw %d and %d", committed.Load(), len(seen[0]), len(seen[1]))
	}
}

// TestExact: a limit that is counted before each insert is kept, whoever inserts at the same time.
func TestExact(t *testing.T) { each(t, testExact) }

func testExact(t *testing.T, connection string) {
	s := open(t, connection)
	const limit = 10
	var all sync.WaitGroup
	var made, refused atomic.Int64
	full := errors.New("full")
	for i := range 40 {
		all.Go(func() {
			err := s.Tx(t.Context(), func(tx *store.Tx) error {
				var n int
				if err := tx.Row("SELECT COUNT(*) FROM thing", nil, &n); err != nil {
					return err
				}
				if n >= limit {
					return full
				}
				return add(fmt.Sprint(i))(tx)
			})
			switch {
			case err == nil:
				made.Add(1)
			case errors.Is(err, full):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if ids, _ := stored(t, s); made.Load() != limit || refused.Load() != 40-limit || len(ids) != limit {
		t.Errorf("%d were made, %d refused, %d are stored", made.Load(), refused.Load(), len(ids))
	}
}

// TestGoesOn: a transaction goes on after a statement that a constraint refused, which names its columns.
func TestGoesOn(t *testing.T) { each(t, testGoesOn) }

func testGoesOn(t *testing.T, connection string) {
	s := open(t, connection)
	if err := s.Tx(t.Context(), func(tx *store.Tx) error {
		if err := add("a")(tx); err != nil {
			return err
		}
		_, err := tx.Exec("INSERT INTO thing (id, name) VALUES ('b', 'a')")
		if !store.Duplicate(err, "thing", "name") || store.Duplicate(err, "thing", "id") {
			t.Errorf("a name that is taken: %v", err)
		}
		if _, err = tx.Exec("INSERT INTO thing (id, name) VALUES ('a', 'b')"); !store.Duplicate(err, "thing", "id") {
			t.Errorf("an id that is taken: %v", err)
		}
		n, err := tx.Exec("INSERT INTO thing (id, name) VALUES ('a', 'c') ON CONFLICT DO NOTHING")
		if n != 0 || err != nil {
			t.Errorf("inserted %d, %v", n, err)
		}
		if n, err = tx.Exec("UPDATE thing SET name = 'a' WHERE id = 'a'"); n != 1 || err != nil {
			t.Errorf("matched %d, %v", n, err)
		}
		// Text is compared by its characters.
		for _, id := range []string{"A", "a ", "á"} {
			if err := add(id)(tx); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if ids, events := stored(t, s); !slices.Equal(ids, []string{"A", "a", "a ", "á"}) || len(events) != 4 {
		t.Errorf("stored are %q, events %q", ids, events)
	}
}

// TestGoesOnAlone: so it does after a row that was to be there unless a unique
// key forbids it, and that a foreign key refuses; and who goes on after an
// error that has ended the transaction fails alone.
func TestGoesOnAlone(t *testing.T) { each(t, testGoesOnAlone) }

func testGoesOnAlone(t *testing.T, connection string) {
	s := open(t, connection)
	if err := s.Upgrade(t.Context(), things, families); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var want []string
	for i := range 60 {
		all.Go(func() {
			id := fmt.Sprintf("%02d", i)
			err := s.Tx(t.Context(), func(tx *store.Tx) error {
				switch i % 3 {
				case 1:
					if _, err := tx.Exec("INSERT INTO child (id, parent_id) VALUES (?, 'nowhere') ON CONFLICT DO NOTHING", id); !errors.Is(err, store.ErrReferenced) {
						t.Errorf("a child of nobody: %v", err)
					}
				case 2:
					if err := tx.Row("SELECT nothing FROM nowhere", nil); err == nil {
						t.Error("there is nothing in nowhere")
					}
					return nil
				}
				return add(id)(tx)
			})
			if err != nil && i%3 < 2 {
				t.Errorf("%s: %v", id, err)
			}
			if err == nil && i%3 < 2 {
				mu.Lock()
				want = append(want, id)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	slices.Sort(want)
	if ids, _ := stored(t, s); !slices.Equal(ids, want) {
		t.Errorf("stored are %v, must be %v", ids, want)
	}
}
