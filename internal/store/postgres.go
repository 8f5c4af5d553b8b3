package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// statementLimit ends a statement whose server has vanished.
	statementLimit = 60 * time.Second
	// abandoned is after how long, in milliseconds, a server ends a transaction
	// whose program has vanished: it may hold what others wait for.
	abandoned = 5000
	// postgresOldest is the oldest release, as server_version_num has it.
	postgresOldest = 130000

	channelName = "isospin_event"
)

// postgres is a PostgreSQL server. Writing transactions run one after the
// other: each begins by taking one lock, and what it reads then is what those
// before it have committed.
type postgres struct {
	*pool
	config *pgx.ConnConfig
	log    *slog.Logger
	signal func()
	keys   uniqueKeys
	// tell is filled when other processes are to be told of events.
	tell     chan struct{}
	stop     context.CancelFunc
	watchers sync.WaitGroup
}

// uniqueKeys are the columns of unique indexes, for errors that name the index only.
type uniqueKeys struct {
	mu    sync.Mutex
	texts map[string]string
}

func (k *uniqueKeys) columns(table, index string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.texts[table+" "+index]
}

// load takes rows of table, index and column.
func (k *uniqueKeys) load(tx *Tx, query string) error {
	texts := map[string]string{}
	err := tx.Query(func(scan func(...any) error) error {
		var table, index, column string
		if err := scan(&table, &index, &column); err != nil {
			return err
		}
		key := table + " " + index
		if texts[key] != "" {
			texts[key] += ", "
		}
		texts[key] += table + "." + column
		return nil
	}, query)
	k.mu.Lock()
	k.texts = texts
	k.mu.Unlock()
	return err
}

// Parameters of libpq that the driver has under the same name, and those that mean nothing for it.
var (
	postgresParameters = []string{"application_name", "connect_timeout", "host", "options", "passfile", "port", "require_auth", "service", "servicefile",
		"sslcert", "sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni", "target_session_attrs"}
	postgresIgnored = []string{"client_encoding", "gssencmode", "keepalives", "keepalives_count", "keepalives_idle", "keepalives_interval", "tcp_user_timeout"}
)

// postgresConfig turns [database] connection into the driver's.
func postgresConfig(connection string) (*pgx.ConnConfig, error) {
	u, err := parseURL(connection)
	if err != nil {
		return nil, err
	}
	words := map[string]string{"user": u.user, "password": u.password, "host": u.host, "port": u.port, "dbname": u.name}
	for name, values := range u.parameters {
		if slices.Contains(postgresIgnored, name) {
			continue
		}
		if !slices.Contains(postgresParameters, name) {
			return nil, unknownParameter("postgresql", name, slices.Sorted(slices.Values(append(slices.Clone(postgresParameters), postgresIgnored...))))
		}
		words[name] = strings.Join(values, ",") // host may be given several times
	}
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(words)) {
		if words[name] != "" {
			fmt.Fprintf(&text, "%s='%s' ", name, quote.Replace(words[name]))
		}
	}
	c, err := pgx.ParseConfig(text.String())
	if err != nil {
		var parse *pgconn.ParseConfigError
		if errors.As(err, &parse) {
			err = parse.Unwrap() // without the text, which has the password
		}
		return nil, fmt.Errorf("[database] connection: %w", err)
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 5 * time.Second
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "isospin"
	}
	c.RuntimeParams["idle_in_transaction_session_timeout"] = fmt.Sprint(abandoned)
	c.RuntimeParams["lock_timeout"] = "30000"
	c.RuntimeParams["jit"] = "off" // statements are short
	c.RuntimeParams["timezone"] = "UTC"
	// What is read in one round trip is a transaction of its own, without words for its begin and end.
	c.RuntimeParams["default_transaction_isolation"] = "repeatable read"
	c.StatementCacheCapacity = 1000
	return c, nil
}

func openPostgres(ctx context.Context, o Options, signal, repeat func()) (*postgres, error) {
	c, err := postgresConfig(o.Connection)
	if err != nil {
		return nil, err
	}
	s := &postgres{config: c, log: o.Logger, signal: signal, tell: make(chan struct{}, 1)}
	s.pool = newPool(o, s, c.ConnectTimeout, s.wrote, repeat)
	if err := s.reach(ctx); err != nil {
		s.pool.close()
		return nil, fmt.Errorf("database: %w", err)
	}
	watch, stop := context.WithCancel(context.Background())
	s.stop = stop
	s.watchers.Go(func() { s.listen(watch) })
	s.watchers.Go(func() { s.notify(watch) })
	return s, nil
}

