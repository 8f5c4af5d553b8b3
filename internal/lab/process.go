package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// process is a child in the foreground; it is killed when this process ends in
// whatever way.
type process struct {
	name   string
	cmd    *exec.Cmd
	log    string // path of its standard output and error
	exited chan struct{}
}

// startProcess starts a child with its output appended to the file log. on, if
// not nil, is the thread whose namespaces the child gets.
func startProcess(name string, on *thread, log string, program string, args ...string) (*process, error) {
	p := &process{name: name, log: log, cmd: exec.Command(program, args...), exited: make(chan struct{})}
	// A group of its own: Ctrl-C at the terminal is for the lab, which then
	// ends its children in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	p.cmd.Dir = "/"
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", name, err)
	}
	defer out.Close()
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// The kernel sends the death signal when the thread that forked ends, so
	// that one must last as long as the child: the given one does.
	started := make(chan error, 1)
	go func() {
		if on != nil {
			err = on.do(p.cmd.Start)
		} else {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			err = p.cmd.Start()
		}
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // the state is in cmd.ProcessState
			close(p.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// running tells whether the child has not ended.
func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// failure says how a child ended that should not have, with the end of its log.
func (p *process) failure() error {
	return fmt.Errorf("%s ended (%s): %s", p.name, p.cmd.ProcessState, tail(p.log, 2000))
}

// stop asks the child to end and kills it after grace; grace 0 kills at once.
func (p *process) stop(grace time.Duration) {
	if grace > 0 {
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-p.exited:
			return
		case <-time.After(grace):
		}
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// tail returns the last bytes of a file, from the start of a line.
func tail(path string, limit int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(text) > limit {
		text = text[len(text)-limit:]
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			text = text[i+1:]
		}
	}
	return string(bytes.TrimSpace(text))
}

// startTime returns when a process started, in clock ticks since boot: with the
// process id it names one process for good.
func startTime(pid int) (uint64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The command, in parentheses, may have any characters.
	i := bytes.LastIndex(text, []byte(") "))
	if i < 0 {
		i = len(text) - 2
	}
	fields := bytes.Fields(text[i+2:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("stat of process %d cannot be read", pid)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64) // field 22 of proc(5)
}

// killRecorded kills a process if it is still the one that was recorded, and
// waits for its end.
func killRecorded(r ProcessRecord) error {
	if start, err := startTime(r.PID); err != nil || start != r.Start {
		return nil
	}
	p, err := os.FindProcess(r.PID) // holds a pidfd: the id cannot be reused under us
	if err != nil {
		return nil
	}
	defer p.Release()
	if start, err := startTime(r.PID); err != nil || start != r.Start {
		return nil
	}
	if err := p.Kill(); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			return nil
		}
		return fmt.Errorf("kill %s (process %d): %w", r.Name, r.PID, err)
	}
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if start, err := startTime(r.PID); err != nil || start != r.Start {
			return nil
		}
		if zombie(r.PID) {
			return nil
		}
	}
	return fmt.Errorf("%s (process %d) does not end", r.Name, r.PID)
}

// zombie tells whether a process has ended and merely waits to be reaped.
func zombie(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	i := bytes.LastIndex(text, []byte(") "))
	return i >= 0 && len(text) > i+2 && text[i+2] == 'Z'
}
