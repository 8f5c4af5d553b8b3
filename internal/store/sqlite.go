package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// synchronous=FULL: a commit that was answered survives a power failure.
const sqlitePragmas = "_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=foreign_keys(ON)&_pragma=busy_timeout(10000)&_pragma=cache_size(-4000)&_pragma=temp_store(MEMORY)&_pragma=wal_autocheckpoint(4000)"

// embedded is SQLite inside of this process: one connection writes, others read.
type embedded struct {
	sqliteDialect
	log     *slog.Logger
	signal  func()
	db      *sql.DB
	writer  *connection
	jobs    chan *job
	readers chan *connection
	// stop asks the writer to end, ended tells that it has.
	stop, ended chan struct{}
	closing     sync.Once
}

type job struct {
	do func(*Tx) error
	tx *Tx
	// err is the answer.
	err  error
	done chan struct{}

	// What a database server needs beside.

	ctx context.Context
	// attempts, of which again were lost against others, and lost with their connection.
	attempts, again, lost int
	// careful: it runs alone, and each of its writes is sent at once.
	careful bool
	// own is what its closure returned.
	own error
}

// maxBatch bounds how many transactions share one commit, and with that how
// long the first of them waits.
const maxBatch = 128

func openEmbedded(ctx context.Context, o Options, signal func()) (*embedded, error) {
	source, err := DataSource(o.Connection)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", source)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	s := &embedded{log: o.Logger, signal: signal, db: db, jobs: make(chan *job, 4*maxBatch), stop: make(chan struct{}), ended: make(chan struct{})}
	if s.writer, err = s.connect(ctx); err != nil {
		db.Close()
		return nil, err
	}
	readers := o.Readers
	if readers == 0 {
		readers = 4
	}
	s.readers = make(chan *connection, readers)
	for range readers {
		c, err := s.connect(ctx)
		if err != nil {
			db.Close()
			return nil, err
		}
		s.readers <- c
	}
	go s.write()
	return s, nil
}

// inMemory counts databases in memory: those of one name are one database.
var inMemory atomic.Int64

// DataSource turns [database] connection into what the driver "sqlite" opens.
// It makes the file, if there is none, and its directory.
func DataSource(connection string) (string, error) {
	path, ok := strings.CutPrefix(connection, "sqlite://")
	if !ok {
		return "", errors.New("[database] connection: this is no sqlite:////absolute/path")
	}
	path = strings.TrimPrefix(path, "/")
	if path == "" {
		return fmt.Sprintf("file:/isospin-%d?vfs=memdb&", inMemory.Add(1)) + sqlitePragmas, nil
	}
	if dir := filepath.Dir(path); dir != "." {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return "", fmt.Errorf("[database] connection: %w", err)
		}
	}
	if err := MakeFile(path); err != nil {
		return "", fmt.Errorf("[database] connection: %w", err)
	}
	name := (&url.URL{Scheme: "file", Opaque: url.PathEscape(path)}).String()
	return strings.ReplaceAll(name, "%2F", "/") + "?" + sqlitePragmas, nil
}

// MakeFile makes the file, or one beside it, if there is none, so that nobody else can
// read it; SQLite gives its other files the same mode and owner. What root
// makes belongs to whom the directory belongs to: the server, whose user is another, must write it.
// A file that is there must be writable, and stays as it is.
func MakeFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
			return err
		}
		return f.Close()
	}
	if err != nil {
		return err
	}
	if os.Geteuid() == 0 {
		var dir syscall.Stat_t
		if err = syscall.Stat(filepath.Dir(path), &dir); err == nil {
			err = f.Chown(int(dir.Uid), int(dir.Gid))
		}
	}
	return errors.Join(err, f.Close())
}

func (s *embedded) connect(ctx context.Context) (*connection, error) {
	c, err := s.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	return &connection{conn: c, classify: classifySQLite, limit: 2000, statements: map[string]*sql.Stmt{}}, nil
}

// usage: readers are used or idle; what waits, waits for the writer.
func (s *embedded) usage() usage {
	idle := len(s.readers)
	return usage{used: cap(s.readers) - idle, idle: idle, limit: cap(s.readers) + 1, waiting: len(s.jobs)}
}

func (s *embedded) close() (err error) {
	s.closing.Do(func() {
		close(s.stop)
		<-s.ended
		for range cap(s.readers) {
			(<-s.readers).close()
		}
		s.writer.close()
		err = s.db.Close()
	})
	return err
}

