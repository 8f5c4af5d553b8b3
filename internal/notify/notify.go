// Package notify tells other services of the cloud about committed changes:
// each consumer follows the event stream with a cursor of its own in the
// database, in commit order, at least once. What a consumer sent is forgotten
// only after the cursor is behind it.
//
// Of several servers on one database one at a time serves a consumer: the one
// that holds the consumer's lease. One that was paused while it sent may send
// that once more, late.
//
// The package must not know any service, nor what events mean.
package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"isospin/internal/identity"
	"isospin/internal/lease"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Schema of the package's tables.
var Schema = store.Schema{Module: "notify", Steps: [][]string{{
	`CREATE TABLE notification_cursor (
		consumer VARCHAR(64) PRIMARY KEY, last_sequence BIGINT NOT NULL)`,
	// What a consumer knows of an object as of its cursor.
	`CREATE TABLE notification_state (
		consumer VARCHAR(64) NOT NULL, object_id VARCHAR(64) NOT NULL, state TEXT NOT NULL, PRIMARY KEY (consumer, object_id))`,
}, {
	// Nothing: databases of before the first release have this version.
}}}

// Consumer turns committed changes into messages of type M to one service.
type Consumer[M any] interface {
	// Name of the cursor; at most 64 characters, never changed.
	Name() string
	// Kinds of objects whose events are followed.
	Kinds() []string
	// Plan says what an event means. kept is what the last event of the object
	// left behind (nil: nothing), keep what this one does. It only reads, and
	// may be asked again about the same event.
	Plan(tx *store.Tx, e store.Event, kept []byte) (messages []M, keep []byte, err error)
	// Send delivers messages in order, or gives those up that the service
	// refuses for good. An error means that all of them are to be sent again.
	Send(ctx context.Context, messages []M) error
}

// Options of New.
type Options struct {
	Store    *store.Store       // required
	Registry *resource.Registry // required: where objects that are older than a cursor are found
	Logger   *slog.Logger       // required
	// Holder names this server in leases; unlike that of any other process.
	Holder string // required
	// Interval is the least time between two deliveries, in which messages gather. Default: none.
	Interval time.Duration // optional
	// Lease is how long a server that ends without a word still holds a consumer. Default: lease.DefaultTime.
	Lease time.Duration // optional
	// Pause before a delivery that failed is tried again; it doubles up to MaxPause. Defaults: 1 s, 1 min.
	Pause, MaxPause time.Duration // optional
	// Metrics gets what was sent, what failed and what waits.
	Metrics prometheus.Registerer // optional
}

// Runner serves one consumer.
type Runner[M any] struct {
	o        Options
	consumer Consumer[M]
	log      *slog.Logger
	lease    *lease.Lease
	metrics  *metrics

	cursor int64
	// skipped are events behind the cursor that the database has, which was stored at that time.
	skipped int
	stored  time.Time
	sent    time.Time
}

const (
	// batch bounds the events that are delivered at once.
	batch = 256
	// The cursor is stored after so many events of which there was nothing to tell, or after so long.
	maxSkipped = 16 * batch
	maxUnsaved = time.Minute
)

// New returns a runner that has not begun.
func New[M any](o Options, c Consumer[M]) *Runner[M] {
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	if o.MaxPause == 0 {
		o.MaxPause = time.Minute
	}
	return &Runner[M]{
		o: o, consumer: c, log: o.Logger.With("consumer", c.Name()), metrics: newMetrics(o.Metrics, c.Name()),
		lease: lease.New(lease.Options{Store: o.Store, Logger: o.Logger, Name: "notify/" + c.Name(), Holder: o.Holder, Time: o.Lease, Metrics: o.Metrics}),
	}
}

