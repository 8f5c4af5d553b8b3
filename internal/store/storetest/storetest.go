// Package storetest gives tests new databases of each kind that the store
// knows: files for SQLite, and servers of their own for PostgreSQL and MariaDB
// that a test process starts when it first needs them, on a private socket in
// a temporary directory. They end with the process, however that ends.
//
// It must not know any table.
package storetest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
)

// Variable of the environment that chooses the kind of database of New.
const Variable = "ISOSPIN_TEST_DATABASE"

const (
	SQLite     = "sqlite"
	PostgreSQL = "postgresql"
	MariaDB    = "mariadb"
)

// Kinds are all that there are.
var Kinds = []string{SQLite, PostgreSQL, MariaDB}

// Kind is the one that the environment chooses; SQLite if it does not.
func Kind() string {
	if kind := os.Getenv(Variable); kind != "" {
		return kind
	}
	return SQLite
}

// Rehearse tells whether the environment asks for each transaction to be
// undone and run again (ISOSPIN_TEST_REHEARSE, see store.Options).
func Rehearse() bool { return os.Getenv("ISOSPIN_TEST_REHEARSE") != "" }

// New makes an empty database of the kind that the environment chooses, which
// is removed when the test ends. It returns its [database] connection.
func New(t testing.TB) string { return NewOf(t, Kind()) }

// NewOf is New for one kind. The test is skipped if the server's programs are not installed.
func NewOf(t testing.TB, kind string) string {
	t.Helper()
	switch kind {
	case SQLite:
		return "sqlite:///" + filepath.Join(t.TempDir(), "test.sqlite")
	case PostgreSQL:
		return postgres.database(t)
	case MariaDB:
		return mariadb.database(t)
	}
	t.Fatalf("%s: there is no kind of database %q; use one of %s", Variable, kind, strings.Join(Kinds, ", "))
	return ""
}

// server is a database server of this process.
type server struct {
	driver, user string
	// start begins it in an empty directory that the user owns.
	programs func(durable bool) (initialise, run []string, err error)
	// durable: commits are flushed, and memory is that of a small production server. parent is where its directory is made.
	durable bool
	parent  string
	source  func(dir string) string
	name    func(dir, name string) string
	drop    string
	url     func(dir, name string) string

	once  sync.Once
	dir   string
	admin *sql.DB
	err   error
	// keep ends the server when it is closed, and so when the process ends.
	keep   io.Closer
	ended  chan struct{}
	number atomic.Int64

	// prepared is the database that NewPrepared copies, by copying on MariaDB.
	preparing  sync.Once
	prepared   string
	copying    []string
	unprepared error
	copies     sync.Mutex
}

var errMissing = errors.New("is not installed; packaging/setup.sh installs it")

var postgres, mariadb = newPostgres(), newMariaDB()

func newPostgres() *server {
	return &server{
		driver: "pgx", user: "postgres",
		programs: func(durable bool) ([]string, []string, error) {
			settings := []string{"-c", "fsync=off", "-c", "autovacuum=off", "-c", "shared_buffers=64MB"}
			if durable {
				settings = []string{"-c", "shared_buffers=512MB"}
			}
			dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well-formed
			slices.SortFunc(dirs, func(a, b string) int { return release(b) - release(a) })
			for _, dir := range append(dirs, filepath.SplitList(os.Getenv("PATH"))...) {
				if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
					if library := filepath.Join(filepath.Dir(dir), "lib", "pg_stat_statements.so"); durable && exists(library) {
						settings = append(settings, "-c", "shared_preload_libraries=pg_stat_statements", "-c", "pg_stat_statements.track_utility=on")
					}
					return []string{filepath.Join(dir, "initdb"), "-U", "isospin", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8", "-D", "DIR/data"},
						append([]string{filepath.Join(dir, "postgres"), "-D", "DIR/data", "-k", "DIR", "-c", "listen_addresses=", "-c", "max_connections=300"}, settings...), nil
				}
			}
			return nil, nil, fmt.Errorf("PostgreSQL %w", errMissing)
		},
		source: func(dir string) string { return "user=isospin dbname=postgres host=" + dir },
		name:   func(dir, name string) string { return "user=isospin dbname=" + name + " host=" + dir },
		drop:   "DROP DATABASE %s WITH (FORCE)",
		url: func(dir, name string) string {
			return fmt.Sprintf("postgresql+psycopg2://isospin@/%s?host=%s", name, dir)
		},
	}
}

func release(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir))) // a directory without a number comes last
	return n
}

