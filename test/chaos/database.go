package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"isospin/internal/store"
)

// ErrMissing: the database's programs are not installed.
var ErrMissing = errors.New("is not installed; packaging/setup.sh installs it")

// database is a server of its own in a directory, on a Unix socket there. What
// it has committed survives its process: it writes to its files before it says so.
type database struct {
	kind, dir, socket string
	run               []string
	credential        *syscall.Credential
	process           *process
}

// newDatabase makes the files of a database server; nothing runs yet.
func newDatabase(ctx context.Context, kind, dir string) (*database, error) {
	d := &database{kind: kind, dir: dir}
	var initialise []string
	account := "postgres"
	switch kind {
	case "postgresql":
		bin, err := postgresPrograms()
		if err != nil {
			return nil, err
		}
		data := filepath.Join(dir, "data")
		d.socket = filepath.Join(dir, ".s.PGSQL.5432")
		initialise = []string{filepath.Join(bin, "initdb"), "-U", "isospin", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8", "-D", data}
		// Without fsync a commit is in the kernel's memory, which the end of a process does not touch.
		d.run = []string{filepath.Join(bin, "postgres"), "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=300", "-c", "shared_buffers=64MB"}
	case "mariadb":
		account = "mysql"
		install, err := exec.LookPath("mariadb-install-db")
		if err != nil {
			return nil, fmt.Errorf("MariaDB %w", ErrMissing)
		}
		run, err := exec.LookPath("mariadbd")
		if err != nil {
			if run = "/usr/sbin/mariadbd"; !exists(run) {
				return nil, fmt.Errorf("MariaDB %w", ErrMissing)
			}
		}
		data := "--datadir=" + filepath.Join(dir, "data")
		d.socket = filepath.Join(dir, "socket")
		initialise = []string{install, "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", data, "--tmpdir=" + dir}
		d.run = []string{run, "--no-defaults", data, "--tmpdir=" + dir, "--socket=" + d.socket, "--pid-file=" + filepath.Join(dir, "pid"), "--skip-networking",
			"--innodb-flush-log-at-trx-commit=2", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M", "--max-connections=300"}
	default:
		return nil, fmt.Errorf("there is no kind of database %q; use postgresql or mariadb", kind)
	}
	// These servers do not run as root.
	if os.Geteuid() == 0 {
		a, err := user.Lookup(account)
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.Atoi(a.Uid) // numbers on Unix
		gid, _ := strconv.Atoi(a.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			return nil, err
		}
		d.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	cmd := exec.CommandContext(ctx, initialise[0], initialise[1:]...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: d.credential}
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", initialise[0], err, out)
	}
	return d, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func postgresPrograms() (string, error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well-formed
	slices.Reverse(dirs)
	for _, dir := range append(dirs, filepath.SplitList(os.Getenv("PATH"))...) {
		if exists(filepath.Join(dir, "initdb")) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("PostgreSQL %w", ErrMissing)
}

// start runs the server, and returns when it answers.
func (d *database) start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	if d.process, err = startProcess(d.run, d.dir, nil, log, d.credential); err != nil {
		return err
	}
	deadline := time.Now().Add(60 * time.Second)
	for {
		err := d.prepare(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-d.process.ended:
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("the database server ended: %s", tail(text))
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the database server does not start: %w", err)
		}
	}
}

func tail(text []byte) string {
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], "\n")
}

// prepare makes the database, if there is none yet.
func (d *database) prepare(ctx context.Context) error {
	name, source, create, taken := "pgx", "user=isospin dbname=postgres host="+d.dir, "CREATE DATABASE isospin", "already exists"
	if d.kind == "mariadb" {
		name, source, create = "mysql", "root@unix("+d.socket+")/", "CREATE DATABASE IF NOT EXISTS isospin"
	}
	db, err := openSQL(name, source)
	if err != nil {
		return err
	}
	defer db.Close()
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := db.ExecContext(limited, create); err != nil && !strings.Contains(err.Error(), taken) {
		return err
	}
	return nil
}

// stop ends the server as its operator would.
func (d *database) stop() {
	sig := syscall.SIGTERM
	if d.kind == "postgresql" {
		sig = syscall.SIGINT // fast: connections are ended
	}
	d.process.signal(sig)
	select {
	case <-d.process.ended:
	case <-time.After(30 * time.Second):
		d.process.kill()
	}
}

// through is the [database] connection by way of an address on loopback.
func (d *database) through(address string) string {
	if d.kind == "mariadb" {
		return "mysql+pymysql://root@" + address + "/isospin"
	}
	return "postgresql://isospin@" + address + "/isospin?sslmode=disable"
}

// direct is the [database] connection without any proxy.
func (d *database) direct() string {
	if d.kind == "mariadb" {
		return "mysql+pymysql://root@localhost/isospin?unix_socket=" + d.socket
	}
	return "postgresql://isospin@/isospin?host=" + d.dir
}

// holders are the holders of leases by name.
func holders(ctx context.Context, s *store.Store) (map[string]string, error) {
	all := map[string]string{}
	err := s.View(ctx, func(tx *store.Tx) error {
		return tx.Query(func(scan func(...any) error) error {
			var name, holder string
			err := scan(&name, &holder)
			all[name] = holder
			return err
		}, "SELECT name, holder FROM lease")
	})
	return all, err
}