func (s *embedded) tx(ctx context.Context, do func(tx *Tx) error) error {
	j := &job{do: do, done: make(chan struct{})}
	select {
	case s.jobs <- j:
	case <-s.stop:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	// Once queued it is carried out, whether or not the caller still waits: the answer must be the truth.
	select {
	case <-j.done:
		return j.err
	case <-s.ended:
		select {
		case <-j.done:
			return j.err
		default: // it came too late for the writer
			return ErrClosed
		}
	}
}

func (s *embedded) view(ctx context.Context, do func(tx *Tx) error) error {
	var c *connection
	select {
	case c = <-s.readers:
	case <-s.stop:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { s.readers <- c }()
	tx := &Tx{c: c, dialect: s}
	if err := tx.exec("BEGIN"); err != nil {
		return err
	}
	err := run(do, tx)
	if end := tx.exec("COMMIT"); err == nil {
		err = end
	}
	return err
}

func (s *embedded) viewAtOnce(ctx context.Context, do func(tx *Tx) error) error {
	return s.view(ctx, do)
}

// write is the one writer. Transactions that wait while a commit is on its way
// to the disk share the next one (group commit), each under a savepoint.
func (s *embedded) write() {
	defer close(s.ended)
	for {
		select {
		case j := <-s.jobs:
			s.batch(j)
		case <-s.stop:
			for {
				select {
				case j := <-s.jobs:
					s.batch(j)
				default:
					return
				}
			}
		}
	}
}

// batch carries out the job and those that wait, and commits them together.
func (s *embedded) batch(first *job) {
	raw := &Tx{c: s.writer, dialect: s}
	// In the transaction that is open: those that are to be committed, and
	// after them those that have failed, but may have seen what they did.
	var open []*job
	var err error
	n := 0
	for j := first; j != nil && err == nil; {
		n++
		// The first needs no savepoint: when it fails, nothing is lost by undoing the whole transaction.
		nested := len(open) > 0
		if nested {
			j.err = raw.exec("SAVEPOINT t")
		} else {
			j.err = raw.exec("BEGIN IMMEDIATE")
		}
		if j.err == nil {
			if j.err = j.run(s); j.err == nil && nested {
				j.err = raw.exec("RELEASE t")
			}
			if j.err != nil {
				if err = s.undo(raw, nested); err != nil {
					s.log.Error("a transaction cannot be undone alone", "error", err)
				}
			}
		}
		if j.err == nil || nested {
			open = append(open, j)
		} else {
			close(j.done)
		}
		if j = nil; n < maxBatch && err == nil {
			select {
			case j = <-s.jobs:
			default:
			}
		}
	}
	if len(open) == 0 {
		return
	}
	if err == nil {
		err = raw.exec("COMMIT")
	}
	if err != nil {
		s.log.Error("commit failed", "error", err, "transactions", len(open))
		if undo := s.undo(raw, false); undo != nil {
			s.log.Debug("rollback after a failed commit", "error", undo)
		}
		if len(open) > 1 && errors.Is(err, ErrReferenced) {
			// A constraint that is checked at the end: only whoever broke it is to fail.
			s.log.Warn("the transactions are carried out one by one")
			for _, j := range open {
				s.alone(j)
			}
			return
		}
	}
	if err != nil {
		err = fmt.Errorf("commit: %w", err)
	}
	s.finish(open, err)
}

// alone carries out a job in a transaction of its own.
func (s *embedded) alone(j *job) {
	raw := &Tx{c: s.writer, dialect: s}
	if j.err = raw.exec("BEGIN IMMEDIATE"); j.err == nil {
		if j.err = j.run(s); j.err == nil {
			j.err = raw.exec("COMMIT")
		}
		if j.err != nil {
			if undo := s.undo(raw, false); undo != nil {
				s.log.Debug("rollback of one transaction", "error", undo)
			}
		}
	}
	s.finish([]*job{j}, j.err)
}

// undo ends a transaction, or takes back what came after its savepoint. An
// error for a savepoint means that the whole transaction is lost.
func (s *embedded) undo(raw *Tx, nested bool) error {
	if !nested {
		return raw.exec("ROLLBACK")
	}
	if err := raw.exec("ROLLBACK TO t"); err != nil {
		return err
	}
	return raw.exec("RELEASE t")
}

// finish answers those whose transaction has ended.
func (s *embedded) finish(jobs []*job, err error) {
	changed := false
	for _, j := range jobs {
		changed = changed || j.err == nil && len(j.tx.events) > 0
		if err != nil {
			j.err = err
		}
		close(j.done)
	}
	if err == nil && changed {
		s.signal()
	}
}

// run carries out a job inside of the transaction that is open, its events included.
func (j *job) run(s *embedded) error {
	j.tx = &Tx{c: s.writer, dialect: s, writable: true}
	if err := run(j.do, j.tx); err != nil {
		return err
	}
	return j.tx.finish()
}

// classifySQLite turns a driver's error into one of ours.
func classifySQLite(err error) error {
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

type sqliteDialect struct{}

func (sqliteDialect) define(statement string) []string {
	if statement == commitTurn {
		return nil
	}
	return []string{statement}
}

func (sqliteDialect) order(column string, _, descending bool) string {
	return ordered(column, descending)
}

func ordered(column string, descending bool) string {
	if descending {
		return column + " DESC"
	}
	return column
}

func (sqliteDialect) among(column string, values []string) (string, []any) {
	return In(column, anySlice(values))
}

func (sqliteDialect) hasTable(tx *Tx, name string) (bool, error) {
	var n int
	err := tx.Row("SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = ?", []any{name}, &n)
	return n > 0, err
}

func (sqliteDialect) writeEvents(tx *Tx, events []Event) error {
	for _, e := range events {
		if _, err := tx.Exec("INSERT INTO event (kind, id, op, revision, project_id, request_id, user_id, user_project, at, data) VALUES (?,?,?,?,?,?,?,?,?,?)",
			e.Kind, e.ID, string(e.Op), e.Revision, e.ProjectID, e.RequestID, e.UserID, e.UserProject, e.At, string(e.Data)); err != nil {
			return fmt.Errorf("event of %s %s: %w", e.Kind, e.ID, err)
		}
	}
	return nil
}

// There is one writer, so that numbers are in commit order.
func (sqliteDialect) settled(tx *Tx) (int64, error) { return tx.LastSequence() }

func (sqliteDialect) events(tx *Tx, after int64, limit int) ([]Event, error) {
	return tx.eventsAfter(after, limit, "")
}

func (s *embedded) upgrade(ctx context.Context, schemas []Schema) error {
	return s.tx(ctx, func(tx *Tx) error { return upgradeAtOnce(tx, schemas) })
}
