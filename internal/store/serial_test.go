package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

// TestSerial: whatever transactions do, of however many programs, is what a
// model says that does them one after the other, in the order of their events.
// ISOSPIN_TEST_SEED has it make them up again, ISOSPIN_TEST_STEPS has it make more.
func TestSerial(t *testing.T) {
	for _, kind := range storetest.Kinds {
		t.Run(kind, func(t *testing.T) { testSerial(t, kind) })
	}
}

func setting(t *testing.T, variable string, n uint64) uint64 {
	t.Helper()
	if text := os.Getenv(variable); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func testSerial(t *testing.T, kind string) {
	seed, rounds := setting(t, "ISOSPIN_TEST_SEED", rand.Uint64()), int(setting(t, "ISOSPIN_TEST_STEPS", 10))
	t.Logf("ISOSPIN_TEST_SEED=%d", seed)
	connection := storetest.NewOf(t, kind)
	programs := []*program{newProgram(t, connection)}
	for kind != storetest.SQLite && len(programs) < 3 {
		programs = append(programs, newProgram(t, connection))
	}
	var clock atomic.Int64
	now := func() int64 { return clock.Add(1) }
	const clients, steps = 8, 25
	var records [clients][]*record
	for round := range rounds {
		var all sync.WaitGroup
		for n := range clients {
			all.Go(func() {
				r := rand.New(rand.NewPCG(seed, uint64(round*clients+n)))
				for step := range steps {
					// In every other round one program does most, and little is refused, so that what it remembers holds for long.
					p, calm := programs[round/2%len(programs)], round%2 == 1
					if !calm || r.IntN(15) == 0 {
						p = programs[r.IntN(len(programs))]
					}
					do := p.change
					if r.IntN(4) == 0 {
						do = p.read
					}
					records[n] = append(records[n], do(t, r, now, fmt.Sprintf("%d.%d.%d", round, n, step), calm))
				}
			})
		}
		all.Wait()
	}
	w := tell(t, programs[0], slices.Concat(records[:]...)).follow(t, newWorld(kind == storetest.MariaDB))
	last := record{view: true, Ops: []op{{Do: "list"}, {Do: "places"}, {Do: "ties"}, {Do: "lates"}, {Do: "marks"}}}
	if err := programs[0].View(t.Context(), func(tx *store.Tx) (err error) {
		for i := range last.Ops {
			err = errors.Join(err, programs[0].do(tx, "", &last.Ops[i]))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.repeat(&last); err != nil {
		t.Errorf("what is stored in the end: %v", err)
	}
}

// history is what became of all transactions.
type history struct {
	committed []*record           // that wrote, in the order of their events
	boxes     map[string][]string // transaction to its events of boxes
	others    []*record           // that read, or failed
}

// tell compares the events with the records of those that emitted them.
func tell(t *testing.T, p *program, all []*record) *history {
	var events []store.Event
	if err := p.View(t.Context(), func(tx *store.Tx) (err error) {
		events, err = tx.Events(0, 1<<30)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	by := map[string]*record{}
	for _, r := range all {
		by[r.ID] = r
	}
	h := &history{boxes: map[string][]string{}}
	for i, e := range events {
		if i > 0 && e.Sequence <= events[i-1].Sequence {
			t.Errorf("event %d comes after %d", e.Sequence, events[i-1].Sequence)
		}
		if e.Kind == "box" {
			if last := h.committed[len(h.committed)-1]; e.RequestID != last.ID {
				t.Errorf("an event of %s is among those of %s", e.RequestID, last.ID)
			}
			h.boxes[e.RequestID] = append(h.boxes[e.RequestID], e.ID+" "+string(e.Op))
			continue
		}
		r := by[e.ID]
		if r == nil {
			t.Fatalf("there is another %s %s %s", e.Kind, e.ID, e.Data)
		}
		if have, err := json.Marshal(r); err != nil || string(have) != string(e.Data) || r.failed != nil {
			t.Errorf("%s ended with %v, and its events are there:\n%s\nand not\n%s, %v", e.ID, r.failed, e.Data, have, err)
		}
		h.committed = append(h.committed, r)
		delete(by, e.ID)
	}
	failed := 0
	for _, r := range by {
		switch {
		case r.failed == nil && r.writes:
			t.Errorf("%s has succeeded, and has no event", r.ID)
		case errors.Is(r.failed, context.Canceled):
			continue // it saw what was undone
		}
		if r.failed != nil {
			failed++
		}
		h.others = append(h.others, r)
	}
	t.Logf("%d transactions, of which %d were committed and %d failed", len(all), len(h.committed), failed)
	return h
}

// bounds are how many of those that were committed may come before a
// transaction: those that ended before it began must, those that began after it ended must not.
func (h *history) bounds(r *record) (least, most int) {
	most = len(h.committed)
	for i, c := range h.committed {
		if c.ended < r.begun {
			least = i + 1
		}
		if c.begun > r.ended {
			most = min(most, i)
		}
	}
	return least, most
}

// follow repeats all transactions that wrote, in the order of their events. All
// others must have seen what there was at some time between their begin and end.
func (h *history) follow(t *testing.T, w *world) *world {
	// other waits for a time to which what it has seen belongs, until most.
	type other struct {
		*record
		most int
		why  error
	}
	others := make([][]*other, len(h.committed)+1)
	for _, r := range h.others {
		least, most := h.bounds(r)
		others[least] = append(others[least], &other{record: r, most: most})
	}
	for at := 0; ; at++ {
		for _, o := range others[at] {
			_, err := w.repeat(o.record)
			if err == nil {
				continue
			}
			if o.why = errors.Join(o.why, fmt.Errorf("%d: %w", at, err)); at >= o.most {
				t.Errorf("%s (ended with %v) saw what never was:\n%v\n%+v", o.ID, o.failed, o.why, o.Ops)
				continue
			}
			others[at+1] = append(others[at+1], o)
		}
		if at == len(h.committed) {
			return w
		}
		r := h.committed[at]
		if least, most := h.bounds(r); at < least || at > most {
			t.Errorf("%s was the %dth, of %d to %d", r.ID, at, least, most)
		}
		var err error
		if w, err = w.repeat(r); err != nil {
			t.Fatalf("the %dth, %s: %v\n%+v", at, r.ID, err, r.Ops)
		}
		have := h.boxes[r.ID]
		if slices.Sort(have); !slices.Equal(have, w.events()) {
			t.Errorf("%s has the events %q, not %q:\n%+v", r.ID, have, w.events(), r.Ops)
		}
	}
}
