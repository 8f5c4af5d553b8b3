package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// connection is one connection of database/sql and its prepared statements.
type connection struct {
	conn       *sql.Conn
	classify   func(error) error
	statements map[string]*sql.Stmt
	// limit is how many statements are kept prepared.
	limit int
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

// Statements run without the caller's context: interrupting one of them would
// undo the transactions of others that share the commit.
var background = context.Background()

func (c *connection) prepare(query string) (*sql.Stmt, error) {
	if st := c.statements[query]; st != nil {
		return st, nil
	}
	st, err := c.conn.PrepareContext(background, query)
	if err != nil {
		return nil, fmt.Errorf("prepare %q: %w", query, c.classify(err))
	}
	if len(c.statements) >= c.limit {
		for q, old := range c.statements {
			old.Close()
			delete(c.statements, q)
		}
	}
	c.statements[query] = st
	return st, nil
}

func (c *connection) exec(query string, args []any) (int64, error) {
	st, err := c.prepare(query)
	if err != nil {
		return 0, err
	}
	r, err := st.ExecContext(background, args...)
	if err != nil {
		return 0, c.classify(err)
	}
	return r.RowsAffected()
}

// put is exec: there is no way to the database.
func (c *connection) put(query string, args []any, _ bool) (int64, error) { return c.exec(query, args) }

func (c *connection) ask(list []question) error {
	for _, q := range list {
		if err := c.query(q.query, q.args, q.row); err != nil {
			return err
		}
	}
	return nil
}

func (c *connection) query(query string, args []any, row func(scan func(...any) error) error) error {
	st, err := c.prepare(query)
	if err != nil {
		return err
	}
	rows, err := st.QueryContext(background, args...)
	if err != nil {
		return c.classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return err
		}
	}
	return c.classify(rows.Err())
}

func (c *connection) first(query string, args []any, dest []any) error {
	st, err := c.prepare(query)
	if err != nil {
		return err
	}
	err = st.QueryRowContext(background, args...).Scan(dest...)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrNoRow
	}
	return c.classify(err)
}
