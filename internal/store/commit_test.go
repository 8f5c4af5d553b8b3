package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

var things = store.Schema{Module: "test", Steps: [][]string{{
	`CREATE TABLE thing (id VARCHAR(36) PRIMARY KEY, name VARCHAR(36) UNIQUE)`,
	`CREATE TABLE part (id VARCHAR(36) PRIMARY KEY, thing_id VARCHAR(36) NOT NULL REFERENCES thing (id) DEFERRABLE INITIALLY DEFERRED)`,
}}}

func open(t testing.TB, connection string) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), store.Options{Connection: connection, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Upgrade(context.Background(), things); err != nil {
		t.Fatal(err)
	}
	return s
}

// each runs a test on a new database of each kind.
func each(t *testing.T, test func(t *testing.T, connection string)) {
	t.Helper()
	for _, kind := range storetest.Kinds {
		t.Run(kind, func(t *testing.T) { test(t, storetest.NewOf(t, kind)) })
	}
}

// queue waits until that many transactions wait, for each other or the database.
func queue(t *testing.T, n int) {
	t.Helper()
	stacks := make([]byte, 4<<20)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		have := 0
		for g := range strings.SplitSeq(string(stacks[:runtime.Stack(stacks, true)]), "\n\n") {
			state, calls, _ := strings.Cut(g, "\n")
			if strings.Contains(calls, "store.(*Store).Tx(") && !strings.Contains(state, "[run") { // running, or about to
				have++
			}
		}
		if have >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d transactions wait", have, n)
		}
	}
}

func add(id string) func(tx *store.Tx) error {
	return func(tx *store.Tx) error {
		if _, err := tx.Exec("INSERT INTO thing (id, name) VALUES (?, ?)", id, id); err != nil {
			return err
		}
		tx.Emit(store.Event{Kind: "thing", ID: id, Op: store.Created, Object: map[string]string{"id": id}})
		return nil
	}
}

// stored are the ids of things, and those of their events in order.
func stored(t testing.TB, s *store.Store) (ids, events []string) {
	t.Helper()
	if err := s.View(context.Background(), func(tx *store.Tx) error {
		if err := tx.Query(func(scan func(...any) error) error {
			var id string
			err := scan(&id)
			ids = append(ids, id)
			return err
		}, "SELECT id FROM thing ORDER BY id"); err != nil {
			return err
		}
		list, err := tx.Events(0, 1<<20)
		for i, e := range list {
			if i > 0 && e.Sequence <= list[i-1].Sequence {
				t.Errorf("event %d comes after %d", e.Sequence, list[i-1].Sequence)
			}
			events = append(events, e.ID)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return ids, events
}

// TestGroupCommit: of transactions that share a commit, each that fails undoes itself and nothing else.
func TestGroupCommit(t *testing.T) {
	each(t, func(t *testing.T, connection string) {
		s := open(t, connection)
		refused := errors.New("refused")
		kinds := []struct {
			name string
			do   func(tx *store.Tx, id string) error
			want error
		}{
			{"good", func(tx *store.Tx, id string) error { return nil }, nil},
			{"refused", func(tx *store.Tx, id string) error { return refused }, refused},
			{"duplicate", func(tx *store.Tx, id string) error {
				_, err := tx.Exec("INSERT INTO thing (id, name) VALUES (?, 'taken')", id+"x")
				return err
			}, store.ErrDuplicate},
			{"reference at the end", func(tx *store.Tx, id string) error {
				_, err := tx.Exec("INSERT INTO part (id, thing_id) VALUES (?, 'nowhere')", id)
				return err
			}, store.ErrReferenced},
			{"panic", func(tx *store.Tx, id string) error { panic("out of order") }, nil},
			{"event that is no JSON", func(tx *store.Tx, id string) error {
				tx.Emit(store.Event{Kind: "thing", ID: id + "x", Op: store.Created, Object: func() {}})
				return nil
			}, nil},
		}
		if err := s.Tx(t.Context(), func(tx *store.Tx) error {
			_, err := tx.Exec("INSERT INTO thing (id, name) VALUES ('taken', 'taken')")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		// The first holds the writer until all others wait for it.
		hold, held := make(chan struct{}), make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			var once sync.Once
			if err := s.Tx(t.Context(), func(tx *store.Tx) error {
				once.Do(func() { close(held); <-hold })
				return nil
			}); err != nil {
				t.Error(err)
			}
		})
		<-held
		want := []string{"taken"}
		for i := range 60 {
			k := kinds[i%len(kinds)]
			id := fmt.Sprintf("%02d", i)
			if k.name == "good" {
				want = append(want, id)
			}
			all.Go(func() {
				err := s.Tx(t.Context(), func(tx *store.Tx) error {
					if err := add(id)(tx); err != nil {
						return err
					}
					return k.do(tx, id)
				})
				switch {
				case k.name == "good" && err != nil, k.name != "good" && err == nil, k.want != nil && !errors.Is(err, k.want):
					t.Errorf("%s %s: %v", k.name, id, err)
				}
			})
		}
		queue(t, 1+60)
		close(hold)
		all.Wait()
		slices.Sort(want)
		ids, events := stored(t, s)
		if !slices.Equal(ids, want) {
			t.Errorf("%s: stored are %v, must be %v", connection, ids, want)
		}
		slices.Sort(events)
		if !slices.Equal(events, want[:len(want)-1]) {
			t.Errorf("%s: events are of %v", connection, events)
		}
	})
}

// TestSeen: who has seen what another one did that shares its commit, and fails,
// is not told so before that is committed.
func TestSeen(t *testing.T) { each(t, testSeen) }

func testSeen(t *testing.T, connection string) {
	s := open(t, connection)
	seen := errors.New("there are parts")
	var happened atomic.Bool
	for deadline := time.Now().Add(30 * time.Second); !happened.Load(); {
		if time.Now().After(deadline) {
			t.Fatal("no two of them ever shared a commit")
		}
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				if err := s.Tx(t.Context(), func(tx *store.Tx) error {
					_, err := tx.Exec("INSERT INTO part (id, thing_id) VALUES (?, 'nowhere')", fmt.Sprint(i))
					return err
				}); !errors.Is(err, store.ErrReferenced) {
					t.Errorf("a part of nothing: %v", err)
				}
			})
			all.Go(func() {
				if err := s.Tx(t.Context(), func(tx *store.Tx) error {
					var n int
					if err := tx.Row("SELECT COUNT(*) FROM part", nil, &n); err != nil || n == 0 {
						return err
					}
					happened.Store(true)
					return seen
				}); err != nil {
					t.Errorf("it saw what never was: %v", err)
				}
			})
		}
		all.Wait()
	}
}

