package store_test

import (
	"database/sql"
	"testing"
	"time"

	"isospin/internal/store"
	"isospin/internal/store/storetest"
)

// TestUpgradeBesideReaders: a reader has read one table and now wants another,
// while an upgrade that is to change both waits for the first. The upgrade gives
// way before PostgreSQL ends either, and comes through after the reader.
func TestUpgradeBesideReaders(t *testing.T) {
	connection := storetest.NewOf(t, storetest.PostgreSQL)
	reader, upgraded := open(t, connection), open(t, connection)
	schema := store.Schema{Module: "two", Steps: [][]string{
		{`CREATE TABLE one (id VARCHAR(36) PRIMARY KEY)`, `CREATE TABLE two (id VARCHAR(36) PRIMARY KEY)`},
	}}
	if err := reader.Upgrade(t.Context(), schema); err != nil {
		t.Fatal(err)
	}
	driver, source := storetest.Source(t, connection)
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	schema.Steps = append(schema.Steps, []string{`ALTER TABLE one ADD COLUMN more INTEGER`, `ALTER TABLE two ADD COLUMN more INTEGER`})
	ended := make(chan error, 1)
	begun := false
	if err := reader.View(t.Context(), func(tx *store.Tx) error {
		var n int
		if err := tx.Row("SELECT COUNT(*) FROM two", nil, &n); err != nil {
			return err
		}
		if !begun {
			begun = true
			go func() { ended <- upgraded.Upgrade(t.Context(), schema) }()
			for deadline := time.Now().Add(30 * time.Second); n == 0; time.Sleep(5 * time.Millisecond) {
				if err := db.QueryRow("SELECT COUNT(*) FROM pg_locks WHERE NOT granted AND relation = 'two'::regclass").Scan(&n); err != nil {
					return err
				}
				if time.Now().After(deadline) {
					t.Fatal("the upgrade does not wait for the reader")
				}
			}
		}
		return tx.Row("SELECT COUNT(*) FROM one", nil, &n)
	}); err != nil {
		t.Errorf("the reader: %v", err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the upgrade: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Error("the upgrade does not end")
	}
	versions, err := reader.Versions(t.Context(), schema)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range versions {
		if v.Module == "two" && v.Have != v.Want {
			t.Errorf("version %d instead of %d", v.Have, v.Want)
		}
	}
}
