package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/go-sql-driver/mysql"
)

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
	if k.parents == nil {
		k.parents = map[string]map[string]string{}
	}
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

func (s *mariadb) among(column string, values []string) (string, []any) {
	return In(column, anySlice(values))
}

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
	session, wire, err := s.session(ctx, s.patient)
	if err != nil {
		return err
	}
	defer session.close()
	c := s.newLine(session, wire)
	defer s.attach(c)()
	tx := &Tx{c: &conversation{remote: c, careful: true}, dialect: s, writable: true}
	// Programs that start at the same time do so one after the other.
	var locked sql.NullInt64
	if err := tx.Row("SELECT GET_LOCK(CONCAT('isospin.', DATABASE()), 600)", nil, &locked); err != nil {
		return err
	}
	if locked.Int64 != 1 {
		return fmt.Errorf("%w: another program has been upgrading it for 10 minutes", ErrUnavailable)
	}
	for _, statement := range s.define("CREATE TABLE IF NOT EXISTS schema_progress (module VARCHAR(64) PRIMARY KEY, version INTEGER NOT NULL, statements INTEGER NOT NULL)") {
		if err := tx.exec(statement); err != nil {
			return err
		}
	}
	all := All(schemas...)
	s.late.load(all)
	resumed := true
	if err := eachStep(tx, all, func(next step) error {
		done := 0
		if err := tx.Row("SELECT statements FROM schema_progress WHERE module = ? AND version = ?", []any{next.module, next.version}, &done); err != nil && !errors.Is(err, ErrNoRow) {
			return err
		}
		for done < len(next.statements) {
			// The first may have been carried out by a program that ended before it could note that.
			if err := tx.exec(next.statements[done]); err != nil && !(resumed && alreadyThere(err)) {
				return err
			}
			resumed = false
			done++
			if _, err := tx.Exec("INSERT INTO schema_progress (module, version, statements) VALUES (?, ?, ?) ON CONFLICT (module) DO UPDATE SET version = excluded.version, statements = excluded.statements", next.module, next.version, done); err != nil {
				return err
			}
			if err := c.send(nil, nil, true); err != nil {
				return err
			}
		}
		if err := next.note(tx); err != nil {
			return err
		}
		return c.send(nil, nil, true)
	}); err != nil {
		return err
	}
	s.memory.learn(all)
	return s.keys.load(tx, "SELECT table_name, index_name, column_name FROM information_schema.statistics WHERE table_schema = DATABASE() AND non_unique = 0 ORDER BY table_name, index_name, seq_in_index")
}