// TestClosing: what Tx says of a transaction is the truth, also while the store closes.
func TestClosing(t *testing.T) {
	each(t, testClosing)
}

func testClosing(t *testing.T, connection string) {
	s := open(t, connection)
	var mu sync.Mutex
	var done []string
	var all sync.WaitGroup
	begun := make(chan struct{}, 1)
	for i := range 16 {
		all.Go(func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("%02d-%04d", i, n)
				err := s.Tx(context.Background(), add(id))
				if err != nil {
					if !errors.Is(err, store.ErrClosed) {
						t.Errorf("%s: %v", id, err)
					}
					return
				}
				mu.Lock()
				done = append(done, id)
				mu.Unlock()
				select {
				case begun <- struct{}{}:
				default:
				}
			}
		})
	}
	<-begun
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
	if err := s.Close(); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if err := s.View(context.Background(), func(*store.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("a view of a closed store: %v", err)
	}
	ids, _ := stored(t, open(t, connection))
	slices.Sort(done)
	if !slices.Equal(ids, done) {
		t.Errorf("%d were acknowledged, %d are stored", len(done), len(ids))
	}
}

// killed names the database of the process that TestKilled ends.
const killed = "ISOSPIN_TEST_STORE"

// TestKilled: what was acknowledged survives the end of the process.
func TestKilled(t *testing.T) {
	if connection := os.Getenv(killed); connection != "" {
		s := open(t, connection)
		for i := range 8 {
			go func() {
				for n := 0; ; n++ {
					id := fmt.Sprintf("%02d-%06d", i, n)
					if err := s.Tx(context.Background(), add(id)); err != nil {
						return
					}
					os.Stdout.WriteString("done " + id + "\n")
				}
			}()
		}
		select {}
	}
	each(t, testKilled)
}

