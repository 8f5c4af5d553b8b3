package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"isospin/internal/kernel/netns"
)

// DefaultRunDir is where labs have their folders.
const DefaultRunDir = "/run/isospin-lab"

// Record is what a lab writes down of itself, in state.json of its folder.
type Record struct {
	ID        string          `json:"id"`
	Started   time.Time       `json:"started"`
	PID       int             `json:"pid"`
	Endpoint  string          `json:"endpoint,omitempty"` // of the API
	DataDir   string          `json:"data_dir"`
	Nodes     []NodeRecord    `json:"nodes"`
	Processes []ProcessRecord `json:"processes"`
}

// NodeRecord is a namespace of a lab.
type NodeRecord struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"` // host, instance, outside, underlay
	Namespace string `json:"namespace"`
	// Thread of the lab's process that keeps the mount namespace of a host.
	Thread int    `json:"thread,omitempty"`
	Host   string `json:"host,omitempty"` // of an instance
	PortID string `json:"port_id,omitempty"`
	// OVS is the run folder of a host's Open vSwitch.
	OVS string `json:"ovs,omitempty"`
}

// ProcessRecord names one process: ids are reused, start times are not.
type ProcessRecord struct {
	Name  string `json:"name"`
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot
}

const (
	stateFile = "state.json"
	lockFile  = "lock"
)

// newFolder makes the folder of a new lab under a free random id, locked by
// this process until it ends or closes the file.
func newFolder(runDir string) (id string, lock *os.File, err error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return "", nil, fmt.Errorf("folder of labs: %w", err)
	}
	lock, err = os.CreateTemp(runDir, "."+lockFile)
	if err != nil {
		return "", nil, fmt.Errorf("lock of the lab: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(lock.Name())
			lock.Close()
		}
	}()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return "", nil, fmt.Errorf("lock of the lab: %w", err)
	}
	for {
		id = fmt.Sprintf("%04x", rand.N(1<<16))
		err := os.Mkdir(filepath.Join(runDir, id), 0o700)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", nil, fmt.Errorf("folder of the lab: %w", err)
		}
		break
	}
	// Only now does the lock appear in the folder, so that none is ever seen
	// there unlocked while its lab lives.
	if err := os.Rename(lock.Name(), filepath.Join(runDir, id, lockFile)); err != nil {
		os.Remove(filepath.Join(runDir, id))
		return "", nil, fmt.Errorf("lock of the lab: %w", err)
	}
	return id, lock, nil
}

// alive tells whether the process that made a lab's folder still has it.
func alive(dir string) (bool, error) {
	f, err := os.Open(filepath.Join(dir, lockFile))
	if errors.Is(err, fs.ErrNotExist) {
		// Its lab was killed in the instant between folder and lock, or is in it.
		info, err := os.Stat(dir)
		return err == nil && time.Since(info.ModTime()) < time.Minute, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

func (r *Record) write(dir string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	temporary := filepath.Join(dir, "."+stateFile)
	if err := os.WriteFile(temporary, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("record of the lab: %w", err)
	}
	if err := os.Rename(temporary, filepath.Join(dir, stateFile)); err != nil {
		return fmt.Errorf("record of the lab: %w", err)
	}
	return nil
}

func readRecord(dir string) (*Record, error) {
	text, err := os.ReadFile(filepath.Join(dir, stateFile))
	if err != nil {
		return nil, err
	}
	r := &Record{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("record %s: %w", filepath.Join(dir, stateFile), err)
	}
	return r, nil
}

// Running returns the records of the labs that run now. runDir may be empty
// for DefaultRunDir.
func Running(runDir string) ([]*Record, error) {
	var out []*Record
	err := eachFolder(runDir, func(dir string) error {
		if live, err := alive(dir); err != nil || !live {
			return err
		}
		r, err := readRecord(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it is starting, or ending
		}
		if err == nil {
			out = append(out, r)
		}
		return err
	})
	return out, err
}

// RemoveLeftovers removes what labs left behind that were killed: processes,
// by id and start time, namespaces, by the lab's own prefix, and folders. Labs
// that run, of whatever process, are left alone. It returns the ids of the labs
// that it removed. runDir may be empty for DefaultRunDir.
func RemoveLeftovers(runDir string, logger *slog.Logger) ([]string, error) {
	var ids []string
	err := eachFolder(runDir, func(dir string) error {
		live, err := alive(dir)
		if err != nil || live {
			return err
		}
		id := filepath.Base(dir)
		var failed error
		if r, err := readRecord(dir); err == nil {
			for _, p := range r.Processes {
				failed = errors.Join(failed, killRecorded(p))
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			logger.Warn("record of a former lab cannot be read", "lab", id, "error", err)
		}
		failed = errors.Join(failed, deleteNamespaces(id))
		if failed != nil {
			return fmt.Errorf("remove what lab %s left: %w", id, failed)
		}
		ids = append(ids, id)
		return os.RemoveAll(dir)
	})
	return ids, err
}

// prefix begins the names of all namespaces of a lab.
func prefix(id string) string { return "isolab-" + id + "-" }

func deleteNamespaces(id string) error {
	names, err := netns.List()
	for _, name := range names {
		if strings.HasPrefix(name, prefix(id)) {
			err = errors.Join(err, netns.Delete(name))
		}
	}
	return err
}

// eachFolder calls fn for the folder of each lab, and joins its errors.
func eachFolder(runDir string, fn func(dir string) error) error {
	if runDir == "" {
		runDir = DefaultRunDir
	}
	entries, err := os.ReadDir(runDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, fn(filepath.Join(runDir, e.Name())))
		}
	}
	return err
}
