package store

import (
	"cmp"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// mariadbSession is one connection. A question that is all of a transaction is
// asked in autocommit mode, without words for its begin and end.
type mariadbSession struct {
	*connection
	keys *uniqueKeys
	late *lateKeys
	// asked are the prepared statements of alone.
	asked map[string]driver.Stmt
	// checks are foreign keys that the commit is to look for.
	checks []lateCheck
	// unordered: the number in commit_order is still to be taken.
	unordered bool
	// used: the transaction has begun.
	used bool
	// auto: the session is in autocommit mode.
	auto bool
	// strange: it is not known whether it is. The rollback then sees to it.
	strange   bool
	number    int64
	gone, lot error

	carried, trips int
}

// takeTurn leaves the number for LAST_INSERT_ID().
const takeTurn = "UPDATE commit_order SET number = LAST_INSERT_ID(number + 1)"

// Who writes is never in autocommit mode, where a first statement begins a
// transaction: in the other one a node of Galera that has given a transaction up
// for another node's, between two of its statements, may answer its commit with success.
const (
	autocommit   = "SET autocommit = 1"
	noAutocommit = "SET autocommit = 0"
)

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
	whole := end && !c.used && !first && len(writes) == 0 && len(questions) == 1
	begins := !c.used && !whole && (!end || first || len(writes)+len(questions) > 0)
	prelude := ""
	switch {
	case whole && !c.auto:
		prelude = autocommit
	case begins && c.auto && first:
		prelude = noAutocommit
	case begins && c.auto:
		prelude = "BEGIN"
	}
	if prelude != "" {
		t.list = append(t.list, prelude)
	}
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
	if end && (c.used || begins) {
		t.list = append(t.list, "COMMIT")
	}
	if len(t.list) == 0 {
		return nil
	}
	c.used, c.unordered = c.used || begins, false
	c.carried += len(t.list)
	c.trips++
	var err error
	switch {
	case len(questions) == 1 && len(t.list) == 1:
		err = c.alone(questions[0], t)
	case len(questions) > 0:
		err = c.read(t, first, writes, questions)
	default:
		err = c.carry(t, prelude != "", first, writes)
	}
	var refused *refusal
	if prelude == autocommit || prelude == noAutocommit {
		c.auto = prelude == autocommit
		c.strange = err != nil && !errors.As(err, &refused) // it may have been interrupted before that
	}
	if err == nil && end {
		c.used = false
	}
	if err == nil || errors.As(err, &refused) {
		return err
	}
	judged := c.judge(err, "")
	if c.strange {
		c.gone = judged // nothing more is done in a mode that is not known
	}
	var constraint *ConstraintError
	if c.lot == nil && len(writes) > 0 && errors.As(judged, &constraint) {
		return &refusal{place: -1, error: judged}
	}
	return judged
}

// carry carries out statements without rows.
func (c *mariadbSession) carry(t texts, prelude, first bool, writes []write) error {
	return c.conn.Raw(func(conn any) error {
		result, err := conn.(driver.ExecerContext).ExecContext(background, strings.Join(t.list, ";"), t.args)
		if err != nil {
			return err
		}
		r := result.(mysql.Result)
		counts, numbers := r.AllRowsAffected(), r.AllLastInsertIds()
		if prelude {
			counts, numbers = counts[1:], numbers[1:]
		}
		if first {
			c.number, counts = numbers[0], counts[1:]
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

// alone asks one question, prepared. It asks the driver itself: what database/sql
// does around it takes a tenth of the time.
func (c *mariadbSession) alone(q reading, t texts) error {
	return c.conn.Raw(func(conn any) (err error) {
		st := c.asked[t.list[0]]
		if st == nil {
			if st, err = conn.(driver.ConnPrepareContext).PrepareContext(background, t.list[0]); err != nil {
				return err
			}
			if len(c.asked) >= c.limit {
				for _, old := range c.asked {
					old.Close()
				}
				clear(c.asked)
			}
			c.asked[t.list[0]] = st
		}
		rows, err := st.(driver.StmtQueryContext).QueryContext(background, t.args)
		if err != nil {
			return err
		}
		defer rows.Close()
		values := make([]driver.Value, len(rows.Columns()))
		for {
			if err := rows.Next(values); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			row := make([]any, len(values))
			for i, v := range values {
				row[i] = plain(v)
			}
			if q.keep != nil {
				q.keep(row)
			} else if err := (answer{row}).each(q.row); err != nil {
				return err
			}
		}
	})
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
	if c.used {
		_, err := c.connection.exec("ROLLBACK", nil)
		if c.number > 0 {
			c.number-- // so is that
		}
		if err != nil {
			return err
		}
	}
	if c.strange {
		if _, err := c.connection.exec(noAutocommit, nil); err != nil {
			return err
		}
		c.auto, c.strange = false, false
	}
	return nil
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
