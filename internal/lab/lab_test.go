package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"isospin/internal/kernel/netns"
	"isospin/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) {
	if os.Getenv("LAB_TO_BE_KILLED") != "" {
		os.Exit(m.Run()) // in the namespaces of the test that started it
	}
	netnstest.Main(m)
}

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// start makes a lab without server and agents, which ends with the test.
func start(t testing.TB, hosts int) *Lab {
	t.Helper()
	netnstest.Require(t)
	if err := Check(); err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	before := time.Now()
	l, err := Start(ctx, Options{Logger: logger(t), Hosts: hosts, RunDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("lab %s: %d hosts in %v", l.ID, hosts, time.Since(before).Round(time.Millisecond))
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if left := namespaces(t, l.ID); len(left) > 0 {
			t.Errorf("namespaces are left: %v", left)
		}
		if _, err := os.Stat(l.runDir); !os.IsNotExist(err) {
			t.Errorf("folder is left: %v", err)
		}
	})
	return l
}

func namespaces(t testing.TB, id string) []string {
	t.Helper()
	names, err := netns.List()
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, prefix(id)) })
}

func add(t testing.TB, l *Lab, h *Host, number int) *Instance {
	t.Helper()
	i, err := l.AddInstance(t.Context(), InstanceOptions{
		Name: fmt.Sprintf("vm%d", number), Host: h,
		PortID:   fmt.Sprintf("%08x-0000-4000-8000-000000000000", number),
		MAC:      net.HardwareAddr{0xfa, 0x16, 0x3e, 0, 0, byte(number)},
		DeviceID: fmt.Sprintf("device-%d", number),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.SetAddress(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(number)}), 24)); err != nil {
		t.Fatal(err)
	}
	return i
}

func TestHosts(t *testing.T) {
	l := start(t, 2)
	a, b := l.Hosts()[0], l.Hosts()[1]

	// A host's /run is its own: what is named there is seen by nobody else.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, h := range l.Hosts() {
		if _, err := h.Run(ctx, "ip", "netns", "add", "qrouter-same"); err != nil {
			t.Error(err)
		}
		out, err := h.Run(ctx, "ip", "netns", "list")
		if err != nil || strings.TrimSpace(string(out)) != "qrouter-same" {
			t.Errorf("namespaces on %s: %q, %v", h.Name, out, err)
		}
		// And the tools find the host's own switch at their default path.
		out, err = h.Run(ctx, "ovs-vsctl", "list-br")
		if err != nil || string(out) != "br-ex\nbr-ul\n" {
			t.Errorf("bridges on %s: %q, %v", h.Name, out, err)
		}
	}
	if ok, err := netns.Exists("qrouter-same"); ok || err != nil {
		t.Errorf("a host's namespace is seen on the machine (%v)", err)
	}
	if got, _ := filepath.Glob("/sys/class/net/br-ul"); got != nil {
		t.Error("a host's device is seen on the machine")
	}

	// Large packets pass the underlay.
	if _, err := a.Run(ctx, "ping", "-c1", "-W2", "-M", "do", "-s", "1572", b.TunnelIP.String()); err != nil {
		t.Error(err)
	}

	// Instances on one switch, plugged as os-vif does.
	vm1, vm2 := add(t, l, a, 1), add(t, l, a, 2)
	if err := vm1.Reach(ctx, netip.MustParseAddr("10.0.0.2")); err != nil {
		t.Error(err)
	}
	ids, err := a.Run(ctx, "ovs-vsctl", "--format=json", "--columns=external_ids", "find", "Interface", "name="+Tap(vm2.PortID))
	if want := `[["attached-mac","fa:16:3e:00:00:02"],["iface-id","00000002-0000-4000-8000-000000000000"],["iface-status","active"],["vm-uuid","device-2"]]`; err != nil || !strings.Contains(string(ids), want) {
		t.Errorf("external_ids: %s, %v", ids, err)
	}
	// TCP and UDP get through, which they do not with checksum offload.
	stop, err := vm2.Echo(8080)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	conn, err := vm1.Dial(ctx, "tcp", "10.0.0.2:8080")
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "10.0.0.1:") {
		t.Errorf("answer %q, %v", line, err)
	}
	conn.Close()

	// The other host has a switch of its own.
	add(t, l, b, 3)
	soon, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := vm1.Reach(soon, netip.MustParseAddr("10.0.0.3")); err == nil {
		t.Error("instances on hosts without a tunnel reach each other")
	}

	if err := l.RemoveInstance(ctx, vm2); err != nil {
		t.Error(err)
	}
	if out, err := a.Run(ctx, "ovs-vsctl", "list-ports", "br-int"); err != nil || string(out) != Tap(vm1.PortID)+"\n" {
		t.Errorf("ports: %q, %v", out, err)
	}
}

