package main

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"isospin/internal/resource"
)

// counter returns what tells how many statements the database has carried out.
// It is 0 for one that does not count.
func counter(ctx context.Context, s *subject) (func() (float64, error), error) {
	query := "SHOW GLOBAL STATUS LIKE 'Questions'"
	switch s.driver {
	case "":
		return func() (float64, error) { return 0, nil }, nil
	case "pgx":
		query = "SELECT 'calls', COALESCE(SUM(calls), 0)::float8 FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())"
	}
	open := func() (*sql.DB, error) { return sql.Open(s.driver, s.source) }
	db, err := open()
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if s.driver == "pgx" {
		if _, err := db.ExecContext(ctx, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"); err != nil {
			return func() (float64, error) { return 0, nil }, nil // it is not installed
		}
	}
	return func() (float64, error) {
		db, err := open()
		if err != nil {
			return 0, err
		}
		defer db.Close()
		var name string
		var n float64
		err = db.QueryRowContext(ctx, query).Scan(&name, &n)
		return n, err
	}, nil
}

// replay writes the rows of ports that the server has made once more, under
// other ids and addresses, by bare SQL: prepared statements, one transaction a
// port, so many clients at once. Reading them is not in the time. They are
// removed afterwards.
func (r *requests) replay(s *subject, ports []string, clients int) (samples, error) {
	out, err := r.replayed(s, ports, clients)
	if err != nil {
		err = fmt.Errorf("bare SQL: %w", err)
	}
	return out, err
}

func (r *requests) replayed(s *subject, ports []string, clients int) (out samples, err error) {
	db, err := sql.Open(s.driver, s.source)
	if err != nil {
		return out, err
	}
	defer db.Close()
	db.SetMaxIdleConns(clients)
	mark := func(text string) string { return text }
	if s.driver == "pgx" {
		mark = func(text string) string {
			for n := 1; strings.Contains(text, "?"); n++ {
				text = strings.Replace(text, "?", fmt.Sprintf("$%d", n), 1)
			}
			return text
		}
	}
	type line struct {
		text   string
		values []any
	}
	var lowest int64
	if err := db.QueryRowContext(r.ctx, "SELECT MIN(seq) FROM event").Scan(&lowest); err != nil {
		return out, err
	}
	lists, fresh := make([][]line, len(ports)), make([]string, len(ports))
	for i, port := range ports {
		fresh[i] = resource.NewID()
		for _, t := range floorTables {
			rows, err := db.QueryContext(r.ctx, mark("SELECT * FROM "+t.name+" WHERE "+t.where), port)
			if err != nil {
				return out, err
			}
			names, err := rows.Columns()
			if err != nil {
				return out, err
			}
			for rows.Next() {
				values, to := make([]any, len(names)), make([]any, len(names))
				for k := range values {
					to[k] = &values[k]
				}
				if err := rows.Scan(to...); err != nil {
					return out, err
				}
				for k, name := range names {
					if text, ok := values[k].([]byte); ok {
						values[k] = string(text)
					}
					switch {
					case values[k] == port:
						values[k] = fresh[i]
					case name == "mac_address" || name == "ip_address":
						values[k] = fresh[i][:17]
					case name == "seq":
						lowest-- // where the feed does not look
						values[k] = lowest
					}
				}
				lists[i] = append(lists[i], line{mark("INSERT INTO " + t.name + " (" + strings.Join(names, ",") + ") VALUES (" + strings.TrimSuffix(strings.Repeat("?,", len(names)), ",") + ")"), values})
			}
			if err := rows.Err(); err != nil {
				return out, err
			}
		}
	}
	var next atomic.Int64
	var group sync.WaitGroup
	taken, errs := make([][]time.Duration, clients), make([]error, clients)
	ready := make(chan struct{})
	begun := time.Now()
	for k := range clients {
		group.Go(func() {
			conn, err := db.Conn(r.ctx)
			if err != nil {
				errs[k] = err
				return
			}
			defer conn.Close()
			prepared := map[string]*sql.Stmt{}
			for _, l := range lists[0] {
				if prepared[l.text] == nil {
					if prepared[l.text], errs[k] = conn.PrepareContext(r.ctx, l.text); errs[k] != nil {
						return
					}
				}
			}
			<-ready
			for {
				i := int(next.Add(1)) - 1
				if i >= len(lists) {
					return
				}
				before := time.Now()
				_, err := conn.ExecContext(r.ctx, "BEGIN")
				for _, l := range lists[i] {
					if st := prepared[l.text]; err == nil && st != nil {
						_, err = st.ExecContext(r.ctx, l.values...)
					} else if err == nil {
						_, err = conn.ExecContext(r.ctx, l.text, l.values...)
					}
				}
				if err == nil {
					_, err = conn.ExecContext(r.ctx, "COMMIT")
				}
				if errs[k] = err; err != nil {
					return
				}
				taken[k] = append(taken[k], time.Since(before))
			}
		})
	}
	time.AfterFunc(100*time.Millisecond, func() { begun = time.Now(); close(ready) })
	group.Wait()
	out.wall = time.Since(begun)
	for k := range clients {
		if errs[k] != nil {
			return out, errs[k]
		}
		out.durations = append(out.durations, taken[k]...)
	}
	for _, id := range fresh {
		for n := len(floorTables) - 1; n >= 0; n-- {
			if _, err := db.ExecContext(r.ctx, mark("DELETE FROM "+floorTables[n].name+" WHERE "+floorTables[n].where), id); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}
