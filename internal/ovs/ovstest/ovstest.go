// Package ovstest makes private Open vSwitches for tests and labs: an
// ovsdb-server and an ovs-vswitchd of their own per network namespace, with
// the userspace datapath, as children of the process that ends them.
//
// It uses the installed programs and never the system's own Open vSwitch. It
// knows nothing of what the switches are used for.
package ovstest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Options of a Switch.
type Options struct {
	Netns string // required: name of an existing network namespace
	Dir   string // required: an existing folder, for the database, sockets and logs; short, since socket paths are limited to 107 bytes
	// Schema of the database.
	Schema string // optional: /usr/share/openvswitch/vswitch.ovsschema
}

// Switch is an Open vSwitch that runs.
type Switch struct {
	Netns string
	Dir   string // run folder: db.sock, <bridge>.mgmt

	server, vswitchd *child
}

type child struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// Connection is the OVSDB address, "unix:<dir>/db.sock".
func (s *Switch) Connection() string { return "unix:" + filepath.Join(s.Dir, "db.sock") }

// Start makes an empty Open vSwitch, or starts one anew on the database that
// is in the folder, and returns when it serves. ctx limits the start only.
func Start(ctx context.Context, o Options) (*Switch, error) {
	if o.Schema == "" {
		o.Schema = "/usr/share/openvswitch/vswitch.ovsschema"
	}
	s := &Switch{Netns: o.Netns, Dir: o.Dir}
	database := filepath.Join(s.Dir, "conf.db")
	if _, err := os.Stat(database); errors.Is(err, os.ErrNotExist) {
		if out, err := exec.CommandContext(ctx, "ovsdb-tool", "create", database, o.Schema).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ovsdb-tool create: %w: %s", err, out)
		}
	}
	var err error
	s.server, err = s.spawn("ovsdb-server", database, "--remote=punix:"+filepath.Join(s.Dir, "db.sock"),
		"--unixctl="+filepath.Join(s.Dir, "ovsdb-server.ctl"))
	if err == nil {
		err = s.listens(ctx, s.server, "db.sock")
	}
	if err == nil {
		_, err = s.VSCtl(ctx, "--no-wait", "init")
	}
	if err == nil {
		err = s.StartVSwitchd(ctx)
	}
	if err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// StartVSwitchd starts ovs-vswitchd and returns when it has carried out what
// the database says.
func (s *Switch) StartVSwitchd(ctx context.Context) error {
	var err error
	s.vswitchd, err = s.spawn("ovs-vswitchd", s.Connection(), "--unixctl="+filepath.Join(s.Dir, "ovs-vswitchd.ctl"))
	if err == nil {
		err = s.listens(ctx, s.vswitchd, "ovs-vswitchd.ctl")
	}
	if err == nil {
		_, err = s.VSCtl(ctx, "set", "Open_vSwitch", ".", "external_ids:started="+fmt.Sprint(time.Now().UnixNano()))
	}
	return err
}

// KillVSwitchd ends ovs-vswitchd as a crash does, SIGKILL.
func (s *Switch) KillVSwitchd() {
	s.vswitchd.stop(syscall.SIGKILL)
}

// Stop ends the programs. The folder stays.
func (s *Switch) Stop() {
	// A clean exit removes the tap devices of internal ports and frees the datapath.
	s.vswitchd.stop(syscall.SIGTERM)
	s.server.stop(syscall.SIGTERM)
}

func (c *child) stop(signal syscall.Signal) {
	if c == nil {
		return
	}
	_ = c.cmd.Process.Signal(signal)
	select {
	case <-c.exited:
	case <-time.After(5 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.exited
	}
}

func (s *Switch) spawn(program string, args ...string) (*child, error) {
	args = append([]string{"netns", "exec", s.Netns, program}, args...)
	args = append(args, "--log-file="+filepath.Join(s.Dir, program+".log"), "-vconsole:off")
	cmd := exec.Command("ip", args...) // ip execs the program: same process id
	cmd.Env = s.environment()
	// The programs end with us even when we are killed; Ctrl-C is for us alone.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	errors, err := os.Create(filepath.Join(s.Dir, program+".err"))
	if err != nil {
		return nil, err
	}
	defer errors.Close()
	cmd.Stderr = errors
	c := &child{cmd: cmd, exited: make(chan struct{})}
	// Pdeathsig is sent when the thread that forked ends, so that thread must last as long as the child.
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(c.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	return c, nil
}

func (s *Switch) environment() []string {
	return append(os.Environ(), "OVS_RUNDIR="+s.Dir, "OVS_LOGDIR="+s.Dir, "OVS_DBDIR="+s.Dir)
}

// listens waits until a socket of the run folder accepts connections.
func (s *Switch) listens(ctx context.Context, c *child, socket string) error {
	path := filepath.Join(s.Dir, socket)
	for {
		conn, err := net.Dial("unix", path)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", path, err)
		case <-c.exited:
			return fmt.Errorf("%s ended; see the logs in %s", c.cmd.Args[4], s.Dir)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// VSCtl runs ovs-vsctl and returns its output without the last newline.
func (s *Switch) VSCtl(ctx context.Context, args ...string) (string, error) {
	return s.run(ctx, "", "ovs-vsctl", append([]string{"--timeout=15", "--db=" + s.Connection()}, args...)...)
}

// OFCtl runs ovs-ofctl. Bridges may be named without a path.
func (s *Switch) OFCtl(ctx context.Context, args ...string) (string, error) {
	return s.run(ctx, "", "ovs-ofctl", args...)
}

// AppCtl runs ovs-appctl on ovs-vswitchd.
func (s *Switch) AppCtl(ctx context.Context, args ...string) (string, error) {
	return s.run(ctx, "", "ovs-appctl", append([]string{"-t", filepath.Join(s.Dir, "ovs-vswitchd.ctl")}, args...)...)
}

func (s *Switch) run(ctx context.Context, stdin, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = s.environment()
	return output(cmd, stdin)
}

// Run runs a program on the machine and returns its output without the last
// newline.
func Run(ctx context.Context, program string, args ...string) (string, error) {
	return output(exec.CommandContext(ctx, program, args...), "")
}

func output(cmd *exec.Cmd, stdin string) (string, error) {
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	if err := cmd.Run(); err != nil {
		return strings.TrimSuffix(out.String(), "\n"), fmt.Errorf("%s: %w: %s%s", strings.Join(cmd.Args, " "), err, out.String(), errs.String())
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}
