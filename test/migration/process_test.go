package migration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"isospin/internal/server"
	"isospin/internal/store"
	"isospin/test/servertest"
)

// Variables of the environment that make the test's program another one.
const (
	serveVariable   = "ISOSPIN_MIGRATION_SERVE"   // configuration file
	upgradeVariable = "ISOSPIN_MIGRATION_UPGRADE" // [database] connection
	stepsVariable   = "ISOSPIN_MIGRATION_STEPS"   // of what follows this program's own
	fromVariable    = "ISOSPIN_UPGRADE_FROM"
)

func TestMain(m *testing.M) {
	run := func(do func() error) {
		if err := do(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if file := os.Getenv(serveVariable); file != "" {
		run(func() error { return servertest.Serve(file) })
	}
	if connection := os.Getenv(upgradeVariable); connection != "" {
		run(func() error { return upgrade(connection) })
	}
	os.Exit(m.Run())
}

// upgrade brings tables to this program's version, and further by some steps of next.
func upgrade(connection string) error {
	schemas, err := server.Schemas()
	if err != nil {
		return err
	}
	n := 0
	if _, err := fmt.Sscan(os.Getenv(stepsVariable), &n); err != nil {
		return err
	}
	s, err := store.Open(context.Background(), store.Options{Connection: connection, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	fmt.Println("begins")
	begin := time.Now()
	if err := s.Upgrade(context.Background(), append(schemas, next(n))...); err != nil {
		return err
	}
	fmt.Println(time.Since(begin))
	return s.Close()
}

// next is what releases after this one may do to tables: each step has a
// column with and without a default, a copy of many rows, and an index, on
// the tables that are largest.
func next(n int) store.Schema {
	schema := store.Schema{Module: "migration"}
	for i := range n {
		schema.Steps = append(schema.Steps, []string{
			fmt.Sprintf(`CREATE TABLE extra_%d (port_id VARCHAR(36) PRIMARY KEY REFERENCES port (id) ON DELETE CASCADE, name VARCHAR(255) NOT NULL)`, i),
			fmt.Sprintf(`INSERT INTO extra_%d (port_id, name) SELECT id, name FROM port`, i),
			fmt.Sprintf(`ALTER TABLE ip_allocation ADD COLUMN extra_%d INTEGER NOT NULL DEFAULT 0`, i),
			fmt.Sprintf(`ALTER TABLE port ADD COLUMN extra_%d VARCHAR(36) NOT NULL DEFAULT ''`, i),
			fmt.Sprintf(`ALTER TABLE port ADD COLUMN extra_text_%d TEXT`, i),
			fmt.Sprintf(`CREATE INDEX port_extra_%d ON port (extra_%d)`, i, i),
			fmt.Sprintf(`UPDATE port SET extra_%d = SUBSTR(network_id, 1, 8)`, i),
			fmt.Sprintf(`ALTER TABLE port_security_group ADD COLUMN extra_%d BIGINT`, i),
		})
	}
	return schema
}

// upgrading is a process that brings tables up to date.
type upgrading struct {
	cmd *exec.Cmd
	out *io.PipeReader
	err strings.Builder
}

func startUpgrade(t *testing.T, connection string, steps int) *upgrading {
	t.Helper()
	u := &upgrading{cmd: exec.Command(os.Args[0])}
	u.cmd.Env = append(os.Environ(), upgradeVariable+"="+connection, fmt.Sprintf("%s=%d", stepsVariable, steps))
	u.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, in := io.Pipe()
	u.out, u.cmd.Stdout, u.cmd.Stderr = out, in, &u.err
	if err := u.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var word string
	if _, err := fmt.Fscanln(out, &word); err != nil || word != "begins" {
		t.Fatalf("the upgrade does not begin: %q, %v", word, err)
	}
	return u
}

// wait returns how long it took; false: it did not come to its end.
func (u *upgrading) wait(t *testing.T) (time.Duration, bool) {
	t.Helper()
	var said string
	read := make(chan error, 1)
	go func() {
		_, err := fmt.Fscanln(u.out, &said)
		read <- err
	}()
	failed := u.cmd.Wait()
	_ = u.cmd.Stdout.(*io.PipeWriter).Close() // never fails
	<-read
	if failed != nil {
		if e := new(exec.ExitError); errors.As(failed, &e) && e.Sys().(syscall.WaitStatus).Signaled() {
			return 0, false
		}
		t.Fatalf("the upgrade fails: %v\n%s", failed, u.err.String())
	}
	d, err := time.ParseDuration(said)
	if err != nil {
		t.Fatal(err)
	}
	return d, true
}

const options = `[DEFAULT]
auth_strategy = noauth
bind_host = 127.0.0.1
bind_port = %d
state_path = %s
[database]
connection = %s
[isospin]
feed_listen = unix:%s/feed
[quotas]
quota_port = -1
quota_network = -1
[ml2]
type_drivers = local,flat,vlan,vxlan
tenant_network_types = vxlan
[ml2_type_vxlan]
vni_ranges = 1:100000
`

// process is a server that runs, of this program or of an older binary.
type process struct {
	cmd   *exec.Cmd
	url   string
	log   string
	ended chan struct{}
	stdin io.Closer
}

// startServer runs a server; binary is empty for this program's own code. It
// returns when that answers, or has ended.
func startServer(t *testing.T, connection, binary string) *process {
	t.Helper()
	dir, err := os.MkdirTemp("", "isospin-m") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	number := listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "neutron.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, options, number, dir, connection, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &process{url: fmt.Sprintf("http://127.0.0.1:%d", number), log: filepath.Join(dir, "log"), ended: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if binary != "" {
		p.cmd = exec.Command(binary, "server", "--config-file", file)
	} else {
		p.cmd = exec.Command(os.Args[0])
		p.cmd.Env = append(os.Environ(), serveVariable+"="+file)
	}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is in its log
		close(p.ended)
	}()
	t.Cleanup(func() { p.stop(t) })
	for deadline := time.Now().Add(2 * time.Minute); ; {
		r, err := http.Get(p.url + "/")
		if err == nil {
			r.Body.Close()
			return p
		}
		select {
		case <-p.ended:
			return p
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not answer: %v\n%s", err, p.said())
		}
	}
}

func (p *process) said() string {
	text, _ := os.ReadFile(p.log) // it was made by the test
	return string(text[max(0, len(text)-4000):])
}

func (p *process) stop(t *testing.T) {
	t.Helper()
	select {
	case <-p.ended:
		return
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may just have ended
	select {
	case <-p.ended:
	case <-time.After(60 * time.Second):
		_ = p.cmd.Process.Kill() // see above
		<-p.ended
		t.Error("the server does not end")
	}
}
