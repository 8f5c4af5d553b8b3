package store

import (
	"context"
	"fmt"
)

// Schema is the tables of one module, as numbered steps that are never
// changed once released: the first is run on a new database, the rest after it.
type Schema struct {
	// Module names the owner, e.g. "core/port".
	Module string
	// Steps are SQL statements; step N brings the module to version N+1.
	Steps [][]string
}

var base = Schema{Module: "store", Steps: [][]string{{
	// TrimEvents keeps the newest event: no number is given twice, and each
	// commit is spared the page in which AUTOINCREMENT would remember it.
	`CREATE TABLE event (
		seq INTEGER PRIMARY KEY,
		kind VARCHAR(64) NOT NULL, id VARCHAR(255) NOT NULL, op VARCHAR(16) NOT NULL,
		revision BIGINT NOT NULL, project_id VARCHAR(255) NOT NULL, request_id VARCHAR(64) NOT NULL,
		at BIGINT NOT NULL, data TEXT NOT NULL)`,
}}}

// Upgrade brings all modules to their newest version, in the given order, in
// one transaction. A database that is newer than this program is refused.
func (s *Store) Upgrade(ctx context.Context, schemas ...Schema) error {
	return s.Tx(ctx, func(tx *Tx) error {
		if _, err := tx.Exec("CREATE TABLE IF NOT EXISTS schema_version (module VARCHAR(64) PRIMARY KEY, version INTEGER NOT NULL)"); err != nil {
			return err
		}
		for _, schema := range append([]Schema{base}, schemas...) {
			var have int
			if err := tx.Row("SELECT COALESCE(MAX(version), 0) FROM schema_version WHERE module = ?", []any{schema.Module}, &have); err != nil {
				return err
			}
			if have > len(schema.Steps) {
				return fmt.Errorf("the database's %s tables are of version %d, newer than this program knows (%d): run the newer release", schema.Module, have, len(schema.Steps))
			}
			for i, step := range schema.Steps[have:] {
				for _, statement := range step {
					if _, err := tx.Exec(statement); err != nil {
						return fmt.Errorf("upgrade of %s to version %d: %w", schema.Module, have+i+1, err)
					}
				}
			}
			if have < len(schema.Steps) {
				if _, err := tx.Exec("INSERT INTO schema_version (module, version) VALUES (?, ?) ON CONFLICT (module) DO UPDATE SET version = excluded.version", schema.Module, len(schema.Steps)); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
