package store

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
)

const (
	// upgradePatience is how long an upgrade tries to come between those who use the tables.
	upgradePatience = 2 * time.Minute
	// lockPatience is how long it keeps new readers waiting in one try, in milliseconds.
	lockPatience = 500
)

// Upgrade brings all modules to their newest version, in the given order. On a
// database that can undo changes of tables it is one transaction; on one that
// cannot (MariaDB) it resumes after the last statement that was carried out. A
// database that is newer than this program is refused.
func (s *Store) Upgrade(ctx context.Context, schemas ...Schema) error {
	pause := 50 * time.Millisecond
	for begin := time.Now(); ; {
		err := s.backend.upgrade(ctx, schemas)
		if errors.Is(err, errAgain) && time.Since(begin) < upgradePatience {
			s.log.Warn("tables that are to be upgraded are in use; trying again", "error", err)
			select {
			case <-time.After(pause):
				pause = min(2*pause, time.Second)
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if errors.Is(err, errLost) || errors.Is(err, errAgain) {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		return err
	}
}

var altered = regexp.MustCompile(`^\s*(?:ALTER|DROP) TABLE (\w+)`)

// lockFirst takes the writers' turn, and then what readers must not use while
// steps are carried out. Taken one after the other during the work, those locks
// and the readers' would wait for each other, and all the work be undone.
func lockFirst(tx *Tx, schemas []Schema) error {
	have, err := versions(tx)
	if err != nil {
		return err
	}
	var tables []string
	made := map[string]int{}
	for _, schema := range All(schemas...) {
		for _, step := range schema.Steps {
			for _, text := range step {
				if m := createTable.FindStringSubmatch(text); m != nil {
					made[m[1]] = len(made)
				}
			}
		}
		for _, step := range schema.Steps[min(have[schema.Module], len(schema.Steps)):] {
			for _, text := range step {
				if m := altered.FindStringSubmatch(text); m != nil && !slices.Contains(tables, m[1]) {
					tables = append(tables, m[1])
				}
			}
		}
	}
	// Parents first, as readers do.
	slices.SortStableFunc(tables, func(a, b string) int { return made[a] - made[b] })
	statements := []string{"SELECT 1 FROM (SELECT pg_advisory_xact_lock(7303015)) l", fmt.Sprintf("SET LOCAL lock_timeout = %d", lockPatience)}
	for _, name := range tables {
		there, err := tx.dialect.hasTable(tx, name)
		if err != nil {
			return err
		}
		if there {
			statements = append(statements, "LOCK TABLE "+name+" IN ACCESS EXCLUSIVE MODE")
		}
	}
	if len(statements) == 2 {
		return nil
	}
	for _, statement := range append(statements, "SET LOCAL lock_timeout = 0") {
		if err := tx.exec(statement); err != nil {
			return fmt.Errorf("upgrade: %w", err)
		}
	}
	return nil
}
