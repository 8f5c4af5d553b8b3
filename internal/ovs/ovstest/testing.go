package ovstest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Lab is a set of network namespaces and switches of one test, under a random
// prefix, which the test's cleanup removes.
type Lab struct {
	t      testing.TB
	prefix string
	names  []string
}

// NewLab skips the test when it cannot run here: without root or without Open
// vSwitch.
func NewLab(t testing.TB) *Lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, program := range []string{"ip", "ethtool", "ovsdb-server", "ovs-vswitchd", "ovs-ofctl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed", program)
		}
	}
	var b [3]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	l := &Lab{t: t, prefix: "t" + hex.EncodeToString(b[:])}
	t.Cleanup(func() {
		// The test may have failed half way: what is left inside is ended first, since a process keeps its namespace alive.
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		for _, name := range l.names {
			pids, _ := Run(ctx, "ip", "netns", "pids", name)
			for _, pid := range strings.Fields(pids) {
				if pid == strconv.Itoa(os.Getpid()) {
					continue // a thread of ours is there
				}
				_ = exec.CommandContext(ctx, "kill", "-9", pid).Run()
			}
			_, _ = Run(ctx, "ip", "netns", "del", name)
		}
	})
	return l
}

// Context is the test's context, with a deadline for one step.
func (l *Lab) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 20*time.Second)
}

// Run runs a program and fails the test if it fails.
func (l *Lab) Run(program string, args ...string) string {
	l.t.Helper()
	ctx, cancel := l.context()
	defer cancel()
	out, err := Run(ctx, program, args...)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// Exec runs a program in a namespace and fails the test if it fails.
func (l *Lab) Exec(netns string, args ...string) string {
	l.t.Helper()
	return l.Run("ip", append([]string{"netns", "exec", netns}, args...)...)
}

// Try runs a program in a namespace and returns its output and error.
func (l *Lab) Try(netns string, args ...string) (string, error) {
	ctx, cancel := l.context()
	defer cancel()
	return Run(ctx, "ip", append([]string{"netns", "exec", netns}, args...)...)
}

// Namespace makes a network namespace with its loopback up and returns its
// full name.
func (l *Lab) Namespace(name string) string {
	l.t.Helper()
	full := l.prefix + "-" + name
	l.Run("ip", "netns", "add", full)
	l.names = append(l.names, full)
	l.Run("ip", "-n", full, "link", "set", "lo", "up")
	return full
}

// Veth makes a pair of devices in two namespaces, both up. Transmit checksum
// offload is off at both ends: the userspace datapath does not complete
// checksums.
func (l *Lab) Veth(netnsA, a, netnsB, b string) {
	l.t.Helper()
	l.Run("ip", "link", "add", a, "netns", netnsA, "type", "veth", "peer", "name", b, "netns", netnsB)
	for _, end := range [][2]string{{netnsA, a}, {netnsB, b}} {
		l.Run("ip", "-n", end[0], "link", "set", end[1], "up")
		l.Exec(end[0], "ethtool", "-K", end[1], "tx", "off")
	}
}

// Switch starts an Open vSwitch in a namespace.
func (l *Lab) Switch(netns string) *Switch {
	l.t.Helper()
	dir, err := os.MkdirTemp("", "ovs") // t.TempDir is too long for sockets
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := l.context()
	defer cancel()
	s, err := Start(ctx, Options{Netns: netns, Dir: dir})
	if err != nil {
		logs, _ := Run(ctx, "sh", "-c", "cat "+dir+"/*.err "+dir+"/*.log | tail -50")
		_ = os.RemoveAll(dir)
		l.t.Fatalf("%v\n%s", err, logs)
	}
	l.t.Cleanup(func() {
		s.Stop()
		if l.t.Failed() {
			logs, _ := Run(context.Background(), "sh", "-c", "grep -E '\\|(WARN|ERR|EMER)\\|' "+dir+"/ovs-vswitchd.log | tail -30")
			l.t.Logf("%s ovs-vswitchd: %s", netns, logs)
		}
		_ = os.RemoveAll(dir)
	})
	return s
}

// Underlay makes a namespace with a plain bridge, and connects hosts to it.
type Underlay struct {
	lab   *Lab
	netns string
	count int
}

// Underlay makes a physical network.
func (l *Lab) Underlay(name string) *Underlay {
	l.t.Helper()
	u := &Underlay{lab: l, netns: l.Namespace(name)}
	// Bridged packets are not for this namespace's filters.
	_, _ = l.Try(u.netns, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
	l.Run("ip", "-n", u.netns, "link", "add", "br0", "type", "bridge")
	l.Run("ip", "-n", u.netns, "link", "set", "br0", "up")
	return u
}

// Attach makes a device in a namespace that is wired to the network.
func (u *Underlay) Attach(netns, device string) {
	u.lab.t.Helper()
	u.count++
	port := fmt.Sprintf("p%d", u.count)
	u.lab.Veth(netns, device, u.netns, port)
	u.lab.Run("ip", "-n", u.netns, "link", "set", port, "mtu", "1600", "master", "br0")
	u.lab.Run("ip", "-n", netns, "link", "set", device, "mtu", "1600")
}

// TunnelEndpoint attaches a switch to the network as a tunnel endpoint: a
// bridge br-ul holds the device, and the address ("172.31.0.1/24") is on the
// bridge itself, where the userspace datapath looks for it.
func (u *Underlay) TunnelEndpoint(s *Switch, address string) {
	u.lab.t.Helper()
	u.Attach(s.Netns, "ul0")
	ctx, cancel := u.lab.context()
	defer cancel()
	if _, err := s.VSCtl(ctx, "add-br", "br-ul", "--", "set", "bridge", "br-ul", "datapath_type=netdev", "--", "add-port", "br-ul", "ul0"); err != nil {
		u.lab.t.Fatal(err)
	}
	u.lab.Run("ip", "-n", s.Netns, "addr", "add", address, "dev", "br-ul")
	u.lab.Run("ip", "-n", s.Netns, "link", "set", "br-ul", "mtu", "1600", "up")
}

// Eventually calls f until it returns nil, and fails the test with f's last
// error when that takes too long.
func Eventually(t testing.TB, within time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", within, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
