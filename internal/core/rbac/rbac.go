// Package rbac keeps who else may use an object: rows of (object, action,
// target project), where "*" is every project.
//
// It must not know what the objects are.
package rbac

import (
	"context"

	"isospin/internal/resource"
	"isospin/internal/store"
)

// Actions of an entry.
const (
	AccessAsShared   = "access_as_shared"
	AccessAsExternal = "access_as_external"
)

// Schema of the package's table.
var Schema = store.Schema{Module: "core/rbac", Steps: [][]string{{
	`CREATE TABLE rbac_policy (
		id VARCHAR(36) PRIMARY KEY, project_id VARCHAR(255) NOT NULL, object_type VARCHAR(64) NOT NULL,
		object_id VARCHAR(36) NOT NULL, action VARCHAR(64) NOT NULL, target_project VARCHAR(255) NOT NULL,
		UNIQUE (object_id, object_type, action, target_project))`,
	`CREATE INDEX rbac_policy_target ON rbac_policy (target_project, object_type)`,
}, {
	`ALTER TABLE rbac_policy ADD COLUMN description VARCHAR(255) NOT NULL DEFAULT ''`,
	`ALTER TABLE rbac_policy ADD COLUMN revision_number BIGINT NOT NULL DEFAULT 0`,
	`ALTER TABLE rbac_policy ADD COLUMN created_at VARCHAR(32) NOT NULL DEFAULT ''`,
	`ALTER TABLE rbac_policy ADD COLUMN updated_at VARCHAR(32) NOT NULL DEFAULT ''`,
	`CREATE INDEX rbac_policy_project ON rbac_policy (project_id)`,
}}}

// Grant adds an entry; one that is there already is fine.
func Grant(_ context.Context, tx *store.Tx, objectType, objectID, owner, action, target string) error {
	err := tx.Put("INSERT INTO rbac_policy (id, project_id, object_type, object_id, action, target_project) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
		resource.NewID(), owner, objectType, objectID, action, target)
	return err
}

// Revoke removes an entry; the absent is fine.
func Revoke(tx *store.Tx, objectType, objectID, action, target string) error {
	err := tx.Put("DELETE FROM rbac_policy WHERE object_type = ? AND object_id = ? AND action = ? AND target_project = ?", objectType, objectID, action, target)
	return err
}

// RevokeAction removes an object's entries for an action.
func RevokeAction(tx *store.Tx, objectType, objectID, action string) error {
	err := tx.Put("DELETE FROM rbac_policy WHERE object_type = ? AND object_id = ? AND action = ?", objectType, objectID, action)
	return err
}

// Granted tells whether an object has an entry for the action.
func Granted(tx *store.Tx, objectType, objectID, action string) (bool, error) {
	var n int
	err := tx.Row("SELECT COUNT(*) FROM rbac_policy WHERE object_type = ? AND object_id = ? AND action = ?", []any{objectType, objectID, action}, &n)
	return n > 0, err
}

// Open tells whether targets, of access_as_shared entries, include a project.
func Open(targets []string, project string) bool {
	for _, t := range targets {
		if t == "*" || t == project {
			return true
		}
	}
	return false
}

// VisibleCondition keeps rows with alias t of objects of that type that are of
// a project or open to it.
func VisibleCondition(objectType, project string) (string, []any) {
	return "t.project_id = ? OR EXISTS (SELECT 1 FROM rbac_policy r WHERE r.object_type = ? AND r.object_id = t.id AND r.target_project IN ('*', ?))", []any{project, objectType, project}
}

// RevokeAll removes all entries of an object.
func RevokeAll(tx *store.Tx, objectType, objectID string) error {
	err := tx.Put("DELETE FROM rbac_policy WHERE object_type = ? AND object_id = ?", objectType, objectID)
	return err
}

// Targets calls each with every target project of an action on the objects.
func Targets(tx *store.Tx, objectType, action string, ids []string, each func(id, target string)) error {
	return Entries(tx, objectType, ids, func(id, a, target string) {
		if a == action {
			each(id, target)
		}
	})
}

// Entries calls each with every entry of the objects.
func Entries(tx *store.Tx, objectType string, ids []string, each func(id, action, target string)) error {
	return store.Gather(tx, "SELECT object_id, object_type, action, target_project FROM rbac_policy WHERE %s ORDER BY object_id, target_project", "object_id", ids, func(scan func(...any) error) error {
		var id, t, a, target string
		if err := scan(&id, &t, &a, &target); err != nil {
			return err
		}
		if t == objectType {
			each(id, a, target)
		}
		return nil
	})
}

// SharedCondition answers the filter shared=true|false on rows for which
// column is the id of an object of that type: open to every project.
func SharedCondition(objectType, column string) func([]any) (string, []any) {
	return func(values []any) (string, []any) {
		shared, private := false, false
		for _, v := range values {
			if v == true {
				shared = true
			} else {
				private = true
			}
		}
		exists := "EXISTS (SELECT 1 FROM rbac_policy r WHERE r.object_type = ? AND r.object_id = " + column + " AND r.action = 'access_as_shared' AND r.target_project = '*')"
		switch {
		case shared && private:
			return "1 = 1", nil
		case shared:
			return exists, []any{objectType}
		default:
			return "NOT " + exists, []any{objectType}
		}
	}
}
