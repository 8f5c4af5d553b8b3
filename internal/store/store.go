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
	"time"
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
	stop    chan struct{}
	stopped sync.WaitGroup

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
	s := &Store{log: o.Logger, db: db, jobs: make(chan *job, 4*maxBatch), stop: make(chan struct{}), followers: map[chan struct{}]struct{}{}}
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
	s.stopped.Add(1)
	go s.write()
	return s, nil
}

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
		return fmt.Sprintf("file:/isospin-%p?vfs=memdb&", new(int)) + sqlitePragmas, nil
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

// Close ends the store; transactions under way are finished first.
func (s *Store) Close() error {
	close(s.stop)
	s.stopped.Wait()
	for range cap(s.readers) {
		(<-s.readers).close()
	}
	s.writer.close()
	return s.db.Close()
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
	case <-s.stop:
		select {
		case <-j.done:
			return j.err
		case <-time.After(5 * time.Second):
			return ErrClosed
		}
	}
}

// View runs do in a read-only transaction: all its reads see one state.
func (s *Store) View(ctx context.Context, do func(tx *Tx) error) error {
	var c *connection
	select {
	case c = <-s.readers:
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
	defer s.stopped.Done()
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

func (s *Store) batch(first *job) {
	var good []*job
	begun := false
	begin := func() error {
		if begun {
			return nil
		}
		begun = true
		return (&Tx{c: s.writer}).exec("BEGIN IMMEDIATE")
	}
	raw := &Tx{c: s.writer}
	n := 0
	for j := first; j != nil; {
		n++
		j.tx = &Tx{c: s.writer, writable: true}
		if j.err = begin(); j.err == nil {
			// The first needs no savepoint: when it fails, nothing is lost by undoing the whole transaction.
			nested := len(good) > 0
			if nested {
				j.err = raw.exec("SAVEPOINT t")
			}
			if j.err == nil {
				if j.err = run(j.do, j.tx); j.err == nil {
					j.err = j.tx.writeEvents()
				}
			}
			switch {
			case j.err == nil && nested:
				j.err = raw.exec("RELEASE t")
			case j.err != nil && nested:
				if err := raw.exec("ROLLBACK TO t"); err == nil {
					err = raw.exec("RELEASE t")
					_ = err // the commit will tell
				}
			case j.err != nil:
				if err := raw.exec("ROLLBACK"); err != nil {
					s.log.Error("rollback failed", "error", err)
				}
				begun = false
			}
		} else {
			begun = false
		}
		if j.err == nil {
			good = append(good, j)
		} else {
			close(j.done)
		}
		j = nil
		if n < maxBatch {
			select {
			case j = <-s.jobs:
			default:
			}
		}
	}
	if !begun {
		return
	}
	err := raw.exec("COMMIT")
	if err != nil {
		s.log.Error("commit failed", "error", err, "transactions", len(good))
		if err := raw.exec("ROLLBACK"); err != nil {
			s.log.Debug("rollback after a failed commit", "error", err)
		}
	}
	changed := false
	for _, j := range good {
		changed = changed || len(j.tx.events) > 0
		if err != nil {
			j.err = fmt.Errorf("commit: %w", err)
		}
		close(j.done)
	}
	if err == nil && changed {
		s.signal()
	}
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
