package server

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"isospin/internal/store"
)

// lockPatience is how long a server that ends may still hold the lock.
const lockPatience = 3 * time.Second

// lockEmbedded keeps a second server from the file of an embedded database:
// each would follow its own changes only. The kernel unlocks when the process
// is gone, however it ended. nil: the database is none of a file.
func lockEmbedded(ctx context.Context, connection string) (*os.File, error) {
	path, ok := strings.CutPrefix(connection, "sqlite:///")
	path, _, _ = strings.Cut(path, "?")
	if !ok || path == "" {
		return nil, nil
	}
	// Not the database itself: closing it would undo SQLite's own locks.
	if err := store.MakeFile(path + "-server"); err != nil {
		return nil, fmt.Errorf("[database] connection: %w", err)
	}
	f, err := os.OpenFile(path+"-server", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("[database] connection: %w", err)
	}
	for give := time.Now().Add(lockPatience); ; {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(give) || ctx.Err() != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("[database] connection: another server uses %s; SQLite is for one server, several need PostgreSQL or MariaDB", path)
	}
	return nil, fmt.Errorf("[database] connection: %s: %w", f.Name(), err)
}
