package lease_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"isospin/internal/lease"
	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

const span = 600 * time.Millisecond

// world is a database and the programs that are elected on it.
type world struct {
	t       *testing.T
	store   *store.Store
	working atomic.Int32
	began   chan string
}

func newWorld(t *testing.T) *world {
	s, err := store.Open(t.Context(), store.Options{Connection: storetest.New(t), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.Upgrade(t.Context(), lease.Schema); err != nil {
		t.Fatal(err)
	}
	return &world{t: t, store: s, began: make(chan string, 100)}
}

// program runs for a lease until the returned function ends it.
func (w *world) program(name string) (*lease.Lease, func()) {
	l := lease.New(lease.Options{Store: w.store, Logger: slog.New(slog.DiscardHandler), Name: "work", Holder: name, Time: span})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.Run(ctx, func(ctx context.Context, _ time.Time) {
			if w.working.Add(1) > 1 {
				w.t.Errorf("%s works while another does", name)
			}
			w.began <- name
			<-ctx.Done()
			w.working.Add(-1)
		})
	}()
	stop := func() { cancel(); <-ended }
	w.t.Cleanup(stop)
	return l, stop
}

// next is the program that began to work.
func (w *world) next() string {
	w.t.Helper()
	select {
	case name := <-w.began:
		return name
	case <-time.After(20 * time.Second):
		w.t.Fatal("nobody works")
		return ""
	}
}

func (w *world) exec(query string, args ...any) {
	w.t.Helper()
	if err := w.store.Tx(context.Background(), func(tx *store.Tx) error {
		_, err := tx.Exec(query, args...)
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
}

// One works at a time; its end hands over at once.
func TestElection(t *testing.T) {
	w := newWorld(t)
	stops := map[string]func(){}
	for _, name := range []string{"a", "b", "c"} {
		_, stops[name] = w.program(name)
	}
	for range 3 {
		name := w.next()
		stops[name]()
		delete(stops, name)
	}
	if len(stops) != 0 {
		t.Errorf("%d never worked", len(stops))
	}
}

// A holder that is silent is given up after the lease's time, not before.
func TestSilentHolder(t *testing.T) {
	w := newWorld(t)
	w.exec("INSERT INTO lease (name, holder, beat) VALUES ('work', 'dead', 7)")
	begin := time.Now()
	w.program("a")
	w.next()
	if d := time.Since(begin); d < span {
		t.Errorf("taken after %v", d)
	}
}

// A holder that another has followed stops, and its transactions are refused.
func TestLostHolder(t *testing.T) {
	w := newWorld(t)
	l, _ := w.program("a")
	w.next()
	held := func() (err error) {
		return w.store.Tx(t.Context(), l.Held)
	}
	if err := held(); err != nil {
		t.Error(err)
	}
	w.exec("UPDATE lease SET holder = 'b', beat = beat + 1")
	if err := held(); !errors.Is(err, lease.ErrLost) {
		t.Errorf("the transaction of a former holder: %v", err)
	}
	for deadline := time.Now().Add(20 * time.Second); w.working.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it goes on")
		}
	}
	w.next() // it is elected again when b is silent
}

// A holder that cannot renew stops before another may begin.
func TestDatabaseAway(t *testing.T) {
	w := newWorld(t)
	w.program("a")
	w.next()
	begin := time.Now()
	w.store.Close()
	for w.working.Load() > 0 {
		if time.Since(begin) > span {
			t.Fatal("it works on for the whole time")
		}
		time.Sleep(time.Millisecond)
	}
}
