package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"strings"
	"time"

	"isospin/internal/store"
)

// floor writes the rows of ports as fast as the driver can: prepared
// statements, one transaction a port, and nothing else. It shows what of a
// request's time is the database's.
type floor struct {
	from, to  *sql.DB
	reader    *sql.Conn
	writer    *sql.Conn
	insert    map[string]*sql.Stmt
	committed map[string]*sql.Stmt // BEGIN, COMMIT
}

// floorTables are the tables that a port is written to, parents first, with the
// conditions that name its rows. The event's own key is the database's to give.
var floorTables = []struct{ name, where string }{
	{"port", "id = ?"},
	{"ip_allocation", "port_id = ?"},
	{"port_security_group", "port_id = ?"},
	{"event", "kind = 'port' AND op = 'create' AND id = ?"},
}

// openFloor copies a server's database, as it is now, to a file of its own.
func openFloor(ctx context.Context, database, copied string) (f *floor, err error) {
	f = &floor{insert: map[string]*sql.Stmt{}, committed: map[string]*sql.Stmt{}}
	defer func() {
		if err != nil {
			f.close()
			err = fmt.Errorf("bare SQL: %w", err)
		}
	}()
	open := func(path string) (*sql.DB, *sql.Conn, error) {
		source, err := store.DataSource("sqlite:///" + path)
		if err != nil {
			return nil, nil, err
		}
		db, err := sql.Open("sqlite", source)
		if err != nil {
			return nil, nil, err
		}
		conn, err := db.Conn(ctx)
		return db, conn, err
	}
	if f.from, f.reader, err = open(database); err != nil {
		return f, err
	}
	if err := os.RemoveAll(copied); err != nil {
		return f, err
	}
	if _, err := f.reader.ExecContext(ctx, "VACUUM INTO ?", copied); err != nil {
		return f, err
	}
	if f.to, f.writer, err = open(copied); err != nil {
		return f, err
	}
	for _, text := range []string{"BEGIN IMMEDIATE", "COMMIT"} {
		if f.committed[text], err = f.writer.PrepareContext(ctx, text); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (f *floor) close() {
	for _, c := range []*sql.Conn{f.reader, f.writer} {
		if c != nil {
			c.Close()
		}
	}
	for _, db := range []*sql.DB{f.from, f.to} {
		if db != nil {
			db.Close()
		}
	}
}

// row is one INSERT.
type row struct {
	insert *sql.Stmt
	values []any
}

// rows reads what the server wrote for a port.
func (f *floor) rows(ctx context.Context, port string) ([]row, error) {
	var list []row
	for _, t := range floorTables {
		read, err := f.reader.QueryContext(ctx, "SELECT * FROM "+t.name+" WHERE "+t.where, port)
		if err != nil {
			return nil, err
		}
		names, err := read.Columns()
		if err != nil {
			return nil, err
		}
		for read.Next() {
			values, to := make([]any, len(names)), make([]any, len(names))
			for i := range values {
				to[i] = &values[i]
			}
			if err := read.Scan(to...); err != nil {
				return nil, err
			}
			columns := names
			if t.name == "event" { // its first column
				columns, values = names[1:], values[1:]
			}
			insert := f.insert[t.name]
			if insert == nil {
				marks := strings.TrimSuffix(strings.Repeat("?,", len(columns)), ",")
				text := fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", t.name, strings.Join(columns, ","), marks)
				if insert, err = f.writer.PrepareContext(ctx, text); err != nil {
					return nil, err
				}
				f.insert[t.name] = insert
			}
			list = append(list, row{insert, values})
		}
		if err := read.Err(); err != nil {
			return nil, err
		}
	}
	if len(list) < len(floorTables) {
		return nil, fmt.Errorf("port %s has %d rows, at least %d were expected", port, len(list), len(floorTables))
	}
	return list, nil
}

// replay writes the rows of ports that the server has made, one transaction a
// port. Reading them is not in the time.
func (f *floor) replay(ctx context.Context, ports []string) (samples, error) {
	var s samples
	for _, port := range ports {
		rows, err := f.rows(ctx, port)
		if err != nil {
			return s, fmt.Errorf("bare SQL: %w", err)
		}
		before := time.Now()
		_, err = f.committed["BEGIN IMMEDIATE"].ExecContext(ctx)
		for _, r := range rows {
			if err == nil {
				_, err = r.insert.ExecContext(ctx, r.values...)
			}
		}
		if err == nil {
			_, err = f.committed["COMMIT"].ExecContext(ctx)
		}
		if err != nil {
			return s, fmt.Errorf("bare SQL: %w", err)
		}
		took := time.Since(before)
		s.durations = append(s.durations, took)
		s.wall += took
	}
	return s, nil
}