func testKilled(t *testing.T, connection string) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), killed+"="+connection)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var done []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if id, ok := strings.CutPrefix(lines.Text(), "done "); ok && len(id) == 9 {
			if done = append(done, id); len(done) == 300 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	_ = cmd.Wait() // it was killed
	ids, events := stored(t, open(t, connection))
	for _, id := range done {
		if _, ok := slices.BinarySearch(ids, id); !ok {
			t.Errorf("%s was acknowledged and is lost", id)
		}
	}
	slices.Sort(events)
	if len(done) < 300 || !slices.Equal(ids, events) {
		t.Errorf("%d acknowledged, %d stored, %d events", len(done), len(ids), len(events))
	}
}

// TestInMemory: each database in memory is its own.
func TestInMemory(t *testing.T) {
	a, b := open(t, "sqlite://"), open(t, "sqlite://")
	if err := a.Tx(t.Context(), add("x")); err != nil {
		t.Fatal(err)
	}
	if ids, _ := stored(t, b); ids != nil {
		t.Errorf("the other one has %v", ids)
	}
}

// TestEmit: changes of one object in one transaction become one event.
func TestEmit(t *testing.T) { each(t, testEmit) }

func testEmit(t *testing.T, connection string) {
	const c, u, d = store.Created, store.Updated, store.Deleted
	s := open(t, connection)
	for _, test := range []struct {
		ops  []store.Op
		want string
	}{
		{[]store.Op{c}, "create"}, {[]store.Op{c, u, u}, "create"}, {[]store.Op{u, u}, "update"}, {[]store.Op{u, d}, "delete"}, {[]store.Op{c, d}, ""}, {[]store.Op{c, u, d}, ""},
		{[]store.Op{d, c}, "create"}, {[]store.Op{d, c, u}, "create"}, {[]store.Op{d, c, d}, "delete"}, {[]store.Op{u, d, c, u, d}, "delete"},
	} {
		var before int64
		if err := s.View(t.Context(), func(tx *store.Tx) (err error) {
			before, err = tx.LastSequence()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if err := s.Tx(t.Context(), func(tx *store.Tx) error {
			tx.Emit(store.Event{Kind: "other", ID: "a", Op: u, Object: 1})
			for i, op := range test.ops {
				tx.Emit(store.Event{Kind: "thing", ID: "a", Op: op, Revision: int64(i), Object: i})
			}
			tx.Emit(store.Event{Kind: "other", ID: "b", Op: u, Object: 1})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := s.View(t.Context(), func(tx *store.Tx) error {
			events, err := tx.Events(before, 10)
			var have string
			for _, e := range events {
				if e.Kind == "thing" {
					have = string(e.Op)
					if last := len(test.ops) - 1; e.Revision != int64(last) || string(e.Data) != fmt.Sprint(last) {
						t.Errorf("%v: event %+v is not of the last state", test.ops, e)
					}
				}
			}
			if have != test.want {
				t.Errorf("%v became %q, not %q", test.ops, have, test.want)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUpgrade: a step is carried out once; a newer database is refused.
func TestUpgrade(t *testing.T) { each(t, testUpgrade) }

func testUpgrade(t *testing.T, connection string) {
	s := open(t, connection)
	two := store.Schema{Module: "test", Steps: append(slices.Clone(things.Steps), []string{"ALTER TABLE thing ADD COLUMN colour VARCHAR(10)"})}
	for range 2 {
		if err := s.Upgrade(t.Context(), two); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Upgrade(t.Context(), things); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("an older program took a newer database: %v", err)
	}
	broken := store.Schema{Module: "broken", Steps: [][]string{{"CREATE TABLE fine (id INTEGER)", "CREATE TABLE"}}}
	if err := s.Upgrade(t.Context(), broken); err == nil {
		t.Error("a broken step was taken")
	}
	// What the step has done is undone, or gone on from.
	broken.Steps[0][1] = "INSERT INTO fine (id) VALUES (7)"
	if err := s.Upgrade(t.Context(), two, broken); err != nil {
		t.Errorf("the step after it was corrected: %v", err)
	}
	have, err := s.Versions(t.Context(), two, store.Schema{Module: "other", Steps: [][]string{{}}})
	if want := []store.Version{{"store", 3, 3}, {"test", 2, 2}, {"other", 0, 1}, {"broken", 1, 0}}; err != nil || !slices.Equal(have, want) {
		t.Errorf("versions are %v, %v", have, err)
	}
}
