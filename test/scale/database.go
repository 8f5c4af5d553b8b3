package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// openDatabase returns the connection of an empty database, its name for
// people, and how it is ended.
func openDatabase(ctx context.Context, kind, dir string) (connection, name string, end func() error, err error) {
	nothing := func() error { return nil }
	programs, missing := postgresPrograms()
	switch {
	case strings.Contains(kind, "://"):
		return kind, "a database that was given", nothing, nil
	case kind == "sqlite", kind == "" && missing != nil:
		return "sqlite:///" + filepath.Join(dir, "neutron.sqlite"), "SQLite with a flush at each commit", nothing, nil
	case kind != "" && kind != "postgresql":
		return "", "", nil, fmt.Errorf("-database %s: there are sqlite, postgresql and URLs", kind)
	case missing != nil:
		return "", "", nil, missing
	}
	connection, end, err = startPostgres(ctx, programs, filepath.Join(dir, "postgresql"))
	return connection, "PostgreSQL with a flush at each commit", end, err
}

// postgresPrograms is the directory of the newest PostgreSQL.
func postgresPrograms() (string, error) {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well-formed
	best, newest := "", 0
	for _, dir := range dirs {
		release, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir))) // a directory without a number is none
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil && release > newest {
			best, newest = dir, release
		}
	}
	if best != "" {
		return best, nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", errors.New("PostgreSQL is not installed")
	}
	return filepath.Dir(path), nil
}

// startPostgres runs a server of its own on a socket in dir.
func startPostgres(ctx context.Context, programs, dir string) (connection string, end func() error, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", nil, err
	}
	attributes := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	if os.Geteuid() == 0 { // it does not run as root
		account, err := user.Lookup("postgres")
		if err != nil {
			return "", nil, err
		}
		uid, _ := strconv.Atoi(account.Uid) // numbers on Unix
		gid, _ := strconv.Atoi(account.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			return "", nil, err
		}
		attributes.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	data := filepath.Join(dir, "data")
	initialise := exec.CommandContext(ctx, filepath.Join(programs, "initdb"), "-U", "isospin", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8", "-D", data)
	initialise.Dir, initialise.SysProcAttr = dir, attributes
	if out, err := initialise.CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return "", nil, err
	}
	defer log.Close()
	run := exec.Command(filepath.Join(programs, "postgres"), "-D", data, "-k", dir, "-c", "listen_addresses=", "-c", "max_connections=100", "-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB")
	run.Dir, run.SysProcAttr, run.Stdout, run.Stderr = dir, attributes, log, log
	ended, err := begin(run)
	if err != nil {
		return "", nil, err
	}
	end = func() error { return stop(run.Process, ended, syscall.SIGINT) }
	for deadline := time.Now().Add(30 * time.Second); ; {
		conn, err := net.Dial("unix", filepath.Join(dir, ".s.PGSQL.5432"))
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return "", nil, errors.Join(fmt.Errorf("PostgreSQL does not answer: %w: %s", err, tail(log.Name())), end())
		}
		time.Sleep(20 * time.Millisecond)
	}
	// It may still be starting when the socket is there: the server tries again.
	return fmt.Sprintf("postgresql://isospin@/postgres?host=%s", dir), end, nil
}