// Run serves the consumer until ctx ends.
func (r *Runner[M]) Run(ctx context.Context) {
	r.lease.Run(ctx, func(ctx context.Context, _ time.Time) { r.serve(ctx) })
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// serve follows the events while the lease is held.
func (r *Runner[M]) serve(ctx context.Context) {
	signal, end := r.o.Store.Follow()
	defer end()
	for wait := r.o.Pause; ; wait = min(2*wait, r.o.MaxPause) {
		err := r.begin(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			break
		}
		r.log.Error("notifications cannot begin", "error", err, "again_in", wait)
		pause(ctx, wait)
	}
	defer r.keep(context.WithoutCancel(ctx))
	defer r.metrics.waitSince(0) // it is another server's from here
	for wait := r.o.Pause; ; {
		more, err := r.step(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.metrics.failures.Inc()
			r.log.Warn("notifications wait", "error", err, "again_in", wait)
			pause(ctx, wait)
			wait = min(2*wait, r.o.MaxPause)
			continue
		}
		wait = r.o.Pause
		if more {
			continue
		}
		select {
		case <-signal:
		case <-ctx.Done():
			return
		}
	}
}

// begin reads the cursor. A new consumer begins with what happens from now on.
func (r *Runner[M]) begin(ctx context.Context) error {
	var cursor int64
	fresh := false
	err := r.o.Store.Tx(ctx, func(tx *store.Tx) error {
		fresh = false
		if err := r.lease.Held(tx); err != nil {
			return err
		}
		err := tx.Row("SELECT last_sequence FROM notification_cursor WHERE consumer = ?", []any{r.consumer.Name()}, &cursor)
		if errors.Is(err, store.ErrNoRow) {
			fresh, cursor = true, -1
			_, err = tx.Exec("INSERT INTO notification_cursor (consumer, last_sequence) VALUES (?, ?)", r.consumer.Name(), cursor)
			return err
		}
		if err != nil {
			return err
		}
		if fresh = cursor < 0; fresh {
			return nil
		}
		floor, err := tx.Floor()
		if err != nil {
			return err
		}
		if floor > cursor {
			r.log.Warn("notifications of changes that are no longer kept were not sent", "after", cursor, "up_to", floor)
			fresh = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.cursor, r.skipped, r.stored = cursor, 0, time.Now()
	if fresh {
		return r.seed(ctx)
	}
	return nil
}

// seed notes all objects as they are, without a message about any.
func (r *Runner[M]) seed(ctx context.Context) error {
	var last int64
	err := r.o.Store.View(ctx, func(tx *store.Tx) (err error) {
		last, err = tx.LastSequence()
		return err
	})
	if err != nil {
		return err
	}
	states := map[string][]byte{}
	for _, kind := range r.consumer.Kinds() {
		res := r.o.Registry.Named(kind)
		if res == nil {
			continue
		}
		objects, err := res.Service.List(identity.System(ctx), &resource.Query{})
		if err != nil {
			return fmt.Errorf("objects of %s: %w", kind, err)
		}
		err = r.o.Store.View(ctx, func(tx *store.Tx) error {
			for _, o := range objects {
				data, err := json.Marshal(o)
				if err != nil {
					return fmt.Errorf("%s: %w", kind, err)
				}
				based, ok := o.(resource.Based)
				if !ok {
					continue
				}
				_, keep, err := r.consumer.Plan(tx, store.Event{Kind: kind, ID: based.Base().ID, Op: store.Created, Data: data}, nil)
				if err != nil {
					return fmt.Errorf("%s %s: %w", kind, based.Base().ID, err)
				}
				if keep != nil {
					states[based.Base().ID] = keep
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	err = r.o.Store.Tx(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec("DELETE FROM notification_state WHERE consumer = ?", r.consumer.Name()); err != nil {
			return err
		}
		return r.save(tx, last, map[string][]byte{}, states)
	})
	if err == nil {
		r.cursor, r.skipped, r.stored = last, 0, time.Now()
	}
	return err
}

// keep stores the cursor at the end.
func (r *Runner[M]) keep(ctx context.Context) {
	if r.skipped == 0 {
		return
	}
	none := map[string][]byte{}
	err := r.o.Store.Tx(ctx, func(tx *store.Tx) error { return r.save(tx, r.cursor, none, none) })
	if err != nil && !errors.Is(err, store.ErrClosed) && !errors.Is(err, lease.ErrLost) {
		r.log.Warn("notifications: the cursor is not stored", "error", err)
	}
}

// step delivers what the next events mean, and moves the cursor behind them.
func (r *Runner[M]) step(ctx context.Context) (more bool, err error) {
	var messages []M
	var last int64
	had, states := map[string][]byte{}, map[string][]byte{}
	count := 0
	err = r.o.Store.View(ctx, func(tx *store.Tx) error {
		events, err := tx.Events(r.cursor, batch)
		if err != nil {
			return err
		}
		count = len(events)
		if count == 0 {
			r.metrics.waitSince(0)
			return nil
		}
		r.metrics.waitSince(events[0].At)
		last = events[count-1].Sequence
		events = slices.DeleteFunc(events, func(e store.Event) bool { return !slices.Contains(r.consumer.Kinds(), e.Kind) })
		if had, err = r.states(tx, events); err != nil {
			return err
		}
		for id, state := range had {
			states[id] = state
		}
		for _, e := range events {
			m, keep, err := r.consumer.Plan(tx, e, states[e.ID])
			if err != nil {
				// One object that cannot be read keeps no other from being told of.
				r.log.Error("notifications: an event is skipped", "sequence", e.Sequence, "kind", e.Kind, "id", e.ID, "error", err)
				continue
			}
			messages = append(messages, m...)
			states[e.ID] = keep
		}
		return nil
	})
	if err != nil || count == 0 {
		return false, err
	}
	if len(messages) > 0 {
		if wait := time.Until(r.sent.Add(r.o.Interval)); wait > 0 {
			// What happens meanwhile goes along.
			if pause(ctx, wait); count < batch || ctx.Err() != nil {
				r.sent = time.Time{}
				return true, ctx.Err()
			}
		}
		if err := r.consumer.Send(ctx, messages); err != nil {
			return false, err
		}
		r.sent = time.Now()
		r.metrics.messages.Add(float64(len(messages)))
	}
	r.skipped += count
	changed := len(messages) > 0 || r.skipped >= maxSkipped || time.Since(r.stored) > maxUnsaved
	for id, state := range states {
		changed = changed || string(state) != string(had[id])
	}
	if changed {
		err := r.o.Store.Tx(ctx, func(tx *store.Tx) error { return r.save(tx, last, had, states) })
		if err != nil {
			return false, fmt.Errorf("cursor: %w", err)
		}
		r.skipped, r.stored = 0, time.Now()
	}
	r.cursor = last
	if count < batch {
		r.metrics.waitSince(0)
	}
	return count == batch, nil
}

// states reads what is kept of the events' objects.
func (r *Runner[M]) states(tx *store.Tx, events []store.Event) (map[string][]byte, error) {
	kept := map[string][]byte{}
	var ids []any
	for _, e := range events {
		if !slices.Contains(ids, any(e.ID)) {
			ids = append(ids, e.ID)
		}
	}
	if len(ids) == 0 {
		return kept, nil
	}
	in, args := store.In("object_id", ids)
	return kept, tx.Query(func(scan func(...any) error) error {
		var id, state string
		if err := scan(&id, &state); err != nil {
			return err
		}
		kept[id] = []byte(state)
		return nil
	}, "SELECT object_id, state FROM notification_state WHERE consumer = ? AND "+in, append([]any{r.consumer.Name()}, args...)...)
}

// save moves the cursor and notes the states that differ, while the lease is ours.
func (r *Runner[M]) save(tx *store.Tx, cursor int64, had, states map[string][]byte) error {
	name := r.consumer.Name()
	if err := r.lease.Held(tx); err != nil {
		return err
	}
	if _, err := tx.Exec("UPDATE notification_cursor SET last_sequence = ? WHERE consumer = ?", cursor, name); err != nil {
		return err
	}
	for id, state := range states {
		before, existed := had[id]
		var err error
		switch {
		case state == nil && existed:
			_, err = tx.Exec("DELETE FROM notification_state WHERE consumer = ? AND object_id = ?", name, id)
		case state == nil || existed && string(before) == string(state):
		case existed:
			_, err = tx.Exec("UPDATE notification_state SET state = ? WHERE consumer = ? AND object_id = ?", string(state), name, id)
		default:
			_, err = tx.Exec("INSERT INTO notification_state (consumer, object_id, state) VALUES (?, ?, ?)", name, id, string(state))
		}
		if err != nil {
			return fmt.Errorf("state of %s: %w", id, err)
		}
	}
	return nil
}
