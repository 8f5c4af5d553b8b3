package store

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
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
	log         *slog.Logger
	signal      func()
	keys        uniqueKeys
	late        lateKeys
	stop        context.CancelFunc
	watchers    sync.WaitGroup
}

// pollInterval is how often events of other processes are looked for.
const pollInterval = 100 * time.Millisecond

var mariadbParameters = []string{"charset", "connect_timeout", "read_timeout", "ssl_ca", "ssl_cert", "ssl_check_hostname", "ssl_disabled", "ssl_key",
	"ssl_verify_cert", "ssl_verify_identity", "unix_socket", "use_unicode", "write_timeout"}

// mariadbConfig turns [database] connection, with the parameters of PyMySQL, into the driver's.
func mariadbConfig(connection string) (*mysql.Config, error) {
	u, err := parseURL(connection)
	if err != nil {
		return nil, err
	}
	c := mysql.NewConfig()
	c.User, c.Passwd, c.DBName = u.user, u.password, u.name
	c.Net = "tcp"
	host, port := u.host, u.port
	if host == "" {
		host = "localhost"
	}
	if port == "" {
		port = "3306"
	}
	c.Addr = net.JoinHostPort(host, port)
	c.Timeout, c.ReadTimeout, c.WriteTimeout = 5*time.Second, statementLimit, statementLimit
	c.ClientFoundRows = true
	// Statements of one round trip are one text, with their arguments quoted by the driver.
	c.MultiStatements, c.InterpolateParams = true, true
	c.Collation = "utf8mb4_nopad_bin"
	c.Logger = quietLogger{}
	c.Params = map[string]string{
		"autocommit": "0", "tx_isolation": "'REPEATABLE-READ'", "innodb_lock_wait_timeout": "30", "time_zone": "'+00:00'",
		// A program that has vanished must not hold what others wait for.
		"idle_write_transaction_timeout": strconv.Itoa(abandoned / 1000),
		"sql_mode":                       "'STRICT_ALL_TABLES,ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,NO_ENGINE_SUBSTITUTION'",
	}
	var ca, certificate, key string
	secure, verify, name, disabled := false, true, true, false
	for parameter, values := range u.parameters {
		value := values[len(values)-1]
		wrong := func(wanted string) error {
			return fmt.Errorf("[database] connection: %s is %s, not %q", parameter, wanted, value)
		}
		seconds := func(into *time.Duration) error {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil || n < 0 || n > 1e6 {
				return wrong("a number of seconds")
			}
			*into = time.Duration(n * float64(time.Second))
			return nil
		}
		truth := func(into *bool) error {
			switch strings.ToLower(value) {
			case "1", "true", "yes", "on":
				*into = true
			case "0", "false", "no", "off":
				*into = false
			default:
				return wrong("true or false")
			}
			return nil
		}
		var err error
		switch parameter {
		case "charset":
			if !strings.HasPrefix(strings.ToLower(value), "utf8") {
				err = wrong("utf8mb4")
			}
		case "use_unicode": // always
		case "unix_socket":
			c.Net, c.Addr = "unix", value
		case "connect_timeout":
			err = seconds(&c.Timeout)
		case "read_timeout":
			err = seconds(&c.ReadTimeout)
		case "write_timeout":
			err = seconds(&c.WriteTimeout)
		case "ssl_ca":
			ca, secure = value, true
		case "ssl_cert":
			certificate, secure = value, true
		case "ssl_key":
			key, secure = value, true
		case "ssl_check_hostname", "ssl_verify_identity":
			secure, err = true, truth(&name)
		case "ssl_verify_cert":
			secure, err = true, truth(&verify)
		case "ssl_disabled":
			err = truth(&disabled)
		default:
			err = unknownParameter("mysql", parameter, mariadbParameters)
		}
		if err != nil {
			return nil, err
		}
	}
	if secure && !disabled {
		if c.TLS, err = mariadbTLS(host, ca, certificate, key, verify, name); err != nil {
			return nil, fmt.Errorf("[database] connection: %w", err)
		}
	}
	return c, nil
}

