package feed_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	message "isospin/api/feed"
	"isospin/internal/feed"
	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

// tally is an object of these tests: a counter that many change, or the mark of one writer.
type tally struct {
	ID    string `json:"id"`
	Value int64  `json:"value"`
}

var tallies = store.Schema{Module: "tally", Steps: [][]string{{
	`CREATE TABLE counter (id VARCHAR(36) PRIMARY KEY, value BIGINT NOT NULL)`,
	`CREATE TABLE mark (id VARCHAR(36) PRIMARY KEY, value BIGINT NOT NULL)`,
}}}

const counters = 8

func stored(kind string) func(tx *store.Tx) ([]*tally, error) {
	return func(tx *store.Tx) (list []*tally, err error) {
		err = tx.Query(func(scan func(...any) error) error {
			o := new(tally)
			list = append(list, o)
			return scan(&o.ID, &o.Value)
		}, "SELECT id, value FROM "+kind)
		return list, err
	}
}

// replica is a program on the database, with its hub: what its observers were
// told, and what its projection was told that there is.
type replica struct {
	t     *testing.T
	name  string
	store *store.Store
	hub   *feed.Hub

	mu       sync.Mutex
	observed []store.Event
	skipped  []int64
	held     map[string]int64
	gate     chan struct{} // while it is not nil, the hub waits for it to be closed
	waiting  chan struct{} // closed once it does
}

// The hub's projection notes what there is. No host is told of it.
func (r *replica) Apply(_ *feed.Copy, ch feed.Change, _ feed.Marker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := ch.Kind + " " + ch.ID
	old, _ := ch.Old.(*tally)
	now, _ := ch.New.(*tally)
	if value, there := r.held[key]; there != (old != nil) || there && value != old.Value {
		r.t.Errorf("%s: a change of %s from %v, it had %d (there: %v)", r.name, key, old, value, there)
	}
	if now == nil {
		delete(r.held, key)
		return
	}
	r.held[key] = now.Value
}
func (*replica) Keys(*feed.Copy, string, func(feed.Key))             {}
func (*replica) Render(*feed.Copy, string, feed.Key) *message.Object { return nil }
func (*replica) Delta(*feed.Copy, string, feed.Key, map[string]struct{}, *message.ServerMessage) uint64 {
	return 0
}

func (r *replica) observe(events []store.Event) {
	r.mu.Lock()
	r.observed = append(r.observed, slices.Clone(events)...)
	gate, waiting := r.gate, r.waiting
	r.waiting = nil
	r.mu.Unlock()
	if gate != nil {
		if waiting != nil {
			close(waiting)
		}
		<-gate
	}
}

// pause makes the hub stand still at its next events, as a program that gets no
// time, until what is returned is called; waiting is closed when it stands.
func (r *replica) pause() (waiting <-chan struct{}, resume func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	gate := make(chan struct{})
	r.gate, r.waiting = gate, make(chan struct{})
	resume = sync.OnceFunc(func() {
		r.mu.Lock()
		r.gate = nil
		r.mu.Unlock()
		close(gate)
	})
	r.t.Cleanup(resume)
	return r.waiting, resume
}

