package store_test

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

var pages = store.Schema{Module: "pages", Steps: [][]string{{
	`CREATE TABLE page (id VARCHAR(36) PRIMARY KEY, content TEXT NOT NULL)`,
}}}

// TestLong: what is written and asked together may be longer than what the
// server takes at once.
func TestLong(t *testing.T) { each(t, testLong) }

func testLong(t *testing.T, connection string) {
	if strings.HasPrefix(connection, "mysql") {
		small(t, connection)
	}
	s := open(t, connection)
	if err := s.Upgrade(t.Context(), pages); err != nil {
		t.Fatal(err)
	}
	const rows, asked = 400, 30000
	content := strings.Repeat("x", 8000)
	id := func(i int) string { return fmt.Sprintf("%036d", i) }
	insert := func(tx *store.Tx, i int) error {
		return tx.Put("INSERT INTO page (id, content) VALUES (?, ?)", id(i), content)
	}
	if err := s.Tx(t.Context(), func(tx *store.Tx) error {
		for i := range rows {
			if err := insert(tx, i); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatalf("%d rows of %d bytes in one transaction: %v", rows, len(content), err)
	}
	ids := make([]string, asked)
	for i := range ids {
		ids[i] = id(i)
	}
	found := 0
	if err := s.View(t.Context(), func(tx *store.Tx) error {
		found = 0
		return store.Child(tx, "SELECT id FROM page WHERE %s", "id", ids, func(scan func(...any) error) error {
			found++
			var id string
			return scan(&id)
		})
	}); err != nil || found != rows {
		t.Fatalf("of %d rows that are asked for, %d are there: found %d, %v", asked, rows, found, err)
	}
	// A refusal is found in whichever part it is, and undoes all.
	if err := s.Tx(t.Context(), func(tx *store.Tx) error {
		for i := range rows {
			if err := insert(tx, 2*rows-1-i); err != nil {
				return err
			}
		}
		return insert(tx, 0)
	}); !errors.Is(err, store.ErrDuplicate) {
		t.Errorf("a row that is there already, after %d others: %v", rows, err)
	}
	var n int
	if err := s.View(t.Context(), func(tx *store.Tx) error { return tx.Row("SELECT COUNT(*) FROM page", nil, &n) }); err != nil || n != rows {
		t.Errorf("%d rows are there, not %d, %v", n, rows, err)
	}
}

// small makes the server take texts of up to 1 MiB on new connections, until the test ends.
func small(t *testing.T, connection string) {
	t.Helper()
	driver, source := storetest.Source(t, connection)
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	var before int
	if err := db.QueryRow("SELECT @@GLOBAL.max_allowed_packet").Scan(&before); err != nil {
		t.Fatal(err)
	}
	set := func(n int) {
		if _, err := db.Exec(fmt.Sprintf("SET GLOBAL max_allowed_packet = %d", n)); err != nil {
			t.Error(err)
		}
	}
	set(1 << 20)
	t.Cleanup(func() { set(before) })
}
