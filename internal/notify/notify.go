// Package notify tells other services of the cloud about committed changes:
// each consumer follows the event stream with a cursor of its own in the
// database, in commit order, at least once. What a consumer sent is forgotten
// only after the cursor is behind it.
//
// Of several servers on one database one at a time serves a consumer: the one
// whose name is in the consumer's lease, which it renews. Leases compare the
// servers' clocks, which may differ by less than a lease's time.
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

	"isospin/internal/identity"
	"isospin/internal/resource"
	"isospin/internal/store"
)

// Schema of the package's tables.
var Schema = store.Schema{Module: "notify", Steps: [][]string{{
	`CREATE TABLE notification_cursor (
		consumer VARCHAR(64) PRIMARY KEY, last_sequence BIGINT NOT NULL, holder VARCHAR(255) NOT NULL, held_until BIGINT NOT NULL)`,
	// What a consumer knows of an object as of its cursor.
	`CREATE TABLE notification_state (
		consumer VARCHAR(64) NOT NULL, object_id VARCHAR(64) NOT NULL, state TEXT NOT NULL, PRIMARY KEY (consumer, object_id))`,
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
	// Lease is how long a server that ends without a word still holds a consumer. Default: 15 s.
	Lease time.Duration // optional
	// Pause before a delivery that failed is tried again; it doubles up to MaxPause. Defaults: 1 s, 1 min.
	Pause, MaxPause time.Duration // optional
}

// Runner serves one consumer.
type Runner[M any] struct {
	o        Options
	consumer Consumer[M]
	log      *slog.Logger

	cursor int64
	// stored is the cursor that the database has.
	stored int64
	sent   time.Time
}

// batch bounds the events that are delivered at once.
const batch = 256

// New returns a runner that has not begun.
func New[M any](o Options, c Consumer[M]) *Runner[M] {
	if o.Lease == 0 {
		o.Lease = 15 * time.Second
	}
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	if o.MaxPause == 0 {
		o.MaxPause = time.Minute
	}
	return &Runner[M]{o: o, consumer: c, log: o.Logger.With("consumer", c.Name())}
}

// Run serves the consumer until ctx ends.
func (r *Runner[M]) Run(ctx context.Context) {
	defer r.release(context.WithoutCancel(ctx))
	for ctx.Err() == nil {
		held, err := r.acquire(ctx)
		if err != nil && ctx.Err() == nil {
			r.log.Error("notifications: the lease cannot be taken", "error", err)
		}
		if held && err == nil {
			r.serve(ctx)
		}
		pause(ctx, r.o.Lease/3)
	}
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
	ctx, cancel := context.WithCancel(ctx)
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		defer cancel()
		r.renew(ctx)
	}()
	defer func() { cancel(); <-renewed }()
	signal, end := r.o.Store.Follow()
	defer end()
	// Other servers' commits give no signal.
	tick := time.NewTicker(r.o.Lease / 3)
	defer tick.Stop()
	for wait := r.o.Pause; ; {
		more, err := r.step(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
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
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// acquire takes the lease, and reads the cursor. A new consumer begins with
// what happens from now on.
func (r *Runner[M]) acquire(ctx context.Context) (held bool, err error) {
	now := time.Now()
	fresh := false
	err = r.o.Store.Tx(ctx, func(tx *store.Tx) error {
		held, fresh = true, false
		err := tx.Row("SELECT last_sequence FROM notification_cursor WHERE consumer = ?", []any{r.consumer.Name()}, &r.cursor)
		if errors.Is(err, store.ErrNoRow) {
			fresh, r.cursor = true, -1
			_, err = tx.Exec("INSERT INTO notification_cursor (consumer, last_sequence, holder, held_until) VALUES (?, ?, ?, ?)",
				r.consumer.Name(), r.cursor, r.o.Holder, now.Add(r.o.Lease).UnixMilli())
			return err
		}
		if err != nil {
			return err
		}
		fresh = r.cursor < 0
		n, err := tx.Exec("UPDATE notification_cursor SET holder = ?, held_until = ? WHERE consumer = ? AND (holder = ? OR held_until < ?)",
			r.o.Holder, now.Add(r.o.Lease).UnixMilli(), r.consumer.Name(), r.o.Holder, now.UnixMilli())
		held = n > 0
		if err != nil || fresh || !held {
			return err
		}
		var oldest int64
		if err := tx.Row("SELECT COALESCE(MIN(seq), 0) FROM event", nil, &oldest); err != nil {
			return err
		}
		if oldest > r.cursor+1 {
			r.log.Warn("notifications of changes that are no longer kept were not sent", "after", r.cursor, "before", oldest)
			fresh = true
		}
		return nil
	})
	if err != nil || !held {
		return false, err
	}
	r.stored = r.cursor
	if fresh {
		return true, r.seed(ctx)
	}
	return true, nil
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
		r.cursor, r.stored = last, last
	}
	return err
}

// renew keeps the lease until ctx ends or the lease is another's.
func (r *Runner[M]) renew(ctx context.Context) {
	tick := time.NewTicker(r.o.Lease / 3)
	defer tick.Stop()
	until := time.Now().Add(r.o.Lease)
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		var n int64
		next := time.Now().Add(r.o.Lease)
		err := r.o.Store.Tx(ctx, func(tx *store.Tx) (err error) {
			n, err = tx.Exec("UPDATE notification_cursor SET held_until = ? WHERE consumer = ? AND holder = ?", next.UnixMilli(), r.consumer.Name(), r.o.Holder)
			return err
		})
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && n == 0:
			r.log.Warn("notifications: another server has taken over")
			return
		case err == nil:
			until = next
		case time.Now().After(until):
			r.log.Error("notifications: the lease cannot be renewed", "error", err)
			return
		}
	}
}

// release gives the lease to whoever wants it.
func (r *Runner[M]) release(ctx context.Context) {
	err := r.o.Store.Tx(ctx, func(tx *store.Tx) error {
		if _, err := tx.Exec("UPDATE notification_cursor SET last_sequence = ? WHERE consumer = ? AND holder = ? AND last_sequence < ? AND last_sequence >= 0", r.cursor, r.consumer.Name(), r.o.Holder, r.cursor); err != nil {
			return err
		}
		_, err := tx.Exec("UPDATE notification_cursor SET held_until = 0 WHERE consumer = ? AND holder = ?", r.consumer.Name(), r.o.Holder)
		return err
	})
	if err != nil && !errors.Is(err, store.ErrClosed) {
		r.log.Warn("notifications: the lease is not given back", "error", err)
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
			return nil
		}
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
	}
	changed := len(messages) > 0 || last-r.stored >= 16*batch
	for id, state := range states {
		changed = changed || string(state) != string(had[id])
	}
	if changed {
		err := r.o.Store.Tx(ctx, func(tx *store.Tx) error { return r.save(tx, last, had, states) })
		if err != nil {
			return false, fmt.Errorf("cursor: %w", err)
		}
		r.stored = last
	}
	r.cursor = last
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

var errLost = errors.New("the lease is another server's")

// save moves the cursor and notes the states that differ, while the lease is ours.
func (r *Runner[M]) save(tx *store.Tx, cursor int64, had, states map[string][]byte) error {
	name := r.consumer.Name()
	var holder string
	if err := tx.Row("SELECT holder FROM notification_cursor WHERE consumer = ?", []any{name}, &holder); err != nil {
		return err
	}
	if holder != r.o.Holder {
		return errLost
	}
	if _, err := tx.Exec("UPDATE notification_cursor SET last_sequence = ? WHERE consumer = ? AND holder = ?", cursor, name, r.o.Holder); err != nil {
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
