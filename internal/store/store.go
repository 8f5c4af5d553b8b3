package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Options of Open.
type Options struct {
	// Connection is required, as [database] connection has it:
	// "sqlite:////absolute/path", "sqlite://" (in memory),
	// "postgresql://user:password@host/name" or "mysql+pymysql://user:password@host/name".
	Connection string
	// Logger is required.
	Logger *slog.Logger
	// Readers is the number of connections for reads of the embedded database; 0 is 4.
	Readers int
	// Pool is optional: how connections to a database server are kept.
	Pool Pool
	// Trace is optional: it is told what each transaction that succeeded has
	// cost on a database server. It must not block.
	Trace func(Cost)
	// Metrics is optional: where durations, repetitions and connections are registered.
	Metrics prometheus.Registerer
	// Rehearse runs each writing transaction once more after undoing it. For
	// tests: it shows closures that have an effect on more than their transaction.
	Rehearse bool
}

// Pool bounds connections, waits and repetitions. Fields that are 0 have the default.
type Pool struct {
	// Size is how many connections are kept while nobody needs them; 5.
	Size int
	// Overflow is how many more there may be; 50. Negative: none.
	Overflow int
	// Wait is how long a transaction waits for a connection; 30 s.
	Wait time.Duration
	// Recycle is the age at which a connection is replaced; 1 h. Negative: never.
	Recycle time.Duration
	// Retries is how often Open tries again to reach the database; 10. Negative: without end; NoRetries: never.
	Retries int
	// RetryInterval is the pause between those; 10 s.
	RetryInterval time.Duration
	// Repeats is how often a transaction that lost against another is run again; 20.
	Repeats int
}

// NoRetries as Pool.Retries: Open tries once.
const NoRetries = math.MinInt

// Cost is what a transaction took.
type Cost struct {
	// Statements that the database carried out.
	Statements int
	// RoundTrips is how often the database was waited for.
	RoundTrips int
	// Attempts is 1 for a transaction that did not have to be run again.
	Attempts int
	// Transactions that shared it, in one transaction of the database.
	Transactions int
	Writable     bool
}

// Store is an open database. Its methods may be used concurrently.
type Store struct {
	log      *slog.Logger
	backend  backend
	rehearse bool
	metrics  *metrics

	mu        sync.Mutex
	followers map[chan struct{}]struct{}
}

// Open opens the database; the schema is brought up to date by Upgrade.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{log: o.Logger, rehearse: o.Rehearse, metrics: newMetrics(), followers: map[chan struct{}]struct{}{}}
	scheme, _, _ := strings.Cut(o.Connection, ":")
	var err error
	switch name, _, _ := strings.Cut(scheme, "+"); name {
	case "sqlite":
		s.backend, err = openEmbedded(ctx, o, s.signal)
	case "postgresql", "postgres":
		s.backend, err = openPostgres(ctx, o, s.signal, s.metrics.repeats.Inc)
	case "mysql", "mariadb":
		s.backend, err = openMariaDB(ctx, o, s.signal, s.metrics.repeats.Inc)
	default:
		err = fmt.Errorf("[database] connection: %q is not a database this release can use; use sqlite:////absolute/path, postgresql://user:password@host/name or mysql+pymysql://user:password@host/name", scheme)
	}
	if err != nil {
		return nil, err
	}
	if o.Metrics != nil {
		if err := s.register(o.Metrics); err != nil {
			return nil, errors.Join(fmt.Errorf("database: metrics: %w", err), s.Close())
		}
	}
	return s, nil
}

// Close ends the store; transactions under way are finished first. Closing twice is once.
func (s *Store) Close() error { return s.backend.close() }

// Tx runs do in a read-write transaction and returns when it is durable. An
// error of do undoes everything it did. do may be run again after a
// serialization failure: it must have no effect but on tx.
func (s *Store) Tx(ctx context.Context, do func(tx *Tx) error) (err error) {
	begin := time.Now()
	defer func() { s.metrics.observe("write", begin, err) }()
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.rehearse {
		if err := s.backend.tx(ctx, func(tx *Tx) error {
			if err := do(tx); err != nil {
				return err
			}
			return errRehearsed
		}); !errors.Is(err, errRehearsed) {
			return err
		}
	}
	return s.backend.tx(ctx, do)
}

var errRehearsed = errors.New("this was a rehearsal")

// View runs do in a read-only transaction: all its reads see one state.
func (s *Store) View(ctx context.Context, do func(tx *Tx) error) error {
	begin := time.Now()
	err := s.backend.view(ctx, do)
	s.metrics.observe("read", begin, err)
	return err
}

// ViewAtOnce is View for a closure that asks the database once: on a database
// server what begins and ends the transaction then goes along with it. A closure that asks
// again is run once more, by View: it must have no effect but what its last run leaves.
func (s *Store) ViewAtOnce(ctx context.Context, do func(tx *Tx) error) error {
	begin := time.Now()
	err := s.backend.viewAtOnce(ctx, do)
	s.metrics.observe("read", begin, err)
	return err
}

// Follow returns a channel that gets a value after commits that wrote events,
// and now and then without, and a function that ends it. Values are coalesced.
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
