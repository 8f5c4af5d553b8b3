package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"isospin/internal/config"
	"isospin/internal/server"
)

// server under test.
type subject struct {
	address string
	dir     string
	// database is the file, of SQLite; of others, driver and source are for database/sql.
	database, driver, source string
	pid                      int // 0: in this process
	// took is the time from its start to the first answered GET /v2.0/networks.
	took time.Duration
	stop func() error
}

// place is where a server keeps its rows.
type place struct{ connection, driver, source string }

// conf writes the configuration of a server whose database is in dir, or on the server of databases.
func (b *bench) conf(dir string) (text, address, database string, err error) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", "", err
	}
	address = free.Addr().String()
	free.Close()
	_, port, _ := net.SplitHostPort(address)
	database = filepath.Join(dir, "isospin.sqlite")
	at, ok := b.places[dir]
	if !ok {
		if at.connection = "sqlite:///" + database; b.databases != nil {
			if at.connection, at.driver, at.source, err = b.databases.New(); err != nil {
				return "", "", "", err
			}
		}
		if b.places == nil {
			b.places = map[string]place{}
		}
		b.places[dir] = at
	}
	text = fmt.Sprintf(`[DEFAULT]
bind_host = 127.0.0.1
bind_port = %s
auth_strategy = noauth
state_path = %s
[database]
connection = %s
[ml2]
type_drivers = local,flat,vlan,vxlan
project_network_types = vxlan
mechanism_drivers = openvswitch
[ml2_type_vxlan]
vni_ranges = 1:1000000
[isospin]
feed_listen = unix:%s
%s`, port, dir, at.connection, filepath.Join(dir, "feed"), quotas)
	return text, address, database, nil
}

// quotas lifts all of them.
const quotas = `[QUOTAS]
quota_network = -1
quota_subnet = -1
quota_port = -1
quota_router = -1
quota_floatingip = -1
quota_security_group = -1
quota_security_group_rule = -1
`

var listNetworks = request("GET", "networks", "")

// start runs the server as a process of its own, in dir, which may hold the
// database of a former one.
func (b *bench) start(ctx context.Context, dir string, alter func(text string) string) (*subject, error) {
	text, address, database, err := b.conf(dir)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "server.conf")
	if err := os.WriteFile(file, []byte(alter(text)), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "server.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(b.executable, "server", "--config-file", file)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	exited := make(chan struct{})
	started := make(chan error)
	var begin time.Time
	go func() {
		runtime.LockOSThread() // the death signal is sent when the thread that forked ends
		defer runtime.UnlockOSThread()
		begin = time.Now()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // cmd.ProcessState has it
			close(exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	s := &subject{address: address, dir: dir, database: database, driver: b.places[dir].driver, source: b.places[dir].source, pid: cmd.Process.Pid}
	s.stop = func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
			return nil
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-exited
			return errors.New("the server does not end")
		}
	}
	for {
		if c, err := dial(address); err == nil {
			status, _, err := c.do(listNetworks)
			c.Close()
			if err == nil && (status == 200 || status == 401) {
				s.took = time.Since(begin)
				return s, nil
			}
		}
		select {
		case <-exited:
			return nil, fmt.Errorf("the server ended (%s): %s", cmd.ProcessState, tail(log.Name()))
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), s.stop())
		case <-time.After(time.Millisecond):
		}
	}
}

// startHere runs the server in this process, for profiles.
func (b *bench) startHere(ctx context.Context, dir string, alter func(text string) string) (*subject, error) {
	text, address, database, err := b.conf(dir)
	if err != nil {
		return nil, err
	}
	c, err := config.FromText(alter(text))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	srv, err := server.New(ctx, server.Options{Config: c, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		cancel()
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Run(ctx) }()
	return &subject{address: address, dir: dir, database: database, driver: b.places[dir].driver, source: b.places[dir].source, stop: func() error { cancel(); return <-ended }}, nil
}

func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text[max(0, len(text)-1500):]))
}

// resident returns the memory of a process in MiB (VmRSS of proc_pid_status(5)).
func resident(pid int) (float64, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("process %d has no VmRSS", pid)
}

// machine describes where this runs: it explains the figures.
func machine(w io.Writer, dir string) error {
	var model string
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	var kernel syscall.Utsname
	if err := syscall.Uname(&kernel); err != nil {
		return err
	}
	var release []byte
	for _, c := range kernel.Release {
		if c == 0 {
			break
		}
		release = append(release, byte(c))
	}
	busy, _ := os.ReadFile("/proc/loadavg")
	s, err := flushes(dir)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%d CPUs (%s), Linux %s, %s; load average %s; writing and flushing 4 KiB where the database is takes %s ms (p50), %s ms (p99)\n",
		runtime.NumCPU(), model, release, runtime.Version(), strings.Join(strings.Fields(string(busy))[:3], " "),
		number(s.percentile(50)), number(s.percentile(99)))
	return err
}

// flushes times fdatasync(2), the least that a durable commit costs.
func flushes(dir string) (samples, error) {
	f, err := os.CreateTemp(dir, "flush")
	if err != nil {
		return samples{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var s samples
	page := make([]byte, 4096)
	for range 200 {
		before := time.Now()
		if _, err := f.Write(page); err != nil {
			return s, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return s, err
		}
		s.durations = append(s.durations, time.Since(before))
	}
	return s, nil
}
