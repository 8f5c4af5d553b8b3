package storetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
)

// NewPrepared is New for a database that prepare has filled. Servers are asked
// to copy what it has once made, which is much faster than making it again; it
// must close what it opens. On SQLite the database is empty: it is as fast to make.
func NewPrepared(t testing.TB, prepare func(connection string) error) string {
	t.Helper()
	var s *server
	switch Kind() {
	case PostgreSQL:
		s = postgres
	case MariaDB:
		s = mariadb
	default:
		return New(t)
	}
	s.once.Do(func() { s.err = s.start() })
	if errors.Is(s.err, errMissing) {
		t.Skip(s.err)
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	s.preparing.Do(func() {
		if s.prepared, s.unprepared = s.create(); s.unprepared == nil {
			s.unprepared = prepare(s.url(s.dir, s.prepared))
		}
		if s.unprepared == nil && s.driver == "mysql" {
			s.copying, s.unprepared = copying(s.admin, s.prepared)
		}
	})
	if s.unprepared != nil {
		t.Fatal(s.unprepared)
	}
	name := fmt.Sprintf("isospin_%d", s.number.Add(1))
	if err := s.copy(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := s.admin.Exec(fmt.Sprintf(s.drop, name)); err != nil {
			t.Errorf("the database of the test stays: %v", err)
		}
	})
	return s.url(s.dir, name)
}

func (s *server) copy(name string) error {
	if s.driver == "pgx" {
		// One at a time: the database that is copied must have no connections.
		s.copies.Lock()
		defer s.copies.Unlock()
		_, err := s.admin.Exec("CREATE DATABASE " + name + " TEMPLATE " + s.prepared)
		return err
	}
	conn, err := s.admin.Conn(context.Background())
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, statement := range append([]string{"CREATE DATABASE " + name, "USE " + name, "SET foreign_key_checks = 0"}, s.copying...) {
		if _, err := conn.ExecContext(context.Background(), statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	_, err = conn.ExecContext(context.Background(), "SET foreign_key_checks = 1")
	return err
}

// copying are the statements that make a database of MariaDB be as another is.
func copying(db *sql.DB, from string) (list []string, err error) {
	rows, err := db.Query("SELECT table_name FROM information_schema.tables WHERE table_schema = ?", from)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		tables = append(tables, name)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for _, table := range tables {
		var name, text string
		if err := db.QueryRow("SHOW CREATE TABLE "+from+"."+table).Scan(&name, &text); err != nil {
			return nil, err
		}
		list = append(list, text)
		// What the database computes is not copied.
		var columns string
		if err := db.QueryRow("SELECT GROUP_CONCAT(column_name) FROM information_schema.columns WHERE table_schema = ? AND table_name = ? AND is_generated = 'NEVER'", from, table).Scan(&columns); err != nil {
			return nil, err
		}
		var n int
		if err := db.QueryRow("SELECT COUNT(*) FROM " + from + "." + table).Scan(&n); err != nil {
			return nil, err
		}
		if n > 0 {
			list = append(list, fmt.Sprintf("INSERT INTO %s (%s) SELECT %[2]s FROM %s.%[1]s", table, columns, from))
		}
	}
	return list, nil
}