// TestProviderNetwork: what leaves a host by br-ex reaches the outside network.
func TestProviderNetwork(t *testing.T) {
	l := start(t, 1)
	h := l.Hosts()[0]
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for _, command := range []string{"ip addr add 203.0.113.200/24 dev br-ex", "ip link set br-ex up"} {
		f := strings.Fields(command)
		if _, err := h.Run(ctx, f[0], f[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Reach(ctx, OutsideAddress.Addr()); err != nil {
		t.Error(err)
	}
	if err := l.Outside().Reach(ctx, netip.MustParseAddr("203.0.113.200")); err != nil {
		t.Error(err)
	}
}

func TestPingCountsLoss(t *testing.T) {
	l := start(t, 1)
	h := l.Hosts()[0]
	p, err := h.StartPing(underlayAddress.Addr(), 5*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ping := func(n int) {
		t.Helper()
		for range n {
			select {
			case <-p.wake:
			case <-ctx.Done():
				t.Fatal(ctx.Err())
			}
		}
	}
	ping(5)
	if _, err := l.Underlay().Run(ctx, "ip", "link", "set", h.Name, "down"); err != nil {
		t.Fatal(err)
	}
	if err := h.Reach(shortly(ctx, 100*time.Millisecond), underlayAddress.Addr()); err == nil {
		t.Error("a reply came through a link that is down")
	}
	if _, err := l.Underlay().Run(ctx, "ip", "link", "set", h.Name, "up"); err != nil {
		t.Fatal(err)
	}
	if err := h.Reach(ctx, underlayAddress.Addr()); err != nil {
		t.Fatal(err)
	}
	ping(5)
	r := p.Stop()
	if r.Lost() < 5 || r.Received < 10 || r.LongestGap < 100*time.Millisecond {
		t.Errorf("%s, longest gap %v", r, r.LongestGap)
	}
}

func shortly(ctx context.Context, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(ctx, d)
	context.AfterFunc(ctx, cancel)
	return ctx
}

// TestKilled starts a lab in another process, kills that, and removes what is
// left, with another lab alive meanwhile.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("LAB_TO_BE_KILLED"); dir != "" {
		l, err := Start(t.Context(), Options{Logger: logger(t), Hosts: 1, RunDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		add(t, l, l.Hosts()[0], 1)
		fmt.Println("STARTED", l.ID)
		select {}
	}
	other := start(t, 1)
	runDir := filepath.Dir(other.runDir)

	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), "LAB_TO_BE_KILLED="+runDir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var id string
	lines := bufio.NewScanner(out)
	for id == "" && lines.Scan() {
		t.Log(lines.Text())
		id, _ = strings.CutPrefix(lines.Text(), "STARTED ")
		if id == lines.Text() {
			id = ""
		}
	}
	if id == "" {
		t.Fatal("the lab did not start")
	}
	if running, err := Running(runDir); err != nil || len(running) != 2 {
		t.Errorf("running: %v, %v", running, err)
	}
	if ids, err := RemoveLeftovers(runDir, logger(t)); err != nil || len(ids) != 0 {
		t.Errorf("removed labs that run: %v, %v", ids, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	// A process of the lab that has outlived it, and one that has merely the id
	// of one that did.
	victim, bystander := exec.Command("sleep", "60"), exec.Command("sleep", "60")
	for _, c := range []*exec.Cmd{victim, bystander} {
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		defer c.Process.Kill()
	}
	record, err := readRecord(filepath.Join(runDir, id))
	if err != nil {
		t.Fatal(err)
	}
	startOf := func(c *exec.Cmd) uint64 {
		n, err := startTime(c.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	record.Processes = []ProcessRecord{
		{Name: "victim", PID: victim.Process.Pid, Start: startOf(victim)},
		{Name: "bystander", PID: bystander.Process.Pid, Start: startOf(bystander) - 1},
	}
	if err := record.write(filepath.Join(runDir, id)); err != nil {
		t.Fatal(err)
	}
	if len(namespaces(t, id)) == 0 {
		t.Error("there is nothing left to be removed: the test shows nothing")
	}
	ids, err := RemoveLeftovers(runDir, logger(t))
	if err != nil || !slices.Equal(ids, []string{id}) {
		t.Errorf("removed %v, want %s: %v", ids, id, err)
	}
	if left := namespaces(t, id); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if _, err := os.Stat(filepath.Join(runDir, id)); !os.IsNotExist(err) {
		t.Errorf("folder: %v", err)
	}
	if err := victim.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the recorded process: %v", err)
	}
	if !(&process{cmd: bystander, exited: make(chan struct{})}).running() || zombie(bystander.Process.Pid) {
		t.Error("a process that was not the lab's was killed")
	}
	// The lab that runs has lost nothing.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := other.Hosts()[0].Reach(ctx, underlayAddress.Addr()); err != nil {
		t.Error(err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	netnstest.Require(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]Options{
		"a lab has 1 to 64 hosts": {Hosts: 65},
		"address already in use":  {Executable: "/bin/false", Listen: taken.Addr().String()},
		"is not empty":            {DataDir: full},
		"server ended":            {Executable: "/bin/false", Listen: "127.0.0.1:0"},
	} {
		o.Logger, o.RunDir = logger(t), t.TempDir()
		l, err := Start(t.Context(), o)
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want %s", err, want)
		}
		if left, _ := os.ReadDir(o.RunDir); len(left) > 0 {
			t.Errorf("%s: left %v", want, left)
		}
	}
	if names, err := netns.List(); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}

func TestRecordIsReadable(t *testing.T) {
	l := start(t, 1)
	text, err := os.ReadFile(filepath.Join(l.runDir, stateFile))
	if err != nil {
		t.Fatal(err)
	}
	var r Record
	if err := json.Unmarshal(text, &r); err != nil || r.ID != l.ID || r.PID != os.Getpid() || r.Nodes[0].Kind != "host" || r.Nodes[0].Thread == 0 {
		t.Errorf("%s, %v", text, err)
	}
}
