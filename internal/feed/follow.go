package feed

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"isospin/internal/store"
)

// position is the last event that was applied, enough of it to know it again.
type position struct {
	Kind, ID, RequestID string
	Op                  store.Op
	Revision, At        int64
}

func positionOf(e store.Event) position {
	return position{e.Kind, e.ID, e.RequestID, e.Op, e.Revision, e.At}
}

// follow reads what comes after a sequence number, and tells whether the event
// of that number is still there as it was. It is not if it was trimmed, or if
// the database has forgotten it: one that loses its latest commits, when it
// crashes or a standby takes over, gives their numbers again.
func follow(tx *store.Tx, after int64, last position) (events []store.Event, known bool, err error) {
	if after == 0 {
		floor, err := tx.Floor()
		if err != nil || floor > 0 {
			return nil, false, err
		}
		events, err = tx.Events(0, batch)
		return events, true, err
	}
	if events, err = tx.Events(after-1, batch+1); err != nil {
		return nil, false, err
	}
	if len(events) == 0 || events[0].Sequence != after || positionOf(events[0]) != last {
		return nil, false, nil
	}
	return events[1:], true, nil
}

// newest is the last event's number, and what it is known by.
func newest(tx *store.Tx) (int64, position, error) {
	sequence, err := tx.Settled()
	if err != nil || sequence == 0 {
		return 0, position{}, err
	}
	events, err := tx.Events(sequence-1, 1)
	if err != nil {
		return 0, position{}, err
	}
	if len(events) == 0 || events[0].Sequence != sequence {
		return 0, position{}, fmt.Errorf("feed: event %d is not there", sequence)
	}
	return sequence, positionOf(events[0]), nil
}

// catchUp applies all events that there are.
func (h *Hub) catchUp(ctx context.Context) error {
	for {
		var events []store.Event
		known := false
		err := h.store.ViewAtOnce(ctx, func(tx *store.Tx) (err error) {
			events, known, err = follow(tx, h.sequence, h.last) // only Run's goroutine writes these
			return err
		})
		if err != nil {
			return err
		}
		if !known {
			if err := h.reload(ctx); err != nil {
				return err
			}
			continue
		}
		if len(events) > 0 {
			h.apply(events)
			for _, observe := range h.observers {
				observe(events)
			}
		}
		if len(events) < batch {
			return nil
		}
	}
}

// reload reads everything that is kept anew and applies what differs, so that
// each host is told what it has missed and no more.
func (h *Hub) reload(ctx context.Context) error {
	h.log.Warn("feed: what follows the last change is not known any more; everything is read anew", "sequence", h.sequence)
	var sequence int64
	var last position
	now := map[string]map[string]any{}
	err := h.store.View(ctx, func(tx *store.Tx) error {
		var err error
		if sequence, last, err = newest(tx); err != nil {
			return err
		}
		for _, name := range h.copy.order {
			objects := map[string]any{}
			now[name] = objects
			if err := h.copy.kinds[name].load(tx, func(id string, o any) { objects[id] = o }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	h.replace(now, sequence, last)
	for _, skip := range h.skippers {
		skip(sequence)
	}
	return nil
}

// replace makes the copy be what was read.
func (h *Hub) replace(now map[string]map[string]any, sequence int64, last position) {
	h.change(func(m Marker) {
		change := func(ch Change) {
			for _, p := range h.projections {
				p.Apply(h.copy, ch, m)
			}
		}
		// What refers to others goes before them, and comes after them.
		for _, name := range slices.Backward(h.copy.order) {
			objects := h.copy.kinds[name].objects
			for id, old := range objects {
				if _, there := now[name][id]; !there {
					delete(objects, id)
					change(Change{Kind: name, ID: id, Old: old})
				}
			}
		}
		for _, name := range h.copy.order {
			objects := h.copy.kinds[name].objects
			for id, o := range now[name] {
				old := objects[id]
				if old != nil && reflect.DeepEqual(old, o) {
					continue
				}
				h.copy.share(o)
				objects[id] = o
				change(Change{Kind: name, ID: id, Old: old, New: o})
			}
		}
		h.sequence, h.last = sequence, last
	})
}

// rounds lets many wait for one look at the database.
type rounds struct {
	mu sync.Mutex
	// asked and answered are numbers of looks; err is what the last of them came to.
	asked, answered uint64
	err             error
	changed         chan struct{}
	wanted          chan struct{} // cap 1
}

func newRounds() *rounds {
	return &rounds{changed: make(chan struct{}), wanted: make(chan struct{}, 1)}
}

// begin returns the number of the look that begins now.
func (r *rounds) begin() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

func (r *rounds) end(number uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if number == r.answered {
		return // nobody waits
	}
	r.answered, r.err = number, err
	close(r.changed)
	r.changed = make(chan struct{})
}

// wait waits for a look that begins after the call.
func (r *rounds) wait(ctx context.Context) error {
	r.mu.Lock()
	r.asked++
	number := r.asked
	r.mu.Unlock()
	select {
	case r.wanted <- struct{}{}:
	default:
	}
	for {
		r.mu.Lock()
		answered, err, changed := r.answered, r.err, r.changed
		r.mu.Unlock()
		if answered >= number {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// currentPatience bounds the wait for the database.
const currentPatience = 20 * time.Second

// Current waits until the hub has applied all that was committed before the
// call. A host that comes from another server may have been told of it there.
// However many wait, the database is asked once.
func (h *Hub) Current(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, currentPatience)
	defer cancel()
	return h.rounds.wait(ctx)
}