// replicas start as many programs on a new database of the kind that the environment chooses.
func replicas(t *testing.T, n int) []*replica {
	t.Helper()
	connection := storetest.New(t)
	var list []*replica
	for i := range n {
		s, err := store.Open(t.Context(), store.Options{Connection: connection, Logger: slog.New(slog.DiscardHandler), Pool: store.Pool{Repeats: 1000}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		if i == 0 {
			if err := s.Upgrade(t.Context(), tallies); err != nil {
				t.Fatal(err)
			}
			if err := s.Tx(t.Context(), func(tx *store.Tx) error {
				for i := range counters {
					if err := tx.Put("INSERT INTO counter (id, value) VALUES (?, 0)", fmt.Sprint(i)); err != nil {
						return err
					}
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		r := &replica{t: t, name: fmt.Sprint("replica ", i), store: s, held: map[string]int64{}, hub: feed.New(feed.Options{Store: s, Logger: slog.New(slog.DiscardHandler)})}
		for _, kind := range []string{"counter", "mark"} {
			feed.Keep(r.hub, kind, stored(kind), func(o *tally) string { return o.ID })
		}
		r.hub.Project(r)
		r.hub.Observe(r.observe)
		r.hub.OnSkip(func(sequence int64) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.skipped = append(r.skipped, sequence)
		})
		if err := r.hub.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	for _, r := range list {
		follows(t, r.hub)
	}
	return list
}

// write runs many writers at once at all replicas. Each has its number, by its
// first write, long before it commits, some are undone, and all change counters
// that others change too. It returns how many events were committed.
func write(t *testing.T, list []*replica, from, writers int) (committed int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	refused := errors.New("refused")
	var count atomic.Int64
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			s := list[i%len(list)].store
			id := fmt.Sprintf("%04d", from+i)
			err := s.Tx(ctx, func(tx *store.Tx) error {
				if _, err := tx.Exec("INSERT INTO mark (id, value) VALUES (?, 1)", id); err != nil {
					return err
				}
				time.Sleep(time.Duration(rand.IntN(8000)) * time.Microsecond) // what a transaction does besides
				if i%10 == 0 {
					return refused
				}
				if i%4 == 1 {
					counter := fmt.Sprint(i % counters)
					if _, err := tx.Exec("UPDATE counter SET value = value + 1 WHERE id = ?", counter); err != nil {
						return err
					}
					o := tally{ID: counter}
					if err := tx.Row("SELECT value FROM counter WHERE id = ?", []any{counter}, &o.Value); err != nil {
						return err
					}
					tx.Emit(store.Event{Kind: "counter", ID: o.ID, Op: store.Updated, Revision: o.Value, Object: o})
				}
				tx.Emit(store.Event{Kind: "mark", ID: id, Op: store.Created, Object: tally{id, 1}})
				return nil
			})
			if i%10 == 0 {
				if !errors.Is(err, refused) {
					t.Errorf("writer %s: %v", id, err)
				}
				return
			}
			if err != nil {
				t.Errorf("writer %s: %v", id, err)
				return
			}
			count.Add(1)
			if i%4 == 1 {
				count.Add(1)
			}
			if i%3 != 0 {
				return
			}
			if err := s.Tx(ctx, func(tx *store.Tx) error {
				tx.Emit(store.Event{Kind: "mark", ID: id, Op: store.Deleted, Object: tally{id, 1}})
				return tx.Put("DELETE FROM mark WHERE id = ?", id)
			}); err != nil {
				t.Errorf("writer %s deletes: %v", id, err)
				return
			}
			count.Add(1)
		})
	}
	all.Wait()
	return count.Load()
}

// settle waits until all hubs have applied all that is committed.
func settle(t *testing.T, list ...*replica) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, r := range list {
		if err := r.hub.Current(ctx); err != nil {
			t.Fatalf("%s does not come to the end: %v", r.name, err)
		}
	}
}

// truth is what the database has.
func truth(t *testing.T, r *replica) map[string]int64 {
	t.Helper()
	have := map[string]int64{}
	if err := r.store.View(t.Context(), func(tx *store.Tx) error {
		clear(have)
		for _, kind := range []string{"counter", "mark"} {
			list, err := stored(kind)(tx)
			if err != nil {
				return err
			}
			for _, o := range list {
				have[kind+" "+o.ID] = o.Value
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return have
}

// numbers are the sequences of events.
func numbers(events []store.Event) (list []int64) {
	for _, e := range events {
		list = append(list, e.Sequence)
	}
	return list
}

// inOrder checks that events are in one order, each once, and those of each object in the order of its life.
func inOrder(t *testing.T, name string, events []store.Event, values map[string]int64) {
	t.Helper()
	for i, e := range events {
		if i > 0 && e.Sequence <= events[i-1].Sequence {
			t.Errorf("%s: event %d comes after %d", name, e.Sequence, events[i-1].Sequence)
		}
		key := e.Kind + " " + e.ID
		value, there := values[key]
		switch {
		case e.Kind == "counter" && e.Revision != value+1:
			t.Errorf("%s: %s becomes %d after %d", name, key, e.Revision, value)
		case e.Kind == "mark" && there != (e.Op == store.Deleted):
			t.Errorf("%s: %s of %s, which is there: %v", name, e.Op, key, there)
		}
		if values[key] = e.Revision; e.Op == store.Deleted {
			delete(values, key)
		}
	}
}

// TestOneOrder: hundreds of writers write at three replicas, and one replica
// stands still meanwhile. In the end each
// replica's observers were told of every committed change once, those of each
// object in the order of its life, all in one order; and all copies are equal
// to what is stored.
func TestOneOrder(t *testing.T) {
	const writers = 300
	list := replicas(t, 3)
	standing, resume := list[2].pause()
	n := write(t, list, 0, writers/2)
	select {
	case <-standing:
	case <-time.After(time.Minute):
		t.Fatal("the replica that was to stand still is told of nothing")
	}
	list[2].mu.Lock()
	behind := len(list[2].observed)
	list[2].mu.Unlock()
	if int64(behind) >= n {
		t.Errorf("the replica that stood still is not behind: it has %d of %d", behind, n)
	}
	settle(t, list[:2]...) // they do not wait for it
	done := make(chan struct{})
	go func() {
		defer close(done)
		n += write(t, list, writers/2, writers/2)
	}()
	resume() // and has to catch up while there is more
	<-done
	settle(t, list...)
	want := truth(t, list[0])
	var order []store.Event
	for _, r := range list {
		r.mu.Lock()
		events, held, skipped := slices.Clone(r.observed), maps.Clone(r.held), r.skipped
		r.mu.Unlock()
		if order == nil {
			order = events
		}
		if int64(len(events)) != n || !slices.Equal(numbers(events), numbers(order)) {
			t.Errorf("%s was told of %d changes, the first of %d; %d were committed", r.name, len(events), len(order), n)
		}
		inOrder(t, r.name, events, map[string]int64{})
		if !maps.Equal(held, want) || len(skipped) > 0 {
			t.Errorf("%s has %v\nwhere %v is stored; skipped: %v", r.name, held, want, skipped)
		}
	}
	// The replicas' changes are mixed, or the test shows nothing of their order.
	// With SQLite, which is for one, each commits all that wait for it at once.
	mixed, last := 0, -1
	for _, e := range order {
		if i, err := strconv.Atoi(e.ID); e.Kind == "mark" && e.Op == store.Created && err == nil {
			if by := i % (writers / 2) % len(list); by != last {
				mixed, last = mixed+1, by
			}
		}
	}
	if mixed < 3*len(list) && storetest.Kind() != storetest.SQLite {
		t.Errorf("the changes of %d replicas come in %d pieces", len(list), mixed)
	}
}

// TestTrimmedWhileBehind: what a replica that stands still has not read is
// trimmed meanwhile. It says what it has skipped, reads everything anew, and is
// then equal to the others; of what comes later it misses nothing.
func TestTrimmedWhileBehind(t *testing.T) {
	list := replicas(t, 2)
	quick, slow := list[0], list[1]
	standing, resume := slow.pause()
	write(t, list, 0, 20)
	select {
	case <-standing:
	case <-time.After(time.Minute):
		t.Fatal("the replica that was to stand still is told of nothing")
	}
	write(t, list, 100, 200)
	settle(t, quick)
	for more := true; more; {
		if err := quick.store.Tx(t.Context(), func(tx *store.Tx) (err error) {
			more, err = tx.TrimEvents(time.Now().Add(time.Hour).UnixMilli(), 50)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	slow.mu.Lock()
	before := len(slow.observed)
	slow.mu.Unlock()
	resume()
	settle(t, slow)
	write(t, list, 500, 40)
	settle(t, list...)
	want := truth(t, quick)
	for _, r := range list {
		r.mu.Lock()
		held := maps.Clone(r.held)
		r.mu.Unlock()
		if !maps.Equal(held, want) {
			t.Errorf("%s has %v\nwhere %v is stored", r.name, held, want)
		}
	}
	if len(slow.skipped) != 1 || len(quick.skipped) != 0 {
		t.Fatalf("the slow replica skipped to %v, the quick one to %v", slow.skipped, quick.skipped)
	}
	inOrder(t, quick.name, quick.observed, map[string]int64{})
	inOrder(t, slow.name, slow.observed[:before], map[string]int64{})
	after := func(events []store.Event) []int64 {
		return numbers(slices.DeleteFunc(slices.Clone(events), func(e store.Event) bool { return e.Sequence <= slow.skipped[0] }))
	}
	if got, want := numbers(slow.observed[before:]), after(quick.observed); !slices.Equal(got, want) || len(want) < 40 {
		t.Errorf("after %d the slow replica was told of %d changes, the quick one of %d", slow.skipped[0], len(got), len(want))
	}
	if slow.observed[before-1].Sequence >= slow.skipped[0] {
		t.Errorf("skipped to %d after %d", slow.skipped[0], slow.observed[before-1].Sequence)
	}
}
