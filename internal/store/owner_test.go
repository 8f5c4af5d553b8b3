package store_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"isospin/internal/store"
)

// TestOwner: what root makes can be written by whom the directory belongs to.
func TestOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	const user = 65533
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, user, user); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := store.Open(t.Context(), store.Options{Connection: "sqlite:///" + filepath.Join(dir, "db.sqlite"), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Upgrade(t.Context(), things); err != nil {
			t.Fatal(err)
		}
		all, err := os.ReadDir(dir)
		if err != nil || len(all) < 3 {
			t.Fatalf("%v %v, want the database, its log and its index", all, err)
		}
		for _, e := range all {
			info, err := e.Info()
			if err != nil {
				t.Fatal(err)
			}
			if stat := info.Sys().(*syscall.Stat_t); stat.Uid != user || stat.Gid != user || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %d:%d %v, want %d and for nobody else", e.Name(), stat.Uid, stat.Gid, info.Mode(), user)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
