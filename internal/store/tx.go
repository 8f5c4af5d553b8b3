package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// ErrNoRow: there is no such row.
var ErrNoRow = errors.New("no row")

// Tx is one transaction. It belongs to the closure it was given to.
type Tx struct {
	c        session
	dialect  dialect
	writable bool
	events   []Event
	// gathering: questions of Gather are collected, to be asked together.
	gathering *[]question
	// anew: what is in memory is old.
	anew bool
}

func (tx *Tx) exec(query string) error {
	_, err := tx.c.exec(query, nil)
	return err
}

// Exec runs a statement with ? for parameters and returns the number of rows
// that it inserted, deleted, or matched to update them.
func (tx *Tx) Exec(query string, args ...any) (int64, error) { return tx.c.exec(query, args) }

// Put is Exec for a statement whose number of rows does not matter. It may be
// sent to the database later, with others: nil says that it is expected to be
// carried out. If a constraint refuses it in the end, the closure is run once
// more from its beginning, and Put then returns that error.
func (tx *Tx) Put(query string, args ...any) error {
	_, err := tx.c.put(query, args, false)
	return err
}

// Query runs a query and calls row for each row; scan is that row's Scan. row
// must not use the transaction.
func (tx *Tx) Query(row func(scan func(...any) error) error, query string, args ...any) error {
	return tx.c.ask([]question{{query: query, args: args, row: row}})
}

// Row scans the first row of a query; ErrNoRow when there is none.
func (tx *Tx) Row(query string, args []any, dest ...any) error {
	return tx.c.first(query, args, dest)
}

// Exists tells whether a query has a row.
func (tx *Tx) Exists(query string, args ...any) (bool, error) {
	var n int64
	err := tx.c.ask([]question{{query: "SELECT COUNT(*) FROM (" + query + " LIMIT 1) x", args: args, grows: true,
		row: func(scan func(...any) error) error { return scan(&n) }}})
	return n > 0, err
}

// Tally returns how many rows of one kind a table has, and how many there may be,
// as ask finds them; without asking, a number that is too great rather than
// too small, as long as n more are within the limit. kind names what is counted;
// limits is the table that they are kept in.
func (tx *Tx) Tally(kind, table, limits string, n int, ask func() (used, limit int, err error)) (used, limit int, err error) {
	if c, ok := tx.c.(*conversation); ok {
		return c.tally(kind, table, limits, n, ask)
	}
	return ask()
}

const fewSpares, manySpares = 8, 32

// Spare returns values that no row has, to be tried in order; none: find has
// found none. find looks for up to n of them. Values of one kind that are not
// used yet may be remembered: that nobody else takes them first is for a unique
// key to see to, and kind names all that a value's being free depends on.
func (tx *Tx) Spare(kind string, find func(n int) ([]string, error)) ([]string, error) {
	if c, ok := tx.c.(*conversation); ok {
		return c.spare(kind, find)
	}
	return find(fewSpares)
}

// Op says what happened to an object.
type Op string

const (
	Created Op = "create"
	Updated Op = "update"
	Deleted Op = "delete"
)

// Event is one committed change of one object.
type Event struct {
	// Sequence orders all events; it is given at commit.
	Sequence int64
	// Kind is the resource's singular name.
	Kind      string
	ID        string
	Op        Op
	Revision  int64
	ProjectID string
	RequestID string
	// UserID made the change, with a token of UserProject; empty: nobody, or it is not known.
	UserID, UserProject string
	// At is the time of the change in Unix milliseconds.
	At int64
	// Data is the object as JSON after the change; for Deleted, before it.
	Data json.RawMessage
	// Object becomes Data when the transaction ends, so that it is in its last form. Only for Emit.
	Object any
	// before: the transaction has deleted it and created it again.
	before bool
}

