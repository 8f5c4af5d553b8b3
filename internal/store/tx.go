package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
)

// ErrNoRow: there is no such row.
var ErrNoRow = errors.New("no row")

// Tx is one transaction. It belongs to the closure it was given to.
type Tx struct {
	c        *connection
	writable bool
	events   []Event
}

// Statements run without the caller's context: interrupting one of them would
// undo the transactions of others that share the commit.
var background = context.Background()

func (tx *Tx) prepare(query string) (*sql.Stmt, error) {
	if st := tx.c.statements[query]; st != nil {
		return st, nil
	}
	st, err := tx.c.conn.PrepareContext(background, query)
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", query, err)
	}
	if len(tx.c.statements) > 2000 {
		for q, old := range tx.c.statements {
			old.Close()
			delete(tx.c.statements, q)
		}
	}
	tx.c.statements[query] = st
	return st, nil
}

func (tx *Tx) exec(query string) error {
	_, err := tx.Exec(query)
	return err
}

// Exec runs a statement with ? for parameters and returns the number of rows it changed.
func (tx *Tx) Exec(query string, args ...any) (int64, error) {
	st, err := tx.prepare(query)
	if err != nil {
		return 0, err
	}
	r, err := st.ExecContext(background, args...)
	if err != nil {
		return 0, classify(err)
	}
	return r.RowsAffected()
}

// Query runs a query and calls row for each row; scan is that row's Scan.
func (tx *Tx) Query(row func(scan func(...any) error) error, query string, args ...any) error {
	st, err := tx.prepare(query)
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(background, args...)
	if err != nil {
		return classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Row scans the first row of a query; ErrNoRow when there is none.
func (tx *Tx) Row(query string, args []any, dest ...any) error {
	st, err := tx.prepare(query)
	if err != nil {
		return err
	}
	err = st.QueryRowContext(background, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNoRow
	}
	return err
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
	// At is the time of the change in Unix milliseconds.
	At int64
	// Data is the object as JSON after the change; for Deleted, before it.
	Data json.RawMessage
	// Object becomes Data when the transaction ends, so that it is in its last form. Only for Emit.
	Object any
}

// Emit records a change; it is written with the rows, in this transaction.
// Several changes of one object in a transaction become the last of them.
func (tx *Tx) Emit(e Event) {
	for i := range tx.events {
		if have := &tx.events[i]; have.ID == e.ID && have.Kind == e.Kind {
			switch {
			case have.Op == Created && e.Op == Deleted:
				tx.events = append(tx.events[:i], tx.events[i+1:]...)
				return
			case have.Op == Created:
				e.Op = Created
			}
			// The last place, so that what the object refers to comes before it.
			tx.events = append(append(tx.events[:i], tx.events[i+1:]...), e)
			return
		}
	}
	tx.events = append(tx.events, e)
}

func (tx *Tx) writeEvents() error {
	for _, e := range tx.events {
		if e.Object != nil {
			var err error
			if e.Data, err = json.Marshal(e.Object); err != nil {
				return fmt.Errorf("event of %s %s: %w", e.Kind, e.ID, err)
			}
		}
		if _, err := tx.Exec("INSERT INTO event (kind, id, op, revision, project_id, request_id, at, data) VALUES (?,?,?,?,?,?,?,?)",
			e.Kind, e.ID, string(e.Op), e.Revision, e.ProjectID, e.RequestID, e.At, string(e.Data)); err != nil {
			return fmt.Errorf("event of %s %s: %w", e.Kind, e.ID, err)
		}
	}
	return nil
}

// Events returns up to limit events after a sequence number, in commit order.
func (tx *Tx) Events(after int64, limit int) ([]Event, error) {
	var events []Event
	err := tx.Query(func(scan func(...any) error) error {
		var e Event
		var op, data string
		if err := scan(&e.Sequence, &e.Kind, &e.ID, &op, &e.Revision, &e.ProjectID, &e.RequestID, &e.At, &data); err != nil {
			return err
		}
		e.Op, e.Data = Op(op), json.RawMessage(data)
		events = append(events, e)
		return nil
	}, "SELECT seq, kind, id, op, revision, project_id, request_id, at, data FROM event WHERE seq > ? ORDER BY seq LIMIT ?", after, limit)
	return events, err
}

// LastSequence is the newest event's sequence number, 0 when there is none.
func (tx *Tx) LastSequence() (int64, error) {
	var n int64
	err := tx.Row("SELECT COALESCE(MAX(seq), 0) FROM event", nil, &n)
	return n, err
}

// TrimEvents deletes events older than a time (Unix milliseconds), keeping the newest one.
func (tx *Tx) TrimEvents(before int64) (int64, error) {
	return tx.Exec("DELETE FROM event WHERE at < ? AND seq < (SELECT MAX(seq) FROM event)", before)
}
