package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
)

// mariadb is a MariaDB server or Galera cluster. Writing transactions run one
// after the other: each begins by taking the next number in commit_order,
// whose row it then holds to its end. On Galera, of two transactions that took
// the same number on different nodes one fails at its commit, and is run again.
type mariadb struct {
	*pool
	db, patient *sql.DB
	// patience is how long a server may take to take a connection, with all that is said at its beginning; 0 is no limit.
	patience time.Duration
	log      *slog.Logger
	signal   func()
	keys     uniqueKeys
	late     lateKeys
	stop     context.CancelFunc
	watchers sync.WaitGroup
}

// pollInterval is how often events of other processes are looked for.
const pollInterval = 100 * time.Millisecond

// quietLogger drops what the driver would print; it returns the same as errors.
type quietLogger struct{}

func (quietLogger) Print(...any) {}

func openMariaDB(ctx context.Context, o Options, signal, repeat func()) (*mariadb, error) {
	c, err := mariadbConfig(o.Connection)
	if err != nil {
		return nil, err
	}
	open := func(c *mysql.Config) (*sql.DB, error) {
		connector, err := mysql.NewConnector(c)
		if err != nil {
			return nil, fmt.Errorf("[database] connection: %w", err)
		}
		db := sql.OpenDB(connector)
		db.SetMaxIdleConns(-1) // connections are kept by the pool
		return db, nil
	}
	c.DialFunc = dialMariaDB
	s := &mariadb{patience: c.Timeout, log: o.Logger, signal: signal}
	if s.db, err = open(c); err != nil {
		return nil, err
	}
	c = c.Clone()
	c.ReadTimeout = 0 // changes of tables take their time
	if s.patient, err = open(c); err != nil {
		return nil, err
	}
	s.pool = newPool(o, s, s.patience, signal, repeat)
	if err := s.reach(ctx); err != nil {
		s.finish()
		return nil, fmt.Errorf("database: %w", err)
	}
	watch, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.watchers.Go(func() {
		tick := time.NewTicker(pollInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				s.signal()
			case <-watch.Done():
				return
			}
		}
	})
	return s, nil
}

func (s *mariadb) close() error {
	s.stop()
	s.watchers.Wait()
	return s.finish()
}

func (s *mariadb) finish() error {
	return errors.Join(s.pool.close(), s.db.Close(), s.patient.Close())
}

var mariadbRelease = regexp.MustCompile(`(\d+)\.(\d+)\.\d+-MariaDB`)

// dialed is the connection under one of database/sql.
type dialed struct {
	wire net.Conn
	// to is where it is to lead, whatever the name of the server means now; nil: to what that means.
	to net.Addr
}

// dialing is the key of a *dialed in a context.
type dialing struct{}

func dialMariaDB(ctx context.Context, network, address string) (net.Conn, error) {
	d, ok := ctx.Value(dialing{}).(*dialed)
	if !ok {
		d = &dialed{}
	}
	if d.to != nil {
		network, address = d.to.Network(), d.to.String()
	}
	var dialer net.Dialer
	var err error
	d.wire, err = dialer.DialContext(ctx, network, address)
	return d.wire, err
}

func (s *mariadb) connect(ctx context.Context) (remote, net.Conn, error) {
	return s.session(ctx, s.db)
}

func (s *mariadb) probe(ctx context.Context, wire net.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, s.pool.patience)
	defer cancel()
	d := &dialed{}
	if wire != nil {
		d.to = wire.RemoteAddr()
	}
	conn, err := s.db.Conn(context.WithValue(ctx, dialing{}, d))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	defer conn.Close()
	var version string
	if err := conn.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

func (s *mariadb) session(ctx context.Context, db *sql.DB) (*mariadbSession, net.Conn, error) {
	if s.patience > 0 {
		// A server that hangs takes connections as ever, since its kernel does, and says nothing.
		limited, cancel := context.WithTimeout(ctx, s.patience)
		defer cancel()
		ctx = limited
	}
	d := &dialed{}
	conn, err := db.Conn(context.WithValue(ctx, dialing{}, d))
	if err != nil {
		var e *mysql.MySQLError
		if errors.As(err, &e) && !lostNumber(e.Number) && !slices.Contains([]uint16{1040, 1203, 1226}, e.Number) {
			return nil, nil, fmt.Errorf("the database refuses: %w", err)
		}
		return nil, nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	c := &mariadbSession{keys: &s.keys, late: &s.late, asked: map[string]driver.Stmt{}}
	c.connection = &connection{conn: conn, classify: func(err error) error { return err }, limit: 200, statements: map[string]*sql.Stmt{}}
	var version string
	if err := conn.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		c.close()
		return nil, nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	m := mariadbRelease.FindStringSubmatch(version)
	var major, minor int
	if m != nil {
		major, _ = strconv.Atoi(m[1]) // digits
		minor, _ = strconv.Atoi(m[2])
	}
	if major < 10 || major == 10 && minor < 6 {
		c.close()
		return nil, nil, fmt.Errorf("[database] connection: the server is %q; MariaDB 10.6 or newer is needed", version)
	}
	rollback, err := conn.PrepareContext(ctx, "ROLLBACK")
	if err == nil {
		c.statements["ROLLBACK"] = rollback
		_, err = rollback.ExecContext(ctx)
	}
	if err != nil {
		c.close()
		return nil, nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return c, d.wire, nil
}