// Emit records a change; it is written with the rows, in this transaction.
// Several changes of one object in a transaction become the last of them.
func (tx *Tx) Emit(e Event) {
	for i := range tx.events {
		if have := &tx.events[i]; have.ID == e.ID && have.Kind == e.Kind {
			switch {
			case have.Op == Created && e.Op == Deleted && !have.before:
				tx.events = append(tx.events[:i], tx.events[i+1:]...)
				return
			case have.Op == Created && e.Op != Deleted:
				e.Op = Created
			}
			e.before = have.before || have.Op == Deleted
			// The last place, so that what the object refers to comes before it.
			tx.events = append(append(tx.events[:i], tx.events[i+1:]...), e)
			return
		}
	}
	tx.events = append(tx.events, e)
}

// finish writes the transaction's events, in their last form.
func (tx *Tx) finish() error {
	if len(tx.events) == 0 {
		return nil
	}
	if len(tx.events) > maxEvents {
		return fmt.Errorf("%d events are too many for one transaction", len(tx.events))
	}
	for i := range tx.events {
		e := &tx.events[i]
		if e.Object == nil {
			continue
		}
		var err error
		if e.Data, err = json.Marshal(e.Object); err != nil {
			return fmt.Errorf("event of %s %s: %w", e.Kind, e.ID, err)
		}
	}
	return tx.dialect.writeEvents(tx, tx.events)
}

// Events returns up to limit events after a sequence number, in commit order.
// An event is withheld for as long as another may yet come before it.
func (tx *Tx) Events(after int64, limit int) ([]Event, error) {
	return tx.dialect.events(tx, after, limit)
}

// EventsOf returns up to limit events of one object after a sequence number, in commit order.
func (tx *Tx) EventsOf(kind, id string, after int64, limit int) ([]Event, error) {
	return tx.readEvents("WHERE id = ? AND kind = ? AND seq > ? ORDER BY seq LIMIT ?", id, kind, after, limit)
}

// EventBefore returns the event of an object that came before a sequence
// number; ErrNoRow when none is kept.
func (tx *Tx) EventBefore(kind, id string, before int64) (Event, error) {
	events, err := tx.readEvents("WHERE id = ? AND kind = ? AND seq < ? ORDER BY seq DESC LIMIT 1", id, kind, before)
	if err != nil {
		return Event{}, err
	}
	if len(events) == 0 {
		return Event{}, ErrNoRow
	}
	return events[0], nil
}

// endedStretch is how many events one call of Ended looks at.
const endedStretch = 4096