func newMariaDB() *server {
	return &server{
		driver: "mysql", user: "mysql",
		programs: func(durable bool) ([]string, []string, error) {
			settings := []string{"--innodb-flush-log-at-trx-commit=0", "--innodb-flush-method=nosync", "--debug-no-sync", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=32M"}
			if durable {
				settings = []string{"--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=512M", "--innodb-log-file-size=128M"}
			}
			install, err := exec.LookPath("mariadb-install-db")
			if err != nil {
				return nil, nil, fmt.Errorf("MariaDB %w", errMissing)
			}
			run, err := exec.LookPath("mariadbd")
			if err != nil {
				if run = "/usr/sbin/mariadbd"; !executable(run) {
					return nil, nil, fmt.Errorf("MariaDB %w", errMissing)
				}
			}
			return []string{install, "--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", "--datadir=DIR/data", "--tmpdir=DIR/"},
				append([]string{run, "--no-defaults", "--datadir=DIR/data", "--tmpdir=DIR/", "--socket=DIR/socket", "--pid-file=DIR/pid", "--skip-networking",
					"--max-connections=300", "--character-set-server=latin1"}, settings...), nil
		},
		source: func(dir string) string { return "root@unix(" + dir + "/socket)/" },
		name:   func(dir, name string) string { return "root@unix(" + dir + "/socket)/" + name },
		drop:   "DROP DATABASE %s",
		url: func(dir, name string) string {
			return fmt.Sprintf("mysql+pymysql://root@localhost/%s?charset=utf8mb4&unix_socket=%s/socket", name, dir)
		},
	}
}

// Server is a database server that is not a test's: its commits are durable.
type Server struct{ *server }

// Serve starts a server of a kind in a new directory below parent (empty: the
// system's for temporary files). It ends by Close, or with the process.
func Serve(kind, parent string) (*Server, error) {
	var s *server
	switch kind {
	case PostgreSQL:
		s = newPostgres()
	case MariaDB:
		s = newMariaDB()
	default:
		return nil, fmt.Errorf("there is no server of the kind %q; there are %s and %s", kind, PostgreSQL, MariaDB)
	}
	s.durable, s.parent = true, parent
	return &Server{s}, s.start()
}

// New makes an empty database and returns its [database] connection, and its driver and source for database/sql.
func (s *Server) New() (connection, driver, source string, err error) {
	name, err := s.create()
	return s.url(s.dir, name), s.driver, s.name(s.dir, name), err
}

// Close ends the server and removes its databases.
func (s *Server) Close() error {
	err := errors.Join(s.admin.Close(), s.keep.Close())
	<-s.ended
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&0o111 != 0
}

// database makes a database on the server, which is started first if need be.
func (s *server) database(t testing.TB) string {
	t.Helper()
	s.once.Do(func() { s.err = s.start() })
	if errors.Is(s.err, errMissing) {
		t.Skip(s.err)
	}
	if s.err != nil {
		t.Fatal(s.err)
	}
	name, err := s.create()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := s.admin.Exec(fmt.Sprintf(s.drop, name)); err != nil {
			t.Errorf("the database of the test stays: %v", err)
		}
	})
	return s.url(s.dir, name)
}

func (s *server) create() (string, error) {
	name := fmt.Sprintf("isospin_%d", s.number.Add(1))
	_, err := s.admin.Exec("CREATE DATABASE " + name)
	return name, err
}

// keeper runs a server until its standard input ends, then removes its directory.
const keeper = `dir=$1; shift
trap '' INT TERM HUP
(trap - INT TERM HUP; exec "$@") </dev/null &
read -r _
kill -INT $! 2>/dev/null; kill -TERM $! 2>/dev/null
wait $!
rm -rf "$dir"`

func (s *server) start() error {
	initialise, run, err := s.programs(s.durable)
	if err != nil {
		return err
	}
	// Paths of sockets are short.
	if s.dir, err = os.MkdirTemp(s.parent, "isospin-db"); err != nil {
		return err
	}
	command := func(args ...string) (*exec.Cmd, error) {
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "DIR/", s.dir+"/")
			if args[i] == "DIR" {
				args[i] = s.dir
			}
		}
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = s.dir
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		// These servers do not run as root.
		if os.Geteuid() == 0 {
			account, err := user.Lookup(s.user)
			if err != nil {
				return nil, err
			}
			uid, _ := strconv.Atoi(account.Uid) // numbers on Unix
			gid, _ := strconv.Atoi(account.Gid)
			if err := os.Chown(s.dir, uid, gid); err != nil {
				return nil, err
			}
			cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
		return cmd, nil
	}
	fail := func(err error) error {
		os.RemoveAll(s.dir)
		return err
	}
	cmd, err := command(initialise...)
	if err != nil {
		return fail(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fail(fmt.Errorf("%s: %w\n%s", initialise[0], err, out))
	}
	cmd, err = command(append([]string{"/bin/sh", "-c", keeper, "keeper", s.dir}, run...)...)
	if err != nil {
		return fail(err)
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return fail(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if s.keep, err = cmd.StdinPipe(); err != nil {
		return fail(err)
	}
	if err := cmd.Start(); err != nil {
		return fail(err)
	}
	s.ended = make(chan struct{})
	go func() {
		_ = cmd.Wait() // it ends with the process
		close(s.ended)
	}()
	if s.admin, err = sql.Open(s.driver, s.source(s.dir)); err != nil {
		return err
	}
	deadline := time.Now().Add(60 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err := s.admin.PingContext(ctx)
		cancel()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			s.keep.Close()
			return fmt.Errorf("the server does not start: %w\n%s", err, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
