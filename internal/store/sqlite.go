package store

import (
	"errors"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// synchronous=FULL: a commit that was answered survives a power failure.
const sqlitePragmas = "_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(ON)&_pragma=busy_timeout(10000)&_pragma=cache_size(-4000)&_pragma=temp_store(MEMORY)&_pragma=wal_autocheckpoint(4000)"

// ErrDuplicate: a unique constraint forbids the row.
var ErrDuplicate = errors.New("duplicate")

// ErrReferenced: a foreign key forbids the change: the row is still referred
// to, or what it refers to is not there.
var ErrReferenced = errors.New("foreign key")

// classify turns a driver's error into one of ours.
func classify(err error) error {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return &ConstraintError{Kind: ErrDuplicate, Text: e.Error()}
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		return &ConstraintError{Kind: ErrReferenced, Text: e.Error()}
	}
	return err
}

// ConstraintError tells which constraint refused a statement.
type ConstraintError struct {
	// Kind is ErrDuplicate or ErrReferenced.
	Kind error
	// Text is the database's; it names the columns (SQLite) or the constraint.
	Text string
}

func (e *ConstraintError) Error() string { return e.Text }
func (e *ConstraintError) Unwrap() error { return e.Kind }

// Duplicate tells whether err is a violation of a unique key that contains column of table.
func Duplicate(err error, table, column string) bool {
	var e *ConstraintError
	return errors.As(err, &e) && e.Kind == ErrDuplicate && strings.Contains(e.Text, table+"."+column)
}
