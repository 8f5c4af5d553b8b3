package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"isospin/internal/store"
)

// expansion is what a newer release may do to the schema while older servers
// run: what they know stays, and what is new need not be given.
var expansion = store.Schema{Module: "chaos", Steps: [][]string{{
	`ALTER TABLE network ADD COLUMN chaos_text VARCHAR(36)`,
	`ALTER TABLE port ADD COLUMN chaos_number INTEGER NOT NULL DEFAULT 0`,
	`CREATE TABLE chaos (id VARCHAR(36) PRIMARY KEY, name VARCHAR(255) NOT NULL)`,
	`CREATE INDEX chaos_port ON port (chaos_number)`,
}}}

// upgrade replaces one server after the other while there is load; the schema
// grows when the first is stopped. Afterwards some time is left for load on new
// servers only.
func (w *world) upgrade(ctx context.Context) error {
	executable, binary := w.o.Executable, w.o.Executable != ""
	if !binary {
		var err error
		if executable, err = os.Executable(); err != nil {
			return err
		}
	}
	for i, r := range w.replicas {
		pause(ctx, w.o.Load/time.Duration(len(w.replicas)+2))
		w.say("%s is replaced", r.name)
		if err := r.stop(40 * time.Second); err != nil {
			return err
		}
		if i == 0 {
			if err := w.store.Upgrade(ctx, expansion); err != nil {
				return fmt.Errorf("the schema does not grow under load: %w", err)
			}
			w.say("the schema has grown")
		}
		r.runs(executable, binary)
		if err := r.start(); err != nil {
			return err
		}
		if err := w.eventually(ctx, w.o.Settle, func() error { return w.answers(ctx, r) }); err != nil {
			return fmt.Errorf("%s does not start again: %w", r.name, err)
		}
	}
	return nil
}

// refusesNewer shows that a server does not start on tables that a newer
// release has changed, and says so.
func (w *world) refusesNewer(ctx context.Context) {
	if err := w.store.Tx(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec("UPDATE schema_version SET version = version + 1 WHERE module = 'core/network'")
		return err
	}); err != nil {
		w.find("%v", err)
		return
	}
	r := w.replicas[0]
	log := filepath.Join(r.dir, "log")
	before, _ := os.ReadFile(log) // there is one
	if err := r.start(); err != nil {
		w.find("%v", err)
		return
	}
	r.process.meant.Store(true)
	select {
	case <-r.process.ended:
	case <-time.After(w.o.Settle):
		r.process.kill()
		w.find("%s starts on tables of a newer release", r.name)
		return
	}
	text, _ := os.ReadFile(log) // there is one
	said := string(text[len(before):])
	if !strings.Contains(said, "core/network") || !strings.Contains(said, "newer than this program knows") {
		w.find("%s does not say why it does not start: %s", r.name, tail([]byte(said)))
	}
}
