package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// Schema is the tables of one module, as numbered steps that are never
// changed once released: the first is run on a new database, the rest after it.
// A step leaves alone what the release before uses, whose servers may still run
// (test/upgrade checks both).
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
}, {
	// Who changed it, and the way to one object's events.
	`ALTER TABLE event ADD COLUMN user_id VARCHAR(255) NOT NULL DEFAULT ''`,
	`ALTER TABLE event ADD COLUMN user_project VARCHAR(255) NOT NULL DEFAULT ''`,
	`CREATE INDEX event_object ON event (id)`,
	// One row: the number up to which events may have been trimmed.
	`CREATE TABLE event_floor (id INTEGER PRIMARY KEY, seq BIGINT NOT NULL)`,
	`INSERT INTO event_floor (id, seq) SELECT 1, COALESCE(MIN(seq) - 1, 0) FROM event`,
}, {
	commitTurn,
}}}

// All are the schemas in the order in which Upgrade carries them out, with the store's own.
func All(schemas ...Schema) []Schema { return append([]Schema{base}, schemas...) }

// commitTurn numbers the writing transactions of PostgreSQL; other databases do without.
const commitTurn = "CREATE SEQUENCE commit_turn"

// Version is what a database has of a module.
type Version struct {
	Module string
	// Have is the database's version, 0 when it has none of the module; Want is this program's.
	Have, Want int
}

// Versions tells what the database has of each module, without changing
// anything. Modules that this program does not know have Want 0.
func (s *Store) Versions(ctx context.Context, schemas ...Schema) ([]Version, error) {
	var list []Version
	err := s.View(ctx, func(tx *Tx) error {
		list = nil
		have, err := versions(tx)
		if err != nil {
			return err
		}
		for _, schema := range All(schemas...) {
			list = append(list, Version{Module: schema.Module, Have: have[schema.Module], Want: len(schema.Steps)})
			delete(have, schema.Module)
		}
		for _, module := range slices.Sorted(maps.Keys(have)) {
			list = append(list, Version{Module: module, Have: have[module]})
		}
		return nil
	})
	return list, err
}

// versions reads schema_version; a database without that table has nothing.
func versions(tx *Tx) (map[string]int, error) {
	have := map[string]int{}
	if ok, err := tx.dialect.hasTable(tx, "schema_version"); err != nil || !ok {
		return have, err
	}
	err := tx.Query(func(scan func(...any) error) error {
		var module string
		var version int
		err := scan(&module, &version)
		have[module] = version
		return err
	}, "SELECT module, version FROM schema_version")
	return have, err
}

const versionTable = "CREATE TABLE IF NOT EXISTS schema_version (module VARCHAR(64) PRIMARY KEY, version INTEGER NOT NULL)"

// fits refuses a database that a newer release has changed.
func fits(schema Schema, have int) error {
	if have > len(schema.Steps) {
		return fmt.Errorf("the database's %s tables are of version %d, newer than this program knows (%d): run the newer release", schema.Module, have, len(schema.Steps))
	}
	return nil
}

// step is one of a schema's, in the database's statements.
type step struct {
	module     string
	version    int // to which it brings the module
	statements []string
}

// note makes the database have the step's version.
func (s step) note(tx *Tx) error {
	_, err := tx.Exec("INSERT INTO schema_version (module, version) VALUES (?, ?) ON CONFLICT (module) DO UPDATE SET version = excluded.version", s.module, s.version)
	return err
}

// eachStep has the steps carried out that the database lacks, in their order.
// Of a database that has anything newer than all it carries out none.
func eachStep(tx *Tx, all []Schema, carryOut func(step) error) error {
	for _, statement := range tx.dialect.define(versionTable) {
		if err := tx.exec(statement); err != nil {
			return err
		}
	}
	have, err := versions(tx)
	if err != nil {
		return err
	}
	for _, schema := range all {
		if err := fits(schema, have[schema.Module]); err != nil {
			return err
		}
	}
	for _, schema := range all {
		for version := have[schema.Module] + 1; version <= len(schema.Steps); version++ {
			next := step{module: schema.Module, version: version}
			for _, text := range schema.Steps[version-1] {
				next.statements = append(next.statements, tx.dialect.define(text)...)
			}
			if err := carryOut(next); err != nil {
				return fmt.Errorf("upgrade of %s to version %d: %w", next.module, next.version, err)
			}
		}
	}
	return nil
}

// upgradeAtOnce brings the schema up in the transaction that is open.
func upgradeAtOnce(tx *Tx, schemas []Schema) error {
	return eachStep(tx, All(schemas...), func(next step) error {
		for _, statement := range next.statements {
			if err := tx.exec(statement); err != nil {
				return err
			}
		}
		return next.note(tx)
	})
}