func (s *postgres) close() error {
	s.stop()
	s.watchers.Wait()
	return s.pool.close()
}

func (s *postgres) connect(ctx context.Context) (remote, net.Conn, error) {
	return s.session(ctx, s.config)
}

func (s *postgres) session(ctx context.Context, config *pgx.ConnConfig) (remote, net.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		var e *pgconn.PgError
		if errors.As(err, &e) && !lostCode(e.Code) && e.Code != "53300" {
			return nil, nil, fmt.Errorf("the database refuses: %w", err)
		}
		return nil, nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	c := &postgresSession{conn: conn, keys: &s.keys}
	limited, cancel := context.WithTimeout(ctx, config.ConnectTimeout)
	defer cancel()
	var version int
	if err := conn.QueryRow(limited, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		c.close()
		return nil, nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if version < postgresOldest {
		c.close()
		return nil, nil, fmt.Errorf("[database] connection: the server is PostgreSQL %d; 13 or newer is needed", version/10000)
	}
	return c, conn.PgConn().Conn(), nil
}

func (s *postgres) probe(ctx context.Context, wire net.Conn) error {
	config := s.config
	if wire != nil {
		config = towards(config, wire)
	}
	c, _, err := s.session(ctx, config)
	if err == nil {
		c.close()
	}
	return err
}

// towards is the configuration for another connection to where one leads: of
// several hosts, and whatever names mean now, to that one.
func towards(config *pgx.ConnConfig, wire net.Conn) *pgx.ConnConfig {
	config = config.Copy()
	hosts := append([]*pgconn.FallbackConfig{{Host: config.Host, Port: config.Port, TLSConfig: config.TLSConfig}}, config.Fallbacks...)
	to := wire.RemoteAddr()
	hosts = slices.DeleteFunc(hosts, func(h *pgconn.FallbackConfig) bool {
		network, _ := pgconn.NetworkAddress(h.Host, h.Port)
		return network != to.Network()
	})
	if len(hosts) > 0 { // which of them it is only tells what certificate it may show
		config.Host, config.Port, config.TLSConfig, config.Fallbacks = hosts[0].Host, hosts[0].Port, hosts[0].TLSConfig, hosts[1:]
	}
	config.LookupFunc = func(context.Context, string) ([]string, error) { return []string{to.String()}, nil }
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, to.Network(), to.String())
	}
	config.ValidateConnect = nil // one that is no primary any more answers
	return config
}

// wrote tells this process at once, and others soon.
func (s *postgres) wrote() {
	s.signal()
	select {
	case s.tell <- struct{}{}:
	default:
	}
}

// notify tells other processes of events. That is not part of the
// transactions: NOTIFY makes commits wait for each other. Who misses it looks
// once a second.
func (s *postgres) notify(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.signal()
		case <-s.tell:
			c, err := s.acquire(ctx)
			if err != nil {
				continue
			}
			limited, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, err = c.remote.(*postgresSession).conn.Exec(limited, "NOTIFY "+channelName)
			cancel()
			s.release(c, err != nil)
		}
	}
}

