package main

import (
	"database/sql"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
)

func openSQL(driver, source string) (*sql.DB, error) { return sql.Open(driver, source) }

// process is a child with all that it starts; it ends with this program.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	ended chan struct{}
	// meant: this program ended it.
	meant atomic.Bool
}

func startProcess(args []string, dir string, environ []string, log *os.File, credential *syscall.Credential) (*process, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	cmd.Env = append(os.Environ(), environ...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: credential}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, stdin: stdin, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(p.ended)
	}()
	return p, nil
}

// signal goes to the process alone.
func (p *process) signal(s syscall.Signal) {
	select {
	case <-p.ended:
	default:
		_ = p.cmd.Process.Signal(s) // it may just have ended
	}
}

// group signals the process and all that it has started.
func (p *process) group(s syscall.Signal) {
	select {
	case <-p.ended:
	default:
		_ = syscall.Kill(-p.cmd.Process.Pid, s) // it may just have ended
	}
}

// tree signals the process and all that live of those that it started, and returns their numbers.
func (p *process) tree(s syscall.Signal) []int {
	select {
	case <-p.ended:
		return nil
	default:
	}
	all := []int{p.cmd.Process.Pid}
	for i := 0; i < len(all); i++ {
		_ = syscall.Kill(all[i], s) // it may just have ended
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", all[i], all[i]))
		for field := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

func (p *process) kill() {
	p.meant.Store(true)
	p.group(syscall.SIGKILL)
	<-p.ended
}

// replica is one API server, reached only through proxies.
type replica struct {
	name, dir string
	file      string // of its configuration
	command   []string
	environ   []string
	process   *process
	// api and feed are in front of the server, database is behind it.
	api, feed, database *proxy
	find                func(format string, args ...any)
}

// runs makes an executable be the server from the next start on: an isospin binary, or this program.
func (r *replica) runs(executable string, binary bool) {
	if binary {
		r.command, r.environ = []string{executable, "server", "--config-file", r.file}, nil
	} else {
		r.command, r.environ = []string{executable}, []string{roleVariable + "=" + r.file}
	}
}

func (r *replica) start() error {
	log, err := os.OpenFile(filepath.Join(r.dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p, err := startProcess(r.command, r.dir, r.environ, log, nil)
	if err != nil {
		return err
	}
	r.process = p
	go func() {
		if <-p.ended; !p.meant.Load() {
			text, _ := os.ReadFile(log.Name())
			r.find("%s ended by itself: %s", r.name, tail(text))
		}
	}()
	return nil
}

// stop ends the server as its operator would; it says what is wrong with how that went.
func (r *replica) stop(limit time.Duration) error {
	r.process.meant.Store(true)
	r.process.signal(syscall.SIGTERM)
	select {
	case <-r.process.ended:
		return nil
	case <-time.After(limit):
		r.process.kill()
		return fmt.Errorf("%s did not end within %v of SIGTERM", r.name, limit)
	}
}
