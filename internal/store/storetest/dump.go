package storetest

import (
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite"
)

// NewIn is New for a directory: a second call for the same one returns the database of the first.
func NewIn(t testing.TB, dir string) string {
	t.Helper()
	if Kind() == SQLite {
		return "sqlite:///" + filepath.Join(dir, "neutron.sqlite")
	}
	note := filepath.Join(dir, "database")
	if text, err := os.ReadFile(note); err == nil {
		return string(text)
	}
	connection := New(t)
	if err := os.WriteFile(note, []byte(connection), 0o600); err != nil {
		t.Fatal(err)
	}
	// The database ends with the test that made it, the directory perhaps with another.
	t.Cleanup(func() { os.Remove(note) })
	return connection
}

// Source is how database/sql opens a database of this package.
func Source(t testing.TB, connection string) (driver, source string) {
	t.Helper()
	u, err := url.Parse(connection)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	switch scheme, _, _ := strings.Cut(u.Scheme, "+"); scheme {
	case "sqlite":
		return "sqlite", "file:/" + strings.TrimPrefix(name, "/")
	case "postgresql":
		return "pgx", "user=isospin dbname=" + name + " host=" + u.Query().Get("host")
	}
	return "mysql", "root@unix(" + u.Query().Get("unix_socket") + ")/" + name
}

// Rows reads all tables but those in which the store keeps order, servers their leases and hosts their attachments: table → primary key → row as text.
func Rows(t testing.TB, connection string) map[string]map[string]string {
	t.Helper()
	driver, source := Source(t, connection)
	var tables, keys string
	switch driver {
	case "sqlite":
		tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
		keys = "SELECT name FROM pragma_table_info('%s') WHERE pk > 0 ORDER BY pk"
	case "pgx":
		tables = "SELECT table_name::text FROM information_schema.tables WHERE table_schema = 'public'"
		keys = `SELECT k.column_name::text FROM information_schema.table_constraints c JOIN information_schema.key_column_usage k
			ON k.constraint_name = c.constraint_name AND k.table_name = c.table_name WHERE c.constraint_type = 'PRIMARY KEY' AND c.table_name = '%s' ORDER BY k.ordinal_position`
	default:
		tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()"
		keys = "SELECT column_name FROM information_schema.statistics WHERE table_schema = DATABASE() AND table_name = '%s' AND index_name = 'PRIMARY' ORDER BY seq_in_index"
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	all := map[string]map[string]string{}
	for _, table := range column(t, db, tables) {
		switch table {
		case "agent_attachment", "event", "event_base", "event_floor", "commit_order", "lease", "schema_version", "schema_progress":
			continue
		}
		all[table] = contents(t, db, table, column(t, db, fmt.Sprintf(keys, table)))
	}
	return all
}

func contents(t testing.TB, db *sql.DB, table string, keys []string) map[string]string {
	t.Helper()
	rows, err := db.Query("SELECT * FROM " + table)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	names, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for rows.Next() {
		values := make([]sql.NullString, len(names))
		into := make([]any, len(names))
		byName := map[string]string{}
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		var text []string
		for i, v := range values {
			byName[names[i]] = v.String
			text = append(text, fmt.Sprintf("%t %q", v.Valid, v.String))
		}
		var key []string
		for _, k := range keys {
			key = append(key, byName[k])
		}
		found[strings.Join(key, "/")] = strings.Join(text, ", ")
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

func column(t testing.TB, db *sql.DB, query string) []string {
	t.Helper()
	rows, err := db.Query(query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		list = append(list, s)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}