// listen is told of events by other processes.
func (s *postgres) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := func() error {
			conn, err := pgx.ConnectConfig(ctx, s.config)
			if err != nil {
				return err
			}
			defer s.attach(s.newLine(nil, conn.PgConn().Conn()))()
			defer conn.Close(context.WithoutCancel(ctx))
			if _, err := conn.Exec(ctx, "LISTEN "+channelName); err != nil {
				return err
			}
			for {
				s.signal()
				if _, err := conn.WaitForNotification(ctx); err != nil {
					return err
				}
			}
		}()
		if ctx.Err() != nil {
			return
		}
		s.log.Debug("the database does not tell of events now", "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

// postgresSession is one connection.
type postgresSession struct {
	conn *pgx.Conn
	keys *uniqueKeys
	ctx  context.Context
	end  context.CancelFunc
	// prelude begins the transaction together with its first statement.
	prelude []string
	reading bool
	number  int64
	// gone is why the transaction cannot go on.
	gone, lot         error
	statements, trips int
}

var (
	// Statements after the lock see all that was committed before it was taken.
	// The number is given under the lock: of two turns the later one has the greater.
	beginWriting = []string{"BEGIN ISOLATION LEVEL READ COMMITTED", "SELECT CASE WHEN pg_advisory_xact_lock(7303015) IS NULL THEN 0 ELSE nextval('commit_turn') END"}
	beginReading = []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"}
	// beginUpgrade makes programs that start at the same time upgrade one after the other.
	beginUpgrade = []string{"BEGIN ISOLATION LEVEL READ COMMITTED", "SET LOCAL lock_timeout = 0", "SELECT 1 FROM (SELECT pg_advisory_xact_lock(7303014)) l"}
)

func (c *postgresSession) begin(writable bool) {
	if writable {
		c.start(beginWriting, statementLimit)
	} else {
		c.start(beginReading, statementLimit)
	}
	c.reading = !writable
}

func (c *postgresSession) start(prelude []string, limit time.Duration) {
	c.ctx, c.end = context.WithTimeout(background, limit)
	c.prelude, c.reading, c.number, c.gone, c.lot, c.statements, c.trips = prelude, false, 0, nil, nil, 0, 0
}

func (c *postgresSession) fate() error                   { return c.lot }
func (c *postgresSession) dead() error                   { return c.gone }
func (c *postgresSession) turn() int64                   { return c.number }
func (c *postgresSession) cost() (statements, trips int) { return c.statements, c.trips }

func (c *postgresSession) close() {
	ctx, cancel := context.WithTimeout(background, time.Second)
	defer cancel()
	c.conn.Close(ctx)
}

// batch sends what begins the transaction, writes, and what more adds, in one round trip.
func (c *postgresSession) batch(writes []write, more func(b *pgx.Batch)) (pgx.BatchResults, error) {
	if c.gone != nil {
		return nil, c.gone
	}
	b, prelude := &pgx.Batch{}, c.prelude
	c.prelude = nil
	for _, text := range prelude {
		b.Queue(text)
	}
	for _, w := range writes {
		b.Queue(numbered(w.query).text, w.args...)
	}
	if more(b); b.Len() == 0 {
		return nil, nil
	}
	c.statements += b.Len()
	c.trips++
	results := c.conn.SendBatch(c.ctx, b)
	for i := range prelude {
		if i < 1 || i < len(prelude)-1 {
			if _, err := results.Exec(); err != nil {
				return results, c.unguarded(c.judge(err))
			}
		} else if err := results.QueryRow().Scan(&c.number); err != nil {
			return results, c.unguarded(c.judge(err))
		}
	}
	var missed *refusal
	for i, w := range writes {
		tag, err := results.Exec()
		if err != nil {
			if err = c.unguarded(c.judge(err)); c.lot == nil {
				err = &refusal{place: i, error: err}
			}
			return results, err
		}
		if w.some && tag.RowsAffected() == 0 && missed == nil {
			missed = &refusal{place: i, error: errNothing}
		}
	}
	if missed != nil {
		return results, missed
	}
	return results, nil
}

func finds(writes []write) bool {
	return slices.ContainsFunc(writes, func(w write) bool { return w.some })
}

func (c *postgresSession) send(writes []write, questions []reading, end bool) error {
	if end && finds(writes) { // nothing is committed before all has been found
		if err := c.send(writes, nil, false); err != nil {
			return err
		}
		writes = nil
	}
	commit := end
	if end {
		defer c.end()
		if c.reading && c.prelude != nil && len(writes) == 0 {
			c.prelude, commit = nil, false
		}
	}
	results, err := c.batch(writes, func(b *pgx.Batch) {
		for _, q := range questions {
			b.Queue(numbered(q.query).text, q.args...)
		}
		if commit {
			b.Queue("COMMIT")
		}
	})
	if results == nil {
		return err
	}
	for _, q := range questions {
		if err == nil {
			err = c.read(results, q)
		}
	}
	if commit && err == nil {
		if _, failed := results.Exec(); failed != nil {
			if err = c.unguarded(c.judge(failed)); c.lot == nil {
				err = &refusal{place: len(writes), error: err}
			}
		}
	}
	if closed := results.Close(); closed != nil && err == nil {
		err = c.unguarded(c.judge(closed))
	}
	if end && err == nil && c.conn.PgConn().TxStatus() != 'I' {
		err = errors.New("the database has not committed")
	}
	return err
}

// read takes the rows of a question.
func (c *postgresSession) read(results pgx.BatchResults, q reading) error {
	rows, err := results.Query()
	if err != nil {
		return c.unguarded(c.judge(err))
	}
	defer rows.Close()
	for rows.Next() {
		if q.keep == nil {
			if err := q.row(rows.Scan); err != nil {
				return err
			}
			continue
		}
		values, err := rows.Values()
		if err != nil {
			return err
		}
		q.keep(values)
	}
	if err := rows.Err(); err != nil {
		return c.unguarded(c.judge(err))
	}
	return nil
}

// exec runs a statement. PostgreSQL gives up the whole transaction when one
// fails; what may fail and be followed by others is under a savepoint.
func (c *postgresSession) exec(writes []write, query string, args []any) (int64, error) {
	s := numbered(query)
	results, err := c.batch(writes, func(b *pgx.Batch) {
		if s.guarded {
			b.Queue("SAVEPOINT s")
		}
		b.Queue(s.text, args...)
		if s.guarded {
			b.Queue("RELEASE SAVEPOINT s")
		}
	})
	if results == nil || err != nil {
		if results != nil {
			results.Close()
		}
		return 0, err
	}
	var tag pgconn.CommandTag
	if s.guarded {
		_, err = results.Exec()
	}
	saved := err == nil
	if saved {
		tag, err = results.Exec()
	}
	if s.guarded && err == nil {
		_, err = results.Exec()
	}
	if closed := results.Close(); err == nil {
		err = closed
	}
	if err = c.judge(err); err == nil || c.lot != nil {
		return tag.RowsAffected(), err
	}
	if !s.guarded || !saved || c.conn.PgConn().TxStatus() != 'E' {
		return 0, c.unguarded(err)
	}
	c.statements++
	c.trips++
	if _, undo := c.conn.Exec(c.ctx, "ROLLBACK TO SAVEPOINT s"); undo != nil {
		c.gone = c.judge(undo)
	}
	return 0, err
}

// unguarded notes that the transaction has ended with this error.
func (c *postgresSession) unguarded(err error) error {
	if err != nil && c.gone == nil {
		c.gone = err
	}
	return err
}

func (c *postgresSession) rollback() error {
	defer c.end()
	if c.conn.IsClosed() || errors.Is(c.lot, errLost) {
		return errLost
	}
	if c.conn.PgConn().TxStatus() == 'I' {
		return nil
	}
	ctx, cancel := context.WithTimeout(background, 5*time.Second)
	defer cancel()
	_, err := c.conn.Exec(ctx, "ROLLBACK")
	return err
}

func lostCode(code string) bool {
	// 08: connection; 57P0x: shut down; 25P03: idle for too long; 25006: it is a standby now.
	return strings.HasPrefix(code, "08") || strings.HasPrefix(code, "57P0") || code == "25P03" || code == "25006"
}

// judge turns a driver's error into one of ours, and notes what it means for the transaction.
func (c *postgresSession) judge(err error) error {
	if err == nil {
		return nil
	}
	var e *pgconn.PgError
	switch {
	case !errors.As(err, &e):
		if c.conn.IsClosed() {
			c.lot = &fateError{errLost, err}
		}
	case e.Code == "40001" || e.Code == "40P01" || e.Code == "55P03":
		c.lot = &fateError{errAgain, err}
	case lostCode(e.Code):
		c.lot = &fateError{errLost, err}
	case e.Code == "23505":
		text := c.keys.columns(e.TableName, e.ConstraintName)
		if text == "" {
			text = e.TableName + " " + e.ConstraintName
		}
		return &ConstraintError{Kind: ErrDuplicate, Text: "UNIQUE constraint failed: " + text}
	case e.Code == "23503":
		return &ConstraintError{Kind: ErrReferenced, Text: e.Message}
	}
	if c.lot != nil {
		c.gone = c.lot
		return c.lot
	}
	return err
}

// numberedStatement is a statement with $1, $2… for ?.
type numberedStatement struct {
	text    string
	guarded bool
}

var numberedStatements sync.Map

func numbered(query string) numberedStatement {
	if s, ok := numberedStatements.Load(query); ok {
		return s.(numberedStatement)
	}
	var text strings.Builder
	n, quoted := 0, false
	for _, r := range query {
		switch {
		case r == '\'':
			quoted = !quoted
		case r == '?' && !quoted:
			n++
			fmt.Fprintf(&text, "$%d", n)
			continue
		}
		text.WriteRune(r)
	}
	s := numberedStatement{text: text.String()}
	verb, _, _ := strings.Cut(strings.TrimSpace(query), " ")
	switch verb {
	case "INSERT", "UPDATE", "DELETE":
		s.guarded = true
	}
	numberedStatements.Store(query, s)
	return s
}

var (
	characters = regexp.MustCompile(`VARCHAR\(\d+\)`)
	definition = regexp.MustCompile(`^\s*(CREATE|ALTER) TABLE`)
)

const eventTable = "CREATE TABLE event ("

// define: text is compared and sorted by its bytes, as on SQLite.
func (s *postgres) define(statement string) []string {
	if statement == commitTurn || !definition.MatchString(statement) {
		return []string{statement}
	}
	statement = characters.ReplaceAllString(statement, `$0 COLLATE "C"`)
	if !strings.HasPrefix(statement, eventTable) {
		return []string{statement}
	}
	return []string{
		strings.Replace(statement, "seq INTEGER", "seq BIGINT", 1),
		// A database that was restored into another server goes on with numbers after its own.
		"CREATE TABLE event_base (base BIGINT NOT NULL)", "INSERT INTO event_base (base) VALUES (0)",
	}
}

func (s *postgres) order(column string, nullable, descending bool) string {
	switch {
	case !nullable:
		return ordered(column, descending)
	case descending:
		return column + " DESC NULLS LAST"
	}
	return column + " NULLS FIRST"
}

// among has one parameter: many of them, and a statement for each number, cost
// more than the rows, and before a table has statistics it is read whole for them.
func (s *postgres) among(column string, values []string) (string, []any) {
	if len(values) == 1 {
		return In(column, anySlice(values))
	}
	return column + " = ANY(?)", []any{values}
}

func (s *postgres) hasTable(tx *Tx, name string) (bool, error) {
	var n int
	err := tx.Row("SELECT COUNT(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = ?", []any{name}, &n)
	return n > 0, err
}

// The number of an event is that of its transaction and its place in it. Both
// the number and the commit come under the lock, so that they are of one order.
func (s *postgres) writeEvents(tx *Tx, events []Event) error {
	c := tx.c.(*conversation)
	for _, e := range events {
		if err := c.later(write{query: `INSERT INTO event (seq, kind, id, op, revision, project_id, request_id, user_id, user_project, at, data)
			VALUES ((SELECT base FROM event_base) + (pg_current_xact_id()::text::bigint << 20) + ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, job: c.job,
			args: []any{int64(c.place), e.Kind, e.ID, string(e.Op), e.Revision, e.ProjectID, e.RequestID, e.UserID, e.UserProject, e.At, string(e.Data)}}); err != nil {
			return err
		}
		c.place++
	}
	return nil
}

func (s *postgres) settled(tx *Tx) (int64, error) { return tx.LastSequence() }

func (s *postgres) events(tx *Tx, after int64, limit int) ([]Event, error) {
	return tx.eventsAfter(after, limit, "")
}

func (s *postgres) upgrade(ctx context.Context, schemas []Schema) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	k, err := s.acquire(ctx)
	if err != nil {
		return err
	}
	c := k.remote.(*postgresSession)
	err = func() error {
		c.start(beginUpgrade, time.Hour)
		talk := &conversation{remote: k.line, careful: true}
		tx := &Tx{c: talk, dialect: s, writable: true}
		if err := lockFirst(tx, schemas); err != nil {
			return err
		}
		if err := upgradeAtOnce(tx, schemas); err != nil {
			return err
		}
		if err := tx.exec(`UPDATE event_base SET base = (SELECT MAX(seq) FROM event)
			WHERE (SELECT MAX(seq) FROM event) >= base + (pg_current_xact_id()::text::bigint << 20)`); err != nil {
			return err
		}
		if err := s.keys.load(tx, `SELECT t.relname::text, i.relname::text, a.attname::text FROM pg_index x
			JOIN pg_class t ON t.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid
			JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = ANY (x.indkey)
			WHERE x.indisunique AND t.relnamespace = current_schema()::regnamespace`); err != nil {
			return err
		}
		if err := talk.commit(); err != nil {
			return err
		}
		s.memory.learn(append([]Schema{base}, schemas...))
		return nil
	}()
	s.release(k, err != nil && c.rollback() != nil)
	return err
}