// Ended returns, of one kind, the events after a sequence number by which
// objects ended that were there at another, since, and in whose data an id
// occurs. One call looks at a bounded number of events, whatever they are, and
// returns no more than limit of them: next is where to go on, 0 at the end.
func (tx *Tx) Ended(kind, id string, since, after int64, limit int) (events []Event, next int64, err error) {
	last := int64(math.MaxInt64)
	err = tx.Row("SELECT seq FROM event WHERE seq > ? ORDER BY seq LIMIT 1 OFFSET ?", []any{after, endedStretch - 1}, &next)
	switch {
	case err == nil:
		last = next
	case !errors.Is(err, ErrNoRow):
		return nil, 0, err
	}
	events, err = tx.readEvents(`WHERE seq > ? AND seq <= ? AND kind = ? AND op = ? AND data LIKE ? AND NOT EXISTS
		(SELECT 1 FROM event made WHERE made.id = event.id AND made.kind = event.kind AND made.op = ? AND made.seq > ? AND made.seq < event.seq)
		ORDER BY seq LIMIT ?`, after, last, kind, string(Deleted), "%"+strings.ReplaceAll(id, `\`, "_")+"%", string(Created), since, limit)
	if err == nil && len(events) == limit {
		next = events[limit-1].Sequence
	}
	return events, next, err
}

// CreatedSince returns those of some objects of a kind that were created after a sequence number.
func (tx *Tx) CreatedSince(kind string, since int64, ids []string) (map[string]bool, error) {
	made := map[string]bool{}
	for page := range slices.Chunk(ids, 1000) {
		condition, args := tx.dialect.among("id", page)
		if err := tx.Query(func(scan func(...any) error) error {
			var id string
			err := scan(&id)
			made[id] = true
			return err
		}, "SELECT id FROM event WHERE "+condition+" AND kind = ? AND op = ? AND seq > ?", append(args, kind, string(Created), since)...); err != nil {
			return nil, err
		}
	}
	return made, nil
}

// eventsAfter reads events; condition further restricts them.
func (tx *Tx) eventsAfter(after int64, limit int, condition string) ([]Event, error) {
	return tx.readEvents("WHERE seq > ?"+condition+" ORDER BY seq LIMIT ?", after, limit)
}

func (tx *Tx) readEvents(rest string, args ...any) ([]Event, error) {
	var events []Event
	err := tx.Query(func(scan func(...any) error) error {
		var e Event
		var op, data string
		if err := scan(&e.Sequence, &e.Kind, &e.ID, &op, &e.Revision, &e.ProjectID, &e.RequestID, &e.UserID, &e.UserProject, &e.At, &data); err != nil {
			return err
		}
		e.Op, e.Data = Op(op), json.RawMessage(data)
		events = append(events, e)
		return nil
	}, "SELECT seq, kind, id, op, revision, project_id, request_id, user_id, user_project, at, data FROM event "+rest, args...)
	return events, err
}

// Settled is the sequence number up to which no event can come any more: what
// this transaction reads is the state after it, or newer. Reading Events after
// it misses nothing.
func (tx *Tx) Settled() (int64, error) { return tx.dialect.settled(tx) }

// LastSequence is the newest event's sequence number, 0 when there is none.
func (tx *Tx) LastSequence() (int64, error) {
	var n int64
	err := tx.Row("SELECT COALESCE(MAX(seq), 0) FROM event", nil, &n)
	return n, err
}

// TrimEvents deletes events older than a time (Unix milliseconds), but the
// newest of all, and of some kinds the newest of each object that was there then:
// what the next change of it changes. It looks at no more than limit events,
// the oldest first, and tells whether there are more to look at: clocks of
// several servers differ, so that it ends at the first that is young enough.
func (tx *Tx) TrimEvents(before int64, limit int, kinds ...string) (more bool, err error) {
	floor, err := tx.Floor()
	if err != nil {
		return false, err
	}
	type row struct {
		seq, at  int64
		kind, id string
	}
	var rows []row
	if err := tx.Query(func(scan func(...any) error) error {
		var r row
		err := scan(&r.seq, &r.at, &r.kind, &r.id)
		rows = append(rows, r)
		return err
	}, "SELECT seq, at, kind, id FROM event WHERE seq > ? ORDER BY seq LIMIT ?", floor, limit+1); err != nil {
		return false, err
	}
	n := 0
	for n < len(rows)-1 && rows[n].at < before { // the one behind it is there
		n++
	}
	if n == 0 {
		return false, nil
	}
	last := rows[n-1].seq
	// Kept so far, and not any more: what has a newer event that is kept.
	superseded := map[string][]any{}
	for _, r := range rows[:n] {
		if slices.Contains(kinds, r.kind) {
			superseded[r.kind] = append(superseded[r.kind], r.id)
		}
	}
	if _, err := tx.Exec("UPDATE event_floor SET seq = ? WHERE id = 1", last); err != nil {
		return false, err
	}
	for kind, ids := range superseded {
		for some := range slices.Chunk(ids, 500) {
			in, values := In("id", some)
			if _, err := tx.Exec("DELETE FROM event WHERE seq <= ? AND kind = ? AND "+in, append([]any{floor, kind}, values...)...); err != nil {
				return false, err
			}
		}
	}
	query, args := "DELETE FROM event WHERE seq > ? AND seq <= ?", []any{floor, last}
	if len(kinds) > 0 {
		in, values := In("kind", anySlice(kinds))
		query += " AND (NOT (" + in + ") OR op = 'delete' OR EXISTS (SELECT 1 FROM event n WHERE n.id = event.id AND n.kind = event.kind AND n.seq > event.seq AND n.seq <= ?))"
		args = append(append(args, values...), last)
	}
	_, err = tx.Exec(query, args...)
	return n == limit, err
}

// Floor is the sequence number up to which events may have been trimmed: what
// follows a number below it is not known any more.
func (tx *Tx) Floor() (int64, error) {
	var n int64
	err := tx.Row("SELECT seq FROM event_floor WHERE id = 1", nil, &n)
	return n, err
}
