package store_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"isospin/internal/store"
)

// TestClose: a store that was closed is one file; whoever copies it has everything.
func TestClose(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Options{Connection: "sqlite:///" + filepath.Join(dir, "db"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Upgrade(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 8 { // on each of the connections
		if err := s.View(t.Context(), func(tx *store.Tx) error {
			_, err := tx.LastSequence()
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}
