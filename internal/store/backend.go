package store

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
)

// backend is a database that is open: it carries out transactions.
type backend interface {
	tx(ctx context.Context, do func(*Tx) error) error
	view(ctx context.Context, do func(*Tx) error) error
	viewAtOnce(ctx context.Context, do func(*Tx) error) error
	upgrade(ctx context.Context, schemas []Schema) error
	close() error
	usage() usage
}

// session is one connection, inside of a transaction. Marks for parameters are ?.
type session interface {
	// exec returns the number of rows that were inserted, deleted, or matched by an update.
	exec(query string, args []any) (int64, error)
	// put is exec for a statement that is expected to be carried out, and with
	// some to find a row: it may be sent later, with others. If the expectation
	// is not met, the transaction is run again, and put then tells.
	put(query string, args []any, some bool) (int64, error)
	// ask asks all questions at once.
	ask(list []question) error
	// first scans the first row; ErrNoRow when there is none.
	first(query string, args []any, dest []any) error
}

// question is a query.
type question struct {
	query string
	args  []any
	// row is called for each row; scan is that row's Scan.
	row func(scan func(...any) error) error
	// grows: an answer that is not 0 stays so while rows are only added.
	grows bool
}

// dialect is what the kinds of databases differ in beside connections.
type dialect interface {
	// define turns a statement of a schema into those of this database.
	define(statement string) []string
	// order is a term of ORDER BY with nulls first, last when descending.
	order(column string, nullable, descending bool) string
	// among is the condition that a column of text has one of some values, of which there may be many, with its arguments.
	among(column string, values []string) (string, []any)
	hasTable(tx *Tx, name string) (bool, error)
	// writeEvents inserts the events of a transaction at its end.
	writeEvents(tx *Tx, events []Event) error
	// settled is the number up to which no event can come any more.
	settled(tx *Tx) (int64, error)
	// events are up to limit events after a number in commit order, none of which another may yet precede.
	events(tx *Tx, after int64, limit int) ([]Event, error)
}

var (
	// ErrDuplicate: a unique constraint forbids the row.
	ErrDuplicate = errors.New("duplicate")
	// ErrReferenced: a foreign key forbids the change: the row is still referred
	// to, or what it refers to is not there.
	ErrReferenced = errors.New("foreign key")
	// ErrUnavailable: the database cannot be reached, has no free connection, or
	// is so contended that a transaction did not come through. Trying again later may help.
	ErrUnavailable = errors.New("the database is not available")
	// ErrClosed is returned by transactions after Close.
	ErrClosed = errors.New("the store is closed")
)

// ConstraintError tells which constraint refused a statement.
type ConstraintError struct {
	// Kind is ErrDuplicate or ErrReferenced.
	Kind error
	// Text is the database's, with the columns as table.column, or the constraint.
	Text string
}

func (e *ConstraintError) Error() string { return e.Text }
func (e *ConstraintError) Unwrap() error { return e.Kind }

// Duplicate tells whether err is a violation of a unique key that contains column of table.
func Duplicate(err error, table, column string) bool {
	var e *ConstraintError
	return errors.As(err, &e) && e.Kind == ErrDuplicate && strings.Contains(e.Text, table+"."+column)
}

// run calls a transaction's closure; its panic is an error.
func run(do func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a transaction: %v\n%s", p, debug.Stack())
		}
	}()
	return do(tx)
}

// Events have numbers that are made of the number of their transaction and
// their place in it, where a database has several writers.
const (
	placeBits = 20
	maxEvents = 1 << placeBits
)