func mariadbTLS(host, ca, certificate, key string, verify, name bool) (*tls.Config, error) {
	t := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if ca != "" {
		text, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("ssl_ca: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("ssl_ca: %s has no certificate", ca)
		}
	}
	if certificate != "" || key != "" {
		if key == "" {
			key = certificate
		}
		pair, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return nil, fmt.Errorf("ssl_cert, ssl_key: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	if !verify || !name {
		t.InsecureSkipVerify = true // the name is not to be compared; the chain is, below
	}
	if verify && !name {
		t.VerifyConnection = func(state tls.ConnectionState) error {
			o := x509.VerifyOptions{Roots: t.RootCAs, Intermediates: x509.NewCertPool()}
			for _, c := range state.PeerCertificates[1:] {
				o.Intermediates.AddCert(c)
			}
			_, err := state.PeerCertificates[0].Verify(o)
			return err
		}
	}
	return t, nil
}

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
	s := &mariadb{log: o.Logger, signal: signal}
	if s.db, err = open(c); err != nil {
		return nil, err
	}
	c = c.Clone()
	c.ReadTimeout = 0 // changes of tables take their time
	if s.patient, err = open(c); err != nil {
		return nil, err
	}
	s.pool = newPool(o, s, func(ctx context.Context) (remote, error) { return s.session(ctx, s.db) }, signal, repeat)
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

func (s *mariadb) session(ctx context.Context, db *sql.DB) (*mariadbSession, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		var e *mysql.MySQLError
		if errors.As(err, &e) && !lostNumber(e.Number) && !slices.Contains([]uint16{1040, 1203, 1226}, e.Number) {
			return nil, fmt.Errorf("the database refuses: %w", err)
		}
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	c := &mariadbSession{keys: &s.keys, late: &s.late}
	c.connection = &connection{conn: conn, classify: func(err error) error { return err }, limit: 200, statements: map[string]*sql.Stmt{}}
	var version string
	if err := conn.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		c.close()
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	m := mariadbRelease.FindStringSubmatch(version)
	var major, minor int
	if m != nil {
		major, _ = strconv.Atoi(m[1]) // digits
		minor, _ = strconv.Atoi(m[2])
	}
	if major < 10 || major == 10 && minor < 6 {
		c.close()
		return nil, fmt.Errorf("[database] connection: the server is %q; MariaDB 10.6 or newer is needed", version)
	}
	if _, err = c.connection.exec("ROLLBACK", nil); err != nil {
		c.close()
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return c, nil
}

// mariadbSession is one connection. It is never in autocommit mode: a first
// statement begins a transaction.
type mariadbSession struct {
	*connection
	keys *uniqueKeys
	late *lateKeys
	// checks are foreign keys that the commit is to look for.
	checks []lateCheck
	// unordered: the number in commit_order is still to be taken.
	unordered bool
	used      bool
	number    int64
	gone, lot error

	carried, trips int
}

// takeTurn leaves the number for LAST_INSERT_ID().
const takeTurn = "UPDATE commit_order SET number = LAST_INSERT_ID(number + 1)"

func (c *mariadbSession) begin(writable bool) {
	c.checks = c.checks[:0]
	c.unordered, c.used, c.number, c.gone, c.lot, c.carried, c.trips = writable, false, 0, nil, nil, 0, 0
}

func (c *mariadbSession) fate() error                   { return c.lot }
func (c *mariadbSession) dead() error                   { return c.gone }
func (c *mariadbSession) turn() int64                   { return c.number }
func (c *mariadbSession) cost() (statements, trips int) { return c.carried, c.trips }

// texts are statements of one round trip.
type texts struct {
	list []string
	args []driver.NamedValue
}

func (t *texts) add(text string, args ...any) error {
	t.list = append(t.list, text)
	for _, a := range args {
		v, err := driver.DefaultParameterConverter.ConvertValue(a)
		if err != nil {
			return err
		}
		t.args = append(t.args, driver.NamedValue{Ordinal: len(t.args) + 1, Value: v})
	}
	return nil
}

// statement translates one that changes rows, and notes what it leaves to the commit.
func (c *mariadbSession) statement(query string, args []any) (translated, []lateCheck) {
	return c.statementOf(write{query: query, args: args})
}

func (c *mariadbSession) statementOf(w write) (translated, []lateCheck) {
	t, one := translate(w.query), w.query
	if w.each != "" {
		one = w.each
	}
	var checks []lateCheck
	for _, args := range rowsOf(w) {
		checks = append(checks, c.late.of(translate(one), args)...)
	}
	if len(checks) > 0 {
		t.text = "SET STATEMENT foreign_key_checks = 0 FOR " + t.text
	}
	return t, checks
}

// longestText is well below what a server takes at once (max_allowed_packet, 16 MiB unless configured).
const longestText = 512 << 10

// length is about that of a statement with its arguments.
func length(query string, args []any) int {
	n := len(query)
	for _, a := range args {
		if s, ok := a.(string); ok {
			n += len(s)
		}
		n += 3
	}
	return n
}

// send has as many round trips as texts are needed.
func (c *mariadbSession) send(writes []write, questions []reading, end bool) error {
	first, size := 0, 0
	for i, w := range writes {
		if n := length(w.query, w.args); size > 0 && size+n > longestText {
			if err := c.sendText(writes[first:i], nil, false); err != nil {
				return placed(err, first)
			}
			first, size = i, n
		} else {
			size += n
		}
	}
	sent := first
	writes, first = writes[first:], 0
	for i, q := range questions {
		if n := length(q.query, q.args); size > 0 && size+n > longestText {
			if err := c.sendText(writes, questions[first:i], false); err != nil {
				return placed(err, sent)
			}
			sent += len(writes)
			writes, first, size = nil, i, n
		} else {
			size += n
		}
	}
	return placed(c.sendText(writes, questions[first:], end), sent)
}

// placed moves the place of a refusal by the writes that were sent before.
func placed(err error, sent int) error {
	var r *refusal
	if sent > 0 && errors.As(err, &r) && r.place >= 0 {
		r.place += sent
	}
	return err
}

// sendText is send in one round trip, if foreign keys do not need another.
func (c *mariadbSession) sendText(writes []write, questions []reading, end bool) error {
	if c.gone != nil {
		return c.gone
	}
	late := len(c.checks) > 0
	for _, w := range writes {
		_, checks := c.statementOf(w)
		late = late || len(checks) > 0
	}
	if end && (late || finds(writes)) { // nothing is committed before all has been found
		if len(writes) > 0 {
			if err := c.send(writes, nil, false); err != nil {
				return err
			}
		}
		if err := c.check(); err != nil {
			return err
		}
		writes = nil
	}
	var t texts
	first := c.unordered
	if first {
		if t.list = append(t.list, takeTurn); len(questions) > 0 {
			t.list = append(t.list, "SELECT LAST_INSERT_ID()")
		}
	}
	for _, w := range writes {
		s, checks := c.statementOf(w)
		c.checks = append(c.checks, checks...)
		if err := t.add(s.text, w.args...); err != nil {
			return err
		}
		if w.some && len(questions) > 0 {
			t.list = append(t.list, "SELECT ROW_COUNT()")
		}
	}
	for _, q := range questions {
		if err := t.add(translate(q.query).text, q.args...); err != nil {
			return err
		}
	}
	if end && c.used || end && len(t.list) > 0 {
		t.list = append(t.list, "COMMIT")
	}
	if len(t.list) == 0 {
		return nil
	}
	c.used, c.unordered = true, false
	c.carried += len(t.list)
	c.trips++
	var err error
	switch {
	case len(questions) == 1 && len(t.list) == 1:
		err = c.alone(questions[0], t)
	case len(questions) > 0:
		err = c.read(t, first, writes, questions)
	default:
		err = c.carry(t, first, writes)
	}
	var refused *refusal
	if err == nil || errors.As(err, &refused) {
		return err
	}
	judged := c.judge(err, "")
	var constraint *ConstraintError
	if c.lot == nil && len(writes) > 0 && errors.As(judged, &constraint) {
		return &refusal{place: -1, error: judged}
	}
	return judged
}

// carry carries out statements without rows.
func (c *mariadbSession) carry(t texts, first bool, writes []write) error {
	return c.conn.Raw(func(conn any) error {
		result, err := conn.(driver.ExecerContext).ExecContext(background, strings.Join(t.list, ";"), t.args)
		if err != nil {
			return err
		}
		r := result.(mysql.Result)
		counts := r.AllRowsAffected()
		if first {
			c.number = r.AllLastInsertIds()[0]
			counts = counts[1:]
		}
		for i, w := range writes {
			if w.some && counts[i] == 0 {
				return &refusal{place: i, error: errNothing}
			}
		}
		return nil
	})
}

// read carries out statements that questions are among.
func (c *mariadbSession) read(t texts, first bool, writes []write, questions []reading) error {
	args := make([]any, len(t.args))
	for i, a := range t.args {
		args[i] = a.Value
	}
	rows, err := c.conn.QueryContext(background, strings.Join(t.list, ";"), args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	begun := false
	next := func(row func() error) error {
		if begun && !rows.NextResultSet() {
			if err := rows.Err(); err != nil {
				return err
			}
			return io.ErrUnexpectedEOF
		}
		begun = true
		for rows.Next() {
			if err := row(); err != nil {
				return err
			}
		}
		return rows.Err()
	}
	if first {
		if err := next(func() error { return rows.Scan(&c.number) }); err != nil {
			return err
		}
	}
	var missed error
	for i, w := range writes {
		if !w.some {
			continue
		}
		var n int64
		if err := next(func() error { return rows.Scan(&n) }); err != nil {
			return err
		}
		if n == 0 && missed == nil {
			missed = &refusal{place: i, error: errNothing}
		}
	}
	if missed != nil {
		return missed
	}
	for _, q := range questions {
		if err := next(scanner(rows, q)); err != nil {
			return err
		}
	}
	return nil
}

// alone asks one question, prepared.
func (c *mariadbSession) alone(q reading, t texts) error {
	st, err := c.prepare(t.list[0])
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(background, q.args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	take := scanner(rows, q)
	for rows.Next() {
		if err := take(); err != nil {
			return err
		}
	}
	return rows.Err()
}

// scanner takes one row.
func scanner(rows *sql.Rows, q reading) func() error {
	var values, to []any
	return func() error {
		if q.keep == nil {
			return q.row(rows.Scan)
		}
		if values == nil {
			names, err := rows.Columns()
			if err != nil {
				return err
			}
			values, to = make([]any, len(names)), make([]any, len(names))
			for i := range values {
				to[i] = &values[i]
			}
		}
		if err := rows.Scan(to...); err != nil {
			return err
		}
		q.keep(values)
		return nil
	}
}

// check looks for the rows that foreign keys need.
func (c *mariadbSession) check() error {
	slices.SortFunc(c.checks, func(a, b lateCheck) int {
		return cmp.Or(cmp.Compare(a.query, b.query), cmp.Compare(fmt.Sprint(a.value), fmt.Sprint(b.value)))
	})
	c.checks = slices.Compact(c.checks)
	counts := make([]int64, len(c.checks))
	var list []reading
	for i, k := range c.checks {
		list = append(list, reading{question: &question{query: k.query, args: []any{k.value}, row: func(scan func(...any) error) error { return scan(&counts[i]) }}})
	}
	checks := c.checks
	c.checks = nil
	if len(list) == 0 {
		return nil
	}
	if err := c.send(nil, list, false); err != nil {
		return err
	}
	for i, n := range counts {
		if n == 0 {
			return &refusal{place: -1, error: &ConstraintError{Kind: ErrReferenced, Text: fmt.Sprintf("FOREIGN KEY constraint failed: %s has no row %v", checks[i].parent, checks[i].value)}}
		}
	}
	return nil
}

func (c *mariadbSession) exec(writes []write, query string, args []any) (int64, error) {
	if c.unordered || len(writes) > 0 {
		if err := c.send(writes, nil, false); err != nil {
			return 0, err
		}
	}
	if c.gone != nil {
		return 0, c.gone
	}
	c.used = true
	c.carried++
	c.trips++
	t, checks := c.statement(query, args)
	n, err := c.connection.exec(t.text, args)
	if err == nil {
		c.checks = append(c.checks, checks...)
	}
	if err = c.judge(err, t.table); t.unless && errors.Is(err, ErrDuplicate) {
		return 0, nil
	}
	return n, err
}

func (c *mariadbSession) rollback() error {
	if errors.Is(c.lot, errLost) {
		return c.lot
	}
	if !c.used {
		return nil
	}
	_, err := c.connection.exec("ROLLBACK", nil)
	if c.number > 0 {
		c.number-- // so is that
	}
	return err
}

func lostNumber(n uint16) bool {
	// Shutting down, not ready (Galera), killed, read-only, read-only mode, idle for too long.
	return slices.Contains([]uint16{1053, 1047, 1927, 1290, 1836, 4031}, n)
}

var duplicateKey = regexp.MustCompile(`for key '([^']*)'$`)

// judge turns a driver's error into one of ours, and notes what it means for the transaction.
func (c *mariadbSession) judge(err error, table string) error {
	if err == nil {
		return nil
	}
	var e *mysql.MySQLError
	var network net.Error
	switch {
	case !errors.As(err, &e):
		if errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, io.EOF) || errors.As(err, &network) {
			c.lot = &fateError{errLost, err}
		}
	case e.Number == 1213 || e.Number == 1205 || e.Number == 1020 || e.Number == 1412:
		// Deadlock (on Galera also: another node was first), lock timeout, the row or the table has changed.
		c.lot = &fateError{errAgain, err}
	case lostNumber(e.Number):
		c.lot = &fateError{errLost, err}
	case e.Number == 1062 || e.Number == 1586:
		text := e.Message
		if m := duplicateKey.FindStringSubmatch(e.Message); m != nil {
			if text = c.keys.columns(table, m[1]); text == "" {
				text = table + " " + m[1]
			}
		}
		return &ConstraintError{Kind: ErrDuplicate, Text: "UNIQUE constraint failed: " + text}
	case slices.Contains([]uint16{1216, 1217, 1451, 1452}, e.Number):
		return &ConstraintError{Kind: ErrReferenced, Text: e.Message}
	}
	if c.lot != nil {
		c.gone = c.lot
		return c.lot
	}
	return err
}

// lateKeys are the foreign keys that are declared as deferrable, which MariaDB
// does not know: rows may come before those that they refer to. Inserts into
// their tables do without the check, and the commit makes it up.
type lateKeys struct {
	mu sync.RWMutex
	// parents: table → column → the table whose id it is.
	parents map[string]map[string]string
}

type lateCheck struct {
	parent, query string
	value         any
}

var (
	createTable = regexp.MustCompile(`^\s*CREATE TABLE (\w+)`)
	lateKey     = regexp.MustCompile(`(\w+) VARCHAR\(\d+\)[^,]* REFERENCES (\w+) \(id\)[^,]* DEFERRABLE INITIALLY DEFERRED`)
	insertion   = regexp.MustCompile(`^\s*INSERT INTO \w+ \(([^)]*)\) VALUES \(([^)]*)\)`)
)

func (k *lateKeys) load(schemas []Schema) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.parents = map[string]map[string]string{}
	for _, schema := range schemas {
		for _, step := range schema.Steps {
			for _, text := range step {
				table := createTable.FindStringSubmatch(text)
				if table == nil {
					continue
				}
				for _, m := range lateKey.FindAllStringSubmatch(text, -1) {
					if k.parents[table[1]] == nil {
						k.parents[table[1]] = map[string]string{}
					}
					k.parents[table[1]][m[1]] = m[2]
				}
			}
		}
	}
}

// of returns the checks that a statement leaves to the commit.
func (k *lateKeys) of(t translated, args []any) []lateCheck {
	k.mu.RLock()
	parents := k.parents[t.table]
	k.mu.RUnlock()
	if len(parents) == 0 {
		return nil
	}
	m := insertion.FindStringSubmatch(t.text)
	if m == nil {
		return nil
	}
	columns, values := strings.Split(m[1], ","), strings.Split(m[2], ",")
	var checks []lateCheck
	for i, value := range values {
		var v any = strings.Trim(strings.TrimSpace(value), "'")
		if strings.TrimSpace(value) == "?" && len(args) > 0 {
			v, args = args[0], args[1:]
		}
		if i >= len(columns) || v == nil {
			continue
		}
		if parent := parents[strings.TrimSpace(columns[i])]; parent != "" {
			checks = append(checks, lateCheck{parent, "SELECT COUNT(*) FROM " + parent + " WHERE id = ?", v})
		}
	}
	return checks
}

// translated is a statement as MariaDB has it.
type translated struct {
	text string
	// table is the one that is written.
	table string
	// unless: a duplicate is no error.
	unless bool
}

var (
	translations sync.Map
	writes       = regexp.MustCompile(`^\s*(?:INSERT INTO|UPDATE|DELETE FROM)\s+(\w+)`)
	doNothing    = regexp.MustCompile(`\s+ON CONFLICT(?: \([^)]*\))? DO NOTHING$`)
	doUpdate     = regexp.MustCompile(`ON CONFLICT \([^)]*\) DO UPDATE SET`)
	excluded     = regexp.MustCompile(`\bexcluded\.(\w+)`)
)

func translate(query string) translated {
	if t, ok := translations.Load(query); ok {
		return t.(translated)
	}
	t := translated{text: query}
	if m := writes.FindStringSubmatch(query); m != nil {
		t.table = m[1]
		if doNothing.MatchString(query) {
			t.text, t.unless = doNothing.ReplaceAllString(query, ""), true
		}
		if doUpdate.MatchString(query) {
			t.text = excluded.ReplaceAllString(doUpdate.ReplaceAllString(query, "ON DUPLICATE KEY UPDATE"), "VALUES($1)")
		}
	}
	translations.Store(query, t)
	return t
}

var (
	longText     = regexp.MustCompile(`\bTEXT\b`)
	deferrable   = regexp.MustCompile(`\s+DEFERRABLE INITIALLY DEFERRED`)
	partialIndex = regexp.MustCompile(`(?s)^\s*CREATE UNIQUE INDEX (\w+) ON (\w+) \(([^)]*)\) WHERE (.*)$`)
)

// define: text is compared and sorted by its characters, as on SQLite; a
// foreign key that is to be checked at the commit is so by lateKeys; a unique index of some rows has a column more, which is null in the others.
func (s *mariadb) define(statement string) []string {
	if m := partialIndex.FindStringSubmatch(statement); m != nil {
		column := m[1] + "_only"
		return []string{
			fmt.Sprintf("ALTER TABLE %s ADD COLUMN %s BOOLEAN GENERATED ALWAYS AS (CASE WHEN %s THEN TRUE END) VIRTUAL", m[2], column, m[4]),
			fmt.Sprintf("CREATE UNIQUE INDEX %s ON %s (%s, %s)", m[1], m[2], m[3], column),
		}
	}
	if statement == commitTurn {
		return nil
	}
	if !definition.MatchString(statement) {
		return []string{statement}
	}
	statement = longText.ReplaceAllString(deferrable.ReplaceAllString(statement, ""), "LONGTEXT")
	if !strings.Contains(statement, "CREATE TABLE") {
		return []string{statement}
	}
	const options = " ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_nopad_bin"
	list := []string{strings.Replace(statement, "seq INTEGER", "seq BIGINT", 1) + options}
	if strings.HasPrefix(statement, eventTable) {
		list = append(list, "CREATE TABLE commit_order (id INTEGER PRIMARY KEY, number BIGINT NOT NULL)"+options, "INSERT INTO commit_order (id, number) VALUES (1, 0)")
	}
	return list
}

func (s *mariadb) order(column string, _, descending bool) string { return ordered(column, descending) }

func (s *mariadb) hasTable(tx *Tx, name string) (bool, error) {
	var n int
	err := tx.Row("SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?", []any{name}, &n)
	return n > 0, err
}

// writeEvents: the number of an event is that of its transaction in commit_order, and its place in it.
func (s *mariadb) writeEvents(tx *Tx, events []Event) error {
	const chunk = 100
	c := tx.c.(*conversation)
	for first := 0; first < len(events); {
		n := min(chunk, len(events)-first)
		if n < chunk {
			for n&(n-1) != 0 { // few different statements
				n &= n - 1
			}
		}
		args := make([]any, 0, 11*n)
		for _, e := range events[first : first+n] {
			args = append(args, int64(c.place), e.Kind, e.ID, string(e.Op), e.Revision, e.ProjectID, e.RequestID, e.UserID, e.UserProject, e.At, string(e.Data))
			c.place++
		}
		// takeTurn is the only one that sets LAST_INSERT_ID.
		const values = "(LAST_INSERT_ID() * 1048576 + ?,?,?,?,?,?,?,?,?,?,?)"
		if err := c.later(write{query: "INSERT INTO event (seq, kind, id, op, revision, project_id, request_id, user_id, user_project, at, data) VALUES " +
			values + strings.Repeat(", "+values, n-1), args: args, job: c.job}); err != nil {
			return fmt.Errorf("events: %w", err)
		}
		first += n
	}
	return nil
}

func (s *mariadb) settled(tx *Tx) (int64, error) { return tx.LastSequence() }

func (s *mariadb) events(tx *Tx, after int64, limit int) ([]Event, error) {
	return tx.eventsAfter(after, limit, "")
}

// alreadyThere: the table, the column or the index.
func alreadyThere(err error) bool {
	var e *mysql.MySQLError
	return errors.As(err, &e) && (e.Number == 1050 || e.Number == 1060 || e.Number == 1061)
}

// upgrade notes each statement that was carried out, since MariaDB cannot undo them.
func (s *mariadb) upgrade(ctx context.Context, schemas []Schema) (err error) {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	c, err := s.session(ctx, s.patient)
	if err != nil {
		return err
	}
	defer c.close()
	tx := &Tx{c: &conversation{remote: c, careful: true}, dialect: s, writable: true}
	// Programs that start at the same time do so one after the other.
	var locked sql.NullInt64
	if err := tx.Row("SELECT GET_LOCK(CONCAT('isospin.', DATABASE()), 600)", nil, &locked); err != nil {
		return err
	}
	if locked.Int64 != 1 {
		return fmt.Errorf("%w: another program has been upgrading it for 10 minutes", ErrUnavailable)
	}
	for _, statement := range append(s.define(versionTable),
		s.define("CREATE TABLE IF NOT EXISTS schema_progress (module VARCHAR(64) PRIMARY KEY, version INTEGER NOT NULL, statements INTEGER NOT NULL)")...) {
		if err := tx.exec(statement); err != nil {
			return err
		}
	}
	have, err := versions(tx)
	if err != nil {
		return err
	}
	all := All(schemas...)
	for _, schema := range all {
		if err := fits(schema, have[schema.Module]); err != nil {
			return err
		}
	}
	s.late.load(all)
	resumed := true
	for _, schema := range all {
		for version := have[schema.Module] + 1; version <= len(schema.Steps); version++ {
			var list []string
			for _, text := range schema.Steps[version-1] {
				list = append(list, s.define(text)...)
			}
			done := 0
			if err := tx.Row("SELECT statements FROM schema_progress WHERE module = ? AND version = ?", []any{schema.Module, version}, &done); err != nil && !errors.Is(err, ErrNoRow) {
				return err
			}
			for done < len(list) {
				// The first may have been carried out by a program that ended before it could note that.
				if err := tx.exec(list[done]); err != nil && !(resumed && alreadyThere(err)) {
					return fmt.Errorf("upgrade of %s to version %d: %w", schema.Module, version, err)
				}
				resumed = false
				done++
				if _, err := tx.Exec("INSERT INTO schema_progress (module, version, statements) VALUES (?, ?, ?) ON CONFLICT (module) DO UPDATE SET version = excluded.version, statements = excluded.statements", schema.Module, version, done); err != nil {
					return err
				}
				if err := c.send(nil, nil, true); err != nil {
					return err
				}
			}
			if _, err := tx.Exec("INSERT INTO schema_version (module, version) VALUES (?, ?) ON CONFLICT (module) DO UPDATE SET version = excluded.version", schema.Module, version); err != nil {
				return err
			}
			if err := c.send(nil, nil, true); err != nil {
				return err
			}
		}
	}
	s.memory.learn(all)
	return s.keys.load(tx, "SELECT table_name, index_name, column_name FROM information_schema.statistics WHERE table_schema = DATABASE() AND non_unique = 0 ORDER BY table_name, index_name, seq_in_index")
}
