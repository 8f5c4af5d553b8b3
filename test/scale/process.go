package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	"isospin/internal/config"
	"isospin/internal/server"
)

// begin starts a program that ends with this process. ended is closed when it does.
func begin(cmd *exec.Cmd) (ended chan struct{}, err error) {
	ended = make(chan struct{})
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // the death signal is sent when the thread that forked ends
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
			close(ended)
		}
	}()
	return ended, <-started
}

// stop asks a program to end, and makes it.
func stop(p *os.Process, ended chan struct{}, signal syscall.Signal) error {
	_ = p.Signal(signal) // it may have ended
	select {
	case <-ended:
		return nil
	case <-time.After(20 * time.Second):
		_ = p.Kill()
		<-ended
		return fmt.Errorf("process %d did not end by itself", p.Pid)
	}
}

func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-1500):]))
}

// conf is the server's configuration.
func (w *world) conf() string {
	return fmt.Sprintf(`[DEFAULT]
bind_host = 127.0.0.1
bind_port = %d
auth_strategy = noauth
state_path = %s
[database]
connection = %s
[ml2]
type_drivers = vxlan
project_network_types = vxlan
mechanism_drivers = openvswitch
[ml2_type_vxlan]
vni_ranges = 1:1000000
[isospin]
feed_listen = unix:%s
`, w.port, w.dir, w.connection, w.feed())
}

func (w *world) feed() string { return filepath.Join(w.dir, "feed") }

// start runs the server until stop; it returns when the API answers.
func (w *world) start(ctx context.Context) error {
	if w.port == 0 {
		free, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		w.port = free.Addr().(*net.TCPAddr).Port
		free.Close()
	}
	if w.profile != "" {
		return w.startHere(ctx)
	}
	file := filepath.Join(w.dir, "server.conf")
	if err := os.WriteFile(file, []byte(w.conf()), 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(w.dir, "server.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(w.executable, "server", "--config-file", file)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	ended, err := begin(cmd)
	if err != nil {
		return err
	}
	w.pid = cmd.Process.Pid
	w.stop = func(signal syscall.Signal) error { return stop(cmd.Process, ended, signal) }
	return w.answers(ctx, func() error {
		select {
		case <-ended:
			return fmt.Errorf("the server ended: %s", tail(log.Name()))
		default:
			return nil
		}
	})
}

// answers waits until the API does.
func (w *world) answers(ctx context.Context, well func() error) error {
	for {
		r, err := http.Get(w.base() + "/")
		if err == nil {
			r.Body.Close()
			return nil
		}
		if err := errors.Join(well(), ctx.Err()); err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (w *world) base() string { return fmt.Sprintf("http://127.0.0.1:%d", w.port) }

// startHere runs the server in this process, for profiles.
func (w *world) startHere(ctx context.Context) error {
	c, err := config.FromText(w.conf())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	srv, err := server.New(ctx, server.Options{Config: c, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		cancel()
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	w.pid = os.Getpid()
	w.stop = func(syscall.Signal) error { cancel(); return <-ended }
	return w.answers(ctx, func() error { return nil })
}

// profiled runs a step, with a profile if one is wanted.
func (w *world) profiled(step string, do func() error) error {
	if w.profile == "" {
		return do()
	}
	if err := os.MkdirAll(w.profile, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(w.profile, step+".prof"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return do()
}

// memory is VmRSS or VmHWM (proc_pid_status(5)) in MiB.
func memory(pid int, field string) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no %s", pid, field)
}

// cpu is the processor time that a process has used (proc_pid_stat(5)).
func cpu(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	var ticks int64
	for _, f := range fields[11:13] { // utime, stime; 100 a second on Linux
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

func machine() string {
	model := ""
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	busy, _ := os.ReadFile("/proc/loadavg") // only told
	return fmt.Sprintf("%d CPUs (%s), %s, load average before %s", runtime.NumCPU(), model, runtime.Version(), strings.Join(strings.Fields(string(busy))[:1], ""))
}
