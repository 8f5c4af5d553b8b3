package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
)

// Options of Open.
type Options struct {
	// Connection is required: "sqlite:////absolute/path" or "sqlite://" (in memory), as [database] connection has it.
	Connection string
	// Logger is required.
	Logger *slog.Logger
	// Readers is the number of connections for reads; 0 is 4.
	Readers int
}

// Store is an open database. Its methods may be used concurrently.
type Store struct {
	log     *slog.Logger
	db      *sql.DB
	writer  *connection
	jobs    chan *job
	readers chan *connection
	// stop asks the writer to end, ended tells that it has.
	stop, ended chan struct{}
	closing     sync.Once

	mu        sync.Mutex
	followers map[chan struct{}]struct{}
}

// connection is one database connection and its prepared statements.
type connection struct {
	conn       *sql.Conn
	statements map[string]*sql.Stmt
}

type job struct {
	do   func(*Tx) error
	tx   *Tx
	err  error
	done chan struct{}
}

// ErrClosed is returned by transactions after Close.
var ErrClosed = errors.New("the store is closed")

// maxBatch bounds how many transactions share one commit, and with that how
// long the first of them waits.
const maxBatch = 128

// Open opens the database; the schema is brought up to date by Upgrade.
func Open(ctx context.Context, o Options) (*Store, error) {
	source, err := DataSource(o.Connection)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open("sqlite", source)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	s := &Store{log: o.Logger, db: db, jobs: make(chan *job, 4*maxBatch), stop: make(chan struct{}), ended: make(chan struct{}), followers: map[chan struct{}]struct{}{}}
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
		scheme, _, _ := strings.Cut(connection, ":")
		return "", fmt.Errorf("[database] connection: %q is not a database this release can use; use sqlite:////absolute/path", scheme)
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
	// Made here so that nobody else can read it; SQLite gives its other files the same mode.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", fmt.Errorf("[database] connection: %w", err)
	}
	if err := f.Close(); err != nil {
		return "", fmt.Errorf("[database] connection: %w", err)
	}
	name := (&url.URL{Scheme: "file", Opaque: url.PathEscape(path)}).String()
	return strings.ReplaceAll(name, "%2F", "/") + "?" + sqlitePragmas, nil
}

func (s *Store) connect(ctx context.Context) (*connection, error) {
	c, err := s.db.Conn(ctx)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	return &connection{conn: c, statements: map[string]*sql.Stmt{}}, nil
}

// Close ends the store; transactions under way are finished first. Closing twice is once.
func (s *Store) Close() (err error) {
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

// close gives the connection back. A statement that stays open would keep
// SQLite from ending the connection for good, and with the last one the log
// from becoming part of the database file.
func (c *connection) close() {
	for _, st := range c.statements {
		st.Close()
	}
	c.conn.Close()
}

// Tx runs do in a read-write transaction and returns when it is durable. An
// error of do undoes everything it did. do may be run again after a
// serialization failure: it must have no effect but on tx.
func (s *Store) Tx(ctx context.Context, do func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
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

// View runs do in a read-only transaction: all its reads see one state.
func (s *Store) View(ctx context.Context, do func(tx *Tx) error) error {
	var c *connection
	select {
	case c = <-s.readers:
	case <-s.stop:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { s.readers <- c }()
	tx := &Tx{c: c}
	if err := tx.exec("BEGIN"); err != nil {
		return err
	}
	err := run(do, tx)
	if end := tx.exec("COMMIT"); err == nil {
		err = end
	}
	return err
}

// write is the one writer. Transactions that wait while a commit is on its way
// to the disk share the next one (group commit), each under a savepoint.
func (s *Store) write() {
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
func (s *Store) batch(first *job) {
	raw := &Tx{c: s.writer}
	var good []*job // in the transaction that is open
	var err error
	n := 0
	for j := first; j != nil && err == nil; {
		n++
		// The first needs no savepoint: when it fails, nothing is lost by undoing the whole transaction.
		nested := len(good) > 0
		if nested {
			j.err = raw.exec("SAVEPOINT t")
		} else {
			j.err = raw.exec("BEGIN IMMEDIATE")
		}
		if j.err == nil {
			if j.err = j.run(s.writer); j.err == nil && nested {
				j.err = raw.exec("RELEASE t")
			}
			if j.err != nil {
				if err = s.undo(raw, nested); err != nil {
					s.log.Error("a transaction cannot be undone alone", "error", err)
				}
			}
		}
		if j.err == nil {
			good = append(good, j)
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
	if len(good) == 0 {
		return
	}
	if err == nil {
		err = raw.exec("COMMIT")
	}
	if err != nil {
		s.log.Error("commit failed", "error", err, "transactions", len(good))
		if undo := s.undo(raw, false); undo != nil {
			s.log.Debug("rollback after a failed commit", "error", undo)
		}
		if len(good) > 1 && errors.Is(err, ErrReferenced) {
			// A constraint that is checked at the end: only whoever broke it is to fail.
			s.log.Warn("the transactions are carried out one by one")
			for _, j := range good {
				s.alone(j)
			}
			return
		}
	}
	if err != nil {
		err = fmt.Errorf("commit: %w", err)
	}
	s.finish(good, err)
}

// alone carries out a job in a transaction of its own.
func (s *Store) alone(j *job) {
	raw := &Tx{c: s.writer}
	if j.err = raw.exec("BEGIN IMMEDIATE"); j.err == nil {
		if j.err = j.run(s.writer); j.err == nil {
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
func (s *Store) undo(raw *Tx, nested bool) error {
	if !nested {
		return raw.exec("ROLLBACK")
	}
	if err := raw.exec("ROLLBACK TO t"); err != nil {
		return err
	}
	return raw.exec("RELEASE t")
}

// finish answers those whose transaction has ended.
func (s *Store) finish(jobs []*job, err error) {
	changed := false
	for _, j := range jobs {
		changed = changed || len(j.tx.events) > 0
		j.err = err
		close(j.done)
	}
	if err == nil && changed {
		s.signal()
	}
}

// run carries out a job inside of the transaction that is open, its events included.
func (j *job) run(c *connection) error {
	j.tx = &Tx{c: c, writable: true}
	if err := run(j.do, j.tx); err != nil {
		return err
	}
	return j.tx.writeEvents()
}

func run(do func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a transaction: %v\n%s", p, debug.Stack())
		}
	}()
	return do(tx)
}

// Follow returns a channel that gets a value after commits that wrote events,
// and a function that ends it. Values are coalesced.
func (s *Store) Follow() (<-chan struct{}, func()) {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	s.followers[c] = struct{}{}
	s.mu.Unlock()
	return c, func() {
		s.mu.Lock()
		delete(s.followers, c)
		s.mu.Unlock()
	}
}

func (s *Store) signal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.followers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
